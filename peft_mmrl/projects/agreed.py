"""Labels that somebody has looked at and found right, so that they are not asked for again: `agreed.json`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ..training.run_folder import read_json, write_json
from .project_folder import ProjectFolder


AGREED_FILE = "agreed.json"


def agree(project: ProjectFolder, picture: str) -> None:
    """Remember that a picture is in its right class.

    Args:
        project: that it belongs to.
        picture: `pictures/<class>/...`.

    Raises:
        ValueError: there is no such picture.
        OSError: it cannot be written down.
    """
    key = _key(project, picture)
    with project.locked():
        _write(project, {*_read(project), key})


def take_back(project: ProjectFolder, picture: str, name: str | None = None) -> None:
    """Forget that a picture was found to be of a class, be it there still or not.

    Args:
        project: that it belongs to.
        picture: where it is now.
        name: of the class's folder; None: that it is in now.

    Raises:
        as `agree`.
    """
    key = _key(project, picture, name)
    with project.locked():
        _write(project, _read(project) - {key})


def follow_class(project: ProjectFolder, old: str, new: str) -> None:
    """Remember for another folder what was found right in a class, which is called so now or lies there now.

    Args:
        project: that is locked.
        old: name of the class's folder.
        new: name of its folder now.

    Raises:
        OSError: it cannot be written down.
    """
    found = _read(project)
    of_class = {key for key in found if key.rpartition(":")[0] == old}
    if of_class and old != new:
        _write(project, (found - of_class) | {f"{new}:{key.rpartition(':')[2]}" for key in of_class})


def is_agreed(project: ProjectFolder, pictures: list[str]) -> list[bool]:
    """For each picture whether it was found to be in the class that it is in now."""
    found = _read(project)
    return [bool(found) and _has(found, project, picture) for picture in pictures]


def _has(found: set[str], project: ProjectFolder, picture: str) -> bool:
    try:
        return _key(project, picture) in found
    except ValueError:  # it has gone meanwhile
        return False


def _read(project: ProjectFolder) -> set[str]:
    path = project.folder / AGREED_FILE
    try:
        found = None if path.is_symlink() else read_json(path)
    except ValueError:  # damaged: then it is asked again
        return set()
    return {key for key in found if isinstance(key, str)} if isinstance(found, list) else set()


def _write(project: ProjectFolder, keys: Iterable[str]) -> None:
    write_json(project.folder / AGREED_FILE, sorted(keys))


def _key(project: ProjectFolder, picture: str, name: str | None = None) -> str:
    """Of a class's folder (None: its own) and the content: a new name of the file, or a copy, is not asked again."""
    try:
        digest = hashlib.sha256(project.path(picture).read_bytes()).hexdigest()
    except OSError:
        raise ValueError(f"{picture!r} is not there any more: it was moved or taken out meanwhile.") from None
    return f"{name or picture.split('/')[1]}:{digest[:32]}"
