"""Which files of a folder are pictures, in an order that does not depend on the file system."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import PIL.Image

from .pictures import is_picture_file


UNREADABLE = "cannot be opened"  # how reasons of folders begin
LINK = "a link to another place"
OnSkip = Callable[[Path, str], None]
LITTER = {"thumbs.db", "desktop.ini", "__macosx"}  # beside all names that start with a dot
HEIF_EXTENSIONS = {".heic", ".heif", ".hif", ".avif"}  # pictures, also where no decoder is installed


def walk(
    folder: str | os.PathLike[str], on_skip: OnSkip | None = None, *, follow_links: bool = True
) -> Iterator[Path]:
    """All files below a folder, folder by folder in the order of their names, without hidden ones.

    Links are followed, but no folder is read twice, so that links in circles have an end.

    Args:
        folder: where to begin.
        on_skip: called with each file or folder that is passed over and with the reason; None: hidden ones and pipes
            are passed over in silence, and a folder that cannot be read is an error.
        follow_links: False: links below the folder are passed over, wherever they lead.

    Raises:
        OSError: there is no such folder, or, without `on_skip`, one that cannot be read.
    """
    read: set[Path] = set()
    begun = [iter(_entries(Path(folder), read, on_skip))]  # folders in each other; no recursion, as they may be deep
    while begun:
        entry = next(begun[-1], None)
        if entry is None:
            begun.pop()
            continue
        path, kind = Path(entry.path), _kind(entry)
        if is_hidden(entry.name):
            if on_skip is not None and not is_litter(entry.name):
                on_skip(path, "hidden")
        elif not follow_links and entry.is_symlink():
            if on_skip is not None:
                on_skip(path, LINK)
        elif kind == "folder":
            begun.append(iter(_entries(path, read, on_skip)))
        elif kind == "file":
            yield path
        elif on_skip is not None:
            on_skip(path, "neither a file nor a folder")


def _entries(folder: Path, read: set[Path], on_skip: OnSkip | None) -> list[os.DirEntry[str]]:
    """What lies in a folder, in the order of the names; nothing where it was read before, or cannot be read."""
    try:
        here = folder.resolve()
        if here in read:
            return []
        read.add(here)
        with os.scandir(folder) as scan:
            return sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        if on_skip is None:
            raise
        on_skip(folder, f"{UNREADABLE}: {error.strerror or error}")
        return []


def _kind(entry: os.DirEntry[str]) -> str | None:
    """What an entry is; a link that leads nowhere is a file that is not there."""
    try:
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() or not os.path.exists(entry) else None
    except OSError:  # a link to itself, or nothing that may be looked at
        return "file"


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one that users do not see or mean: `.DS_Store`, `Thumbs.db` and the like."""
    return name.startswith(".") or name.lower() in LITTER


def is_litter(name: str) -> bool:
    """Whether systems leave such files and folders everywhere, so that nobody misses them."""
    return name.lower() in LITTER or name == ".DS_Store" or name.startswith("._")


def is_picture(path: Path) -> bool:
    """Whether the extension is that of a picture format."""
    return path.suffix.lower() in picture_extensions()


def holds_picture(path: Path) -> bool:
    """Whether a file is a picture by its extension, or else by its content: a JPEG may be called `2` or `2.cr2`."""
    return is_picture(path) or is_picture_file(path)


@cache
def picture_extensions() -> frozenset[str]:
    """Extensions, in lower case, of the formats that Pillow opens, and of HEIC and AVIF."""
    registered = PIL.Image.registered_extensions()
    return frozenset(extension for extension, name in registered.items() if name in PIL.Image.OPEN) | HEIF_EXTENSIONS


def natural_key(name: str) -> tuple[list[int | str], str]:
    """Sorts numbers in names by value: `class 2` before `class 10`."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if position % 2 else part.casefold() for position, part in enumerate(parts)], name
