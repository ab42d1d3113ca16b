"""Which process trains an adapter of a project just now, and where it and the project's page leave word."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

import psutil

from ..training.run_folder import read_json, write_json
from ..training.under_way import find_process, read_under_way


ADAPTERS, LOGS = "adapters", "logs"  # in a project: what is trained, and for each run its record and what it said


@dataclass(frozen=True)
class TrainingRecord:
    """A training that was started for a project.

    Args:
        options: of `peft-mmrl train`, without those that the project says.
        process: the number of its process, which another may have after it.
        created: when the process began, in seconds since 1970: with its number it is one of a kind.
        is_cancelled: whether it was asked to stop.
    """

    options: list[str]
    process: int
    created: float
    is_cancelled: bool = False

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The record in a file; None where there is none, or where it is damaged."""
        try:
            found = read_json(path)
            return None if found is None else cls(**{field.name: found[field.name] for field in fields(cls)})
        except (ValueError, OSError, KeyError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Put it into a file."""
        write_json(path, asdict(self))


def record_of(project: Path, name: str) -> Path:
    """The record of a run."""
    return project / LOGS / f"{name}.json"


def training_process(project: Path, name: str) -> psutil.Process | None:
    """The process that trains a run, whoever started it; None: none does.

    Args:
        project: its folder.
        name: of the run's folder.
    """
    record, under_way = TrainingRecord.read(record_of(project, name)), read_under_way(project / ADAPTERS / name)
    found = None if record is None else find_process(record.process, record.created)
    if found is None and under_way is not None:
        found = find_process(under_way.get("process"), under_way.get("created"))
    return found


def running_training(project: Path) -> str | None:
    """The name of the run that is trained just now; None: none is."""
    names = {path.stem for path in (project / LOGS).glob("*.json")}
    names |= {path.name for path in (project / ADAPTERS).glob("*")}
    return next((name for name in sorted(names) if training_process(project, name) is not None), None)


def refuse_while_training(project: Path) -> None:
    """Raise a ValueError while a training reads the pictures: one that has gone would end it."""
    if running_training(project) is not None:
        raise ValueError(
            "A training is looking at these pictures just now. New pictures can be added meanwhile; those that are "
            "there can be moved, renamed or taken out when it has ended, or when you stop it."
        )
