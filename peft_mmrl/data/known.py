"""What is known of pictures from before, so that a file that did not change is not decoded again to be checked."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import PIL
import PIL.Image
from huggingface_hub import constants

from .pictures import STRAY, PictureFacts


FILE = Path(constants.HF_HOME, "peft_mmrl", "pictures.sqlite")
TABLE = "CREATE TABLE IF NOT EXISTS known (place TEXT PRIMARY KEY, state TEXT, facts TEXT) WITHOUT ROWID"
RULES = 2  # to be raised when facts are found in another way


class Key(NamedTuple):
    """What tells a picture, as it is, from all others.

    Args:
        place: of its file, or of the bytes that it consists of.
        state: size and times of the file, and how facts were found: a file that changed has another.
    """

    place: str
    state: str


def key_of(image: Any) -> Key | None:
    """The key of a picture.

    Args:
        image: a value of an undecoded `datasets.Image` column; None where a row has none.

    Returns:
        None: there is no such file.
    """
    if image is None:
        return None
    by = [RULES, STRAY, PIL.__version__, PIL.Image.MAX_IMAGE_PIXELS]
    if image.get("bytes") is not None:
        return Key(_digest(image["bytes"]), json.dumps(by))
    try:
        status = os.stat(image["path"])
    except (OSError, ValueError, TypeError):
        return None
    by += [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return Key(_digest(os.fsencode(os.path.realpath(image["path"]))), json.dumps(by))


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def recall(keys: Sequence[Key | None]) -> list[PictureFacts | None]:
    """What is known of each picture; None: nothing."""
    wanted = "SELECT facts FROM known WHERE place = ? AND state = ?"
    try:
        known = _connect(FILE, os.getpid())
        rows = [key and known.execute(wanted, key).fetchone() for key in keys]
    except sqlite3.Error:
        return [None] * len(keys)
    return [None if row is None else _facts(*json.loads(row[0])) for row in rows]


def remember(facts: Mapping[Key, PictureFacts]) -> None:
    """Keep what was found, for pictures that can be read, in place of what was known of the same file before.

    A database that cannot be written is no error.
    """
    rows = [(*key, json.dumps(astuple(found))) for key, found in facts.items()]
    with suppress(sqlite3.Error):
        known = _connect(FILE, os.getpid())
        with known:
            known.executemany("INSERT OR REPLACE INTO known VALUES (?, ?, ?)", rows)


@cache
def _connect(path: Path, process: int) -> sqlite3.Connection:
    """The file, or where it cannot be written this process' memory; connections do not survive a fork."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        known = sqlite3.connect(path, check_same_thread=False)
        known.execute(TABLE)
    except (sqlite3.Error, OSError):
        known = sqlite3.connect(":memory:", check_same_thread=False)
        known.execute(TABLE)
    return known


def _facts(width: int, height: int, values: list[float] | None, *others: Any) -> PictureFacts:
    return PictureFacts(width, height, None if values is None else (values[0], values[1]), *others)
