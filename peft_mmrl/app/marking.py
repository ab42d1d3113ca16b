"""A gallery in which pictures are marked by a click, to do something with those."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import gradio as gr

from .desk import Desk, told
from .thumbnails import thumbnail


MARK = "✓"


class Marking:
    """Thumbnails, a click marks one and a second click unmarks it.

    Args:
        desk: whose project the pictures belong to.
        label: above the gallery.
        captions: whether to write each picture's class below it.
        name: of the gallery in the page.
    """

    def __init__(self, desk: Desk, label: str, *, captions: bool = False, name: str | None = None) -> None:
        self._desk, self._captions = desk, captions
        self.shown, self.marked = gr.State([]), gr.State([])  # lists of pictures, kept by the server
        self.label = gr.HTML(f'<p class="note">{escape(label)}</p>', padding=False, visible=False)
        self.gallery = gr.Gallery(
            show_label=False,
            height="auto",
            object_fit="contain",
            allow_preview=False,
            interactive=False,
            buttons=[],
            elem_id=name,
            elem_classes="thumbnails",
        )
        self.gallery.select(told(self._toggle), [self.shown, self.marked], [self.marked, self.gallery])

    @property
    def outputs(self) -> list[gr.blocks.Block]:
        """What `show` fills."""
        return [self.shown, self.marked, self.label, self.gallery]

    def show(self, pictures: Sequence[str]) -> list:
        """Values of `outputs` for pictures of which none is marked."""
        is_shown = bool(pictures)
        gallery = gr.update(value=self._items(pictures, []), visible=is_shown)
        return [list(pictures), [], gr.update(visible=is_shown), gallery]

    def _toggle(self, shown: list[str], marked: list[str], event: gr.SelectData) -> tuple:
        if isinstance(event.index, int) and 0 <= event.index < len(shown):
            picture = shown[event.index]
            marked = [one for one in marked if one != picture] if picture in marked else [*marked, picture]
        return marked, gr.update(value=self._items(shown, marked), selected_index=None)

    def _items(self, pictures: Sequence[str], marked: Sequence[str]) -> list[tuple[str, str | None]]:
        project = self._desk.project
        names = project.prompt_names() if self._captions else {}
        items = []
        for picture in pictures:
            caption = MARK if picture in marked else None
            if caption is None and self._captions:
                folder = picture.split("/")[1]
                caption = names.get(folder, folder)
            items.append((thumbnail(project, picture), caption))
        return items
