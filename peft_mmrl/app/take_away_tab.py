"""The last tab: the classifier as a file, and on the Hub."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr
from huggingface_hub import get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..hub.upload import check_can_push, is_private, plain_errors, push_folder
from ..projects.project_runs import Run, finished_runs
from ..projects.take_away import take_away
from .desk import LAST_COUNTS, Desk, told
from .places import TO_SAVE, own_folder
from .trainings import NEWEST, chosen_training, training_choices
from .words import note, size


NOTHING_TO_TAKE = (
    '<div class="empty">There is nothing to take away yet. <b>Train</b> first: what comes of it can be saved here, '
    "and used on other computers.</div>"
)
WHAT = {  # title, words for people, and for those who know the field
    "program": (
        "A program for other computers",
        "It names pictures without this page and without network. Where it cannot tell, it gives the names that come "
        "into question, if there were enough pictures to check how sure it may be. It never says “none of your "
        "classes”, and learns no more there: for that come back here.",
        "Unpack it. It needs Python and <code>pip install onnxruntime pillow</code>, and runs by "
        "<code>python classify.py PICTURES</code>.",
    ),
    "adapter": (
        "What was learned, as it is",
        "A small file with its report, which shows some of your pictures: a copy to keep, or for somebody who has "
        "this program, too.",
        "An adapter for PEFT. Unpack it; <code>peft-mmrl predict FOLDER PICTURES</code> uses it.",
    ),
    "bundle": (
        "Everything in one folder",
        "What was learned together with the large model below it, for this program on a computer without network.",
        "Unpack it; <code>peft-mmrl predict FOLDER PICTURES</code> uses it.",
    ),
}
MAKE = "Make the file"
HUB = "A place on the internet, for others who are to use it, or for you on other computers."
PUBLIC = (
    "What can be seen there: the names of your classes, how many pictures each has and how well it is recognised, "
    "what was learned, and with which settings. <b>Your pictures and the report stay here.</b> What is private is "
    "seen by you alone or, under the name of an organisation, by its members; what is public by everybody."
)
LOG_IN = (
    "Once before the first upload: make an account on huggingface.co, there under Settings, Access Tokens a token "
    "that may write, and type {} in a terminal on the computer where this program runs. It asks for the token."
)
LOG_IN_COMMAND = "hf auth login"
NO_NAME = 'Give it a name: yours on the Hub, a slash ("/"), and one for the classifier, like my-name/leaves.'


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
                self.which = gr.Dropdown([], label="Which training", elem_id="take-which")
                files = []
                for kind, (title, words, how) in WHAT.items():
                    with gr.Column(elem_classes="card"):
                        gr.HTML(f"<h3>{title}</h3><p>{words}</p>{note(how)}")
                        with gr.Row():
                            make = gr.Button(MAKE, min_width=160, elem_id=f"make-{kind}")
                            file = gr.DownloadButton(
                                variant="primary", visible=False, min_width=160, elem_id=f"file-{kind}"
                            )
                    files.append(file)
                    begun = make.click(_busy, None, make, show_progress="hidden")
                    made = begun.then(told(self._maker(kind)), self.which, file, show_progress="hidden")
                    made.then(_ready, None, make, show_progress="hidden")
                with gr.Column(elem_classes="card"):
                    gr.HTML(f"<h3>On the Hugging Face Hub</h3><p>{HUB}</p><p>{PUBLIC}</p>")
                    words = LOG_IN.format(f"<code>{LOG_IN_COMMAND}</code>")
                    self.log_in = gr.HTML(f"<p>{words}</p>", visible=False, elem_id="log-in")
                    self.name = gr.Textbox(label="Name there", placeholder="my-name/leaves", max_lines=1)
                    self.private = gr.Checkbox(True, label="Private")
                    self.push = gr.Button("Upload", elem_id="push")
                    self.pushed = gr.HTML()
        quiet = {"show_progress": "hidden", **LAST_COUNTS}
        self.which.input(lambda: [gr.update(visible=False)] * len(files), None, files, **quiet)
        self.push.click(
            told(self._push), [self.which, self.name, self.private], self.pushed, show_progress_on=self.push
        )
        self.tab.select(told(self.show), self.which, self.outputs, **quiet)

    @property
    def outputs(self) -> list[Any]:
        """What `show` fills."""
        return [self.empty, self.panel, self.which, self.log_in]

    def show(self, which: str | None) -> list[Any]:
        """Values of `outputs`, as it is on the disk."""
        choices = training_choices(finished_runs(self._desk.project))
        value = which if which in [choice for _, choice in choices] else NEWEST
        return [
            gr.update(visible=not choices),
            gr.update(visible=bool(choices)),
            gr.update(choices=choices, value=value if choices else None),
            gr.update(visible=get_token() is None),
        ]

    def _run(self, which: str | None) -> Run:
        return chosen_training(finished_runs(self._desk.project), which)

    def _maker(self, kind: str) -> Any:
        def make(which: str | None) -> Any:
            run = self._run(which)
            path = take_away(run, kind, own_folder(self._desk.project, TO_SAVE))
            words = f"Save it ({run.name}, {size(path.stat().st_size)})"
            return gr.update(value=str(path), label=words, visible=True)

        return make

    def _push(self, which: str | None, name: str, private: bool) -> str:
        run, name = self._run(which), name.strip()
        try:
            validate_repo_id(name)
        except HFValidationError:
            raise ValueError(NO_NAME) from None
        if get_token() is None:
            raise ValueError(f"Nobody is logged in to the Hub on this computer. {LOG_IN.format(LOG_IN_COMMAND)}")
        full_name = check_can_push(name, private=bool(private))
        with plain_errors(full_name):
            link = push_folder(run.folder, full_name, private=bool(private)).repo_url
            stays_private = is_private(full_name)
        seen = "private" if stays_private else "public"
        if stays_private and not private:
            seen = "still private, as it was there before: you can change that on the Hub"
        link = f'<a href="{escape(link)}" target="_blank" rel="noopener noreferrer">{escape(full_name)}</a>'
        return f'<p class="figure" role="status">It is uploaded to {link}, and {seen}.</p>'


def _busy() -> Any:
    return gr.update(value="It is being made …", interactive=False)


def _ready() -> Any:
    return gr.update(value=MAKE, interactive=True)
