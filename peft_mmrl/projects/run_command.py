"""The command that trains for a project, in a process of its own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from ..training.under_way import UNDER_WAY_FILE, is_held
from .better_names import NAMES_FILE
from .project import Project
from .under_training import LOGS, TrainingRecord, lock_of, log_of, record_of


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


def as_arguments(options: dict[str, Any]) -> list[str]:
    """What options are to the command.

    Args:
        options: see `OPTIONS`; None and False: left out.

    Raises:
        ValueError: there is no such option, or its value is of another type.
    """
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


def launch(project: Project, name: str, options: list[str], *more: str) -> None:
    """Start the command in a session of its own, so that neither Ctrl-C nor the page's end reaches it.

    Args:
        project: that it trains for; its lock is held.
        name: of the run's folder.
        options: that its record keeps.
        more: others, for this time.
    """
    folder, lock = project.folder, lock_of(project.folder, name)
    (folder / LOGS).mkdir(exist_ok=True)
    with suppress(OSError):
        (project.adapters / name / UNDER_WAY_FILE).unlink(missing_ok=True)  # of a process that was killed
    arguments = [*_project_arguments(project, name), *options, *more]
    # -P: no module is taken from the project
    command = [sys.executable, "-P", "-c", HOLDING, str(lock), "train", *arguments]
    with open(log_of(folder, name), "wb") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
        )
    is_resumed = any(option.startswith("--resume_from_checkpoint") for option in more)
    record = TrainingRecord(options, process.pid, platform.node(), is_resumed=is_resumed, begun=time.time())
    record.write(record_of(folder, name))
    while process.poll() is None and not is_held(lock):  # from then on everybody sees that it runs
        time.sleep(0.02)
    threading.Thread(target=process.wait, daemon=True).start()  # so that it does not stay as a zombie


def _project_arguments(project: Project, name: str) -> list[str]:
    """What the project and its settings are to the command, wherever the folder lies by now."""
    settings = project.settings
    arguments = [
        f"--train_dir={project.pictures}",
        f"--output_dir={project.adapters / name}",
        f"--base_model={settings.base_model}",
    ]
    if settings.template is not None:
        arguments.append(f"--template={settings.template}")
    if (project.folder / NAMES_FILE).is_file():
        arguments.append(f"--class_names={project.folder / NAMES_FILE}")
    return arguments
