"""Pictures come in, change their class, are taken out and come back: renames inside a project, nothing is lost."""

from __future__ import annotations

import filecmp
import os
import secrets
import shutil
import stat
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

import PIL.Image

from ..data.folders import holds_picture, is_hidden
from ..data.pictures import FORMATS, PictureError, examine_picture
from ..scoring.file_names import safe_name
from .agreed import follow_class
from .opening import MOST_PICTURES
from .placing import free_name, place
from .project import Project
from .under_training import refuse_while_training


LARGEST_FILE = 50_000_000  # bytes
MOST_PIXELS = 100_000_000
LEFT_BEHIND = 3600  # seconds after which nobody works on a file any more
FULL = f"the project is full: it takes {MOST_PICTURES:,} pictures"
EXTENSIONS = {  # of the formats that are opened; the first is given to files that have none of them
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "MPO": (".jpg", ".jpeg", ".mpo"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "JPEG2000": (".jp2", ".j2k", ".jpx", ".j2c", ".jpc", ".jpf"),
    "AVIF": (".avif", ".avifs"),
    "HEIF": (".heic", ".heif", ".hif"),
}


@dataclass
class Intake:
    """What became of files that were to be added.

    Args:
        added: where the pictures are now, below the project's folder.
        refused: name and reason of each file that was not taken.
    """

    added: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)


def add_pictures(project: Project, files: Iterable[tuple[str, Path]], class_name: str | None) -> Intake:
    """Copy files into a class.

    A file that cannot be read, is too large or is there already is refused, and the others are taken.

    Args:
        project: that they are added to.
        files: for each what its owner calls it, and where it lies now.
        class_name: name of the class's folder; None: into the pictures without a class.

    Raises:
        ValueError: there is no such class.
        OSError: the project cannot be written to.
    """
    if class_name is not None:
        project.class_folder(class_name)
    intake, staged, room = Intake(), [], _room(project)
    try:
        for name, source in files:
            shown = safe_name(PureWindowsPath(str(name)).name)
            try:
                if len(staged) >= room:
                    raise PictureError(FULL)
                staged.append((shown, _stage(project, shown, Path(source))))
            except PictureError as error:
                intake.refused.append((shown, error.reason))
            except (OSError, ValueError) as error:
                intake.refused.append((shown, f"it cannot be copied: {getattr(error, 'strerror', None) or error}"))
        _place(project, staged, class_name, intake)
    finally:
        for _, part in staged:
            with suppress(OSError):
                part.unlink(missing_ok=True)
    return intake


def _stage(project: Project, name: str, source: Path) -> Path:
    """Copy a file to where nobody sees it, and see whether it may be a picture of the project.

    Args:
        project: that it is for.
        name: that its owner gave it.
        source: where it is.

    Returns:
        the copy, with the extension that it is going to have.

    Raises:
        PictureError: it may not.
        OSError, ValueError: it cannot be copied.
    """
    part = _new_part(project)
    try:
        _copy(source, part)
        return part.rename(part.with_suffix(_extension(name, _check(part))))
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _new_part(project: Project) -> Path:
    """Where a file is written before it is a picture of the project: in the same file system, and seen by nobody."""
    folder = project.cache / "incoming"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():  # of a process that died
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > LEFT_BEHIND:
                old.unlink()
    return folder / secrets.token_hex(16)


def _copy(source: Path, part: Path) -> None:
    """Copy a plain file that is not too large; a link is not followed."""
    state = source.lstat()
    if not stat.S_ISREG(state.st_mode):
        raise PictureError("it is not a file")
    if state.st_size > LARGEST_FILE:
        size = f"{state.st_size / 1e6:.0f} MB, and {LARGEST_FILE / 1e6:.0f} MB are allowed"
        raise PictureError(f"the file is too large: {size}")
    shutil.copyfile(source, part, follow_symlinks=False)


