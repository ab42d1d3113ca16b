"""What is wrong with the pictures, one thing at a time, with the pictures that it is about."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from .desk import LAST_COUNTS, Desk, in_turn, told
from .marking import Marking
from .words import note
from .words import pictures as in_pictures


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
            self.chosen = gr.Radio([], label="Worth a look", elem_classes="lines")
            self.advice = gr.HTML()
            self.marking = Marking(
                desk,
                "Click the pictures that shall go",
                "Take {} out",
                captions=True,
                name="fault-pictures",
                act_name="take-fault-out",
            )
        # marks belong to one list of pictures: they come in turn with it
        self._quiet = {"show_progress": "hidden", **LAST_COUNTS, **in_turn("pictures")}
        self.chosen.input(told(self._show), [self.found, self.chosen], self._outputs, **self._quiet)

    @property
    def _outputs(self) -> list[Any]:
        return [self.advice, *self.marking.outputs]

    def after(self, event: Any) -> Any:
        """Look again after an event; returns what comes after that."""
        listed = [self.panel, self.chosen, *self._outputs]
        looked = event.then(told(self._find), None, self.found, show_progress="hidden", **LAST_COUNTS)
        return looked.then(told(self._list), self.found, listed, **self._quiet)

    def _find(self) -> list[Fault]:
        from ..projects.faults import find_faults

        return find_faults(self._desk.project)

    def _list(self, found: list[Fault]) -> list[Any]:
        lines = [(fault.words, place) for place, fault in enumerate(found[:MOST_FAULTS])]  # two may say the same
        number = f"{len(found)} things" if len(found) <= MOST_FAULTS else f"the first {MOST_FAULTS} of {len(found)}"
        radio = gr.update(
            choices=lines,
            value=0 if lines else None,
            label=f"Worth a look: {number}",
            visible=len(found) > 1,
        )
        return [gr.update(visible=bool(found)), radio, *self._show(found, 0)]

    def _show(self, found: list[Fault], place: int | None) -> list[Any]:
        fault = found[place] if place in range(len(found)) else None
        words, pictures = "", []
        if fault is not None:
            pictures = fault.pictures[:MOST_FAULTY]
            words = f"<h3>Worth a look</h3><p>{escape(fault.words)}</p>" if len(found) == 1 else ""
            words += f"<p>{escape(fault.advice)}</p>"
            if len(fault.pictures) > MOST_FAULTY:
                words += note(f"The first {MOST_FAULTY} of {in_pictures(len(fault.pictures))}:")
        return [words, *self.marking.show(pictures)]
