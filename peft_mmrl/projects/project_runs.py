"""Trainings of a project: each in a process of its own, which goes on when the page is closed."""

from __future__ import annotations

import itertools
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..data.folders import LINK, is_hidden, natural_key
from ..scoring.file_names import key_of_name
from ..training.run_folder import CHECKPOINT, RUN_FILE, RunFolder
from ..training.under_way import read_under_way
from .better_names import read_better_names
from .going_on import is_as_then, run_of_checkpoint
from .placing import is_plain
from .project import Project
from .project_folder import UNSHOWN
from .run_command import as_arguments, launch
from .run_words import CHANGED, phase_words, why_failed
from .under_training import (
    ADAPTERS,
    LOGS,
    TrainingRecord,
    end_training,
    is_trained,
    log_of,
    record_of,
    running_training,
)


SHOWN_LINES = 40
BY_COMMAND = "This training was started by a command, and has not ended well"


@dataclass(frozen=True)
class Status:
    """How a run is.

    Args:
        state: "running", "done", "stopped" (asked to) or "failed".
        words: what that means, and what can be done.
        share: of the work that is done, 0 to 1.
        seconds_left: None: not known.
        lines: the last that the training said.
        can_go_on: see `Run.can_go_on`; of one that was stopped or has failed.
    """

    state: str
    words: str
    share: float
    seconds_left: float | None = None
    lines: list[str] = field(default_factory=list)
    can_go_on: bool = False


@dataclass(frozen=True)
class Run:
    """A training of a project, also one that was started by a command in a shell.

    Args:
        project: that it belongs to.
        name: of its folder in `adapters/`.

    Raises:
        ValueError: the name leads elsewhere.
    """

    project: Project
    name: str

    def __post_init__(self) -> None:
        if not is_plain(self.name):
            raise ValueError(f"{self.name!r} is no run of this project.")
        self.project.path(f"{ADAPTERS}/{self.name}")

    @property
    def folder(self) -> Path:
        """Where the adapter is, or is going to be."""
        return self.project.adapters / self.name

    @property
    def description(self) -> dict[str, Any]:
        """What it says of itself, see `fitting.folder.describe_run`; nothing where that is missing or damaged."""
        try:
            return RunFolder(self.folder).description() or {}
        except ValueError:
            return {}

    @property
    def is_done(self) -> bool:
        """Whether there is an adapter."""
        try:
            return bool(RunFolder(self.folder).files())
        except ValueError:
            return False

    @property
    def is_quick(self) -> bool:
        """Whether it was fitted without training."""
        return bool(self.description.get("quick"))

    @property
    def can_go_on(self) -> bool:
        """Whether `resume` has something to go on from, which pictures and classes still fit."""
        record = TrainingRecord.read(record_of(self.project.folder, self.name))
        checkpoint = None if record is None or self.is_done else run_of_checkpoint(self.folder / CHECKPOINT)
        return checkpoint is not None and is_as_then(self.project, checkpoint)

    def status(self) -> Status:
        """How it is just now; it may be asked at any time, by any process."""
        is_live = is_trained(self.project.folder, self.name)  # asked first: what it says last is read after it
        lines, under_way = self._lines(), read_under_way(self.folder)
        record = TrainingRecord.read(record_of(self.project.folder, self.name))
        is_cancelled = record is not None and record.is_cancelled
        if is_live:
            if under_way is None:
                under_way = {"phase": "writing", "share": 1.0} if self.is_done else {"share": 0.0}
            words = "Stopping." if is_cancelled else phase_words(str(under_way.get("phase", "")))
            return Status("running", words, under_way["share"], under_way.get("seconds_left"), lines)
        if self.is_done:
            return Status("done", "Ready to be used.", 1.0, None, lines)
        share = 0.0 if under_way is None else under_way["share"]
        if record is None:
            return Status("stopped", f"{BY_COMMAND}: go on with it there, or start a new one.", share, None, lines)
        can_go_on = self.can_go_on
        way_on = self._way_on(can_go_on)
        if is_cancelled:
            return Status("stopped", f"You stopped it. {way_on}", share, None, lines, can_go_on)
        return Status("failed", why_failed(lines, way_on), share, None, lines, can_go_on)

    @property
    def seconds(self) -> float | None:
        """How long it took, where it has ended well, at one go, and was started from here; None: that is not known."""
        record = TrainingRecord.read(record_of(self.project.folder, self.name))
        if record is None or record.is_resumed:
            return None
        try:
            found = (self.folder / RUN_FILE).stat().st_mtime - record.begun
        except (OSError, TypeError):  # of an older version, or damaged
            return None
        return found if self.is_done and found > 0 else None  # a clock may have been set back meanwhile

    def _way_on(self, can_go_on: bool) -> str:
        if can_go_on:
            return "It can go on where it was."
        is_lost = run_of_checkpoint(self.folder / CHECKPOINT) is not None
        return CHANGED if is_lost else "It can be started again."

    def _lines(self) -> list[str]:
        try:
            text = log_of(self.project.folder, self.name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()][-SHOWN_LINES:]

    def cancel(self) -> None:
        """Ask the training to stop; the last checkpoint stays. One that has ended stays as it is.

        Raises:
            ValueError: it runs elsewhere.
            OSError: the project cannot be written to.
        """
        folder, path = self.project.folder, record_of(self.project.folder, self.name)
        with self.project.locked():
            record = TrainingRecord.read(path)
            if not is_trained(folder, self.name):
                return
            if record is not None:
                replace(record, is_cancelled=True).write(path)  # before, so that it is not taken for a failure
            try:
                end_training(folder, self.name)
            except ValueError:
                if record is not None:
                    record.write(path)
                raise

    def wait(self, seconds: float) -> Status:
        """Its status when it has ended, or after so many seconds."""
        end = time.monotonic() + seconds
        while (status := self.status()).state == "running" and time.monotonic() < end:
            time.sleep(0.1)
        return status


