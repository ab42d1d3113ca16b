"""For each class whether more pictures would help most there."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from .desk import LAST_COUNTS, Desk, told
from .words import note


if TYPE_CHECKING:
    from ..projects.gauges import Gauge

FULL_BAR = (
    "A full bar: all pictures of the class are recognised, each judged without its own help. How sure: of the right "
    "class, on average."
)


class GaugesPanel:
    """A bar and a few words per class.

    Args:
        desk: whose project it is of.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.html = gr.HTML(visible=False, elem_id="gauges")

    def after(self, event: Any) -> Any:
        """Bring the bars up to date after an event."""
        return event.then(told(self._show), None, self.html, show_progress="hidden", **LAST_COUNTS)

    def _show(self) -> Any:
        try:
            found = self._desk.gauges()
        except (ValueError, OSError):  # the line above all tabs says why
            found = []
        return gr.update(value=gauges_html(found), visible=bool(found))


def gauges_html(found: list[Gauge]) -> str:
    """A row per class: its name, how many of its pictures are recognised, what more pictures would do."""
    rows = "".join(
        f'<span class="name">{escape(one.name)}</span>'
        f'<span class="bar"><i style="width:{_percent(one.recall)}"></i></span>'
        f'<span class="words">{escape(one.words)}</span>'
        for one in found
    )
    return f"<h3>Where more pictures would help</h3>{note(FULL_BAR)}<div class='classes'>{rows}</div>"


def _percent(share: float | None) -> str:
    return f"{100 * (share or 0):.0f}%"
