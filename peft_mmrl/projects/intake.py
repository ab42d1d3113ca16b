"""Pictures come in, change their class, are taken out and come back: renames inside a project, nothing is lost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from ..data.folders import holds_picture, is_hidden
from ..data.pictures import PictureError
from ..scoring.file_names import safe_name
from .agreed import follow_class
from .moving import move_files, move_near, move_taken_out
from .opening import MOST_PICTURES
from .placing import FreePlaces
from .project import Project
from .staging import Contents, forget_left_behind, stage
from .under_training import refuse_while_training


FULL = f"the project is full: it takes {MOST_PICTURES:,} pictures"


@dataclass
class Intake:
    """What became of files that were to be added.

    Args:
        added: where the pictures are now, below the project's folder.
        refused: name and reason of each file that was not taken.
    """

    added: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)


def add_pictures(
    project: Project,
    files: Iterable[tuple[str, Path]],
    class_name: str | None,
    *,
    keep_folders: bool = False,
    room: int | None = None,
) -> Intake:
    """Copy files into a class.

    A file that cannot be read, is too large or is there already is refused, and the others are taken.

    Args:
        project: that they are added to.
        files: for each what its owner calls it, and where it lies now.
        class_name: name of the class's folder; None: into the pictures without a class.
        keep_folders: folders before a name, with `/`, become folders in the class; else they do not count.
        room: how many pictures more the project takes, where that is known already; None: they are counted.

    Raises:
        ValueError: there is no such class.
        OSError: the project cannot be written to.
    """
    if class_name is not None:
        project.class_folder(class_name)
    intake, staged = Intake(), []
    most = room_in(project) if room is None else room
    forget_left_behind(project)
    try:
        for name, source in files:
            shown = safe_name(PureWindowsPath(str(name)).name)
            if keep_folders:
                shown = "/".join([*map(safe_name, name.split("/")[:-1]), shown])
            try:
                if len(staged) >= most:
                    raise PictureError(FULL)
                staged.append((shown, stage(project, shown, Path(source))))
            except PictureError as error:
                intake.refused.append((shown, error.reason))
            except (OSError, ValueError) as error:
                intake.refused.append((shown, f"it cannot be copied: {getattr(error, 'strerror', None) or error}"))
        _place(project, staged, class_name, intake, room)
    finally:
        for _, part in staged:
            with suppress(OSError):
                part.unlink(missing_ok=True)
    return intake


def _place(
    project: Project,
    staged: Sequence[tuple[str, Path]],
    class_name: str | None,
    intake: Intake,
    room: int | None,
) -> None:
    """Give pictures that are whole their names."""
    if not staged:
        return
    with project.locked():
        try:
            folder = project.unlabelled if class_name is None else project.class_folder(class_name)
        except ValueError as error:  # renamed meanwhile
            intake.refused += [(name, str(error)) for name, _ in staged]
            return
        folder.mkdir(parents=True, exist_ok=True)
        there, places = _contents(project, class_name), FreePlaces()
        room = room_in(project) if room is None else room
        for name, part in staged:
            try:
                if same := there.find(part):
                    intake.refused.append((name, f"it is there already: {project.relative(same)}"))
                    continue
                if room <= 0:
                    intake.refused.append((name, FULL))
                    continue
                target = move_near(project, part, folder / name, places, part.suffix)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                intake.refused.append((name, f"it cannot be saved: {reason}"))
                continue
            with suppress(OSError):  # it has gone meanwhile
                there.add(target)
            room -= 1
            intake.added.append(project.relative(target))


def room_in(project: Project) -> int:
    """How many pictures more the project takes."""
    areas = (project.pictures, project.unlabelled, project.removed)
    return MOST_PICTURES - sum(len(project.pictures_in(area)) for area in areas)


def _contents(project: Project, class_name: str | None) -> Contents:
    """The pictures that a new one may not be a copy of.

    Those of other classes do not count: one of the two labels is wrong, and people should see it.
    """
    folders = [project.unlabelled, project.pictures] if class_name is None else [project.class_folder(class_name)]
    there = Contents()
    for folder in folders:
        for picture in project.pictures_in(folder):
            with suppress(OSError):  # it has gone meanwhile
                there.add(project.folder / picture)
    return there


def move_pictures(project: Project, pictures: Sequence[str], class_name: str | None) -> dict[str, str]:
    """Put pictures into another class; a folder inside their class folder stays theirs.

    Args:
        project: that they are in.
        pictures: of classes, or without one.
        class_name: name of the class's folder; None: to those without a class.

    Returns:
        for each picture where it is now.

    Raises:
        ValueError: there is no such class or picture; nothing is moved then.
        OSError: one cannot be moved; it and those behind it stay.
    """
    with project.locked():
        target = project.unlabelled if class_name is None else project.class_folder(class_name)
        found = _find(project, pictures, "pictures", "unlabelled")
        return move_files(project, {path: target / inner for path, (_, inner) in found.items()})


def remove_pictures(project: Project, pictures: Sequence[str]) -> dict[str, str]:
    """Take pictures out: they go to `removed/<class>/`, those without a class to `removed/`.

    Returns, raises:
        as `move_pictures`.
    """
    with project.locked():
        found = _find(project, pictures, "pictures", "unlabelled")
        places = {
            path: project.removed / inner.name if name is None else project.removed / name / inner
            for path, (name, inner) in found.items()
        }
        return move_files(project, places)


def put_back(project: Project, pictures: Sequence[str]) -> dict[str, str]:
    """Put pictures that were taken out back into their class, which is made again where it is gone.

    Returns, raises:
        as `move_pictures`.
    """
    with project.locked():
        found = _find(project, pictures, "removed")
        names = {name for name, _ in found.values() if name is not None}
        classes = {name: project.same_class(name) or name for name in names}
        places = {
            path: project.unlabelled / inner if name is None else project.pictures / classes[name] / inner
            for path, (name, inner) in found.items()
        }
        return move_files(project, places)


def merge_classes(project: Project, name: str, into: str) -> dict[str, str]:
    """Put all pictures of a class into another one, and take the empty folder away.

    Returns, raises:
        as `move_pictures`; other files in the folder are a ValueError, too.
    """
    with project.locked():
        project.refuse_other_files(name)
        moved = move_pictures(project, project.pictures_in(project.class_folder(name)), into)
        if name != into:
            follow_class(project, name, into)
            move_taken_out(project, name, into)
            project.remove_class(name)
    return moved


def take_class_out(project: Project, name: str) -> dict[str, str]:
    """Take a class away, and its pictures out; where they are put back it is made again.

    Returns, raises:
        as `merge_classes`.
    """
    with project.locked():
        project.refuse_other_files(name)
        moved = remove_pictures(project, project.pictures_in(project.class_folder(name)))
        project.remove_class(name)
    return moved


def _find(project: Project, pictures: Sequence[str], *areas: str) -> dict[Path, tuple[str | None, Path]]:
    """Files, each once, with their class and their path in its folder; all of them are there, and are plain files."""
    found: dict[Path, tuple[str | None, Path]] = {}
    for picture in pictures:
        path = project.path(picture)
        area, *inner = path.relative_to(project.folder).parts
        if area not in areas or len(inner) < 1 + (area == "pictures") or any(map(is_hidden, inner)):
            raise ValueError(f"{picture!r} is no picture of {' or '.join(areas)}.")
        if not path.is_file() or not holds_picture(path):
            raise ValueError(f"{picture!r} is not there any more: it was moved or taken out meanwhile.")
        in_class = area == "pictures" or (area == "removed" and len(inner) > 1)
        found[path] = (inner[0] if in_class else None, Path(*inner[in_class:]))
    if any(path.is_relative_to(project.pictures) for path in found):
        refuse_while_training(project.folder)
    return found
