"""Which files of a folder are pictures, in an order that does not depend on the file system."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import PIL.Image


LITTER = {"thumbs.db", "desktop.ini", "__macosx"}  # beside all names that start with a dot
HEIF_EXTENSIONS = {".heic", ".heif", ".hif", ".avif"}  # pictures, also where no decoder is installed


def walk(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """All files below a folder, folder by folder in the order of their names, without hidden ones.

    Links are followed, but not back into a folder that contains them.

    Raises:
        OSError: there is no such folder, or it cannot be read.
    """
    yield from _walk(Path(folder), frozenset())


def _walk(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    here = folder.resolve()
    if here in above:
        return
    with os.scandir(folder) as entries:
        names = sorted((entry.name, entry.is_dir()) for entry in entries if not is_hidden(entry.name))
    for name, is_folder in names:
        if is_folder:
            yield from _walk(folder / name, above | {here})
        else:
            yield folder / name


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one that users do not see or mean: `.DS_Store`, `Thumbs.db` and the like."""
    return name.startswith(".") or name.lower() in LITTER


def is_picture(path: Path) -> bool:
    """Whether the extension is that of a picture format."""
    return path.suffix.lower() in picture_extensions()


@cache
def picture_extensions() -> frozenset[str]:
    """Extensions, in lower case, of the formats that Pillow opens, and of HEIC and AVIF."""
    registered = PIL.Image.registered_extensions()
    return frozenset(extension for extension, name in registered.items() if name in PIL.Image.OPEN) | HEIF_EXTENSIONS


def natural_key(name: str) -> tuple[list[int | str], str]:
    """Sorts numbers in names by value: `class 2` before `class 10`."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if position % 2 else part.casefold() for position, part in enumerate(parts)], name