def _check(part: Path) -> str:
    """Decode a picture that may be a project's, and say what format it is of."""
    try:
        with PIL.Image.open(part, formats=[name for name in FORMATS if name in PIL.Image.OPEN]) as picture:
            pixels, kind = picture.width * picture.height, picture.format
    except PIL.Image.DecompressionBombError:
        raise PictureError(f"the picture is too large: more than {MOST_PIXELS / 1e6:.0f} million pixels") from None
    except Exception:  # `examine_picture` knows why
        pixels, kind = 0, None
    if pixels > MOST_PIXELS:
        raise PictureError(
            f"the picture is too large: {pixels / 1e6:.0f} million pixels, and {MOST_PIXELS / 1e6:.0f} are allowed"
        )
    examine_picture(part)
    return kind or "JPEG"


def _extension(name: str, kind: str) -> str:
    """The extension that a file has where it is one of its format, so that no picture poses as something else."""
    own, known = os.path.splitext(name)[1], EXTENSIONS[kind]
    return own if own.lower() in known else known[0]


def _place(project: Project, staged: Sequence[tuple[str, Path]], class_name: str | None, intake: Intake) -> None:
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
        there = _by_size(project, class_name)
        room, taken = _room(project), os.listdir(folder)
        for name, part in staged:
            size = part.stat().st_size
            if same := next((other for other in there[size] if filecmp.cmp(part, other, shallow=False)), None):
                intake.refused.append((name, f"it is there already: {project.relative(same)}"))
            elif room <= 0:
                intake.refused.append((name, FULL))
            else:
                target = folder / free_name(name, taken, part.suffix)
                try:
                    place(part, target)
                except OSError as error:
                    intake.refused.append((name, f"it cannot be saved: {error.strerror or error}"))
                    continue
                taken.append(target.name)
                there[size].append(target)
                room -= 1
                intake.added.append(project.relative(target))


def _room(project: Project) -> int:
    """How many pictures more the project takes."""
    areas = (project.pictures, project.unlabelled, project.removed)
    return MOST_PICTURES - sum(len(project.pictures_in(area)) for area in areas)


def _by_size(project: Project, class_name: str | None) -> dict[int, list[Path]]:
    """The pictures that a new one may not be a copy of, by the size of their files.

    Those of other classes do not count: one of the two labels is wrong, and people should see it.
    """
    folders = [project.unlabelled, project.pictures] if class_name is None else [project.class_folder(class_name)]
    there: dict[int, list[Path]] = defaultdict(list)
    for folder in folders:
        for picture in project.pictures_in(folder):
            path = project.folder / picture
            with suppress(OSError):
                there[path.stat().st_size].append(path)
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
        return _move(project, {path: target / inner for path, (_, inner) in found.items()})


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
        return _move(project, places)


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
        return _move(project, places)


def merge_classes(project: Project, name: str, into: str) -> dict[str, str]:
    """Put all pictures of a class into another one, and take the empty folder away.

    Returns, raises:
        as `move_pictures`.
    """
    with project.locked():
        moved = move_pictures(project, project.pictures_in(project.class_folder(name)), into)
        if name != into:
            follow_class(project, name, into)
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


def _move(project: Project, places: dict[Path, Path]) -> dict[str, str]:
    """Rename files to names like these that are free; folders that are empty then go, but those of classes."""
    moved = {}
    for source, wanted in places.items():
        if wanted == source:
            moved[project.relative(source)] = project.relative(source)
            continue
        project.path(project.relative(wanted.parent))  # no link has been planted on the way
        wanted.parent.mkdir(parents=True, exist_ok=True)
        target = wanted.with_name(free_name(wanted.name, os.listdir(wanted.parent)))
        place(source, target)
        moved[project.relative(source)] = project.relative(target)
        _drop_empty(source.parent, project)
    return moved


def _drop_empty(folder: Path, project: Project) -> None:
    kept = (project.pictures, project.unlabelled, project.removed)
    while folder not in kept and folder.parent != project.pictures:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
