"""Where the page keeps its own files, all of them inside the project."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..projects.project import Project


UPLOADS = ".uploads"  # in the project's folder: what was dropped and not yet taken in
SHOWN = Path(".cache") / "shown"  # thumbnails, and what is being taken away


def prepare_places(project: Project) -> None:
    """Make Gradio keep its files inside the project and count nothing, and forget what was dropped and never taken in.

    Raises:
        OSError: one of the folders is a link that leads elsewhere, or cannot be written.
    """
    for place in (UPLOADS, SHOWN):
        folder = project.folder / place
        if folder.resolve() != project.folder.resolve() / place:
            raise OSError(f"{folder} is a link that leads elsewhere: take it away.")
    shutil.rmtree(project.folder / UPLOADS, ignore_errors=True)
    for place in (UPLOADS, SHOWN):
        (project.folder / place).mkdir(parents=True, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str((project.folder / UPLOADS).resolve())
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)  # else every call is followed by a table of all calls
