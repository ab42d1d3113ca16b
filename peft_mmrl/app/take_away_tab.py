"""The last tab: the classifier as a file, and on the Hub."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from ..hub.upload import check_can_push, plain_errors, push_folder
from ..projects.project_runs import Run, project_runs
from ..projects.take_away import take_away
from .desk import Desk, told
from .places import SHOWN


NOTHING_TO_TAKE = (
    '<div class="empty">There is nothing to take away yet. <b>Train</b> first: what comes of it can be saved here, '
    "and used on other computers.</div>"
)
WHAT = {
    "program": (
        "A program for any computer",
        "Names pictures without this page, without network and without PyTorch: unpack it and run "
        "`python classify.py PICTURES` there. The classes are fixed.",
    ),
    "adapter": (
        "What was learned, as it is",
        "The small file that training made, with its report, which shows some of your pictures. For people who "
        "use `peft-mmrl` or PEFT themselves, and as a copy to keep.",
    ),
    "bundle": (
        "Everything in one folder",
        "What was learned and the large model below it, for `peft-mmrl predict` on a computer without network.",
    ),
}
MAKE = "Make the file"
HUB = "A place where others can use it, or you on other computers."
PUBLIC = (
    "What can be seen there: the names of your classes, the figures of the report and what was learned. "
    "<b>Your pictures stay here.</b> A private repository is seen by you alone."
)


class TakeAwayTab:
    """Taking a classifier away.

    Args:
        desk: whose project it is of.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        with gr.Tab("Take away", id="take-away") as self.tab:
            self.empty = gr.HTML(NOTHING_TO_TAKE)
            with gr.Column(visible=False) as self.panel:
                self.which = gr.Dropdown([], label="Training, the newest first", elem_id="take-which")
                for kind, (title, words) in WHAT.items():
                    with gr.Column(elem_classes="card"):
                        gr.Markdown(f"### {title}\n{words}")
                        make = gr.Button(MAKE, elem_id=f"make-{kind}")
                        file = gr.File(label="Click the size to save it", visible=False, elem_id=f"file-{kind}")
                    begun = make.click(_busy, None, make, show_progress="hidden")
                    made = begun.then(told(self._maker(kind)), self.which, file, show_progress="hidden")
                    made.then(_ready, None, make, show_progress="hidden")
                with gr.Column(elem_classes="card"):
                    gr.Markdown(f"### On the Hugging Face Hub\n{HUB}")
                    gr.HTML(f'<p class="note">{PUBLIC}</p>')
                    self.name = gr.Textbox(label="Name of the repository", placeholder="my-name/leaves", max_lines=1)
                    self.private = gr.Checkbox(True, label="Private: for me alone")
                    self.push = gr.Button("Upload", elem_id="push")
                    self.pushed = gr.HTML()
        self.push.click(
            told(self._push), [self.which, self.name, self.private], self.pushed, show_progress_on=self.push
        )
        self.tab.select(told(self.show), self.which, self.outputs, show_progress="hidden")

    @property
    def outputs(self) -> list[Any]:
        """What `show` fills."""
        return [self.empty, self.panel, self.which]

    def show(self, which: str | None) -> list[Any]:
        """Values of `outputs`, as it is on the disk."""
        names = [run.name for run in project_runs(self._desk.project) if run.is_done]
        value = which if which in names else next(iter(names), None)
        return [gr.update(visible=not names), gr.update(visible=bool(names)), gr.update(choices=names, value=value)]

    def _run(self, name: str | None) -> Run:
        for run in project_runs(self._desk.project):
            if run.name == name and run.is_done:
                return run
        raise ValueError("This training is not there any more: choose another one.")

    def _maker(self, kind: str) -> Any:
        def make(name: str | None) -> Any:
            folder = self._desk.project.folder / SHOWN / "files"
            return gr.update(value=str(take_away(self._run(name), kind, folder)), visible=True)

        return make

    def _push(self, run: str | None, name: str, private: bool) -> str:
        folder = self._run(run).folder
        if not name.strip():
            raise ValueError("Give the repository a name: yours on the Hub, a stroke, and one for the classifier.")
        full_name = check_can_push(name.strip(), private=bool(private))
        with plain_errors(full_name):
            push_folder(folder, full_name, private=bool(private))
        seen = "you alone" if private else "everybody"
        return f'<p class="figure">It is uploaded: <b>{escape(full_name)}</b>, for {seen}.</p>'


def _busy() -> Any:
    return gr.update(value="It is being made …", interactive=False)


def _ready() -> Any:
    return gr.update(value=MAKE, interactive=True)
