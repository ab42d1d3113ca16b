"""What a folder is that somebody wants to work in, and a project made of a plain folder of class folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..data.folders import holds_picture, is_hidden, is_litter, natural_key, walk
from ..data.sources import are_splits
from ..scoring.file_names import folder_names, safe_name
from .placing import FreePlaces
from .project_settings import PROJECT_FILE


MOST_PICTURES = 20_000  # of a project
WHAT_TO_OPEN = "Choose an empty folder, a project, or a folder that holds a folder of pictures for each class."


def is_project(folder: Path) -> bool:
    """Whether a folder says that it is a project."""
    return os.path.lexists(folder / PROJECT_FILE)


def is_empty(folder: Path) -> bool:
    """Whether there is nothing in a folder, or not even the folder.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return not folder.exists() or all(is_litter(entry.name) for entry in folder.iterdir())
    except OSError as error:
        raise type(error)(f"{folder} cannot be read: {error.strerror}. {WHAT_TO_OPEN}") from error


def find_classes(folder: Path) -> dict[str, list[Path]]:
    """The pictures of each class folder in a folder that holds such and hardly anything else.

    Raises:
        ValueError: it is something else; the message says what to do.
    """
    found: dict[str, list[Path]] = {}
    others = number = 0
    for entry in sorted(folder.iterdir(), key=lambda path: natural_key(path.name)):
        if is_hidden(entry.name) or not entry.is_dir():
            continue
        pictures = []
        for path in walk(entry, lambda path, reason: None):
            if holds_picture(path):
                pictures.append(path)
            else:
                others += 1
            number += 1
            if number > MOST_PICTURES:
                raise ValueError(
                    f"{folder} holds more than {MOST_PICTURES:,} files, too many for a project. {WHAT_TO_OPEN}"
                )
        if pictures:
            found[entry.name] = pictures
    number = sum(map(len, found.values()))
    if not number or others > number:
        raise ValueError(f"{folder} is not empty, and holds other things than folders of pictures. {WHAT_TO_OPEN}")
    if are_splits(found):
        one = folder / next(iter(found))
        raise ValueError(f"{folder} holds parts of a collection ({', '.join(found)}). Choose one of them: {one}")
    return found


def copy_classes(source: Path, classes: dict[str, list[Path]], target: Path) -> dict[str, str]:
    """Copy pictures, a folder for each class; folders inside class folders stay.

    Args:
        source: what the class folders lie in; it is only read.
        classes: from `find_classes`.
        target: gets the class folders.

    Returns:
        for each class the folder that it has now, in which every system can read it.

    Raises:
        OSError: something cannot be read or written, or there is no room for it.
    """
    size = sum(path.stat().st_size for paths in classes.values() for path in paths if path.exists())
    free = shutil.disk_usage(target).free
    if size > free:
        raise OSError(f"The pictures are {size / 1e9:.1f} GB, and only {free / 1e9:.1f} GB are free here.")
    folders, places = folder_names(classes), FreePlaces()
    for name, paths in classes.items():
        for path in paths:
            if not path.is_file():  # a link that leads nowhere
                continue
            inner = path.relative_to(source / name).parent
            folder = target / folders[name] / Path(*map(safe_name, inner.parts))
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, places.near(folder / path.name))
    return folders
