"""Files that were dropped.

Gradio stores equal files of one name once, whoever drops them and wherever: one that was taken in stays where it is,
for others that use it, and goes with the others that are older than an hour (`delete_cache` of the page).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..data.folders import is_hidden
from ..projects.folder_intake import FolderIntake, add_folder
from ..projects.intake import Intake, add_pictures
from ..projects.project import Project
from .places import UPLOADS


# as `folders.html` names files for a class
CLASS_AND_NAME = re.compile("/(?P<class_name>[^/]+)/(?P<name>.+)", re.DOTALL)
NOT_DROPPED = "Only files that were dropped here can be used."
NO_FOLDERS = (
    "It is not known in which folders these pictures lay, and so not which classes they are of. Add a class and drop "
    "the pictures there, or choose a folder."
)


def uploaded(project: Project, file: str) -> Path:
    """A file that was dropped; asked once more here, so that no other is ever read.

    Args:
        project: whose folder of uploads it must lie in.
        file: path that Gradio gave.

    Raises:
        ValueError: it lies elsewhere, or is gone.
    """
    try:
        path = Path(file).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        raise ValueError("The dropped file is not there any more: drop it again.") from None
    if not (path.is_file() and path.is_relative_to((project.folder / UPLOADS).resolve())):
        raise ValueError(NOT_DROPPED)
    return path


def take_in(project: Project, files: Iterable[str] | None, class_name: str | None) -> Intake:
    """Add dropped files to a class, or to the pictures without one.

    Args:
        project: that they are added to.
        files: paths that Gradio gave; the last part of each is what its owner calls it.
        class_name: its folder's name; None: unlabelled.

    Raises:
        ValueError, OSError: see `add_pictures`.
    """
    paths = [uploaded(project, file) for file in files or []]
    return add_pictures(project, [(path.name, path) for path in paths if not is_hidden(path.name)], class_name)


def take_in_folders(project: Project, files: Any, class_name: str | None, *, is_folder: bool = False) -> FolderIntake:
    """Add dropped files to a class, or to those that their folders are named after.

    Args:
        project: that they are added to.
        files: raw, as `preprocess=False` passes them on: only so are their own names known, in which `folders.html`
            has put their folders and, before these, the class that they were dropped for ("/elm/leaves/1.jpg").
        class_name: of files without class folders, where their names do not say it.
        is_folder: that a folder was chosen: files whose folder is not known are refused then.

    Raises:
        ValueError, OSError: see `add_folder`.
    """
    given = list(_named(project, files))
    if any(name.startswith("/") for name, _ in given):
        class_name, given = _without_class(given)
    if is_folder and not all("/" in name for name, _ in given):
        raise ValueError(NO_FOLDERS)
    return add_folder(project, given, class_name)


def _without_class(given: list[tuple[str, Path]]) -> tuple[str, list[tuple[str, Path]]]:
    """The class that stands before all names ("/elm/leaves/1.jpg"), and the files by the rest of their names."""
    parts = [CLASS_AND_NAME.fullmatch(name) for name, _ in given]
    classes = {part and part["class_name"] for part in parts}
    if len(classes) != 1 or None in classes:
        raise ValueError(NOT_DROPPED)
    return classes.pop(), [(part["name"], path) for part, (_, path) in zip(parts, given, strict=True)]


def _named(project: Project, files: Any) -> Iterator[tuple[str, Path]]:
    for file in files if isinstance(files, list) else []:
        path, name = (file.get("path"), file.get("orig_name")) if isinstance(file, dict) else (None, None)
        if not isinstance(path, str):
            raise ValueError(NOT_DROPPED)
        found = uploaded(project, path)
        yield (name if isinstance(name, str) and name else found.name), found
