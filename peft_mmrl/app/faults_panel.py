"""What is wrong with the pictures, one thing at a time, with the pictures that it is about."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from .desk import Desk, told
from .marking import Marking


if TYPE_CHECKING:
    from ..projects.faults import Fault

MOST_FAULTS = 12
MOST_FAULTY = 24  # of one


class FaultsPanel:
    """The faults of a project.

    Args:
        desk: whose project it is.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.found = gr.State([])
        with gr.Column(visible=False, elem_id="faults") as self.panel:
            self.chosen = gr.Radio([], label="Worth a look", type="index", elem_classes="lines")
            self.advice = gr.HTML()
            self.marking = Marking(
                desk,
                "Click the pictures that shall go",
                "Take {} out",
                captions=True,
                name="fault-pictures",
                act_name="take-fault-out",
            )
        self.chosen.input(told(self._show), [self.found, self.chosen], self._outputs, show_progress="hidden")

    @property
    def _outputs(self) -> list[Any]:
        return [self.advice, *self.marking.outputs]

    def after(self, event: Any) -> Any:
        """Look again after an event; returns what comes after that."""
        return event.then(
            told(self._find), None, [self.found, self.panel, self.chosen, *self._outputs], show_progress="hidden"
        )

    def _find(self) -> list[Any]:
        from ..projects.faults import find_faults

        found = find_faults(self._desk.project)
        words = [fault.words for fault in found[:MOST_FAULTS]]
        radio = gr.update(
            choices=words,
            value=words[0] if words else None,
            label=f"Worth a look: {len(found)} things",
            visible=len(found) > 1,
        )
        return [found, gr.update(visible=bool(found)), radio, *self._show(found, 0)]

    def _show(self, found: list[Fault], index: int | None) -> list[Any]:
        fault = found[index] if index is not None and 0 <= index < len(found) else None
        words = ""
        if fault is not None:
            only = f"<h3>Worth a look</h3><p>{escape(fault.words)}</p>" if len(found) == 1 else ""
            words = f"{only}<p>{escape(fault.advice)}</p>"
        return [words, *self.marking.show([] if fault is None else fault.pictures[:MOST_FAULTY])]
