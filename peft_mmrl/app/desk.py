"""What the tabs of one page share: the project, its workbench once that is needed, and how errors are told."""

from __future__ import annotations

import atexit
import sys
import threading
import traceback
from collections.abc import Callable
from functools import wraps
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..auto import is_at_hand
from ..projects.project import Project
from ..projects.project_runs import newest_training
from ..projects.since_training import Changes, changes_since


if TYPE_CHECKING:
    from ..projects.gauges import Gauge
    from ..projects.instant import Instant
    from ..projects.workbench import Workbench

TELLING = 15.0  # seconds that an error is shown
NOT_SEEN = "Something else was shown by then: look once more."
UNEXPECTED = "Something went wrong that should not have. The window in which this program was started says more."
FETCHING = (
    "The model that recognises pictures is fetched first, once: some hundred megabytes, maybe some minutes. The "
    "window in which this program was started shows how far it is."
)
LONGEST_REST = 15.0  # seconds that a process waits at its end for what it is doing
# Gradio passes over an event while the one before it is answered: right for a button, whose second click would act on
# what nobody has seen yet. What is given counts each time, and what is shown is brought up to date at the end: by then
# its inputs are read anew, so that it must not fill what somebody chooses meanwhile.
ALL_COUNT: dict[str, Any] = {"trigger_mode": "multiple"}
LAST_COUNTS: dict[str, Any] = {"trigger_mode": "always_last"}


class Busy:
    """How many requests are being answered: a process that ends meanwhile would break one off in the middle."""

    def __init__(self) -> None:
        self._number, self._changed = 0, threading.Condition()

    def __enter__(self) -> None:
        self._add(1)

    def __exit__(self, *_: Any) -> None:
        self._add(-1)

    def _add(self, number: int) -> None:
        with self._changed:
            self._number += number
            self._changed.notify_all()

    def wait(self, seconds: float = LONGEST_REST) -> bool:
        """Wait until none is, or for so long; returns whether none is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._number, seconds)


BUSY = Busy()
atexit.register(BUSY.wait)


class Desk:
    """A project as the page works on it; all that is remembered lies on the disk.

    Args:
        project: what is worked on.
        read_only: pictures can be tried, and nothing else.
    """

    def __init__(self, project: Project, read_only: bool = False) -> None:
        self.project, self.read_only = project, read_only
        self._workbench: Workbench | None = None
        self._lock = threading.Lock()

    @property
    def workbench(self) -> Workbench:
        """Where pictures are looked at; loads CLIP the first time.

        Raises:
            OSError, ValueError: CLIP cannot be loaded.
        """
        with self._lock:
            if self._workbench is None:
                from ..projects.workbench import Workbench  # loads torch

                self._workbench = Workbench(self.project)
            return self._workbench

    @property
    def fetches(self) -> bool:
        """Whether CLIP is fetched from the Hub when it is first needed, which takes minutes."""
        return not is_at_hand(self.project.settings.base_model)

    def instant(self) -> Instant:
        """What the pictures so far would do without training, brought up to date."""
        return self.workbench.update()

    def gauges(self) -> list[Gauge]:
        """For each class whether more pictures would help most there; none where it cannot be said yet."""
        held = self.workbench.held_out(self.instant())
        return [] if held is None else held.gauges()

    def changes(self, instant: Instant | None = None) -> Changes | None:
        """What the newest training does not know of; None: there is none, or that cannot be told.

        Args:
            instant: the project's pictures, for those who have just looked at them; None: they are looked at.
        """
        run = newest_training(self.project)
        if run is None:
            return None
        instant = self.instant() if instant is None else instant
        folders = {picture.split("/")[1] for picture in instant.pictures}
        names = {one.name: one.prompt_name for one in instant.classes if one.name in folders}
        return changes_since(run, instant.contents, names)

    def said(self, name: str) -> str:
        """How people call a class; its folder's name where it has gone."""
        return self.project.prompt_names().get(name, name)


def in_turn(tab: str) -> dict[str, Any]:
    """Options of events that are answered in the order in which they came, so that an old answer follows no newer one.

    Args:
        tab: whose events wait for each other.
    """
    return {"concurrency_id": tab, "concurrency_limit": 1}


def empty_after(event: Any, place: gr.File) -> Any:
    """Make room for other files after an event, whatever became of those before; returns what comes after that."""
    event.failure(None, None, place, js="() => null")  # refused before any function was called
    return event.then(None, None, place, js="() => null")


def tell(words: str) -> None:
    """Say what did not work, while the page stays as it is."""
    gr.Warning(escape(words), title="That did not work", duration=TELLING)


def told(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate what a button does: an error is told in its own words, and the page stays as it is."""

    @wraps(function)
    def wrapped(*given: Any, **named: Any) -> Any:
        try:
            with BUSY:
                return function(*given, **named)
        except (ValueError, OSError, ImportError) as error:
            words = str(error)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            words = UNEXPECTED
        tell(words)
        return gr.skip()

    return wrapped
