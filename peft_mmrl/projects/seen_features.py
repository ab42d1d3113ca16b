"""What frozen CLIP sees in pictures, kept in the project so that no picture is looked at twice."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch


FEATURES_FILE = "features.sqlite"
FEATURES_TABLE = (
    "CREATE TABLE IF NOT EXISTS seen (seen_by TEXT, digest TEXT, row BLOB, PRIMARY KEY (seen_by, digest)) "
    "WITHOUT ROWID"
)


def key_of_seeing(seen_by: Mapping[str, Any]) -> str:
    """64 hex digits for what [`~peft_mmrl.scoring.reference.seeing`] gives."""
    return hashlib.sha256(json.dumps(seen_by, sort_keys=True).encode()).hexdigest()


class SeenFeatures:
    """Rows of numbers by the content of a picture, for one way of seeing; on the disk where that can be written.

    Args:
        folder: of the file; it is made, and may be deleted at any time.
        seen_by: what the rows depend on, see `key_of_seeing`.
    """

    def __init__(self, folder: Path, seen_by: str) -> None:
        self.file, self.seen_by = folder / FEATURES_FILE, seen_by
        self._lock = threading.Lock()
        self._rows: dict[str, torch.Tensor] = {}
        with suppress(OSError, sqlite3.Error), closing(self._connect()) as known:
            for digest, row in known.execute("SELECT digest, row FROM seen WHERE seen_by = ?", (self.seen_by,)):
                self._rows[digest] = torch.from_numpy(np.frombuffer(row, np.float32).copy())

    def get(self, digest: str) -> torch.Tensor | None:
        """The row of the picture with this content; None: it was not looked at."""
        return self._rows.get(digest)

    def add(self, rows: Mapping[str, torch.Tensor]) -> None:
        """Keep rows, fp32, by the content of their pictures."""
        content = [(self.seen_by, digest, row.numpy().tobytes()) for digest, row in rows.items()]
        with self._lock:
            self._rows.update(rows)
            with suppress(OSError, sqlite3.Error), closing(self._connect()) as known, known:
                known.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", content)

    def _connect(self) -> sqlite3.Connection:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        known = sqlite3.connect(self.file)
        known.execute(FEATURES_TABLE)
        return known
