"""The first tab: classes, their pictures, and what is wrong with them."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from ..projects.intake import Intake, move_pictures, put_back, remove_pictures
from ..projects.opening import MOST_PICTURES
from .desk import Desk, in_turn, told
from .faults_panel import FaultsPanel
from .figure import Figure
from .gauges_panel import GaugesPanel
from .marking import Marking
from .uploads import take_in
from .words import pictures


MOST_THUMBNAILS = 60
MOST_REASONS = 5  # of files that were not taken
MOVE = "… or move them to another class"
EMPTY = (
    '<div class="empty"><b>Begin here.</b> What is to be told apart? Type the name of the first kind above, say “oak '
    "leaf”, and press <b>Add class</b>. Then add a second one.</div>"
)


class PicturesTab:
    """Classes and their pictures.

    Args:
        desk: whose project it shows.
        figure: that changes with the pictures.
    """

    def __init__(self, desk: Desk, figure: Figure) -> None:
        self._desk, self._project, self._figure = desk, desk.project, figure
        with gr.Tab("Pictures", id="pictures") as self.tab:
            with gr.Row(equal_height=True, elem_classes="line"):
                self.new_class = gr.Textbox(
                    label="Add a class: what is it called?",
                    placeholder="oak leaf",
                    max_lines=1,
                    scale=4,
                    elem_id="new-class",
                )
                self.add = gr.Button("Add class", variant="primary", scale=1, min_width=120, elem_id="add-class")
            self.chosen = gr.Radio([], label="Your classes, with their number of pictures", elem_id="classes")
            self.empty = gr.HTML(EMPTY)
            with gr.Column(visible=False) as self.panel:
                self._build_panel()
            self.faults = FaultsPanel(desk)
            self.gauges = GaugesPanel(desk)
            with gr.Accordion("Taken out", open=False, visible=False) as self.taken_out:
                gr.Markdown(
                    "These pictures are not used. They lie in the folder `removed`, and nothing is ever deleted."
                )
                self.removed = Marking(desk, "Click the pictures that you want back")
                self.back = gr.Button("Put the marked pictures back")
        self._connect()

    def _build_panel(self) -> None:
        self.title = gr.HTML(padding=False)
        self.drop = gr.File(file_count="multiple", show_label=False, height=130, elem_id="drop")
        self.folder = gr.UploadButton(
            "… or choose a folder with pictures", file_count="directory", size="sm", elem_id="drop-folder"
        )
        self.said = gr.HTML(elem_id="said", visible=False)
        self.marking = Marking(self._desk, "Click pictures to mark them", name="thumbnails")
        self.more = gr.Button("Show all", size="sm", visible=False)
        with gr.Row(visible=False) as self.actions:
            self.take_out = gr.Button("Take the marked pictures out", min_width=160, elem_id="take-out")
            self.target = gr.Dropdown([], show_label=False, container=False, min_width=160, elem_id="move-to")
        with gr.Accordion("Name of this class", open=False, elem_id="names"):
            with gr.Row(equal_height=True, elem_classes="line"):
                self.name = gr.Textbox(label="Name of its folder", max_lines=1, scale=4, elem_id="class-name")
                self.rename = gr.Button("Rename", scale=1, min_width=120, elem_id="rename")
            with gr.Row(equal_height=True, elem_classes="line"):
                self.prompt_name = gr.Textbox(
                    label="How you would say it in “a photo of a …”",
                    info="Better words help: “siamese cat” says more than “class 7” or “siam01”.",
                    max_lines=1,
                    scale=4,
                    elem_id="prompt-name",
                )
                self.say = gr.Button("Use these words", scale=1, min_width=120, elem_id="say")

    @property
    def outputs(self) -> list[gr.blocks.Block]:
        """What `show` fills."""
        own = [self.chosen, self.empty, self.panel, self.title, self.actions, self.target, self.name, self.prompt_name]
        return [*own, self.more, *self.marking.outputs, self.taken_out, *self.removed.outputs]

    def show(self, chosen: str | None, most: int = MOST_THUMBNAILS) -> list[Any]:
        """Values of `outputs`, as it is on the disk."""
        found = self._project.classes()
        one = next((one for one in found if one.name == chosen), found[0] if found else None)
        choices = [(f"{each.prompt_name} · {len(each.pictures)}", each.name) for each in found]
        own = [] if one is None else one.pictures
        others = [(each.prompt_name, each.name) for each in found if each is not one]
        removed = self._project.removed_pictures()[:MOST_THUMBNAILS]
        return [
            gr.update(choices=choices, value=None if one is None else one.name, visible=bool(found)),
            gr.update(visible=one is None),
            gr.update(visible=one is not None),
            "" if one is None else f"<h3>Pictures of “{escape(one.prompt_name)}”</h3>",
            gr.update(visible=bool(own)),
            gr.update(choices=[(MOVE, MOVE), *others], value=MOVE, visible=bool(others)),
            gr.update(value="" if one is None else one.name),
            gr.update(value="" if one is None else one.prompt_name),
            gr.update(value=f"Show all {len(own)}", visible=len(own) > most),
            *self.marking.show(own[:most]),
            gr.update(visible=bool(removed)),
            *self.removed.show(removed),
        ]

    def _connect(self) -> None:
        project, marked, removed = self._project, self.marking.marked, self.removed.marked

        def add(name: str, chosen: str | None) -> list[Any]:
            return ["", gr.update(visible=False), *self.show(project.add_class(name))]

        def drop(files: list[str] | None, chosen: str | None) -> list[Any]:
            if chosen is None:
                raise ValueError("Add a class first.")
            words = intake_words(take_in(project, files, chosen), self._desk.said(chosen))
            return [None, gr.update(value=words, visible=True), *self.show(chosen)]

        def take_out(marked: list[str], chosen: str) -> list[Any]:
            remove_pictures(project, _some(marked))
            return self.show(chosen)

        def move(marked: list[str], target: str | None, chosen: str) -> list[Any]:
            if target and target != MOVE:
                move_pictures(project, _some(marked), target)
            return self.show(chosen)

        def bring_back(marked: list[str], chosen: str | None) -> list[Any]:
            put_back(project, _some(marked))
            return self.show(chosen)

        def rename(chosen: str, name: str) -> list[Any]:
            return self.show(project.rename_class(chosen, name))

        def say(chosen: str, words: str) -> list[Any]:
            project.set_prompt_name(chosen, words.strip() or None)
            return self.show(chosen)

        def show_all(chosen: str) -> list[Any]:
            return self.show(chosen, most=MOST_PICTURES)

        def on(event: Any, do: Any, inputs: list[Any], first: tuple[Any, ...] = ()) -> Any:
            return event(told(do), inputs, [*first, *self.outputs], show_progress="hidden", **in_turn("pictures"))

        chosen, new_class = self.chosen, self.new_class
        changes = [
            on(self.add.click, add, [new_class, chosen], (new_class, self.said)),
            on(new_class.submit, add, [new_class, chosen], (new_class, self.said)),
            on(self.drop.upload, drop, [self.drop, chosen], (self.drop, self.said)),
            on(self.folder.upload, drop, [self.folder, chosen], (self.folder, self.said)),
            on(self.take_out.click, take_out, [marked, chosen]),
            on(self.target.input, move, [marked, self.target, chosen]),
            on(self.back.click, bring_back, [removed, chosen]),
            on(self.faults.take_out.click, take_out, [self.faults.marking.marked, chosen]),
            on(self.rename.click, rename, [chosen, self.name]),
            on(self.say.click, say, [chosen, self.prompt_name]),
            on(self.tab.select, self.show, [chosen]),
        ]
        for change in changes:
            self.after(change)
        on(chosen.input, self._choose, [chosen], (self.said,))
        on(self.more.click, show_all, [chosen])

    def after(self, event: Any) -> Any:
        """Look at the pictures again after an event; returns what comes after that."""
        return self.gauges.after(self._figure.after(self.faults.after(event)))

    def _choose(self, chosen: str) -> list[Any]:
        return [gr.update(visible=False), *self.show(chosen)]


def intake_words(intake: Intake, name: str | None = None) -> str:
    """What became of dropped files, as HTML.

    Args:
        intake: of them.
        name: of the class that they were added to, as people say it; None: none.
    """
    to = "" if name is None else f" to “{escape(name)}”"
    lines = [f"<b>{pictures(len(intake.added))} added{to}.</b>"] if intake.added else []
    if intake.refused:
        lines.append(f"<b>{len(intake.refused)} not taken:</b>")
        lines += [f"{escape(name)}: {escape(reason)}" for name, reason in intake.refused[:MOST_REASONS]]
        if len(intake.refused) > MOST_REASONS:
            lines.append(f"… and {len(intake.refused) - MOST_REASONS} more")
    return '<div class="note" role="status">' + "<br>".join(lines) + "</div>"


def _some(marked: list[str]) -> list[str]:
    if not marked:
        raise ValueError("Click the pictures first that you mean: they get a mark.")
    return marked
