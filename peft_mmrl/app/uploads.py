"""Files that were dropped: they lie in the folder of uploads until they are taken in, and are gone afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..projects.intake import Intake, add_pictures
from ..projects.project import Project
from .places import UPLOADS


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
        raise ValueError("Only files that were dropped here can be used.")
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
    try:
        return add_pictures(project, [(path.name, path) for path in paths], class_name)
    finally:
        for path in paths:
            with suppress(OSError):
                path.unlink()
                path.parent.rmdir()
