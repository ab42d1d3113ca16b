"""What `predict --explain` writes: reasons as JSON, and as pages to open in a browser."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
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
    number = 0
    with open(folder / "explain.jsonl", "w", encoding="utf-8") as lines:
        for number, page in enumerate(_pages(reasons), start=1):
            lines.writelines(json.dumps(asdict(reason), ensure_ascii=False) + "\n" for reason in page)
            rows = [_row(reason, preprocessing) for reason in page]
            text = template(__package__, "explain.html").render(title=title, rows=rows, number=number)
            (folder / f"explain-{number}.html").write_text(text, encoding="utf-8")
    return number


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


def _row(reason: Reason, preprocessing: Preprocessing) -> dict[str, Any]:
    row = {"path": reason.path, "error": reason.error, "scores": reason.scores, "picture": None, "maps": []}
    if reason.error is None and (picture := as_seen(reason.path, preprocessing, SIZE)) is not None:
        row["picture"] = picture_uri(picture)
        row["maps"] = [(name, picture_uri(heat_over(picture, shares))) for name, shares in reason.maps.items()]
    row["nearest"] = []
    for other in reason.nearest or []:
        known = as_seen(other["path"], preprocessing, THUMBNAIL)
        row["nearest"].append({**other, "uri": known and picture_uri(known)})
    return row


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
