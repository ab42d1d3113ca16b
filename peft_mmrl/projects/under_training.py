"""Which process trains a project's adapter just now; its record lies beside what the training says."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

import psutil

from ..training.run_folder import read_json, write_json


LOGS = "logs"  # in the project: for each run its record, and what it said


@dataclass(frozen=True)
class TrainingRecord:
    """A process that trains.

    Args:
        arguments: of `peft-mmrl train`.
        process: its number, which another process may have after it.
        created: when it began, in seconds since 1970: with its number it is one of a kind.
        is_cancelled: whether it was asked to stop.
    """

    arguments: list[str]
    process: int
    created: float
    is_cancelled: bool = False

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The record in a file; None where there is none, or where it is damaged."""
        try:
            found = read_json(path)
            names = {field.name for field in fields(cls)}
            return cls(**{name: found[name] for name in names}) if isinstance(found, dict) else None
        except (ValueError, OSError, KeyError):
            return None

    def write(self, path: Path) -> None:
        """Put it into a file."""
        path.parent.mkdir(exist_ok=True)
        write_json(path, asdict(self))

    def running(self) -> psutil.Process | None:
        """The process, while it runs."""
        try:
            process = psutil.Process(self.process)
            alive = process.create_time() == self.created and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, ValueError, TypeError, OSError):
            return None
        return process if alive else None


def running_training(project: Path) -> str | None:
    """The name of the run that is being trained; None: none is."""
    folder = project / LOGS
    if not folder.is_dir() or folder.is_symlink():
        return None
    for path in folder.glob("*.json"):
        record = TrainingRecord.read(path)
        if record is not None and record.running() is not None:
            return path.stem
    return None


def refuse_while_training(project: Path) -> None:
    """Raise a ValueError while a training reads the pictures: one that has gone would end it."""
    if running_training(project) is not None:
        raise ValueError(
            "A training is looking at these pictures just now. New pictures can be added meanwhile; those that are "
            "there can be moved, renamed or taken out when it has ended, or when you stop it."
        )


def process_record(arguments: list[str], process: int) -> TrainingRecord:
    """The record of a process that has just begun."""
    try:
        created = psutil.Process(process).create_time()
    except psutil.Error:  # it has ended at once
        created = 0.0
    return TrainingRecord(arguments, process, created)


def log_of(project: Path, name: str) -> Path:
    """What a run says."""
    return project / LOGS / f"{name}.log"


def record_of(project: Path, name: str) -> Path:
    """Who trains a run."""
    return project / LOGS / f"{name}.json"
