"""The line above all tabs: how many pictures there are, and how well they would do at once, without training."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from .desk import Desk, in_turn, told
from .words import classes, of_ten, pictures


if TYPE_CHECKING:
    from ..projects.workbench import Instant

LOOKING = '<p class="figure">The pictures are being looked at …</p>'
NOT_KNOWN = "How well they can be told apart cannot be said."
SOON = '<p class="figure">As soon as two classes have pictures, it says here how well they can be told apart.</p>'


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
        quiet = {"show_progress": "hidden", **in_turn("figure")}
        return event.then(self.begin, None, self.line, **quiet).then(told(self.show), None, self.line, **quiet)

    def begin(self) -> str:
        """What can be said at once."""
        counts = [len(one.pictures) for one in self._desk.project.classes()]
        return _line(counts, LOOKING if sum(map(bool, counts)) > 1 else "")

    def show(self) -> str:
        """What can be said once the pictures were looked at."""
        counts = [len(one.pictures) for one in self._desk.project.classes()]
        if sum(map(bool, counts)) < 2:
            return _line(counts, SOON)
        try:
            return _line(counts, figure_words(self._desk.instant()))
        except (ValueError, OSError) as error:
            return _line(counts, f'<p class="figure">{NOT_KNOWN} {escape(str(error))}</p>')


def figure_words(instant: Instant) -> str:
    """What the pictures so far would do, and what CLIP does without them, as HTML."""
    lines = []
    if instant.accuracy is not None:
        lines.append(f'<p class="figure">{_of_ten(instant.accuracy)}, at once and without training.</p>')
    if instant.zero_shot_accuracy is not None:
        alone = _of_ten(instant.zero_shot_accuracy)
        lines.append(f'<p class="note">By the names of the classes alone: {alone[0].lower()}{alone[1:]}.</p>')
    return "".join([*lines, *(f'<p class="note">{escape(note)}</p>' for note in instant.notes)])


def _of_ten(rung: dict[str, Any]) -> str:
    return of_ten(rung["accuracy"], rung["low"], rung["high"])


def _line(counts: list[int], words: str) -> str:
    if not counts:
        return '<p class="note">No classes yet.</p>'
    return f'<p class="note">{classes(len(counts))}, {pictures(sum(counts))}</p>{words}'
