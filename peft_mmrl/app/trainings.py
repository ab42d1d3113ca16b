"""Which training is meant: the newest one, unless somebody has chosen another."""

from __future__ import annotations

from typing import Any

from ..projects.project_runs import Run


NEWEST = "/newest"  # in place of a run's name, which has no slash


def training_choices(runs: list[Run]) -> list[tuple[str, str]]:
    """What can be chosen from, as words and value: the newest, whichever it will be, and the others by name.

    Args:
        runs: see `finished_runs`.
    """
    others = [(f"Training “{run.name}”", run.name) for run in runs[1:]]
    return [*((f"The newest training ({run.name})", NEWEST) for run in runs[:1]), *others]


def chosen_training(runs: list[Run], which: Any) -> Run:
    """The training that a choice means.

    Args:
        runs: see `finished_runs`.
        which: the name of one; `NEWEST` or None: the newest.

    Raises:
        ValueError: it has gone.
    """
    found = runs[:1] if which in (None, NEWEST) else [run for run in runs if run.name == which]
    if not found:
        raise ValueError("This training is not there any more: choose another one.")
    return found[0]
