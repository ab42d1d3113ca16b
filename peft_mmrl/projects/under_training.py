"""Which process trains an adapter of a project just now, and where it and the project's page leave word."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

import psutil

from ..training.run_folder import read_json, write_json
from ..training.under_way import UNDER_WAY_LOCK, is_held, read_under_way


ADAPTERS, LOGS = "adapters", "logs"  # in a project: what is trained, and for each run its record and what it said


@dataclass(frozen=True)
class TrainingRecord:
    """A training that was started for a project.

    Args:
        options: of `peft-mmrl train`, without those that the project says.
        process: the number of its process, which another may have after it.
        computer: that it runs on.
        is_cancelled: whether it was asked to stop.
        is_resumed: whether it went on from a checkpoint.
        begun: when, in seconds since 1970; None: not known.
    """

    options: list[str]
    process: int
    computer: str = ""
    is_cancelled: bool = False
    is_resumed: bool = False
    begun: float | None = None

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The record in a file; None where there is none, or where it is damaged."""
        try:
            found = read_json(path)
            names = {field.name for field in fields(cls)}
            return None if found is None else cls(**{name: found[name] for name in found if name in names})
        except (ValueError, OSError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Put it into a file."""
        write_json(path, asdict(self))


def record_of(project: Path, name: str) -> Path:
    """The record of a run."""
    return project / LOGS / f"{name}.json"


def log_of(project: Path, name: str) -> Path:
    """What a run says that was started for the project."""
    return project / LOGS / f"{name}.log"


def lock_of(project: Path, name: str) -> Path:
    """What the process of a run that was started for the project holds, from its first moment to its last."""
    return project / LOGS / f"{name}.lock"


def is_trained(project: Path, name: str) -> bool:
    """Whether a process trains a run just now, whoever started it.

    Args:
        project: its folder.
        name: of the run's folder.
    """
    return is_held(lock_of(project, name)) or is_held(project / ADAPTERS / name / UNDER_WAY_LOCK)


def end_training(project: Path, name: str) -> None:
    """Ask the process that trains a run to end, as Ctrl-C would; where none does, nothing happens.

    Args:
        project: its folder.
        name: of the run's folder.

    Raises:
        ValueError: it cannot be ended from here.
    """
    if is_held(lock_of(project, name)) and (record := TrainingRecord.read(record_of(project, name))) is not None:
        number, computer = record.process, record.computer
    elif is_held(project / ADAPTERS / name / UNDER_WAY_LOCK):
        found = read_under_way(project / ADAPTERS / name) or {}
        number, computer = found.get("process"), found.get("computer")
    else:
        return
    if computer != platform.node():
        raise ValueError(f"This training runs on another computer ({computer}): stop it there.")
    try:
        psutil.Process(number).terminate()
    except psutil.NoSuchProcess:  # it has just ended
        return
    except (psutil.Error, TypeError, ValueError, OSError) as error:
        raise ValueError(
            f"This training cannot be stopped from here ({error}): stop it where it was started."
        ) from error


def running_training(project: Path) -> str | None:
    """The name of the run that is trained just now; None: none is."""
    names = {path.stem for path in (project / LOGS).glob("*.lock")}
    names |= {path.name for path in (project / ADAPTERS).glob("*")}
    return next((name for name in sorted(names) if is_trained(project, name)), None)


def refuse_while_training(project: Path) -> None:
    """Raise a ValueError while a training reads the pictures: one that has gone would end it."""
    if running_training(project) is not None:
        raise ValueError(
            "A training is looking at these pictures just now. New pictures can be added meanwhile; those that are "
            "there can be moved, renamed or taken out when it has ended, or when you stop it."
        )
