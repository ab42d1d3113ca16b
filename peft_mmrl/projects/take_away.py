"""A trained adapter as one file: as it is, with its base model, or as a program that needs no PyTorch."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from ..training.run_folder import CHECKPOINT
from .project_runs import Run


KINDS = {  # what a zip holds, and the command that makes it
    "adapter": None,
    "program": "export",
    "bundle": "bundle",
}
LONGEST_COMMAND = 1800  # seconds that a command may take


def take_away(run: Run, kind: str, folder: Path) -> Path:
    """Write a zip, in one go.

    Args:
        run: that is done.
        kind: "adapter": its files, without checkpoints; "program": what `peft-mmrl export` writes; "bundle": what
            `peft-mmrl bundle` writes.
        folder: to write to.

    Returns:
        The zip.

    Raises:
        ValueError: there is no adapter, or no such kind; or what the command says.
        OSError: it cannot be written.
    """
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(KINDS)}, got {kind!r}.")
    if not run.is_done:
        raise ValueError("There is nothing to take away before a training has ended.")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{run.project.folder.name}-{run.name}-{kind}.zip"
    work = folder / f".{secrets.token_hex(8)}"
    try:
        source, command = run.folder, KINDS[kind]
        if command is not None:
            source = work / "made"
            work.mkdir()
            _make(command, run, source)
        part = work.with_suffix(".zip")
        _zip(source, part, target.stem)
        part.replace(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        work.with_suffix(".zip").unlink(missing_ok=True)
    return target


def _make(command: str, run: Run, target: Path) -> None:
    """Run a command on an adapter; in a process of its own, as it takes much memory for a moment."""
    asked = [sys.executable, "-P", "-m", "peft_mmrl", command, str(run.folder), str(target)]
    done = subprocess.run(
        asked, capture_output=True, text=True, timeout=LONGEST_COMMAND, cwd=run.project.folder, check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise ValueError(lines[-1].removeprefix("error: ") if lines else f"peft-mmrl {command} failed.")


def _zip(source: Path, target: Path, name: str) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
        for folder, folders, names in os.walk(source):
            folders[:] = sorted(one for one in folders if not one.startswith((".", CHECKPOINT)))
            for one in sorted(names):
                path = Path(folder) / one
                if not one.startswith(".") and not path.is_symlink():
                    file.write(path, f"{name}/{path.relative_to(source).as_posix()}")
