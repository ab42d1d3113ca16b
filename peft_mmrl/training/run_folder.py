"""The folder of a run: what it says about itself, which files are its own, and how new ones take their place.

A run owns the files that its `run.json` lists, and no others: what else lies in its folder is never touched. Its
results are written beside those that are there (`.unfinished`) and moved into place when all of them are whole.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from accelerate import Accelerator, PartialState
from safetensors import SafetensorError


RUN_FILE, CHECKPOINT = "run.json", "checkpoint"
UNFINISHED, REPLACED = ".unfinished", ".replaced"
FILES = "files"  # in run.json: paths below the folder; those of a run that is not finished are none


def read_json(path: Path) -> Any:
    """The content of a file; None where there is none.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: it is no JSON ({error}).") from error


def write_json(path: Path, content: Any) -> None:
    """Write a file that is either the new one or the old one, and never a part.

    Raises:
        OSError: it cannot be written; the message names it.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with writing(path):
            part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink()


class NotWrittenError(OSError):
    """A file or folder that cannot be written; the message names it."""


@contextmanager
def writing(
    path: Path, errors: tuple[type[Exception], ...] = (OSError, RuntimeError, SafetensorError)
) -> Iterator[None]:
    """Let whatever a library raises where it cannot write be a `NotWrittenError`.

    Args:
        path: the file or folder, where the error itself names none.
        errors: what counts; torch and safetensors have errors of their own.
    """
    try:
        yield
    except NotWrittenError:
        raise
    except errors as error:
        reason, name = getattr(error, "strerror", None) or str(error), getattr(error, "filename", None) or path
        raise NotWrittenError(f"{name} cannot be written: {reason}.") from error


class RunFolder:
    """The output folder of a run.

    Args:
        path: the folder, which may be missing.
        argument: what users name it with.
    """

    def __init__(self, path: str | os.PathLike[str], argument: str = "--output_dir") -> None:
        self.path, self.argument = Path(path), argument

    def description(self) -> dict[str, Any] | None:
        """What the run that is there says of itself, with its `kind` and its `files`; None where there is none."""
        found = read_json(self.path / RUN_FILE)
        return found if isinstance(found, dict) else None

    def files(self) -> list[str]:
        """The files of the finished run that is there, as paths below the folder."""
        listed = (self.description() or {}).get(FILES) or []
        return [name for name in listed if isinstance(name, str) and self._is_inside(name)]

    def is_empty(self) -> bool:
        """Whether there is nothing, or not even the folder."""
        return not self.path.exists() or not any(self.path.iterdir())

    def check(self, kind: str, *, overwrite: bool = False, advice: str = "", own: Iterable[str] = ()) -> None:
        """Refuse a folder in which something would be lost.

        Args:
            kind: of run: one is never replaced by another.
            overwrite: a run that is there may be replaced.
            advice: what to do otherwise where there is a run, "go on with ..., ".
            own: names that a run of this kind gives to its files: nobody else's may be there.

        Raises:
            ValueError: a file, a folder with other things in it, or a run that is not to be replaced.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.argument} {self.path} is a file.")
        if self.is_empty():
            return
        found = (self.description() or {}).get("kind")
        if found != kind:
            what = f"the {found} of another script" if found else "other things"
            raise ValueError(f"{self.argument} {self.path} is not empty, it holds {what}: choose another folder.")
        if not overwrite and not self._is_nothing_lost():
            raise ValueError(
                f"{self.argument} {self.path} holds a run already: {advice}replace it with --overwrite_output_dir, or "
                "choose another folder."
            )
        self._refuse_foreign(own)

    def _is_nothing_lost(self) -> bool:
        """Whether a run began here and left nothing."""
        return (self.description() or {}).get(FILES) == [] and not any(self.path.glob(f"{CHECKPOINT}*"))

    def _refuse_foreign(self, names: Iterable[str]) -> None:
        listed = set(self.files())
        foreign = [name for name in names if name not in listed and os.path.lexists(self.path / name)]
        if foreign:
            raise ValueError(
                f"{self.argument} {self.path} holds {', '.join(foreign)}, which no run has written and which would be "
                "replaced: move it away, or choose another folder."
            )

    def check_inputs(self, pictures: Mapping[str, Any] = {}, others: Mapping[str, Any] = {}) -> None:
        """Refuse inputs that lie where the run writes, and a run among the pictures: the next would see another class.

        Args:
            pictures: folders of pictures, by argument; what is None or not on this machine does not count.
            others: further files and folders that are read.

        Raises:
            ValueError: names the argument.
        """
        output = self.path.resolve()
        for argument, given in {**pictures, **others}.items():
            if given is None or not os.path.exists(given):
                continue
            place = Path(given).resolve()
            if place.is_relative_to(output):
                where = f"{argument} {given} lies in {self.argument} {self.path}, where files are replaced"
                raise ValueError(f"{where}: choose another folder.")
            if argument in pictures and place.is_dir() and output.is_relative_to(place):
                where = f"{self.argument} {self.path} lies in {argument} {given}, whose folders are classes"
                raise ValueError(f"{where}: choose another folder.")

    def start(self, run: Mapping[str, Any], accelerator: Accelerator | PartialState) -> None:
        """Make the folder and say in it what run it is for; a finished run that is there stays until `finish`.

        Args:
            run: what makes its result what it is, with its `kind`.
            accelerator: the main process writes.

        Raises:
            OSError: the folder cannot be written to, or the processes do not see the same one.
        """
        accelerator.wait_for_everyone()  # all have read what is there
        if accelerator.is_main_process:
            with writing(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.path / RUN_FILE, self.description() if self.files() else {**run, FILES: []})
        accelerator.wait_for_everyone()
        if self.description() is None:
            raise OSError(f"{self.argument} {self.path} must be a folder that all machines share.")

    @contextmanager
    def finish(self, run: Mapping[str, Any]) -> Iterator[Path]:
        """Let results be written to the folder that is yielded, then put them in the place of those that are there.

        Whatever happens before leaves what is there as it was.

        Args:
            run: what the run is.

        Raises:
            OSError: something cannot be written, or lies where a result belongs and is not of a run.
        """
        new = self.path / UNFINISHED
        shutil.rmtree(new, ignore_errors=True)
        with writing(new):
            new.mkdir(parents=True)
        try:
            yield new
            with _uninterrupted():
                self._replace(new, run)
        except NotWrittenError as error:  # people know the place where the file was going to be
            raise NotWrittenError(str(error).replace(f"{UNFINISHED}{os.sep}", "")) from error
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _replace(self, new: Path, run: Mapping[str, Any]) -> None:
        before = self.description() or dict(run)
        old_files = set(self.files())
        files = sorted(path.relative_to(new).as_posix() for path in new.rglob("*") if path.is_file())
        for name in files:
            if name not in old_files and os.path.lexists(self.path / name):
                raise NotWrittenError(f"{self.path / name} is in the way: no run has written it. Move it away.")
        write_json(
            self.path / RUN_FILE, {**before, FILES: sorted({*old_files, *files})}
        )  # all may be there from now on
        replaced, moves = self.path / REPLACED, []
        shutil.rmtree(replaced, ignore_errors=True)
        try:
            for path in new.rglob("*"):
                if path.is_dir():
                    (self.path / path.relative_to(new)).mkdir(parents=True, exist_ok=True)
            for name in files:
                target = self.path / name
                if os.path.lexists(target):
                    moves.append(_move(target, replaced / name))
                moves.append(_move(new / name, target))
            write_json(self.path / RUN_FILE, {**run, FILES: files})
        except OSError:
            for source, target in reversed(moves):
                target.replace(source)
            with suppress(OSError):
                write_json(self.path / RUN_FILE, {**before, FILES: sorted(old_files)})
            raise
        shutil.rmtree(replaced, ignore_errors=True)
        for name in old_files.difference(files):
            with suppress(OSError):  # the user may have removed it
                (self.path / name).unlink()
        parents = {parent for name in old_files for parent in Path(name).parents if parent != Path()}
        for folder in sorted(parents, reverse=True):  # the inner ones first
            with suppress(OSError):  # only empty ones go
                (self.path / folder).rmdir()

    def _is_inside(self, name: str) -> bool:
        """Whether a listed name is that of a file of this folder, also where somebody has edited the list."""
        place = (self.path / name).parent.resolve()
        return place.is_relative_to(self.path.resolve()) and Path(name).name not in ("", "..", RUN_FILE)


def _move(source: Path, target: Path) -> tuple[Path, Path]:
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
    return source, target


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Keep Ctrl-C and SIGTERM waiting for the moment that it takes to rename files."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[tuple[Any, int, Any]] = []
    before = {
        number: signal.signal(number, lambda number, frame: waiting.append((before[number], number, frame)))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for handler, number, frame in waiting:
            if callable(handler):
                handler(number, frame)
            else:
                signal.raise_signal(number)
