"""The first tab: classes, their pictures, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from html import escape
from typing import Any

import gradio as gr

from ..projects.intake import move_pictures, put_back, remove_pictures
from ..projects.opening import MOST_PICTURES
from ..projects.under_training import running_training
from .class_panel import ClassPanel
from .desk import ALL_COUNT, Desk, empty_after, in_turn, tell, told
from .faults_panel import FaultsPanel
from .figure import Figure
from .gauges_panel import GaugesPanel
from .intake_words import folder_words, refusal_words, reports
from .look import plain_menu, typed_line
from .marking import Marking
from .uploads import take_in_folders
from .words import note, pictures


MOST_THUMBNAILS = 60
MOVE = "… or move to another class"
EMPTY = (
    '<p class="empty"><b>Begin here.</b> What is to be told apart? Type the name of the first kind above, say “oak '
    "leaf”, and press <b>Add class</b>. Then add a second one.</p>"
)
SUB_FOLDERS = note("Where a folder holds folders of pictures, each of these becomes a class.")
WHILE_TRAINING = note(
    "<b>A training is running.</b> Pictures and classes can be added meanwhile. To move, rename or take out those "
    "that are there, wait until it has ended, or stop it in <b>Train</b>.",
    is_news=True,
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
            self.new_class, self.add = typed_line(
                "Add a class: what is it called?",
                "Add class",
                "new-class",
                "add-class",
                variant="primary",
                placeholder="oak leaf",
            )
            self.sent, self.refused = gr.Textbox(visible=False), gr.Textbox(visible=False)  # names that were typed
            self.chosen = gr.Radio([], label="Your classes, with their number of pictures", elem_id="classes")
            with gr.Column(elem_id="begin") as self.begin:
                gr.HTML(EMPTY)
                self.first_folder = gr.UploadButton(
                    "… or choose a folder whose sub-folders are your classes",
                    file_count="directory",
                    elem_id="first-folder",
                )
            self.busy = gr.HTML(WHILE_TRAINING, visible=False, elem_id="busy")
            self.said, self.reports = gr.HTML(visible=False, elem_id="said"), gr.State([])
            with gr.Column(visible=False, elem_id="class-panel") as self.panel:
                self._build_panel()
            self.faults = FaultsPanel(desk)
            self.gauges = GaugesPanel(desk)
            with gr.Accordion("Taken out", open=False, visible=False, elem_id="taken-out") as self.taken_out:
                gr.Markdown(
                    "These pictures are not used. They lie in the folder `removed`, and nothing is ever deleted."
                )
                self.removed = Marking(
                    desk,
                    "Click the pictures that you want back",
                    "Put {} back",
                    captions=True,
                    name="removed-pictures",
                    act_name="back",
                )
                self.more_removed = gr.Button("Show all", size="sm", visible=False, elem_id="show-removed")
        self._connect()

    def _build_panel(self) -> None:
        self.title = gr.HTML(padding=False, elem_id="panel-title")
        self.drop = gr.File(file_count="multiple", show_label=False, height=140, elem_id="drop")
        self.folder = gr.UploadButton("… or choose a folder", file_count="directory", size="sm", elem_id="drop-folder")
        gr.HTML(SUB_FOLDERS, padding=False)
        self.marking = Marking(
            self._desk, "Click pictures to mark them", "Take {} out", name="thumbnails", act_name="take-out"
        )
        with self.marking.actions:
            self.target = plain_menu("Move to which class", "move-to", min_width=160)
        self.more = gr.Button("Show all", size="sm", visible=False)
        self.whole = ClassPanel(self._desk)

    @property
    def outputs(self) -> list[gr.blocks.Block]:
        """What `show` fills."""
        own = [self.chosen, self.begin, self.busy, self.said, self.reports, self.panel, self.title]
        return [*own, self.target, self.more, *self.whole.outputs, *self.marking.outputs, *self._outputs_of_removed]

    @property
    def _outputs_of_removed(self) -> list[gr.blocks.Block]:
        return [self.taken_out, self.more_removed, *self.removed.outputs]

    def show(
        self, chosen: str | None, said: Sequence[str] = (), most: int = MOST_THUMBNAILS, anew: bool = True
    ) -> list[Any]:
        """Values of `outputs`, as it is on the disk.

        Args:
            chosen: folder of the class that is shown; the first one where there is none of that name.
            said: what has just been done, one after the other, as HTML.
            most: thumbnails.
            anew: the class was not shown before; else another one that was chosen meanwhile stays chosen.
        """
        found = self._project.classes()
        one = next((one for one in found if one.name == chosen), found[0] if found else None)
        choices = [(f"{each.prompt_name} · {len(each.pictures)}", each.name) for each in found]
        own, name = ([], None) if one is None else (one.pictures, one.name)
        anew = anew or name != chosen
        others = [(each.prompt_name, each.name) for each in found if each is not one]
        return [
            gr.update(choices=choices, visible=bool(found), **({"value": name} if anew else {})),
            gr.update(visible=one is None),
            gr.update(visible=running_training(self._project.folder) is not None),
            gr.update(value="".join(said), visible=bool(said)),
            list(said),
            gr.update(visible=one is not None),
            "" if one is None else f"<h3>Pictures of “{escape(one.prompt_name)}”</h3>",
            gr.update(choices=[(MOVE, MOVE), *others], value=MOVE, visible=bool(others)),
            gr.update(value=f"Show all {len(own)}", visible=len(own) > most),
            *self.whole.show(one, others, anew),
            *self.marking.show(own[:most]),
            *self._show_removed(),
        ]

    def _show_removed(self, most: int = MOST_THUMBNAILS) -> list[Any]:
        removed = self._project.removed_pictures()
        more = gr.update(value=f"Show all {len(removed)}", visible=len(removed) > most)
        return [gr.update(visible=bool(removed)), more, *self.removed.show(removed[:most])]

    def _connect(self) -> None:
        project, chosen, faults = self._project, self.chosen, self.faults.marking

        def add(name: str) -> list[Any]:
            try:
                return ["", *self.show(project.add_class(name))]
            except ValueError as error:
                tell(str(error))
                return [name, *[gr.skip()] * len(self.outputs)]

        def drop(files: Any, chosen: str | None, before: list[str], is_folder: bool = False) -> list[Any]:
            try:
                found = take_in_folders(project, files, chosen, is_folder=is_folder)
            except (ValueError, OSError) as error:  # told in place, so that others can be dropped there
                return self.show(chosen, reports(before, refusal_words(error)), anew=False)
            shown = next(iter(found.classes), None) if chosen is None else chosen
            words = folder_words(found, project.prompt_names())
            return self.show(shown, reports(before, words), anew=shown != chosen)

        def drop_folder(files: Any, chosen: str | None, before: list[str]) -> list[Any]:
            return drop(files, chosen, before, is_folder=True)

        def show_all_removed() -> list[Any]:
            return self._show_removed(MOST_PICTURES)

        def take_out(marked: list[str], chosen: str | None) -> tuple[str | None, str]:
            remove_pictures(project, marked)
            return chosen, f"{pictures(len(marked))} taken out: see “Taken out”, below."

        def move(marked: list[str], target: str | None, chosen: str) -> tuple[str, str]:
            if not target or target == MOVE:
                return chosen, ""
            move_pictures(project, marked, target)
            return chosen, f"{pictures(len(marked))} moved to “{self._desk.said(target)}”."

        def bring_back(marked: list[str], chosen: str | None) -> tuple[str | None, str]:
            put_back(project, marked)
            return chosen, f"{pictures(len(marked))} put back."

        changes = [
            (self.marking.act.click, take_out, [self.marking.marked, chosen], False),
            (self.target.select, move, [self.marking.marked, self.target, chosen], False),
            (self.removed.act.click, bring_back, [self.removed.marked, chosen], False),
            (faults.act.click, take_out, [faults.marked, chosen], False),
            *((*change, True) for change in self.whole.changes()),
        ]
        for event, do, inputs, anew in changes:
            self.after(self._on(event, self._then_shown(do, anew), inputs))
        for event in (self.add.click, self.new_class.submit):
            # the line is free at once for the next name; one that was refused comes back, to be mended
            sent = event(None, self.new_class, [self.new_class, self.sent], js="(name) => ['', name]")
            added = self._on(sent.then, add, [self.sent], [self.refused], **ALL_COUNT)
            line = [self.new_class, self.refused]
            self.after(added.then(None, line, self.new_class, js="(typed, refused) => typed || refused"))
        for source, do in ((self.drop, drop), (self.folder, drop_folder), (self.first_folder, drop_folder)):
            waiting = {"preprocess": False, "show_progress": "minimal", "show_progress_on": source, **ALL_COUNT}
            taken = self._on(source.upload, do, [source, chosen, self.reports], **waiting)
            self.after(empty_after(taken, source) if source is self.drop else taken)
        self.after(self._on(self.tab.select, partial(self.show, anew=False), [chosen], **ALL_COUNT))
        self._on(chosen.input, self.show, [chosen], **ALL_COUNT)
        self._on(self.more.click, partial(self.show, most=MOST_PICTURES, anew=False), [chosen])
        quiet = {"show_progress": "hidden", **in_turn("pictures")}
        self.more_removed.click(told(show_all_removed), None, self._outputs_of_removed, **quiet)

    def _on(self, event: Any, do: Callable[..., Any], inputs: list[Any], first: Any = (), **options: Any) -> Any:
        options = {"show_progress": "hidden", **in_turn("pictures"), **options}
        return event(told(do), inputs, [*first, *self.outputs], **options)

    def _then_shown(self, do: Callable[..., tuple[str | None, str]], anew: bool) -> Callable[..., list[Any]]:
        """What changes something and gives the class to be shown and a sentence; with what the page shows then.

        Args:
            do: the change.
            anew: as in `show`.
        """

        @wraps(do)
        def done(*given: Any) -> list[Any]:
            shown, said = do(*given)
            return self.show(shown, [note(escape(said), is_news=True)] if said else [], anew=anew)

        return done

    def after(self, event: Any) -> Any:
        """Look at the pictures again after an event; returns what comes after that."""
        return self.gauges.after(self._figure.after(self.faults.after(event)))
