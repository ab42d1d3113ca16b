"""Where the page keeps its own files, all of them inside the project."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import psutil

from ..projects.project import Project


UPLOADS = ".uploads"  # in the project's folder: what was dropped and not yet taken in, for each process a folder
SHOWN = Path(".cache") / "shown"  # what the page shows or hands out
THUMBNAILS = SHOWN / "thumbnails"


def prepare_places(project: Project) -> None:
    """Make Gradio keep its files inside the project and count nothing, and forget what was dropped and never taken in.

    Raises:
        OSError: one of the folders is a link that leads elsewhere, or cannot be written.
    """
    for place in (UPLOADS, SHOWN):
        folder = project.folder / place
        if folder.resolve() != project.folder.resolve() / place:
            raise OSError(f"{folder} is a link that leads elsewhere: take it away.")
    uploads = project.folder / UPLOADS
    for old in uploads.glob("*"):
        if not (old.name.isdecimal() and psutil.pid_exists(int(old.name))):  # of a page that was closed
            shutil.rmtree(old, ignore_errors=True)
    for place in (uploads / str(os.getpid()), project.folder / SHOWN):
        place.mkdir(parents=True, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str((uploads / str(os.getpid())).resolve())
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)  # else every call is followed by a table of all calls
