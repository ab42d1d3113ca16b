"""The pictures of a report: which ones it shows, and how they get into its page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import datasets
import PIL.Image

from ..data import PictureError, read_picture
from ..scoring.labelled import Predictions
from .results import changed_pictures


SIZE = 240  # pixels of the longer side
TINY = 64
MOST_SHOWN = 12


@dataclass
class Shown:
    """A picture of the report.

    Args:
        path: its name.
        label: its class.
        after: what the trained model calls it, and how sure it is, from 0 to 1.
        before: the same of frozen CLIP.
        picture: small; None where it cannot be read.
    """

    path: str
    label: str
    after: tuple[str, float]
    before: tuple[str, float]
    picture: PIL.Image.Image | None

    @property
    def mistake(self) -> str:
        """What it was wrongly called: by the trained model, or where that is right by frozen CLIP."""
        return self.before[0] if self.after[0] == self.label else self.after[0]

    @property
    def uri(self) -> str | None:
        """The picture as a `data:` address."""
        return None if self.picture is None else picture_uri(self.picture)


def picture_uri(picture: PIL.Image.Image) -> str:
    """A picture as a `data:` address, small ones without loss."""
    file = io.BytesIO()
    tiny = max(picture.size) <= TINY
    picture.save(file, **({"format": "PNG"} if tiny else {"format": "JPEG", "quality": 82}))
    return data_uri(file.getvalue(), "image/png" if tiny else "image/jpeg")


def data_uri(content: bytes, media_type: str) -> str:
    """A file as an address that holds all of it."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def choose_rows(predictions: Predictions) -> dict[str, list[int]]:
    """Positions of the pictures that a report shows, `MOST_SHOWN` of each kind.

    Args:
        predictions: of the N pictures.

    Returns:
        `gained`: only the trained model recognises them; `lost`: only frozen CLIP does; `wrong`: neither does, those
        first of which the trained model was most sure.
    """
    gained, lost = changed_pictures(predictions)
    sure, predicted = predictions.probabilities.max(dim=1)
    neither = (predicted != predictions.labels) & (predictions.zero_shot.argmax(dim=1) != predictions.labels)
    wrong = [index for index in sure.argsort(descending=True, stable=True).tolist() if neither[index]]
    kinds = {"gained": gained, "lost": lost, "wrong": wrong}
    return {kind: rows[:MOST_SHOWN] for kind, rows in kinds.items()}


def choose_pictures(predictions: Predictions, dataset: datasets.Dataset) -> dict[str, list[Shown]]:
    """What a report shows of the pictures that `choose_rows` takes.

    Args:
        predictions: of the N pictures.
        dataset: the N pictures.
    """
    chosen = choose_rows(predictions)
    return {kind: [_show(predictions, dataset, index) for index in rows] for kind, rows in chosen.items()}


def _show(predictions: Predictions, dataset: datasets.Dataset, index: int) -> Shown:
    try:
        picture = read_picture(dataset[index]["image"], predictions.value_range)
        picture.thumbnail((SIZE, SIZE))
    except PictureError:  # it was there a moment ago
        picture = None
    names = predictions.class_names
    after, before = (
        (names[row.argmax()], row.max().item())
        for row in (predictions.probabilities[index], predictions.zero_shot[index])
    )
    return Shown(predictions.paths[index], names[predictions.labels[index]], after, before, picture)
