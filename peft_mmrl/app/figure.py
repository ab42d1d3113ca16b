"""The line above all tabs: how many pictures there are, how well the newest training does, and how they do without."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..projects.project_runs import newest_training
from .desk import FETCHING, LAST_COUNTS, Desk, in_turn, told
from .outcome_words import MOST_NAMED, changes_html, lower, trained_words
from .questions import doubtful_labels
from .words import classes, note, of_hundred, pictures


if TYPE_CHECKING:
    from ..projects.instant import Instant

LOOKING = "The pictures are being looked at …"
NOT_KNOWN = "How well they can be told apart cannot be said."
SOON = "As soon as two classes have pictures, it says here how well they can be told apart."


class Figure:
    """What the pictures so far would do.

    Args:
        desk: whose project it is of.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.line = gr.HTML(self.begin, elem_id="figure", padding=False)

    def after(self, event: Any) -> Any:
        """Bring the line up to date after an event; returns what comes after that."""
        return self.follow(event.then)

    def follow(self, trigger: Callable[..., Any]) -> Any:
        """Bring the line up to date at an event; returns what comes after that.

        Args:
            trigger: makes the listener: `component.change`, say.
        """
        # what can be said at once waits for no look at pictures that is under way: that may be fetching CLIP
        quiet = {"show_progress": "hidden", **LAST_COUNTS}
        begun = trigger(told(self.begin), None, self.line, **quiet, **in_turn("figure at once"))
        return begun.then(told(self.show), None, self.line, **quiet, **in_turn("figure"))

    def begin(self) -> str:
        """What can be said at once."""
        counts = self._counts()
        try:
            words = FETCHING if self._desk.fetches else LOOKING
        except (ValueError, OSError) as error:  # the project's settings are damaged
            words = f"{NOT_KNOWN} {error}"
        looking = f'<div class="looking">{note(escape(words))}</div>' if sum(map(bool, counts)) > 1 else ""
        return _line(counts, self._trained(), looking)

    def show(self) -> str:
        """What can be said once the pictures were looked at."""
        counts = self._counts()
        if sum(map(bool, counts)) < 2:
            return _line(counts, self._trained(), note(SOON))
        try:
            instant = self._desk.instant()
            since = changes_html(self._desk.changes(instant))
            doubts = "" if self._desk.read_only else doubts_html(len(doubtful_labels(self._desk.workbench)))
        except (ValueError, OSError) as error:
            return _line(counts, self._trained(), note(escape(f"{NOT_KNOWN} {error}")))
        trained = self._trained()
        return _line(counts, trained, since + figure_words(instant, leads=not trained) + doubts)

    def _counts(self) -> list[int]:
        return [len(one.pictures) for one in self._desk.project.classes()]

    def _trained(self) -> str:
        run = newest_training(self._desk.project)
        return "" if run is None else f'<p class="figure">{escape(trained_words(run.folder, run.is_quick))}</p>'


def _line(counts: list[int], trained: str, words: str) -> str:
    if not counts:
        return note("No classes yet.")
    return note(f"{classes(len(counts))}, {pictures(sum(counts))}") + trained + words


def doubts_html(number: int) -> str:
    """How many pictures should be looked at in Improve; empty where none should."""
    return note(f"{pictures(number)} may be in a wrong class: look into <b>Improve</b>.") if number else ""


def figure_words(instant: Instant, leads: bool = True) -> str:
    """What the pictures so far would do, and what CLIP does without them, as HTML.

    Args:
        instant: what is known at once.
        leads: whether this is the figure that counts; else there is a training.
    """
    lines = []
    if instant.accuracy is not None:
        figure = _in_pictures(instant.accuracy)
        if leads:
            lines.append(f'<p class="figure">{figure}, at once and without training.</p>')
        else:
            lines.append(note(f"At once, without training: {lower(figure)}."))
    if leads and instant.zero_shot_accuracy is not None:
        lines.append(note(f"By the names of the classes alone: {lower(_in_pictures(instant.zero_shot_accuracy))}."))
    return "".join([*lines, *(note(escape(words)) for words in [*instant.notes, *_taken_by_name(instant)])])


def _taken_by_name(instant: Instant) -> list[str]:
    """What classes without pictures cost the others."""
    return [
        f"{taken} of your {len(instant.held)} pictures are taken for {name}, which has none: add pictures of it."
        for name, taken in zip(instant.names, instant.taken_for, strict=True)
        if taken and name in instant.by_name
    ][:MOST_NAMED]


def _in_pictures(rung: dict[str, Any]) -> str:
    return of_hundred(rung["accuracy"], rung["low"], rung["high"])
