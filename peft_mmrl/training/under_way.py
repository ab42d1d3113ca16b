"""How far a run is, in a small file of its folder while it runs: for whoever waits for it elsewhere."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil

from .run_folder import read_json, write_json


UNDER_WAY_FILE = "under_way.json"
PAUSE = 0.5  # seconds between two writes


class UnderWay:
    """Keeps the file; what cannot be written ends no run. As a context it is ended by an error.

    Work is counted in trainings on all pictures: a fold is a bit less than one.

    Args:
        path: of the file; None: nobody is told.
    """

    def __init__(self, path: Path | None) -> None:
        self.path, self.phase = path, ""
        self.total, self.before, self.work = 1.0, 0.0, 0.0  # of the run, of phases that are over, of this phase
        self.start: tuple[float, float] | None = None  # when work began to be counted, and how much was done then
        self.written = 0.0

    def begin(self, phase: str, work: float = 0, then: float = 0) -> None:
        """Go on to the next phase.

        Args:
            phase: a word for it.
            work: that it is.
            then: work that comes after it.
        """
        self.before += self.work
        self.phase, self.work, self.total = phase, work, self.before + work + then
        self._write(0)

    def at(self, share: float) -> None:
        """Say how much of the phase is done, 0 to 1."""
        done, now = self.before + share * self.work, time.monotonic()
        if self.start is None:
            self.start = now, done
        if now - self.written >= PAUSE:
            self._write(share)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: object, *more: object) -> None:
        if error is not None:
            self.end()

    def end(self) -> None:
        """Take the file away."""
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)

    def _write(self, share: float) -> None:
        if self.path is None:
            return
        done, now = self.before + share * self.work, time.monotonic()
        left = None
        if self.start is not None and done > self.start[1]:
            left = (now - self.start[0]) / (done - self.start[1]) * (self.total - done)
        content = {"phase": self.phase, "share": done / self.total if self.total else 1.0, "seconds_left": left}
        self.written = now
        with suppress(OSError, psutil.Error):
            write_json(self.path, {**content, "process": os.getpid(), "created": psutil.Process().create_time()})


def read_under_way(folder: Path) -> dict[str, Any] | None:
    """`phase`, `share` (0 to 1), `seconds_left` (None: not known yet), `process` and `created` of a folder's run.

    None where none runs; one that was killed leaves its last state, see `find_process`.
    """
    with suppress(OSError, ValueError):
        found = read_json(folder / UNDER_WAY_FILE)
        return found if isinstance(found, dict) and isinstance(found.get("share"), int | float) else None
    return None


def find_process(number: int, created: float) -> psutil.Process | None:
    """A process, while it runs; the time when it began tells it from a later one of the same number."""
    try:
        process = psutil.Process(number)
        is_it = process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError, TypeError, OSError):
        return None
    return process if is_it else None
