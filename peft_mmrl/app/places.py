"""Where the page keeps its own files, all of them inside the project."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import psutil

from ..projects.project import Project


UPLOADS = Path(".uploads")  # in the project's folder: what was dropped within the hour, for each process a folder
SHOWN = Path(".cache") / "shown"  # what the page shows or hands out
THUMBNAILS = SHOWN / "thumbnails"
TO_SAVE = SHOWN / "files"  # made to be saved elsewhere, for each process a folder


def prepare_places(project: Project) -> None:
    """Make Gradio keep its files inside the project and count nothing, and remove what pages that were closed left.

    Raises:
        OSError: one of the folders is a link that leads elsewhere, or cannot be written.
    """
    for place in (UPLOADS, SHOWN):
        folder = project.folder / place
        if folder.resolve() != project.folder.resolve() / place:
            raise OSError(f"{folder} is a link that leads elsewhere: take it away.")
    for place in (UPLOADS, TO_SAVE):
        for left in (project.folder / place).glob("*"):
            if not _is_in_use(left):
                _remove(left)
        own_folder(project, place).mkdir(parents=True, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(own_folder(project, UPLOADS))
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)  # else every call is followed by a table of all calls


def own_folder(project: Project, place: Path) -> Path:
    """This process's folder in `UPLOADS` or `TO_SAVE`."""
    return project.folder.resolve() / place / str(os.getpid())


def _is_in_use(folder: Path) -> bool:
    """Whether the process that a folder is named after runs, and is no younger one that got its number."""
    try:
        return psutil.Process(int(folder.name)).create_time() <= folder.stat().st_mtime
    except (ValueError, OSError, psutil.Error):
        return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
