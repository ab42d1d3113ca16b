"""The third tab: a picture, and what is said to it, on trial or in use."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from ..projects.intake import add_pictures
from ..projects.project_runs import finished_runs
from ..reports.gallery import picture_uri
from .answer_html import answer_html, is_doubtful, view_name
from .desk import ALL_COUNT, FETCHING, LAST_COUNTS, NOT_SEEN, Desk, in_turn, told
from .figure import Figure
from .look import new_class_line, plain_menu
from .questions import IN_DOUBT
from .thumbnails import address, pictures_html, thumbnail
from .trainings import NEWEST, chosen_training, training_choices
from .uploads import uploaded
from .words import LABEL_AT_ONCE, note


AT_ONCE = ""  # the choice of no training
NOTHING_TO_TRY = '<div class="empty">There are no classes yet. Begin with <b>Pictures</b>: two names are enough.</div>'
WAITING = '<div class="empty">Drop a picture, or take one with the camera: what it is stands here then.</div>'
MAPS = "The redder a place, the closer it was looked at."
ADDED = " The main view decides most; the others were added by the training."
TEACH = "<h3>Is that right?</h3>" + note("The picture is added to the class that you choose.")
OTHER, ANY = "No, it is …", "It is …"
TITLE_OF_NEAREST = "Those of your pictures that are most like it"


class TryTab:
    """Trying pictures.

    Args:
        desk: whose project answers.
        figure: that changes where a picture is put into a class.
    """

    def __init__(self, desk: Desk, figure: Figure) -> None:
        self._desk, self._project = desk, desk.project
        with gr.Tab("Try", id="try") as self.tab:
            self.which = gr.Dropdown([], label="Who answers", visible=False, elem_id="who")
            with gr.Row():
                with gr.Column(min_width=280):
                    self.picture = gr.Image(
                        sources=["upload", "webcam", "clipboard"],
                        type="filepath",
                        show_label=False,
                        height=300,
                        buttons=[],
                        elem_id="try-picture",
                    )
                with gr.Column(min_width=280):
                    self.answer = gr.HTML(WAITING, elem_id="answer")
            self.given = gr.State()  # the picture; kept by the server, as a page may not name one that has gone
            self.guess = gr.JSON(visible=False)  # path of a picture, and folder of the class that it is taken for
            with gr.Column(visible=False) as self.teach:
                gr.HTML(TEACH)
                with gr.Row(equal_height=True, elem_classes="line"):
                    self.agree = gr.Button("Yes", variant="primary", min_width=200, elem_id="agree")
                    self.later = gr.Button("I am not sure: ask me later", min_width=200, elem_id="later")
                with gr.Row(equal_height=True, elem_classes="line"):
                    self.belongs = plain_menu("Which class it is", "belongs", min_width=200)
                    self.new_class = new_class_line("tried-new-class")
            self.taught = gr.HTML(visible=False, elem_id="taught")
            self.nearest = gr.HTML(visible=False, elem_id="nearest")
            self.maps = gr.HTML(visible=False, elem_id="maps")
        self._connect(figure)

    @property
    def _answered(self) -> list[Any]:
        shown = [self.answer, self.guess, self.teach, self.agree, self.belongs, self.new_class]
        return [*shown, self.taught, self.nearest, self.maps]

    @property
    def outputs(self) -> list[Any]:
        """What `show` fills."""
        return [self.which, self.picture, *self._answered]

    def show(self, which: str | None, given: dict | None) -> list[Any]:
        """Values of `outputs`, as it is on the disk; a picture that was dropped too long ago goes."""
        picture = gr.skip()
        try:
            if given is not None:
                uploaded(self._project, given["path"])
        except ValueError:
            given = picture = None
        runs = finished_runs(self._project)
        if not runs:  # nothing is chosen, so that the first training answers as soon as there is one
            return [gr.update(choices=[], value=None, visible=False), picture, *self._ask(None, given)]
        choices = [*training_choices(runs), (LABEL_AT_ONCE, AT_ONCE)]
        value = which if which in [choice for _, choice in choices] else NEWEST
        chosen = {} if value == which else {"value": value}
        return [gr.update(choices=choices, visible=True, **chosen), picture, *self._ask(value, given)]

    def _hold(self, given: dict | None) -> dict | None:
        return given

    def _ask(self, which: str | None, given: dict | None) -> list[Any]:
        """The answer to a picture.

        Args:
            which: name of a run, `NEWEST`, or `AT_ONCE`; None: the newest, or at once before there is one.
            given: what was uploaded, checked by the guard and by Gradio; None: nothing.
        """
        hidden = [None, *[gr.update(visible=False)] * (len(self._answered) - 2)]
        if given is None:
            return [WAITING if self._project.class_folders() else NOTHING_TO_TRY, *hidden]
        if self._desk.fetches:
            gr.Info(FETCHING)
        runs = finished_runs(self._project)
        run = None if which == AT_ONCE or not (which or runs) else chosen_training(runs, which).name
        answer = self._desk.workbench.answer(uploaded(self._project, given["path"]), run)
        if not answer.ranks:
            return [answer_html(answer), *hidden]
        best = answer.ranks[0][0]
        guess = self._desk.workbench.instant.folder_of(best)
        names = [(name, folder) for folder, name in self._project.prompt_names().items()]
        near = [(address(thumbnail(self._project, one.picture)), escape(one.name)) for one in answer.nearest]
        maps = [(picture_uri(picture), view_name(token)) for token, picture in (answer.maps or {}).items()]
        how = MAPS + ADDED if len(maps) > 1 else MAPS
        if is_doubtful(answer):
            yes, look, first = f"It is {best}", "secondary", ANY
        else:
            yes, look, first = f"Yes, it is {best}", "primary", OTHER
        others = [(first, ""), *((name, folder) for name, folder in names if folder != guess)]
        return [
            answer_html(answer),
            [given["path"], guess],
            gr.update(visible=not self._desk.read_only),
            gr.update(value=yes, visible=guess is not None, variant=look),
            gr.update(choices=others, value="", visible=True),
            gr.update(value="", visible=True),
            gr.update(visible=False),
            gr.update(value=pictures_html(near, TITLE_OF_NEAREST), visible=bool(near)),
            gr.update(value=pictures_html(maps, "Where it looked", how), visible=bool(maps)),
        ]

    def _connect(self, figure: Figure) -> None:
        asked = [self.which, self.given]
        quiet = {"show_progress": "hidden", **in_turn("try")}
        shown = {**in_turn("try"), "preprocess": False, "show_progress": "minimal", "show_progress_on": self.answer}
        held = self.picture.change(told(self._hold), self.picture, self.given, preprocess=False, **quiet)
        held.then(told(self._ask), asked, self._answered, **ALL_COUNT, **shown)  # also while one is asked
        self.which.input(told(self._ask), asked, self._answered, **LAST_COUNTS, **shown)
        self.tab.select(told(self.show), asked, self.outputs, preprocess=False, **LAST_COUNTS, **quiet)
        if self._desk.read_only:
            return

        def teach(given: dict | None, folder: str | None) -> list[Any]:
            if not folder:  # the first line of the menu
                return gr.skip()
            return self._keep(given, folder, f"Thank you: it is a picture of “{escape(self._desk.said(folder))}” now.")

        def agree(given: dict | None, guess: list[str] | None) -> list[Any]:
            if given is None or not guess or guess[0] != given["path"]:  # that was the answer to the picture before
                gr.Info(NOT_SEEN)
                return gr.skip()
            return teach(given, guess[1])

        def teach_new(given: dict | None, name: str) -> list[Any]:
            with self._project.class_of(name) as folder:
                return teach(given, folder)

        def later(given: dict | None) -> list[Any]:
            return self._keep(given, None, "It waits for you in the tab <b>Improve</b>.", prefix=IN_DOUBT)

        done = [self.teach, self.taught]
        for event, do, said in (
            (self.agree.click, agree, self.guess),
            (self.belongs.select, teach, self.belongs),
            (self.new_class.submit, teach_new, self.new_class),
        ):
            figure.after(event(told(do), [self.picture, said], done, preprocess=False, **quiet))
        self.later.click(told(later), self.picture, done, preprocess=False, **quiet)

    def _keep(self, given: dict | None, folder: str | None, words: str, prefix: str = "") -> list[Any]:
        if given is None:
            raise ValueError("There is no picture.")
        path = uploaded(self._project, given["path"])
        intake = add_pictures(self._project, [(prefix + path.name, path)], folder)
        if intake.refused:
            words = f"It was not taken: {escape(intake.refused[0][1])}"
        return [
            gr.update(visible=bool(intake.refused)),
            gr.update(value=note(words, is_news=True), visible=True),
        ]
