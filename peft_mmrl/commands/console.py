"""What a command has with the terminal: words that never end a run, signals, error messages, answers in UTF-8."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO

import datasets
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging

from ..data.progress import is_watched
from ..training.checkpoints import is_checkpoint


INTERRUPTED = 130  # exit codes as shells have them
CLOSED_PIPE = 141

BARS = (  # of the libraries: whether they are off, what hides them and what shows them again
    (are_progress_bars_disabled, disable_progress_bars, enable_progress_bars),
    (datasets.are_progress_bars_disabled, datasets.disable_progress_bars, datasets.enable_progress_bars),
    (lambda: not logging.is_progress_bar_enabled(), logging.disable_progress_bar, logging.enable_progress_bar),
)


class Words:
    """A stream for words to people: what cannot be written, to a closed pipe or a full disk, is lost and ends nothing.

    Args:
        stream: standard output or standard error.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write as far as it goes."""
        try:
            self._stream.write(text)
        except OSError:
            silence(self._stream)
        return len(text)

    def flush(self) -> None:
        """Write as far as it goes what is held back."""
        try:
            self._stream.flush()
        except OSError:
            silence(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def silence(stream: TextIO) -> None:
    """Let a stream that nobody reads lead nowhere, so that Python does not fail at its end on what is held back."""
    with suppress(OSError, ValueError):  # ValueError: it has no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def in_utf8(stream: TextIO | None) -> TextIO:
    """A standard stream that takes any text, whatever the terminal says; names of files need not even be Unicode."""
    if stream is None:  # closed by whoever started this process
        return open(os.devnull, "w", encoding="utf-8")
    with suppress(AttributeError, io.UnsupportedOperation):  # another kind of stream, which takes text as it is
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    return stream


@contextmanager
def command_line() -> Iterator[None]:
    """What every command runs in, also as a decorator.

    Standard output is UTF-8. Nothing that is said ends a run. SIGTERM stops like Ctrl-C, and both end with a line
    and an exit code. Libraries show no bars where nobody looks.
    """
    said = redirect_stdout(Words(in_utf8(sys.stdout))), redirect_stderr(Words(sys.stderr))
    with said[0], said[1], _sigterm_as_interrupt(), _quiet_libraries():
        try:
            yield
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(INTERRUPTED)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    bars = [] if is_watched() else [(hide, show) for are_off, hide, show in BARS if not are_off()]
    with warnings.catch_warnings():
        # PEFT asks transformers 5.24 for an attribute that has a new name there.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "Cannot (dis|en)able progress bars")  # a user's variable has decided it
        for hide, _ in bars:
            hide()
        try:
            yield
        finally:
            for _, show in bars:
                show()


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def stop(number: int, frame: Any) -> None:
        if os.getpid() == process:
            raise KeyboardInterrupt
        os._exit(128 + number)  # a process that was forked off

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Say what is wrong with a user's input in one line on standard error and end with exit code 1.

    Only for what is checked before anything is computed: later errors keep their traceback.
    """
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")


@contextmanager
def going_on(way_on: Callable[[], str]) -> Iterator[None]:
    """Say how to go on after Ctrl-C, a full disk or a loss that is not finite; the exit code is 130, or else 1.

    Args:
        way_on: called when it is needed.
    """
    try:
        yield
    except KeyboardInterrupt:
        print(f"\ninterrupted. {way_on()}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (OSError, FloatingPointError) as error:
        sys.exit(f"error: {error} {way_on()}")


def way_on_from(checkpoint: Path | None) -> str:
    """How to go on with a training run, which depends on whether it has got to its first checkpoint."""
    if checkpoint is not None and is_checkpoint(checkpoint):
        return "To go on, add --resume_from_checkpoint latest to the same arguments."
    return "There is no checkpoint yet: to start again, repeat the command."
