"""New pictures in the order in which they came: by the times of their files, by a table's column, or by name."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from .labels import in_natural_order
from .sources import IMAGE_COLUMNS, find_column
from .tables import as_text, read_rows


ORDERS = ("time", "name")


def ordered_files(paths: Sequence[str], order: str = "time") -> list[tuple[str, str]]:
    """Files in the order of time or name, with what they were put in order by.

    Args:
        paths: of the files.
        order: "time", of their last change, those of one moment by name; or "name", numbers in it as numbers.
    """
    named = in_natural_order(paths)
    if order == "name":
        return [(path, Path(path).name) for path in named]
    times = {path: os.stat(path).st_mtime if os.path.exists(path) else 0.0 for path in named}
    known = [path for path in named if times[path]]
    return [
        (path, datetime.fromtimestamp(times[path]).isoformat(" ", "seconds")) for path in sorted(known, key=times.get)
    ]


def ordered_table(path: Path, time_column: str, image_column: str | None = None) -> list[tuple[str, str]]:
    """Pictures of a table in the order of one of its columns, with its values.

    Args:
        path: CSV or JSON lines; paths in it are relative to its folder.
        time_column: numbers, or dates and times as ISO 8601 writes them; equal ones stay in the order of the table.
        image_column: of the paths; None: found by its customary names.

    Raises:
        OSError: there is no such file.
        ValueError: an unknown column, or a row without path or with a time that is none.
    """
    rows, columns = read_rows(path)
    known = [column for column in columns if column.lower() in IMAGE_COLUMNS]
    image_column = find_column(columns, image_column, known, "image_column", str(path))
    find_column(columns, time_column, (), "time_column", str(path))
    found = []
    for line, row in rows:
        picture, text = as_text(row.get(image_column)), as_text(row.get(time_column))
        if not picture:
            raise ValueError(f"{path}, line {line}: the column {image_column!r} is empty.")
        found.append(
            (_as_moment(text, f"{path}, line {line}: --time_column {time_column}"), str(path.parent / picture), text)
        )
    return [(picture, text) for _, picture, text in sorted(found, key=lambda row: row[0])]


def _as_moment(text: str, where: str) -> float:
    """A time as a number; those without a zone are taken to be of this machine's."""
    for read in (float, lambda text: datetime.fromisoformat(text).timestamp()):
        with suppress(ValueError):
            moment = read(text)
            if math.isfinite(moment):
                return moment
    raise ValueError(f"{where} must be a number, or a time such as 2026-03-31 12:00, got {text!r}.")
