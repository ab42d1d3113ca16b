"""Pictures come in with their folders: class folders become classes, by the rule of `train --train_dir`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..data.folders import holds_picture, is_hidden, natural_key
from ..data.sources import are_splits
from ..scoring.file_names import safe_name
from .intake import Intake, add_pictures, room_in
from .placing import is_plain
from .project import Project


LONGEST_PATH = 4096  # characters
MOST_FOLDERS = 20  # that lie in each other
BESIDE_CLASSES = "it lies beside the folders of the classes, so that its class is not known"
TOO_DEEP = f"it lies deeper than {MOST_FOLDERS} folders in each other"
ODD_FOLDER = "its folder has a name that cannot be used"
NO_CLASS = "Add a class first, or choose a folder that holds a folder of pictures for each class."
File = tuple[str, Path]  # what its owner calls it, with the folders before it; where it lies now


@dataclass
class FolderIntake(Intake):
    """What became of files that came in folders.

    Args:
        added, refused: as in `Intake`.
        classes: for each class folder whose pictures were taken how many were.
        is_sorted: whether the folders said the classes.
    """

    classes: dict[str, int] = field(default_factory=dict)
    is_sorted: bool = False


def add_folder(project: Project, files: Iterable[File], class_name: str | None) -> FolderIntake:
    """Copy files into the classes that their folders say, or into one class where no folder says any.

    The folder that all lie in says none; each folder in it is a class, made where there is none of that name, and
    folders in that one stay as they are: what lies in one belongs together. Hidden files are passed over.

    Args:
        project: that they are added to.
        files: with names such as "leaves/oak/1.jpg".
        class_name: of the class that pictures without class folders are added to.

    Raises:
        ValueError: there is no class for pictures without class folders, or the folders are parts of a collection.
        OSError: the project cannot be written to.
    """
    found = FolderIntake()
    by_class = _by_class(files, found)
    loose = by_class.pop(None, [])
    if by_class:
        found.is_sorted = True
        if are_splits(by_class):
            parts = ", ".join(by_class)
            raise ValueError(f"This folder holds parts of a collection ({parts}). Choose one of them.")
        found.refused += [(name, BESIDE_CLASSES) for name, _ in loose]
        room = room_in(project)  # counted once: the project may be large, and the classes many
        for name in sorted(by_class, key=natural_key):
            _add_class(project, name, by_class[name], found, room - len(found.added))
    elif loose:
        if class_name is None:
            raise ValueError(NO_CLASS)
        _count(found, class_name, add_pictures(project, loose, class_name))
    return found


def _by_class(files: Iterable[File], found: FolderIntake) -> dict[str | None, list[File]]:
    """The files of each class folder, each with its name from there on; None: those in no class folder.

    A folder without pictures is none: its files are refused.
    """
    placed = []
    for name, path in files:
        *folders, own = name.split("/")
        if len(name) > LONGEST_PATH or not all(map(is_plain, folders)):
            found.refused.append((safe_name(own), ODD_FOLDER))
        elif len(folders) > MOST_FOLDERS:
            found.refused.append((safe_name(own), TOO_DEEP))
        elif not any(map(is_hidden, (*folders, own))):
            placed.append((folders, own, path))
    tops = {folders[0] if folders else None for folders, _, _ in placed}
    outer = 1 if len(tops) == 1 and None not in tops else 0  # the one folder that was chosen
    by_class: dict[str | None, list[File]] = defaultdict(list)
    for folders, own, path in placed:
        by_class["".join(folders[outer : outer + 1]) or None].append(("/".join([*folders[outer + 1 :], own]), path))
    empty = [name for name, inside in by_class.items() if name and not any(holds_picture(path) for _, path in inside)]
    for name in empty:
        found.refused += [(f"{name}/{inner}", "not a picture") for inner, _ in by_class.pop(name)]
    return by_class


def _add_class(project: Project, name: str, files: list[File], found: FolderIntake, room: int) -> None:
    try:
        with project.class_of(name) as folder:
            _count(found, folder, add_pictures(project, files, folder, keep_folders=True, room=room), f"{name}/")
        if not (project.pictures / folder).is_dir():  # it got none
            del found.classes[folder]
    except ValueError as error:  # it is no name; or another tab has changed the class
        found.refused += [(f"{name}/{inner}", str(error)) for inner, _ in files]


def _count(found: FolderIntake, folder: str, intake: Intake, before: str = "") -> None:
    found.classes[folder] = found.classes.get(folder, 0) + len(intake.added)
    found.added += intake.added
    found.refused += [(f"{before}{name}", reason) for name, reason in intake.refused]
