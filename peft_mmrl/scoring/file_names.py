"""Names of files and folders that are safe on every system, made of any text."""

from __future__ import annotations

import itertools
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator

from ..data.folders import is_hidden


LONGEST_NAME = 100  # bytes in UTF-8; systems take 255, and paths of 260 characters on Windows
LONGEST_FILE_NAME = 240  # of bytes with a number
JOINERS = "\u200c\u200d"  # invisible, and part of Persian words and of emoji
RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE)  # on Windows


def safe_name(text: str) -> str:
    """A name for a file or folder that Linux, macOS and Windows take as it is and show.

    Args:
        text: any; what is safe already, in any script, stays as it is.
    """
    kept = unicodedata.normalize("NFC", text)
    kept = "".join("_" if _is_unsafe(character) else character for character in kept)
    kept = " ".join(kept.split())
    kept = _shortened(kept, LONGEST_NAME).strip(f" .{JOINERS}")
    return f"_{kept}" if not kept or RESERVED.fullmatch(kept) or is_hidden(kept) else kept


def _is_unsafe(character: str) -> bool:
    if character in JOINERS or character.isspace():
        return False
    return character in '<>:"/\\|?*' or unicodedata.category(character).startswith("C")


def _shortened(text: str, most: int) -> str:
    """The beginning of a text, or of a file's name, which need not be Unicode, of at most so many bytes."""
    raw = text.encode("utf-8", "surrogateescape")
    return text if len(raw) <= most else raw[:most].decode("utf-8", "ignore")


def key_of_name(name: str) -> str:
    """Equal for names that some system takes for one: it may know neither capitals nor composed accents."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def folder_names(names: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """A safe name for each of several, no two of which are one on any system; later ones get a number.

    Args:
        names: to be made safe.
        taken: names that are in use.
    """
    used, folders = {key_of_name(name) for name in taken}, {}
    for name in names:
        folder = next(one for one in numbered(safe_name(name)) if key_of_name(one) not in used)
        used.add(key_of_name(folder))
        folders[name] = folder
    return folders


def numbered(stem: str, suffix: str = "") -> Iterator[str]:
    """A name, then the same with a number: `a.jpg`, `a-2.jpg`, `a-3.jpg` ..."""
    yield f"{stem}{suffix}"
    stem = _shortened(stem, LONGEST_FILE_NAME - len(os.fsencode(suffix)))
    yield from (f"{stem}-{number}{suffix}" for number in itertools.count(2))
