"""Reasons as JSON lines and as pages to open in a browser, for `predict --explain` and the report of a training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from ..data import PictureError, Preprocessing
from ..reports.gallery import SIZE, picture_uri
from ..reports.templates import template
from .reasons import Reason


PER_PAGE = 100  # pictures
THUMBNAIL = 96  # pixels of a training picture


def write_reasons(
    folder: Path,
    reasons: Iterable[Reason],
    title: str,
    preprocessing: Preprocessing,
) -> int:
    """Write `explain.jsonl`, a line per picture, and `explain-1.html` and so on, each of up to 100 pictures.

    Args:
        folder: that is there.
        reasons: from `explain`; they are taken page by page.
        title: name of the adapter.
        preprocessing: reads pictures, and cuts them to what the model sees, over which the maps lie.

    Returns:
        number of pages.
    """
    number, page = 0, ReasonsPage(f"{title}: why it answers so", preprocessing)
    with open(folder / "explain.jsonl", "w", encoding="utf-8") as lines:
        for number, found in enumerate(_pages(reasons), start=1):
            lines.writelines(map(page.line, found))
            (folder / f"explain-{number}.html").write_text(page.render(found, number), encoding="utf-8")
    return number


@dataclass
class ReasonsPage:
    """How reasons are written.

    Args:
        heading: of the page.
        preprocessing: cuts pictures to what the model sees, over which the maps lie.
        image: path of a picture -> what [`~peft_mmrl.read_picture`] reads.
        name: what is shown of a path.
        remarks: sentences on what is shown.
        said: path of a picture -> what else there is to say of it.
    """

    heading: str
    preprocessing: Preprocessing
    image: Callable[[str], Any] = str
    name: Callable[[str], str] = str
    remarks: Sequence[str] = ()
    said: Mapping[str, str] = field(default_factory=dict)

    def line(self, reason: Reason) -> str:
        """A reason as a line of JSON."""
        nearest = reason.nearest and [other | {"path": self.name(other["path"])} for other in reason.nearest]
        content = asdict(replace(reason, path=self.name(reason.path), nearest=nearest))
        return json.dumps(content, ensure_ascii=False) + "\n"

    def render(self, reasons: Sequence[Reason], number: int | None = None) -> str:
        """A page of HTML that needs no other file.

        Args:
            reasons: of the pictures.
            number: of the page, where there are several.
        """
        rows = [self._row(reason) for reason in reasons]
        return template(__package__, "explain.html").render(
            heading=self.heading, rows=rows, remarks=self.remarks, number=number
        )

    def _row(self, reason: Reason) -> dict[str, Any]:
        row = {"path": self.name(reason.path), "error": reason.error, "scores": reason.scores}
        row |= {"said": self.said.get(reason.path), "picture": None, "maps": [], "nearest": []}
        picture = None if reason.error else as_seen(self.image(reason.path), self.preprocessing, SIZE)
        if picture is not None:
            row["picture"] = picture_uri(picture)
            row["maps"] = [(name, picture_uri(heat_over(picture, shares))) for name, shares in reason.maps.items()]
        for other in reason.nearest or []:
            known = as_seen(self.image(other["path"]), self.preprocessing, THUMBNAIL)
            row["nearest"].append(other | {"path": self.name(other["path"]), "uri": known and picture_uri(known)})
        return row


def heat_over(picture: PIL.Image.Image, shares: list[list[float]]) -> PIL.Image.Image:
    """A picture under a map: bright red where most of the attention is, darkened where there is none.

    Args:
        picture: what the model sees, RGB.
        shares: rows of the map, with sum 1.
    """
    heat = np.asarray(shares, dtype=np.float32)
    heat = PIL.Image.fromarray(heat / max(float(heat.max()), 1e-9)).resize(picture.size, PIL.Image.Resampling.BILINEAR)
    strength = np.clip(np.asarray(heat), 0, 1)[..., None]
    pixels = np.asarray(picture.convert("L"), dtype=np.float32)[..., None]
    mixed = pixels * (0.35 + 0.25 * strength) + np.array([255.0, 60.0, 40.0]) * 0.4 * strength
    return PIL.Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


def _pages(reasons: Iterable[Reason]) -> Iterator[list[Reason]]:
    reasons = iter(reasons)
    while page := list(islice(reasons, PER_PAGE)):
        yield page


def as_seen(image: Any, preprocessing: Preprocessing, side: int) -> PIL.Image.Image | None:
    """What the model sees of a picture, the longer side as given; None where it is not there (any more).

    Args:
        image: as for [`~peft_mmrl.read_picture`].
        preprocessing: reads it, and cuts it.
        side: in pixels.
    """
    longer = max(preprocessing.size)
    try:
        size = tuple(round(length * side / longer) for length in preprocessing.size)
        return preprocessing.fitted(preprocessing.decode(image), size)
    except PictureError:
        return None
