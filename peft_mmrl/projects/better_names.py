"""`class_names.csv`: what classes are called where a folder's name says less; `train --class_names` reads it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..data.class_names import read_class_names
from ..training.run_folder import writing
from ..tuner.names import name_keys, spaced


NAMES_FILE = "class_names.csv"


def read_better_names(project: Path, folders: Iterable[str]) -> dict[str, str]:
    """The name of each folder that has a better one.

    Raises:
        ValueError: the file was edited by hand, and a line is wrong; the message names it.
    """
    path = project / NAMES_FILE
    if path.is_symlink():
        raise ValueError(f"{path} is a link to another place: put the file itself here.")
    if not path.is_file():
        return {}
    try:
        return read_class_names(path, folders)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be saved as UTF-8 (spreadsheets: CSV UTF-8).") from error


def write_better_names(project: Path, names: Mapping[str, str]) -> None:
    """Write the file in one go, or take it away where no class has a better name.

    Raises:
        OSError: it cannot be written; the old one stays.
    """
    path = project / NAMES_FILE
    with writing(path):
        if not names:
            path.unlink(missing_ok=True)
            return
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(names.items())
        part = path.with_name(f".{NAMES_FILE}.part")
        part.write_text(text.getvalue(), encoding="utf-8")
        part.replace(path)


def needs_name(folder: str, name: str) -> bool:
    """Whether a folder's name does not say what a class is called."""
    return spaced(folder) != spaced(name)


def find_same(name: str, said: Mapping[str, str]) -> str | None:
    """The folder of the class that a name means, to people or to CLIP.

    Args:
        name: of a class.
        said: for each folder how prompts say it.
    """
    (key,) = name_keys([name], None)
    return next((folder for folder, other in said.items() if key in name_keys([folder, other], None)), None)
