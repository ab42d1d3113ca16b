"""Where a file is put, so that nothing is overwritten and every system can read its name."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Collection
from pathlib import Path, PureWindowsPath

from ..scoring.file_names import JOINERS, key_of_name, numbered, safe_name
from ..tuner.names import spaced


LONGEST_CLASS_NAME = 100  # characters


class FreePlaces:
    """Free places for several files: each folder is read once, and a place that was given is taken."""

    def __init__(self) -> None:
        self._used: dict[Path, set[str]] = {}

    def near(self, wanted: Path, suffix: str | None = None) -> Path:
        """A place with a safe name, with a number where some system would take one that is there for the same.

        Args:
            wanted: the folder, which is there, and how somebody else calls the file; what stands before the last
                `\\` does not count.
            suffix: its extension, with the dot; None: as it is.
        """
        folder = wanted.parent
        if folder not in self._used:
            self._used[folder] = set(map(key_of_name, os.listdir(folder)))
        used = self._used[folder]
        stem, extension = os.path.splitext(PureWindowsPath(wanted.name).name or "_")
        extension = safe_suffix(extension) if suffix is None else suffix
        name = next(one for one in numbered(safe_name(stem), extension) if key_of_name(one) not in used)
        used.add(key_of_name(name))
        return folder / name


def safe_suffix(extension: str) -> str:
    """An extension of plain letters and digits in its own case, or none."""
    letters = extension[1:]
    return extension if letters.isascii() and letters.isalnum() and len(letters) <= 8 else ""


def place(source: Path, target: Path) -> None:
    """Rename a file to a name that is free, in a folder that is there.

    Raises:
        OSError: it is not free, or the file cannot be moved.
    """
    if os.path.lexists(target):
        raise FileExistsError(f"{target} is there already.")
    source.rename(target)


def clean_class_name(text: str) -> str:
    """A class name as people write it, in single blanks and without invisible characters.

    Raises:
        ValueError: nothing is left, or it is too long.
    """
    if not isinstance(text, str):
        raise ValueError(f"A class needs a name, got {text!r}.")
    kept = unicodedata.normalize("NFC", text)
    kept = "".join(letter for letter in kept if letter.isspace() or letter in JOINERS or not _is_invisible(letter))
    kept = " ".join(kept.split())
    if not any(unicodedata.category(letter)[0] in "LNS" for letter in spaced(kept)):
        raise ValueError("A class needs a name of letters or digits.")
    if len(kept) > LONGEST_CLASS_NAME:
        raise ValueError(
            f"A name of a class may have {LONGEST_CLASS_NAME} letters, and this one has {len(kept)}: shorten it."
        )
    return kept


def _is_invisible(letter: str) -> bool:
    return unicodedata.category(letter).startswith("C")


def is_plain(part: str) -> bool:
    """Whether a part of a path is a name that stands for nothing but itself and can be shown."""
    return (
        part not in ("", ".", "..")
        and "/" not in part
        and "\\" not in part
        and not PureWindowsPath(part).drive
        and not (os.name == "nt" and ":" in part)
        and not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in part)
    )


def find_place(folder: Path, relative: str, areas: Collection[str]) -> Path:
    """What a name in a request means below a folder, whether it is there or not.

    Args:
        folder: that nobody gets out of.
        relative: below it, with `/`.
        areas: folders in it that names may begin with.

    Raises:
        ValueError: it leads elsewhere, is no such name, or leads over a link.
    """
    nowhere = f"{relative!r} is no place in this project."
    parts = relative.split("/") if isinstance(relative, str) else [""]
    if not all(map(is_plain, parts)) or parts[0] not in areas:
        raise ValueError(nowhere)
    path = folder
    for part in parts:
        path = path / part
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue
        except OSError as error:  # below a file, or a name that is too long
            raise ValueError(nowhere) from error
        if stat.S_ISLNK(mode):
            raise ValueError(f"{relative!r} is a link to another place, which is not followed.")
    return path
