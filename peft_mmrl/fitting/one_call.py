"""From pictures to a classifier, in one call."""

from __future__ import annotations

import copy
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import datasets

from ..auto import DEFAULT_BASE_MODEL
from ..data import PictureSource
from ..training import TrainingSettings
from ..tuner.peft_model import PeftModelForZeroShotImageClassification
from .options import FitOptions
from .run import Fitting


def fit(
    pictures: str | os.PathLike[str] | datasets.Dataset | PictureSource,
    base_model: str | os.PathLike[str] = DEFAULT_BASE_MODEL,
    output_dir: str | os.PathLike[str] | None = None,
    *,
    eval_pictures: str | os.PathLike[str] | datasets.Dataset | PictureSource | None = None,
    settings: TrainingSettings | None = None,
    flip: bool | None = None,
    **options: Any,
) -> PeftModelForZeroShotImageClassification:
    """Adapt CLIP to labelled pictures: what the command `train` does with its defaults.

    It decides on mirroring, fits how trained and new classes are decided between, trains on all pictures, and prints
    what zero-shot CLIP, the decision without training and the trained adapter are worth on pictures that are held out
    in folds.

    Args:
        pictures: a folder with a sub-folder per class, a CSV or JSON lines file, a `datasets` data set (its name on
            the Hub, or one in memory), or a [`~peft_mmrl.data.PictureSource`] that says more of them.
        base_model: a CLIP: Hub id or folder.
        output_dir: for the adapter with its decision, card and report; None: nothing is saved.
        eval_pictures: pictures to take the figures from, instead of folds; as `pictures`.
        settings: hyper-parameters of the training; None: those that suit a few dozen pictures.
        flip: mirror half of the views, or none; None: as the pictures allow.
        options: further fields of [`~peft_mmrl.fitting.FitOptions`], such as `method`, `template`, `shots`, `quick`
            or `folds`, and of [`~peft_mmrl.training.TrainingSettings`], such as `epochs`, `learning_rate` or `seed`.

    Returns:
        the model in eval mode, its trained classes bound.

    Raises:
        ValueError, OSError: what is wrong with the pictures, the options or the output folder, before anything is
            changed.
        TypeError: an option that there is not.

    Example:

        ```py
        >>> import peft_mmrl
        >>> model = peft_mmrl.fit("photos", base_model="openai/clip-vit-base-patch16", output_dir="my-adapter")
        ```
    """
    places = {kind: {field.name for field in fields(kind)} for kind in (TrainingSettings, FitOptions)}
    if unknown := sorted(options.keys() - set.union(*places.values())):
        raise TypeError(
            f"`fit` has no option {', '.join(unknown)}; there are {', '.join(sorted(set.union(*places.values())))}."
        )
    changes = {name: options.pop(name) for name in places[TrainingSettings] & options.keys()}
    settings = copy.deepcopy(settings) if settings is not None else TrainingSettings()  # a run adds to it
    settings = replace(settings, **changes, **({} if flip is None else {"flip": flip}))
    fitting = Fitting(
        FitOptions(
            PictureSource.of(pictures),
            settings,
            base_model=os.fspath(base_model),
            validation=None if eval_pictures is None else PictureSource.of(eval_pictures),
            output_dir=None if output_dir is None else Path(output_dir),
            flip_as_seen=flip is None,
            **options,
        )
    )
    fitting.prepare()
    fitting.run()
    fitting.say(*fitting.save())
    return fitting.model.eval()
