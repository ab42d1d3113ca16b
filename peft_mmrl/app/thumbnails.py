"""Small copies of pictures, the only ones that the page shows of what lies in the project."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import PIL.Image
import PIL.ImageDraw

from ..data import PictureError, read_picture
from ..projects.project import Project
from .places import THUMBNAILS
from .words import note


THUMBNAIL_SIDE = 160  # pixels of the longer side
LARGE_SIDE = 480  # of a picture that is asked about
THUMBNAIL_GROUND = (226, 232, 240)


def thumbnail(project: Project, picture: str, side: int = THUMBNAIL_SIDE) -> str:
    """The path of a small copy of a picture, made where there is none yet.

    Args:
        project: that it belongs to.
        picture: below the project's folder.
        side: pixels of the longer side.

    Raises:
        ValueError: see `Project.path`.
    """
    path = project.path(picture)
    try:
        state = path.stat()
        seen = f"{picture}|{side}|{state.st_size}|{state.st_mtime_ns}"
    except OSError:  # it was moved meanwhile
        seen = f"missing|{side}"
    small = project.folder / THUMBNAILS / f"{hashlib.sha256(os.fsencode(seen)).hexdigest()[:32]}.jpg"
    if not small.is_file():
        try:
            shown = read_picture(path)
            shown.thumbnail((side, side))
        except PictureError:
            shown = _unreadable(side)
        save_small(shown, small)
    return str(small)


def address(path: str) -> str:
    """Where the page finds a file that it may show."""
    return f"/gradio_api/file={quote(path)}"


def pictures_html(items: Iterable[tuple[str, str]], title: str, words: str = "") -> str:
    """Small pictures with words below each, under a heading; nothing where there are none.

    Args:
        items: for each picture its address, and the words as HTML.
        title: of all.
        words: below the title.
    """
    figures = "".join(
        f'<figure><img src="{source}" alt=""><figcaption>{caption}</figcaption></figure>' for source, caption in items
    )
    if not figures:
        return ""
    return f'<h3>{title}</h3>{note(words)}<div class="pictures">{figures}</div>'


def save_small(picture: PIL.Image.Image, path: Path) -> None:
    """Write a JPEG in one go: another tab may be reading it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{secrets.token_hex(8)}.jpg")
    picture.convert("RGB").save(part, quality=85)
    part.replace(path)


def _unreadable(side: int) -> PIL.Image.Image:
    picture = PIL.Image.new("RGB", (side, side), THUMBNAIL_GROUND)
    draw = PIL.ImageDraw.Draw(picture)
    draw.line((side // 4, side // 4, 3 * side // 4, 3 * side // 4), fill="gray", width=4)
    draw.line((side // 4, 3 * side // 4, 3 * side // 4, side // 4), fill="gray", width=4)
    return picture
