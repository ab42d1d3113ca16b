"""A file that is to be a picture of a project is copied to where nobody sees it, and looked at there."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import PIL.Image

from ..data.pictures import FORMATS, PictureError, examine_picture
from .project import Project


LARGEST_FILE = 50_000_000  # bytes
MOST_PIXELS = 100_000_000
LEFT_BEHIND = 3600  # seconds after which nobody works on a file any more
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


def forget_left_behind(project: Project) -> None:
    """Take away what a process left behind that died."""
    for old in (project.cache / "incoming").glob("*"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > LEFT_BEHIND:
                old.unlink()


def stage(project: Project, name: str, source: Path) -> Path:
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


class Contents:
    """Files by their content; only those are read that have the size of another one."""

    def __init__(self) -> None:
        self._unread: dict[int, list[Path]] = defaultdict(list)
        self._read: dict[int, dict[bytes, Path]] = defaultdict(dict)

    def add(self, path: Path) -> None:
        """Count a file among them."""
        self._unread[path.stat().st_size].append(path)

    def find(self, path: Path) -> Path | None:
        """The file among them that has the same content as this one."""
        size = path.stat().st_size
        for other in self._unread.pop(size, []):
            with suppress(OSError):  # it has gone meanwhile
                self._read[size].setdefault(_digest(other), other)
        same = self._read.get(size)
        return same.get(_digest(path)) if same else None


def _digest(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
