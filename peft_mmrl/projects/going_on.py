"""Whether a training that was stopped can go on: its checkpoint belongs to the pictures and classes of that time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..data import PictureError, read_picture
from ..data.class_names import prompt_names
from ..training.checkpoints import read_progress
from .better_names import read_better_names
from .project import Project


def run_of_checkpoint(folder: Path) -> dict[str, Any] | None:
    """What the run of a checkpoint is, see `fitting.folder.describe_run`; None: there is no checkpoint, or none that
    tells."""
    try:
        run = read_progress(folder).run
    except (OSError, ValueError):
        return None
    is_whole = isinstance(run, dict) and isinstance(run.get("split"), dict)
    return run if is_whole and isinstance(run["split"].get("train"), list) else None


def is_as_then(project: Project, run: dict[str, Any]) -> bool:
    """Whether a run would see the same pictures, classes and settings again, which going on takes.

    Args:
        project: as it is now.
        run: from `run_of_checkpoint`.
    """
    then = set(map(str, run["split"]["train"]))
    now = {one.name: one.pictures for one in project.classes() if one.pictures}
    paths = {picture.removeprefix("pictures/"): picture for pictures in now.values() for picture in pictures}
    model, template = project.settings.base_model, project.settings.template
    if (model, template and [template]) != (run.get("base_model"), run.get("template")) or not then <= set(paths):
        return False
    if sorted(_names(project, list(now), {path.split("/")[0] for path in then})) != sorted(run.get("classes") or []):
        return False
    # of more pictures than it draws from each class, a training with few shots knows some
    return bool(run.get("shots")) or not any(_can_be_read(project.path(paths[path])) for path in set(paths) - then)


def _names(project: Project, folders: list[str], known: set[str]) -> list[str]:
    """Of the folders that are known, the names that the command gives them: it looks at those with pictures."""
    try:
        better = read_better_names(project.folder, project.class_folders())
    except (ValueError, OSError):
        return []  # it would refuse them
    said = prompt_names([name for name in folders if name not in better])[0] | better
    return [said[name] for name in folders if name in known]


def _can_be_read(path: Path) -> bool:
    try:
        read_picture(path)
    except PictureError:
        return False
    return True
