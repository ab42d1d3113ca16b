"""Thumbnails of which some are marked by a click, to do something with those."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from .desk import ALL_COUNT, Desk, in_turn, told
from .thumbnails import address, thumbnail
from .words import note
from .words import pictures as in_pictures


MARK_ON_CLICK = """
element.addEventListener("click", (event) => {
  const clicked = event.target.closest("button");
  if (!clicked) return;
  const all = [...element.querySelectorAll("button[aria-pressed]")];
  const isMarked = (one) => one.getAttribute("aria-pressed") === "true";
  const mark = (one, marked) => one.setAttribute("aria-pressed", marked);
  if (all.includes(clicked)) mark(clicked, !isMarked(clicked));
  else { const marked = !all.every(isMarked); all.forEach((one) => mark(one, marked)); }
  trigger("mark", {
    shown: element.querySelector("[data-shown]").dataset.shown,
    marked: all.flatMap((one, position) => (isMarked(one) ? [position] : [])),
  });
});
"""


class Marking:
    """Thumbnails, a click marks one and a second click unmarks it; what can be done with the marked ones comes below.

    Args:
        desk: whose project the pictures belong to.
        label: above the thumbnails.
        act: on the button, "Take {} out"; it is there while a picture is marked.
        captions: whether to write each picture's class below it.
        name: of the thumbnails in the page.
        act_name: of the button in the page.
    """

    def __init__(
        self,
        desk: Desk,
        label: str,
        act: str,
        *,
        captions: bool = False,
        name: str | None = None,
        act_name: str | None = None,
    ) -> None:
        self._desk, self._label, self._words, self._captions = desk, label, act, captions
        self.shown = gr.State(("", []))  # a name of the list that is shown, and its pictures
        self.marked = gr.State([])  # pictures
        self.gallery = gr.HTML(
            visible=False,
            js_on_load=MARK_ON_CLICK,
            apply_default_css=False,
            elem_id=name,
            elem_classes="marking",
        )
        with gr.Row(visible=False, elem_classes="acts") as self.actions:  # whoever has more to offer adds it here
            self.act = gr.Button(min_width=160, variant="primary", elem_id=act_name)
        self.gallery.mark(
            told(self._mark),
            self.shown,
            [self.marked, self.actions, self.act],
            show_progress="hidden",
            **ALL_COUNT,
            **in_turn("pictures"),
        )

    @property
    def outputs(self) -> list[gr.blocks.Block]:
        """What `show` fills."""
        return [self.shown, self.marked, self.gallery, self.actions]

    def show(self, pictures: Sequence[str]) -> list[Any]:
        """Values of `outputs` for pictures of which none is marked."""
        name = secrets.token_hex(4)  # new each time: the page forgets its marks, and they count for no other list
        gallery = gr.update(value=self._html(name, pictures), visible=bool(pictures))
        return [(name, list(pictures)), [], gallery, gr.update(visible=False)]

    def _mark(self, shown: tuple[str, list[str]], event: gr.EventData) -> Any:
        name, pictures = shown
        if getattr(event, "shown", None) != name:  # what was clicked is shown no more: something came before
            return gr.skip()
        given = getattr(event, "marked", None)
        positions = {one for one in given if type(one) is int} if isinstance(given, list) else set()
        marked = [picture for position, picture in enumerate(pictures) if position in positions]
        return marked, gr.update(visible=bool(marked)), self._words.format(in_pictures(len(marked)))

    def _html(self, list_name: str, pictures: Sequence[str]) -> str:
        project = self._desk.project
        names = project.prompt_names() if self._captions else {}
        items = []
        for picture in pictures:
            caption = ""
            if self._captions:
                _, *folders, _ = picture.split("/")
                folder = folders[0] if folders else ""  # none where it was taken out before it had a class
                caption = f"<span>{escape(names.get(folder, folder))}</span>"
            source, name = address(thumbnail(project, picture)), escape(picture.rpartition("/")[2])
            image = f'<img src="{source}" alt="{name}" title="{name}" loading="lazy">'
            items.append(f'<button type="button" aria-pressed="false">{image}{caption}</button>')
        every = ', or <button type="button" class="every">mark all</button>' if len(items) > 1 else ""
        return f'{note(escape(self._label) + every)}<div data-shown="{list_name}">{"".join(items)}</div>'
