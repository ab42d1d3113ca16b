"""Why the pictures that a report shows are answered so: a page beside it.

It shows training pictures, as the report does, and is not among what is pushed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate import Accelerator

from ..data import PictureError, Preprocessing
from ..explaining.reasons import Reason, reasons_for
from ..explaining.reasons_page import ReasonsPage
from ..reports.gallery import choose_rows
from ..scoring.labelled import Predictions
from ..scoring.reference import Reference, absolute_paths
from ..tuner.peft_model import PeftModelForZeroShotImageClassification


WHY_PAGE, WHY_LINES = "why.html", "why.jsonl"
MOST_OF_A_KIND = 4  # pictures, the first that the report shows: each takes 2 to 3 s on a busy CPU core (ViT-B/16)
PICTURES_IN_A_PASS = 4


@dataclass
class Why:
    """What reasons are made of.

    Args:
        model: the trained model, on its device.
        preprocessing: how its pictures are prepared.
        train: the pictures that it was trained on.
        reference: what these are like to frozen CLIP.
        accelerator: of the model.
    """

    model: PeftModelForZeroShotImageClassification
    preprocessing: Preprocessing
    train: datasets.Dataset
    reference: Reference
    accelerator: Accelerator

    def write(self, folder: Path, title: str, predictions: Predictions, asked: datasets.Dataset) -> str | None:
        """Write `why.html` and `why.jsonl` on the first pictures that the report of these predictions shows.

        Args:
            folder: of the report; is made where it is missing.
            title: name of the model.
            predictions: of N pictures.
            asked: the N pictures.

        Returns:
            name of the page; None: the report shows no pictures.
        """
        rows = [row for kind in choose_rows(predictions).values() for row in kind[:MOST_OF_A_KIND]]
        if not rows:
            return None
        names = [asked["path"][row] for row in rows]
        keys = absolute_paths((asked["image"][row] for row in rows), names)
        if not predictions.folds:  # whatever they are called, they are none of the training pictures
            keys = [f"held out: {key}" for key in keys]
        shown = dict(zip(self.reference.paths, self.train["path"], strict=True)) | dict(zip(keys, names, strict=True))
        places = dict(zip(self.reference.paths, ((self.train, row) for row in range(len(self.train))), strict=True))
        places |= dict(zip(keys, ((asked, row) for row in rows), strict=True))

        def image(key: str) -> dict[str, Any]:
            dataset, row = places[key]
            return dataset[row]["image"]

        page = ReasonsPage(
            heading=f"{title}: why it answers so",
            preprocessing=self.preprocessing,
            image=image,
            name=shown.__getitem__,
            remarks=[_whose(predictions)],
            said=dict(zip(keys, (_said(predictions, row) for row in rows), strict=True)),
        )
        reasons = self._reasons(keys, image)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / WHY_LINES).write_text("".join(map(page.line, reasons)), encoding="utf-8")
        (folder / WHY_PAGE).write_text(page.render(reasons), encoding="utf-8")
        return WHY_PAGE

    def _reasons(self, keys: list[str], image: Callable[[str], dict[str, Any]]) -> list[Reason]:
        """Of pictures, in their order."""
        found: dict[str, Reason] = {}
        for start in range(0, len(keys), PICTURES_IN_A_PASS):
            pixels: dict[str, torch.Tensor] = {}
            for key in keys[start : start + PICTURES_IN_A_PASS]:
                try:
                    pixels[key] = self.preprocessing(image(key))
                except PictureError as error:  # it was there a moment ago
                    found[key] = Reason(key, error.reason)
            if pixels:
                rows = [self.reference.row_of(key) for key in pixels]
                features = None if None in rows else self.reference.features[rows]
                batch = torch.stack(list(pixels.values())).to(self.accelerator.device)
                given = self.model.eval(), batch, list(pixels), self.accelerator, self.reference, features
                found |= zip(pixels, reasons_for(*given), strict=True)
        return [found[key] for key in keys]


def _said(predictions: Predictions, row: int) -> str:
    """What a picture is, and what it was called."""
    names = predictions.class_names
    before, after = (names[shares[row].argmax()] for shares in (predictions.zero_shot, predictions.probabilities))
    return f"is {names[predictions.labels[row]]}; the report says: before {before}, after {after}"


def _whose(predictions: Predictions) -> str:
    """Of which model the page tells."""
    if not predictions.folds:
        return "The adapter was not trained on the pictures of this page."
    fitted = "trained" if predictions.is_trained else "fitted"
    return (
        f"In the report each picture is answered by a model that was {fitted} without it. These models are not kept: "
        f"this page is made with the adapter itself, which was {fitted} on all of these pictures. So its answer may "
        "be another one, and surer. Of the training pictures the picture itself and its group are left out."
    )
