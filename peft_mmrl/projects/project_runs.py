"""Trainings of a project: each in a process of its own, which goes on when the page is closed."""

from __future__ import annotations

import itertools
import os
import platform
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..data.folders import LINK, is_hidden, natural_key
from ..scoring.file_names import key_of_name
from ..training.checkpoints import is_checkpoint
from ..training.run_folder import CHECKPOINT, RUN_FILE, RunFolder
from ..training.under_way import is_held, read_under_way
from .better_names import NAMES_FILE, read_better_names
from .placing import is_plain
from .project import Project
from .project_folder import UNSHOWN
from .under_training import (
    ADAPTERS,
    LOGS,
    TrainingRecord,
    end_training,
    is_trained,
    lock_of,
    record_of,
    running_training,
)


OPTIONS = {  # of `peft-mmrl train` that a project's trainings may have, with the types of their values
    "method": str,
    "epochs": int,
    "batch_size": int,
    "learning_rate": float,
    "shots": int,
    "folds": int,
    "seed": int,
    "fit": str,
    "balance": bool,
    "cached_views": int,
    "checkpointing_steps": int,
}
HOLDING = (  # what `python -m peft_mmrl` does, with a lock from before it loads torch, which takes seconds
    "import runpy, sys; from filelock import FileLock; lock = FileLock(sys.argv.pop(1)); lock.acquire(); "
    "runpy.run_module('peft_mmrl', run_name='__main__', alter_sys=True)"
)
SHOWN_LINES = 40
PHASES = {
    "": "Looking at the pictures.",
    "looking": "Seeing how well it works without training.",
    "training": "Learning from your pictures.",
    "fold": "Checking how good it is: learning again without some of the pictures, and asking for those.",
    "writing": "Writing the report.",
}
CHANGED = "Pictures or classes were changed meanwhile, so that it cannot go on. Start a new training."
GONE = "A picture has gone that was there when the training began. Start a new training."
FAILURES = {  # parts of messages, and what they mean to somebody who has only pressed a button
    "at least two classes": "There must be pictures of at least two classes. Add some, then start a new training.",
    "are the same to the base model": "Two classes have the same name. Rename one, then start a new training.",
    "belongs to another run": CHANGED,
    "No space left": "The disk is full. Make room, then start it again.",
    "there is no such file": GONE,
    "No such file or directory": GONE,
    "out of memory": "There is too little memory. Close other programs, then start it again.",
    "couldn't connect": "The base model is not on this computer yet, and there is no connection to fetch it.",
    "is not a local folder and is not a valid model identifier": "The base model that this project names is nowhere.",
}


@dataclass(frozen=True)
class Status:
    """How a run is.

    Args:
        state: "running", "done", "stopped" (asked to) or "failed".
        words: what that means, and what can be done.
        share: of the work that is done, 0 to 1.
        seconds_left: None: not known.
        lines: the last that the training said.
    """

    state: str
    words: str
    share: float
    seconds_left: float | None = None
    lines: list[str] = field(default_factory=list)


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
    def is_done(self) -> bool:
        """Whether there is an adapter."""
        try:
            return bool(RunFolder(self.folder).files())
        except ValueError:
            return False

    @property
    def can_go_on(self) -> bool:
        """Whether `resume` has something to go on from."""
        record = TrainingRecord.read(record_of(self.project.folder, self.name))
        return record is not None and not self.is_done and is_checkpoint(self.folder / CHECKPOINT)

    def status(self) -> Status:
        """How it is just now; it may be asked at any time, by any process."""
        lines, under_way = self._lines(), read_under_way(self.folder)
        record = TrainingRecord.read(record_of(self.project.folder, self.name))
        is_cancelled = record is not None and record.is_cancelled
        if is_trained(self.project.folder, self.name):
            if under_way is None:
                under_way = {"phase": "writing", "share": 1.0} if self.is_done else {"share": 0.0}
            phase = str(under_way.get("phase", "")).split(" ")[0]
            words = "Stopping." if is_cancelled else PHASES.get(phase, PHASES[""])
            return Status("running", words, under_way["share"], under_way.get("seconds_left"), lines)
        if self.is_done:
            return Status("done", "Ready to be used.", 1.0, None, lines)
        share = 0.0 if under_way is None else under_way["share"]
        if record is not None and not is_cancelled:
            return Status("failed", self._why(lines), share, None, lines)
        words = "You stopped it." if is_cancelled else "It was started by a command, and has not ended well."
        return Status("stopped", f"{words} {self._way_on}", share, None, lines)

    @property
    def _way_on(self) -> str:
        return "It can go on where it was." if self.can_go_on else "It can be started again."

    def _why(self, lines: list[str]) -> str:
        """Why a training has failed, and what to do, from what it said."""
        said = [line for line in lines if line.startswith("error: ")]
        is_surprise = any(line.startswith("Traceback") for line in lines)
        if not said and not is_surprise:
            return (
                "It was ended from outside: the computer was switched off, say, or had too little memory. "
                f"{self._way_on}"
            )
        last = lines[-1] if is_surprise else said[-1].removeprefix("error: ")
        known = next((words for part, words in FAILURES.items() if part in last), None)
        return known or f"It ended with an error: {last} {self._way_on}"

    @property
    def _log(self) -> Path:
        """What it says."""
        return self.project.folder / LOGS / f"{self.name}.log"

    def _lines(self) -> list[str]:
        try:
            text = self._log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()][-SHOWN_LINES:]

    def cancel(self) -> None:
        """Ask the training to stop; the last checkpoint stays. One that has ended stays as it is."""
        folder, path = self.project.folder, record_of(self.project.folder, self.name)
        with self.project.locked():
            if is_trained(folder, self.name):
                end_training(folder, self.name)
                record = TrainingRecord.read(path)
                if record is not None:
                    replace(record, is_cancelled=True).write(path)

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
    return [Run(project, name) for name in sorted(names, key=lambda name: _age(project, name))]


