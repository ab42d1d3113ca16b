"""What the pictures of a training run are like to frozen CLIP: kept in its folder, to compare new pictures with.

It holds names and features of a user's pictures, so it stays where it is and is never pushed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..data import Preprocessing
from ..tuner.fingerprint import fingerprint_of
from ..tuner.peft_model import PeftModelForZeroShotImageClassification


REFERENCE_FILE = "reference.safetensors"
LIGHT_MEASURES = ("brightness", "contrast", "sharpness")
STORED = ("features", "measures", "labels", "groups")
OTHERWISE = "give --reference FOLDER, pictures that are of the right kind"


def measure(pixel_values: torch.Tensor) -> torch.Tensor:
    """Brightness, contrast and sharpness of pictures as the model takes them.

    Args:
        pixel_values: (B, channels, height, width).

    Returns:
        (B, 3), fp32: mean of all values, their standard deviation, and by how many of these two neighbours differ.
    """
    pixels = pixel_values.float()
    contrast = pixels.std(dim=(1, 2, 3))
    steps = [pixels.diff(dim=axis).abs().mean(dim=(1, 2, 3)) for axis in (2, 3)]
    return torch.stack([pixels.mean(dim=(1, 2, 3)), contrast, sum(steps) / contrast.clamp_min(1e-6)], dim=1)


@dataclass(frozen=True, eq=False)
class Reference:
    """N pictures that an adapter was trained on, or others that are known to be of the right kind.

    Args:
        paths: of the pictures, absolute where they are files.
        features: f_0 (N, d), normalised features in frozen CLIP.
        measures: (N, 3), see `measure`.
        labels: their classes (N,), positions in `class_names`.
        groups: (N,); pictures of one group are nearly equal, or show the same scene.
        class_names: C names.
        seen_by: base model and preprocessing; under others the features are others.
    """

    paths: list[str]
    features: torch.Tensor
    measures: torch.Tensor
    labels: torch.Tensor
    groups: torch.Tensor
    class_names: list[str]
    seen_by: dict[str, Any]

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {path: row for row, path in enumerate(self.paths)}

    def row_of(self, path: str) -> int | None:
        """Position of a picture; None: it is none of them.

        Args:
            path: as in `paths`, or where its file lies.
        """
        return self._rows.get(path, self._rows.get(os.path.abspath(path)))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `reference.safetensors`."""
        words = {"paths": self.paths, "class_names": self.class_names, "seen_by": self.seen_by}
        columns = {name: getattr(self, name).contiguous() for name in STORED}
        save_file(columns, Path(folder, REFERENCE_FILE), {"reference": json.dumps(words)})

    @classmethod
    def load(cls, folder: str | os.PathLike[str], otherwise: str = OTHERWISE) -> Reference:
        """Read it from the folder of a run.

        Args:
            folder: of the run.
            otherwise: what to do where there is none.

        Raises:
            OSError: there is none.
            ValueError: it is damaged.
        """
        path = Path(folder, REFERENCE_FILE)
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} holds no {REFERENCE_FILE}, which `peft-mmrl train` writes into the "
                f"folder of its run: {otherwise}."
            )
        try:
            with safe_open(path, "pt") as file:
                columns = {name: file.get_tensor(name) for name in STORED}
                found = cls(**columns, **json.loads((file.metadata() or {})["reference"]))
            lengths = {len(getattr(found, name)) for name in ("paths", *STORED)}
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        if len(lengths) != 1:
            raise ValueError(f"{path} is damaged: it holds columns of different lengths.")
        return found

    def check_fits(self, seen_by: dict[str, Any], otherwise: str = OTHERWISE) -> None:
        """Raise a ValueError where its features are of another base model or preprocessing.

        Args:
            seen_by: from `seeing`.
            otherwise: what to do then.
        """
        differs = [
            name
            for name, value in seen_by.items()
            if None not in (value, was := self.seen_by.get(name)) and value != was
        ]
        if differs:
            raise ValueError(
                f"{REFERENCE_FILE} was made with another {' and another '.join(differs)}: its features cannot be "
                f"compared: {otherwise}."
            )


def seeing(model: PeftModelForZeroShotImageClassification, preprocessing: Preprocessing) -> dict[str, Any]:
    """What frozen features depend on."""
    return {"base model": fingerprint_of(model.get_base_model()), "preprocessing": preprocessing.to_dict()}


def absolute_paths(images: Iterable[dict[str, Any]], names: Iterable[str]) -> list[str]:
    """What names pictures for good: where their files lie, or else what the data set calls them.

    Args:
        images: values of an undecoded `datasets.Image` column.
        names: the data set's column `path`.
    """
    files = (image.get("path") if image.get("bytes") is None else None for image in images)
    return [os.path.abspath(file) if file else name for file, name in zip(files, names, strict=True)]
