"""A trained adapter as one file: as it is, with its base model, or as a program that needs no PyTorch."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from ..fitting.why import WHY_LINES, WHY_PAGE
from ..hub.upload import ADAPTER_FILES
from ..scoring.held_out import COVERAGE, Confidence
from .project_runs import Run


KINDS = {  # what a zip holds, and the command that makes it
    "adapter": None,
    "program": "export",
    "bundle": "bundle",
}
ADAPTER_AND_REPORT = (*ADAPTER_FILES, "report/*")  # not what tells which pictures were trained on, and where they lie
LEFT_OUT = (WHY_PAGE, WHY_LINES)  # of the report: they name training pictures
LONGEST_COMMAND = 1800  # seconds that a command may take


def take_away(run: Run, kind: str, folder: Path) -> Path:
    """Write a zip, in one go.

    Args:
        run: that is done.
        kind: "adapter": what a push uploads, and its report; "program": what `peft-mmrl export` writes, which answers
            with sets of classes where enough pictures were held out; "bundle": what `peft-mmrl bundle` writes.
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
            _make(command, run, source, *(_rule(run) if command == "export" else ()))
        part = work.with_suffix(".zip")
        _zip(source, part, target.stem, ADAPTER_AND_REPORT if command is None else ("**/*",))
        part.replace(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        work.with_suffix(".zip").unlink(missing_ok=True)
    return target


def _rule(run: Run) -> list[str]:
    """The option that lets a program answer "cat or fox" where it must; none where that is not known."""
    try:
        aim = Confidence.load(run.folder).for_coverage()
    except (OSError, ValueError):
        return []
    return [] if aim.threshold is None else [f"--coverage={COVERAGE:g}"]


def _make(command: str, run: Run, target: Path, *options: str) -> None:
    """Run a command on an adapter; in a process of its own, as it takes much memory for a moment."""
    asked = [sys.executable, "-P", "-m", "peft_mmrl", command, str(run.folder), str(target), *options]
    given = {"capture_output": True, "text": True, "timeout": LONGEST_COMMAND, "cwd": run.project.folder}
    try:
        done = subprocess.run(asked, check=False, **given)
    except subprocess.TimeoutExpired:
        raise ValueError(f"It takes too long here: try `peft-mmrl {command}` on a faster computer.") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise ValueError(lines[-1].removeprefix("error: ") if lines else f"peft-mmrl {command} failed.")


def _zip(source: Path, target: Path, name: str, patterns: Sequence[str]) -> None:
    paths = sorted({path for pattern in patterns for path in source.glob(pattern)})
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
        for path in paths:
            is_hidden = any(part.startswith(".") for part in path.relative_to(source).parts)
            if path.is_file() and not path.is_symlink() and not is_hidden and path.name not in LEFT_OUT:
                file.write(path, f"{name}/{path.relative_to(source).as_posix()}")
