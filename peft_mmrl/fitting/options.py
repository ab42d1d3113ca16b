"""What a run is asked to do, and what of it is refused before anything is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..auto import DEFAULT_BASE_MODEL
from ..data import PictureSource
from ..data.preparation import check_no_fraction
from ..training import TrainingSettings
from ..tuner.validation import as_fit, as_number, as_positive_int, as_whole


@dataclass
class FitOptions:
    """What to train on, how, and where to.

    Args:
        pictures: to train on.
        settings: hyper-parameters. `settings.flip` counts where `flip_as_seen` is off.
        base_model: a CLIP: Hub id or folder.
        validation: pictures to take the figures from; None: folds over the others.
        class_names: file of names for prompts, see `read_class_names`.
        shots: pictures of each class to train on; None: all.
        validation_fraction: part of each class that is held out to take the figures from, and is not trained on.
        on_bad_image: "skip" or "error", see `load_training_data`.
        fit: of pictures that are not square, see `Preprocessing`; None: as it suits them.
        method: "mmrl" or "mmrl++".
        template: prompt template(s); None: the default.
        flip_as_seen: mirror pictures where frozen CLIP takes their mirror images for the same things.
        decision: fit how trained and new classes are decided between.
        quick: do not train: the decision alone.
        balance: let classes count the same, however many pictures they have, see `balanced_weights`.
        unknown_dir: folder of pictures of other classes, which say how many of these would be named.
        folds: number of folds; 0: no figures; None: as many as `Plan` finds reasonable.
        cached_views: views of each picture that are computed once, see `num_views`.
        num_workers: further processes that read pictures.
        mixed_precision: "no", "fp16" or "bf16"; None: that of `accelerate config`.
        output_dir: for the adapter and its report; None: nothing is saved.
        overwrite_output_dir: replace a run that is there.
        resume_from_checkpoint: "latest", or a checkpoint to go on from.
        checkpointing_steps: write a checkpoint after so many steps, see `train`.
        tracker: of Accelerate, to log to; None: none.

    Raises:
        ValueError: what does not go together.
        OSError: there is no `unknown_dir`.
    """

    pictures: PictureSource
    settings: TrainingSettings
    base_model: str = DEFAULT_BASE_MODEL
    validation: PictureSource | None = None
    class_names: Path | None = None
    shots: int | None = None
    validation_fraction: float = 0
    on_bad_image: str = "skip"
    fit: str | None = None
    method: str = "mmrl"
    template: str | list[str] | None = None
    flip_as_seen: bool = True
    decision: bool = True
    quick: bool = False
    balance: bool = False
    unknown_dir: Path | None = None
    folds: int | None = None
    cached_views: int | None = None
    num_workers: int = 0
    mixed_precision: str | None = None
    output_dir: Path | None = None
    overwrite_output_dir: bool = False
    resume_from_checkpoint: str | None = None
    checkpointing_steps: int | None = None
    tracker: str | None = None

    def __post_init__(self) -> None:
        self.fit = as_fit(self.fit)
        self.validation_fraction = as_number("validation_fraction", self.validation_fraction, 0, 1)
        for name in ("shots", "checkpointing_steps"):
            if (value := getattr(self, name)) is not None:
                setattr(self, name, as_positive_int(name, value))
        for name in ("folds", "cached_views", "num_workers"):
            if (value := getattr(self, name)) is not None:
                setattr(self, name, as_whole(name, value, 0))
        if self.on_bad_image not in ("skip", "error"):
            raise ValueError(f'`on_bad_image` must be "skip" or "error", got {self.on_bad_image!r}.')
        if self.validation is not None:
            check_no_fraction(self.validation_fraction)
        if self.folds == 1:
            raise ValueError("`folds` must be 2 at least, or 0 for no figures, got 1.")
        if self.folds and self.has_validation:
            raise ValueError(
                f"`folds` must be left out, got {self.folds}: there are pictures to take the figures from."
            )
        if self.unknown_dir is not None and not Path(self.unknown_dir).is_dir():
            raise FileNotFoundError(f"There is no folder {self.unknown_dir} (`unknown_dir`).")
        if self.unknown_dir is not None and self.folds == 0 and not self.has_validation:
            raise ValueError(
                "`unknown_dir` needs pictures that are held out, which say when a picture is named, and `folds` is 0."
            )
        if self.quick and not self.decision:
            raise ValueError("`quick` fits the decision alone: without a decision nothing is left to do.")
        if self.quick and self.tracker is not None:
            raise ValueError(f"`quick` does not train: `tracker` must be left out, got {self.tracker!r}.")
        if self.quick and self.resume_from_checkpoint is not None:
            raise ValueError("`quick` does not train: `resume_from_checkpoint` has nothing to go on with.")

    @property
    def has_validation(self) -> bool:
        """Whether the figures are taken from pictures that are not trained on."""
        return self.validation is not None or self.validation_fraction > 0

    @property
    def data(self) -> dict[str, Any]:
        """Arguments of `load_training_data`."""
        names = ("validation", "class_names", "shots", "validation_fraction", "on_bad_image")
        return {"source": self.pictures, "seed": self.settings.seed, **{name: getattr(self, name) for name in names}}
