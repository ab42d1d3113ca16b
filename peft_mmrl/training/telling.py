"""Says on standard error how far a training run is."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Self

from ..data.progress import progress_bar
from ..data.wording import counted


TIMED_STEPS = 5


class Telling:
    """A bar where somebody looks, a line with the minutes to go after the first steps, and in a log a line per epoch.

    Args:
        description: of the run.
        total: optimizer steps of the run.
        done: those that an interrupted run has done already.
        shown: whether this process speaks.
        on_share: called after each step with the share of the steps that are done.
    """

    def __init__(
        self,
        description: str,
        total: int,
        done: int,
        shown: bool,
        on_share: Callable[[float], None] | None = None,
    ) -> None:
        self.bar = progress_bar(desc=description, total=total, initial=done, unit="step", shown=shown)
        self.description, self.total, self.done, self.shown = description, total, done, shown
        self.start, self.steps, self.on_share = time.perf_counter(), 0, on_share
        if on_share is not None:
            on_share(done / total)

    def step(self, loss: float) -> None:
        """Count an optimizer step."""
        self.steps += 1
        self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        self.bar.update()
        if self.on_share is not None:
            self.on_share((self.done + self.steps) / self.total)
        if self.steps == TIMED_STEPS:
            seconds = (time.perf_counter() - self.start) / self.steps * (self.total - self.done - self.steps)
            minutes = math.ceil(seconds / 60)
            self._say(f"{self.total} steps, about {counted(minutes, 'minute')} to go")

    def epoch(self, number: int, num_epochs: int, loss: float) -> None:
        """Tell of an epoch where no bar does."""
        if self.bar.disable:
            self._say(f"epoch {number} of {num_epochs}, loss {loss:.3f}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def _say(self, text: str) -> None:
        if self.shown:
            self.bar.write(f"{self.description}: {text}", file=sys.stderr)