def _age(project: Project, name: str) -> tuple[float, Any]:
    times = [0.0]
    for path in (project.adapters / name / RUN_FILE, record_of(project.folder, name)):
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            continue
    return -max(times), natural_key(name)


def start(project: Project, quick: bool = False, **options: Any) -> Run:
    """Begin a training.

    Args:
        project: whose classes are learned.
        quick: no training: how CLIP as it is decides, fitted in a moment.
        options: of `peft-mmrl train`, see `OPTIONS`.

    Raises:
        ValueError: there is nothing to learn from, another training runs, or an option that there is not.
        OSError: the project cannot be written to.
    """
    given = _as_arguments(options)
    with project.locked():
        _refuse_second(project)
        _check_pictures(project)
        run = Run(project, _free_run(project))
        _launch(run, [*given, "--quick"] if quick else given)
    return run


def resume(run: Run) -> Run:
    """Go on with a run that was stopped or has failed, or begin it again where there is no checkpoint.

    Raises:
        ValueError: it is done, it was started by a command, or another training runs.
        OSError: the project cannot be written to.
    """
    with run.project.locked():
        _refuse_second(run.project)
        if run.is_done:
            raise ValueError("This training has ended, and its result is there.")
        record = TrainingRecord.read(record_of(run.project.folder, run.name))
        if record is None:
            raise ValueError("This training was started by a command: go on with it there, or start a new one.")
        _check_pictures(run.project)
        # the latter, since there may be a part of the first checkpoint
        _launch(run, record.options, "--resume_from_checkpoint=latest" if run.can_go_on else "--overwrite_output_dir")
    return run


def _as_arguments(options: dict[str, Any]) -> list[str]:
    given = []
    for name, value in options.items():
        kind = OPTIONS.get(name)
        if kind is None:
            raise ValueError(f"There is no option {name!r} for a training here, only {', '.join(OPTIONS)}.")
        if value is None or value is False:
            continue
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise ValueError(f"`{name}` must be {kind.__name__}, got {value!r}.")
        given.append(f"--{name}" if value is True else f"--{name}={value}")
    return given


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


def _project_arguments(run: Run) -> list[str]:
    """What the project and its settings are to the command, wherever the folder lies by now."""
    project, settings = run.project, run.project.settings
    arguments = [
        f"--train_dir={project.pictures}",
        f"--output_dir={run.folder}",
        f"--base_model={settings.base_model}",
    ]
    if settings.template is not None:
        arguments.append(f"--template={settings.template}")
    if (project.folder / NAMES_FILE).is_file():
        arguments.append(f"--class_names={project.folder / NAMES_FILE}")
    return arguments


def _launch(run: Run, options: list[str], *more: str) -> None:
    """Start the command in a session of its own, so that neither Ctrl-C nor the page's end reaches it."""
    project, lock = run.project.folder, lock_of(run.project.folder, run.name)
    (project / LOGS).mkdir(exist_ok=True)
    arguments = [*_project_arguments(run), *options, *more]
    # -P: no module is taken from the project
    command = [sys.executable, "-P", "-c", HOLDING, str(lock), "train", *arguments]
    with open(run._log, "wb") as file:
        process = subprocess.Popen(
            command,
            cwd=project,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
        )
    TrainingRecord(options, process.pid, platform.node()).write(record_of(project, run.name))
    while process.poll() is None and not is_held(lock):  # from then on everybody sees that it runs
        time.sleep(0.02)
    threading.Thread(target=process.wait, daemon=True).start()  # so that it does not stay as a zombie
