"""Files of a project get another place in it, and nothing is overwritten."""

from __future__ import annotations

import os
from pathlib import Path

from .placing import FreePlaces, place
from .project_folder import ProjectFolder


def move_files(project: ProjectFolder, places: dict[Path, Path]) -> dict[str, str]:
    """Rename files to names like these that are free; folders that are empty then go, but those of classes.

    Args:
        project: that is locked.
        places: for each file where it is to be.

    Returns:
        for each file, below the project's folder, where it is now.

    Raises:
        ValueError: a link has been planted on the way.
        OSError: one cannot be moved; it and those behind it stay.
    """
    moved, free = {}, FreePlaces()
    for source, wanted in places.items():
        if wanted == source:
            moved[project.relative(source)] = project.relative(source)
            continue
        moved[project.relative(source)] = project.relative(move_near(project, source, wanted, free))
        _drop_empty(source.parent, project)
    return moved


def move_near(project: ProjectFolder, source: Path, wanted: Path, free: FreePlaces, suffix: str | None = None) -> Path:
    """Rename a file to a name like the wanted one that is free, in a folder that is made where there is none.

    Args:
        project: that is locked.
        source: where it is.
        wanted: where it is to be.
        free: that knows the places which were given already.
        suffix: its extension, with the dot; None: as it is.

    Returns:
        where it is now.

    Raises:
        ValueError: a link has been planted on the way.
        OSError: it cannot be moved.
    """
    project.path(project.relative(wanted.parent))  # no link has been planted on the way
    wanted.parent.mkdir(parents=True, exist_ok=True)
    target = free.near(wanted, suffix)
    place(source, target)
    return target


def move_taken_out(project: ProjectFolder, old: str, new: str) -> None:
    """Let what was taken out of a class be put back into another one, which is called so now or holds its pictures.

    Args:
        project: that is locked.
        old: name of the class's folder.
        new: name of the other one.

    Raises:
        OSError: one cannot be moved; it and those behind it stay.
    """
    source, target = project.removed / old, project.removed / new
    if old == new or not source.is_dir() or source.is_symlink():
        return
    if not os.path.lexists(target) or target.samefile(source):  # the same where capitals make no difference
        source.rename(target)
    elif target.is_dir() and not target.is_symlink():
        pictures = [project.folder / picture for picture in project.pictures_in(source)]
        move_files(project, {picture: target / picture.relative_to(source) for picture in pictures})


def _drop_empty(folder: Path, project: ProjectFolder) -> None:
    kept = (project.pictures, project.unlabelled, project.removed)
    while folder not in kept and folder.parent != project.pictures:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
