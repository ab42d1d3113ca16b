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
from typing import Any

import PIL
import PIL.Image
from huggingface_hub import constants

from .pictures import STRAY, PictureFacts


FILE = Path(constants.HF_HOME, "peft_mmrl", "pictures.sqlite")
TABLE = "CREATE TABLE IF NOT EXISTS pictures (key TEXT PRIMARY KEY, facts TEXT) WITHOUT ROWID"
RULES = 2  # to be raised when facts are found in another way


def key_of(image: Any) -> str | None:
    """What tells a picture, as it is, from all others: its file with size and times, or the bytes that it consists of.

    Args:
        image: a value of an undecoded `datasets.Image` column; None where a row has none.

    Returns:
        None: there is no such file.
    """
    if image is None:
        return None
    by = [RULES, STRAY, PIL.__version__, PIL.Image.MAX_IMAGE_PIXELS]
    if image.get("bytes") is not None:
        by += [hashlib.blake2b(image["bytes"], digest_size=16).hexdigest()]
    else:
        try:
            status = os.stat(image["path"])
        except (OSError, ValueError, TypeError):
            return None
        by += [os.path.realpath(image["path"]), status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return hashlib.blake2b(json.dumps(by).encode(), digest_size=16).hexdigest()


def recall(keys: Sequence[str | None]) -> list[PictureFacts | None]:
    """What is known of each picture; None: nothing."""
    try:
        known = _connect(FILE, os.getpid())
        rows = [known.execute("SELECT facts FROM pictures WHERE key = ?", (key,)).fetchone() for key in keys]
    except sqlite3.Error:
        return [None] * len(keys)
    return [None if row is None else _facts(*json.loads(row[0])) for row in rows]


def remember(facts: Mapping[str, PictureFacts]) -> None:
    """Keep what was found, for pictures that can be read; a file that cannot be written is no error."""
    rows = [(key, json.dumps(astuple(found))) for key, found in facts.items()]
    with suppress(sqlite3.Error):
        known = _connect(FILE, os.getpid())
        with known:
            known.executemany("INSERT OR REPLACE INTO pictures VALUES (?, ?)", rows)


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
