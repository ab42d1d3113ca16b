"""Labelled pictures from tables: CSV and JSON lines."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .folders import is_picture
from .labels import in_natural_order
from .sources import IMAGE_COLUMNS, LABEL_COLUMNS, Source, find_column, labelled


TABLES = (".csv", ".json", ".jsonl")
DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}  # in place of commas


def load_table(
    path: str | os.PathLike[str],
    image_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
) -> Source:
    """Read a CSV file (`.csv`) or JSON lines (`.jsonl`, `.json`) with a picture's path and its label in each row.

    Args:
        path: the table; paths in it are relative to its folder. Labels are text as it stands there.
        image_column, label_column: columns of paths and labels; None: found by their customary names.
        group_column: column that says which pictures belong together; None: none. Empty: a group of its own.

    Raises:
        OSError: there is no such file.
        ValueError: another extension, an unknown column, a row without path or label, or a picture that is listed
            twice.
    """
    path = Path(path)
    rows, columns = read_rows(path)
    images = [column for column in columns if column.lower() in IMAGE_COLUMNS]
    known = [column for column in columns if column.lower() in LABEL_COLUMNS]
    image_column = find_column(columns, image_column, images, "image_column", str(path))
    label_column = find_column(columns, label_column, known, "label_column", str(path))
    if group_column is not None:
        find_column(columns, group_column, (), "group_column", str(path))
    lines: dict[str, int] = {}
    labels, groups = [], []
    for line, row in rows:
        picture, label, group = (as_text(row.get(column)) for column in (image_column, label_column, group_column))
        if not picture or not label:
            empty = label_column if picture else image_column
            raise ValueError(f"{path}, line {line}: the column {empty!r} is empty.")
        if picture in lines:
            raise ValueError(f"{path}, line {line}: {picture} is listed in line {lines[picture]} already.")
        lines[picture] = line
        labels.append(label)
        groups.append(group)
    pictures = [{"path": str(path.parent / picture), "bytes": None} for picture in lines]
    dataset = labelled(pictures, labels, list(lines), in_natural_order(labels), groups)
    return dataset.add_column("line", list(lines.values())), []


def is_table(path: Path) -> bool:
    """Whether a path is that of a table, by its extension."""
    return path.suffix.lower() in TABLES


def read_rows(path: Path) -> tuple[list[tuple[int, dict[str, Any]]], list[str]]:
    """Rows of a table with their line numbers, and the names of its columns.

    Raises:
        OSError: there is no such file.
        ValueError: another extension, no rows, no header, or another encoding.
    """
    readers = {".csv": _read_csv, ".json": _read_json_lines, ".jsonl": _read_json_lines}
    if not is_table(path):
        raise ValueError(f"{path} must be a CSV file (.csv) or JSON lines (.jsonl).")
    try:
        rows = list(readers[path.suffix.lower()](path))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} must be encoded in UTF-8: {error}. Save it as such (spreadsheets: CSV UTF-8), or convert it: "
            f"iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8-{path.name}"
        ) from error
    if not rows:
        raise ValueError(f"{path} has no rows.")
    columns = list(rows[0][1])
    _check_header(path, columns)
    return rows, columns


def _check_header(path: Path, columns: Sequence[str]) -> None:
    """Raise a ValueError where the first line shows that a table is not what it should be."""
    delimiter = next((name for sign, name in DELIMITERS.items() if len(columns) == 1 and sign in columns[0]), None)
    if delimiter is not None:
        raise ValueError(
            f"{path}: its columns are separated by {delimiter}, as its first line shows ({columns[0]!r}), and must be "
            "separated by commas: save it so, or replace them."
        )
    values = [column for column in columns if is_picture(Path(column))]
    if values:
        raise ValueError(
            f"{path} has no header: its first line ({','.join(columns)}) names a picture, {values[0]!r}, where it "
            "must name the columns. Put a line above it, such as image,label."
        )


def _read_csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        try:
            for row in reader:
                if None in row:
                    raise ValueError(f"{path}, line {reader.line_num}: more values than the {len(row) - 1} columns.")
                yield reader.line_num, row
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}") from error


def _read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, encoding="utf-8-sig") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {line}: each line must be a JSON object. {error}") from error
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {line}: each line must be a JSON object, got {text.strip()[:50]!r}.")
            yield line, row


def as_text(value: Any) -> str:
    """A table's value as text: JSON's numbers and truth values as they are written there."""
    return value.strip() if isinstance(value, str) else "" if value is None else json.dumps(value)
