"""How far a run is, in a small file of its folder while it runs: for whoever waits for it elsewhere.

That it runs is told by a lock beside that file, which the system releases when the process ends, however it does: no
clock and no number of a process, which another may have later, is asked.
"""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from .run_folder import NotWrittenError, read_json, write_json


UNDER_WAY_FILE, UNDER_WAY_LOCK = "under_way.json", "under_way.lock"
PAUSE = 0.5  # seconds between two writes
LOCK_PATIENCE = 10.0  # seconds to wait for a lock: for others who ask for it, and for helpers of a run that was killed
ASKING = 0.1  # seconds in which a lock must be free once: others who ask hold it for less than a thousandth of that


class UnderWay:
    """Keeps the file, and until `end` the lock; what cannot be written ends no run. An error ends it as a context.

    Work is counted in trainings on all pictures: a fold is a bit less than one.

    Args:
        path: of the file; None: nobody is told.
    """

    def __init__(self, path: Path | None) -> None:
        self.path, self.phase = path, ""
        self.lock: FileLock | None = None
        self.total, self.before, self.work = 1.0, 0.0, 0.0  # of the run, of phases that are over, of this phase
        self.start: tuple[float, float] | None = None  # when work began to be counted, and how much was done then
        self.written = 0.0

    def begin(self, phase: str, work: float = 0, then: float = 0) -> None:
        """Go on to the next phase.

        Args:
            phase: a word for it.
            work: that it is.
            then: work that comes after it.

        Raises:
            NotWrittenError: another run writes into the folder just now.
        """
        self._hold()
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
        """Take file and lock away."""
        if self.path is None:
            return
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        if self.lock is not None:
            with suppress(OSError):  # while it is held, so that nobody else's is taken away
                self.path.with_name(UNDER_WAY_LOCK).unlink()
            self.lock.release()
            self.lock = None

    def _hold(self) -> None:
        if self.path is None or self.lock is not None:
            return
        lock = FileLock(self.path.with_name(UNDER_WAY_LOCK), timeout=LOCK_PATIENCE, thread_local=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise NotWrittenError(f"Another run writes into {self.path.parent} just now.") from error
        except OSError:  # a disk that knows no locks, say
            return
        self.lock = lock

    def _write(self, share: float) -> None:
        if self.path is None:
            return
        done, now = self.before + share * self.work, time.monotonic()
        left = None
        if self.start is not None and done > self.start[1]:
            left = (now - self.start[0]) / (done - self.start[1]) * (self.total - done)
        content = {"phase": self.phase, "share": done / self.total if self.total else 1.0, "seconds_left": left}
        self.written = now
        with suppress(OSError):
            write_json(self.path, {**content, "process": os.getpid(), "computer": platform.node()})


def read_under_way(folder: Path) -> dict[str, Any] | None:
    """`phase`, `share` (0 to 1), `seconds_left` (None: not known yet), `process` and `computer` of a folder's run.

    None where none runs; one that was killed leaves its last state, see `is_held`.
    """
    with suppress(OSError, ValueError):
        found = read_json(folder / UNDER_WAY_FILE)
        return found if isinstance(found, dict) and isinstance(found.get("share"), int | float) else None
    return None


def is_held(path: Path) -> bool:
    """Whether a process holds a lock, by its file; where that cannot be told, no."""
    seen = _made(path)
    if seen is None:
        return False
    lock = FileLock(path, timeout=ASKING, poll_interval=ASKING / 10, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:
        return False
    if _made(path) != seen:  # the run took its own away just before, and asking has made another
        with suppress(OSError):  # while it is held, as in `end`
            path.unlink()
    lock.release()
    return False


def _made(path: Path) -> tuple[int, int] | None:
    """Which file that is, and of when; None: there is none."""
    with suppress(OSError):
        found = path.stat()
        return (found.st_ino, found.st_ctime_ns) if path.is_file() else None
    return None