def project_runs(project: Project) -> list[Run]:
    """All runs, also those that were started by a command, the newest first."""
    names = {path.stem for path in (project.folder / LOGS).glob("*.json")}
    names |= {path.name for path in project.adapters.glob("*") if (path / RUN_FILE).is_file()}
    names = {name for name in names if is_plain(name) and not is_hidden(name)}
    names = {name for name in names if not (project.adapters / name).is_symlink()}
    by_name = sorted(names, key=natural_key, reverse=True)  # in a copy of a project all may be of one time
    return [Run(project, name) for name in sorted(by_name, key=lambda name: _time_of(project, name), reverse=True)]


def finished_runs(project: Project) -> list[Run]:
    """The runs that have ended well, the newest first; after them those that were fitted without training."""
    return sorted((run for run in project_runs(project) if run.is_done), key=lambda run: run.is_quick)


def newest_training(project: Project) -> Run | None:
    """What the page calls the newest training: the first one of `finished_runs`; None: there is none."""
    return next(iter(finished_runs(project)), None)


def run_of_now(project: Project) -> Run | None:
    """The run that is trained just now, whatever has been written since by others, or else the newest one.

    Returns:
        None: there is none.
    """
    name = running_training(project.folder)
    if name is not None:
        with suppress(ValueError):  # a name, or a link, that leads elsewhere: nothing is done there
            return Run(project, name)
    return next(iter(project_runs(project)), None)


def _time_of(project: Project, name: str) -> float:
    times = [0.0]
    for path in (project.adapters / name / RUN_FILE, record_of(project.folder, name)):
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            continue
    return max(times)


def start(project: Project, **options: Any) -> Run:
    """Begin a training.

    Args:
        project: whose classes are learned.
        options: of `peft-mmrl train`, see `run_command.OPTIONS`.

    Raises:
        ValueError: there is nothing to learn from, another training runs, or an option that there is not.
        OSError: the project cannot be written to.
    """
    given = as_arguments(options)
    with project.locked():
        _refuse_second(project)
        _check_pictures(project)
        run = Run(project, _free_run(project))
        launch(project, run.name, given)
    return run


def resume(run: Run) -> Run:
    """Go on with a run that was stopped or has failed, or begin it again where there is no checkpoint.

    Raises:
        ValueError: it is done, it was started by a command, another training runs, or pictures or classes were changed
            since its checkpoint, which is kept.
        OSError: the project cannot be written to.
    """
    with run.project.locked():
        _refuse_second(run.project)
        if run.is_done:
            raise ValueError("This training has ended, and its result is there.")
        record = TrainingRecord.read(record_of(run.project.folder, run.name))
        if record is None:
            raise ValueError(f"{BY_COMMAND}: go on with it there, or start a new one.")
        _check_pictures(run.project)
        checkpoint = run_of_checkpoint(run.folder / CHECKPOINT)
        if checkpoint is not None and not is_as_then(run.project, checkpoint):
            raise ValueError(CHANGED)
        # the former, since there may be a part of the first checkpoint
        way_on = "--overwrite_output_dir" if checkpoint is None else "--resume_from_checkpoint=latest"
        launch(run.project, run.name, record.options, way_on)
    return run


def _refuse_second(project: Project) -> None:
    name = running_training(project.folder)
    if name is not None:
        raise ValueError(f"A training runs already ({name}): wait until it has ended, or stop it.")


def _check_pictures(project: Project) -> None:
    """Raise a ValueError, in words, for what a training would refuse, or what leads out of the project."""
    skipped = [(path, LINK) for path in project.pictures.glob("*") if path.is_symlink()]
    filled = [
        name
        for name in project.class_folders()
        if project.pictures_in(project.pictures / name, lambda *found: skipped.append(found))
    ]
    for path, reason in skipped:
        if reason in (LINK, UNSHOWN):  # the command would take it all the same
            advice = "put the picture or folder itself there" if reason == LINK else "rename it"
            raise ValueError(f"{project.relative(path)!a}: {reason}: {advice}, or take it away.")
    if len(filled) < 2:
        raise ValueError(
            "There must be pictures of at least two classes, so that there is something to tell apart: "
            f"{'one class has' if filled else 'none has'} pictures so far."
        )
    read_better_names(project.folder, project.class_folders())


def _free_run(project: Project) -> str:
    paths = [*project.adapters.glob("*"), *(project.folder / LOGS).glob("*")]
    used = {key_of_name(name) for path in paths for name in (path.name, path.stem)}
    return next(name for number in itertools.count(1) if (name := f"run-{number}") not in used)
