"""The tab that asks: labels that may be wrong, and pictures that have no class yet, the most useful ones first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from ..data.wording import percent
from ..projects.agreed import agree, take_back
from ..projects.intake import move_pictures, remove_pictures
from .desk import ALL_COUNT, LAST_COUNTS, NOT_SEEN, Desk, empty_after, in_turn, told
from .figure import Figure
from .intake_words import intake_words, refusal_words, reports
from .look import new_class_line
from .questions import MOST_KEYS, Question, answers_to, doubtful_labels, new_pictures
from .thumbnails import LARGE_SIDE, address, thumbnail
from .uploads import take_in
from .words import note, pictures


LABELS, NEW = "labels", "new"
ASKED_NEXT = 10  # pictures without a class, before the program chooses anew by what it was told
NOTHING = {
    LABELS: "No picture is surely in a wrong class, as far as the others can tell.",
    NEW: "All pictures have a class. Drop others above whose class you do not know, or have not said yet: the program "
    "asks for those first that it learns most from.",
}
TOO_FEW = "The program can ask here as soon as two classes have two pictures each."
NO_CLASSES = "There are no classes yet. Begin with the tab <b>Pictures</b>."
REST = (
    "Those that still have no class look the same as others that have one, or cannot be opened: nothing would be "
    "learned from them."
)
AGAIN = "What you did not know is asked again when this page is opened anew."
SEEN = "You have seen them all."
ANSWERED = "<b>Thank you: {} answered.</b> The next training, in <b>Train</b>, goes by your answers."
NOT_ASKED = "That picture was moved or taken out meanwhile: it is not asked about any more."


@dataclass(frozen=True)
class Said:
    """What was said to a picture last, so that it can be undone.

    Args:
        picture: where it lies now.
        lay_in: folder of the class that it lay in before; None: in none.
        is_skip: whether that was "I do not know".
        made: folder of the class that was made for it; None: there was one.
    """

    picture: str
    lay_in: str | None
    is_skip: bool = False
    made: str | None = None


@dataclass(frozen=True)
class Round:
    """Questions of one kind, kept by the server for one visitor.

    Args:
        kind: `LABELS` or `NEW`.
        queue: what is asked, the first one now.
        keys: folders of the classes that the keys answer with.
        answered: how many were answered.
        skipped: pictures that this visitor is not asked again.
        last: what was said last; None: nothing that can be undone.
    """

    kind: str = LABELS
    queue: list[Question] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    answered: int = 0
    skipped: frozenset[str] = frozenset()
    last: Said | None = None

    @property
    def asked(self) -> Question:
        """What is asked now.

        Raises:
            ValueError: nothing is.
        """
        if not self.queue:
            raise ValueError("There is nothing to answer just now.")
        return self.queue[0]


class ImproveTab:
    """Questions, one at a time.

    Args:
        desk: whose project it is about.
        figure: that changes with the answers.
    """

    def __init__(self, desk: Desk, figure: Figure) -> None:
        self._desk, self._project = desk, desk.project
        with gr.Tab("Improve", id="improve") as self.tab:  # what stands beside tabs moves their names
            self.round = gr.State(Round())
            self.seen = gr.JSON(visible=False)  # what the page asks: a picture, and the classes of the keys
            self.kind = gr.Radio(
                [("Are these in the right class?", LABELS), ("What is this?", NEW)],
                value=LABELS,
                label="Which questions",  # heard, not seen
                show_label=False,
                container=False,
                elem_id="kind",
            )
            with gr.Column(visible=False) as self.new:
                self.drop = gr.File(file_count="multiple", show_label=False, height=130, elem_id="drop-new")
                self.said, self.reports = gr.HTML(visible=False, elem_id="said-new"), gr.State([])
            self.state = gr.HTML(elem_id="improve-state")
            with gr.Column(visible=False, elem_id="question") as self.card:
                self.question = gr.HTML()
                with gr.Row(elem_classes="answer-buttons"):
                    self.buttons = [
                        gr.Button(str(key), visible=False, min_width=110, elem_id=f"answer-{key}")
                        for key in range(1, MOST_KEYS + 1)
                    ]
                with gr.Row(equal_height=True, elem_classes="line"):
                    self.other = gr.Dropdown([], label="Another class", min_width=160, elem_id="other-class")
                    self.new_class = new_class_line("asked-new-class")
                    self.skip = gr.Button("I do not know", min_width=140, elem_id="skip")
                    self.out = gr.Button("Take it out", min_width=140, elem_id="out")
            self.undo = gr.Button("Undo the last answer", visible=False, size="sm", elem_id="undo")
        self._connect(figure)

    @property
    def _shown(self) -> list[Any]:
        card = [self.card, self.question, *self.buttons, self.other, self.new_class]
        return [self.round, self.seen, self.new, self.state, *card, self.undo]

    def _look(self, before: Round, first: str | None = None) -> list[Any]:
        """Ask anew, but for what was skipped before; a picture that is to be the first comes first."""
        kind, before = before.kind, replace(before, queue=[])
        thanks = ANSWERED.format(pictures(before.answered)) if before.answered else ""
        if not self._project.class_folders():
            return self._show(before, thanks or NO_CLASSES)
        instant = self._desk.workbench.update()
        if kind == LABELS and instant.held_out is None:
            return self._show(before, thanks or TOO_FEW)
        if kind == LABELS:
            found = doubtful_labels(self._desk.workbench)
        else:  # those that were skipped may be chosen again, and leave out no others
            found = new_pictures(self._desk.workbench, ASKED_NEXT + len(before.skipped))
        queue = [one for one in found if one.picture not in before.skipped]
        queue.sort(key=lambda one: one.picture != first)
        nothing = REST if kind == NEW and self._project.unlabelled_pictures() else NOTHING[kind]
        done = f"{thanks or SEEN} {AGAIN}" if found else thanks or nothing
        return self._show(replace(before, queue=queue), done)

    def _begin(self, kind: str, before: Round) -> list[Any]:
        """Ask questions of a kind, for which nothing was answered yet."""
        if kind not in NOTHING:
            raise ValueError(f"There are no questions of kind {kind!r}.")
        return self._look(Round(kind, keys=before.keys, skipped=before.skipped, last=before.last))

    def _show(self, now: Round, done: str = "") -> list[Any]:
        """Values of `_shown`: the question of now, or where there is none what is said in its place."""
        new, undo = gr.update(visible=now.kind == NEW), gr.update(visible=now.last is not None)
        if not now.queue:
            hidden = gr.update(visible=False)
            nothing = [*[hidden] * (MOST_KEYS + 2), gr.update(choices=[], value=None), ""]
            return [now, None, new, f'<div class="empty">{done}</div>', *nothing, undo]
        said, one = self._project.prompt_names(), now.asked
        now = replace(now, keys=answers_to(one, self._desk.workbench, now.keys))
        buttons = [gr.update(visible=False)] * MOST_KEYS
        for key, folder in enumerate(now.keys):
            kind = "primary" if folder == one.guess else "secondary"
            buttons[key] = gr.update(value=f"{said.get(folder, folder)} [{key + 1}]", visible=True, variant=kind)
        others = [(name, folder) for folder, name in said.items() if folder not in now.keys]
        left = note(f"{self._done(now)}{self._left(now)} The keys in brackets answer, too.")
        question = gr.update(value=self._words(one, said), visible=True)
        other = gr.update(choices=others, value=None, visible=bool(others))
        return [now, _identity(now), new, left, gr.update(visible=True), question, *buttons, other, "", undo]

    def _done(self, now: Round) -> str:
        if now.last is None or now.last.is_skip:
            return ""
        return f"The last one is in <b>{escape(self._desk.said(now.last.picture.split('/')[1]))}</b> now. "

    def _left(self, now: Round) -> str:
        if now.kind == NEW:
            return f"{pictures(len(self._project.unlabelled_pictures()))} without a class."
        return f"{pictures(len(now.queue))} to look at."

    def _words(self, one: Question, said: dict[str, str]) -> str:
        guess, name = escape(said.get(one.guess, one.guess or "")), escape(one.picture.split("/")[-1])
        if one.guess is None:
            words = "What is this?"
        elif one.lies_in is None:
            sure = ", by its name alone" if one.sure is None else f", {escape(percent(one.sure))} sure"
            words = f"What is this? The guess is <b>{guess}</b>{sure}."
        else:
            lies_in = escape(said.get(one.lies_in, one.lies_in))
            words = f"This picture is in <b>{lies_in}</b>, and looks more like <b>{guess}</b>. What is it?"
        source = address(thumbnail(self._project, one.picture, LARGE_SIDE))
        return f'<img class="asked" src="{source}" alt="{name}"><p class="figure">{words}</p>'

    def _next(self, now: Round, **changes: Any) -> list[Any]:
        """What comes after an answer: the next one that still lies where it lay, or a new look."""
        rest = now.queue[1:]
        while rest and not self._is_there(rest[0].picture):
            rest = rest[1:]
        after = replace(now, queue=rest, **changes)
        return self._show(after) if rest else self._look(after)

    def _is_there(self, picture: str) -> bool:
        """Whether a picture lies where it lay: another tab of the browser may have moved it."""
        return self._project.path(picture).is_file()

    def _pass_over(self, now: Round) -> list[Any]:
        gr.Info(NOT_ASKED)
        return self._next(now)

    def _put(self, folder: str, now: Round, made: str | None = None) -> list[Any]:
        """Answer with a class, that was made for it or was there."""
        one = now.asked
        if not self._is_there(one.picture):
            return self._pass_over(now)
        picture = one.picture
        if folder != one.lies_in:
            picture = move_pictures(self._project, [picture], folder)[picture]
        agree(self._project, picture)
        return self._next(now, answered=now.answered + 1, last=Said(picture, one.lies_in, made=made))

    def _undo(self, now: Round) -> list[Any]:
        """Put the picture that was answered last back to where it lay, and ask for it again."""
        last = now.last
        if last is None:
            raise ValueError("There is no answer to undo.")
        if not self._is_there(last.picture):
            gr.Info(NOT_ASKED)
            return self._look(replace(now, last=None))
        if last.is_skip:
            return self._look(replace(now, skipped=now.skipped - {last.picture}, last=None), last.picture)
        folder, picture = last.picture.split("/")[1], last.picture
        if folder != last.lay_in:  # first, since it may be refused
            picture = move_pictures(self._project, [picture], last.lay_in)[picture]
        take_back(self._project, picture, folder)
        if last.made is not None:
            self._project.remove_if_empty(last.made)
        return self._look(replace(now, answered=max(now.answered - 1, 0), last=None), picture)

    def _press(self, key: int, now: Round) -> list[Any]:
        if key >= len(now.keys):
            raise ValueError("There is nothing to answer just now.")
        return self._put(now.keys[key], now)

    def _choose(self, folder: str | None, now: Round) -> list[Any]:
        return self._show(now) if folder is None else self._put(folder, now)

    def _create(self, name: str, now: Round) -> list[Any]:
        """Answer with a class by its name, made where there is none."""
        if not self._is_there(now.asked.picture):
            return self._pass_over(now)
        known = self._project.class_folders()
        with self._project.class_of(name) as folder:
            return self._put(folder, now, made=None if folder in known else folder)

    def _skip(self, now: Round) -> list[Any]:
        one = now.asked
        return self._next(now, skipped=now.skipped | {one.picture}, last=Said(one.picture, one.lies_in, is_skip=True))

    def _take_out(self, now: Round) -> list[Any]:
        if not self._is_there(now.asked.picture):
            return self._pass_over(now)
        remove_pictures(self._project, [now.asked.picture])
        return self._next(now, answered=now.answered + 1, last=None)

    def _drop(self, files: list[str] | None, before: list[str]) -> list[Any]:
        try:
            words = intake_words(take_in(self._project, files, None))
        except (ValueError, OSError) as error:  # told in place, so that others can be dropped there
            words = refusal_words(error)
        said = reports(before, words)
        return [gr.update(value="".join(said), visible=True), said]

    def _to_what_is_seen(self, do: Callable[..., Any]) -> Callable[..., Any]:
        """An answer that counts for the picture that the page showed, not for the next one, which nobody has seen."""

        def done(*given: Any) -> Any:
            *inputs, now, seen = given
            if not now.queue or seen != _identity(now):
                gr.Info(NOT_SEEN)
                return gr.skip()
            return do(*inputs, now)

        return done

    def _connect(self, figure: Figure) -> None:
        quiet = {"show_progress": "hidden", **in_turn("improve")}

        def answer(event: Callable[..., Any], do: Callable[..., Any], *inputs: Any) -> Any:
            return event(told(self._to_what_is_seen(do)), [*inputs, self.round, self.seen], self._shown, **quiet)

        for key, button in enumerate(self.buttons):
            figure.after(answer(button.click, partial(self._press, key)))
        figure.after(answer(self.other.select, self._choose, self.other))
        figure.after(answer(self.new_class.submit, self._create, self.new_class))
        figure.after(answer(self.out.click, self._take_out))
        figure.after(self.undo.click(told(self._undo), self.round, self._shown, **quiet))
        answer(self.skip.click, self._skip)
        look = {"show_progress": "minimal", "show_progress_on": self.state, **LAST_COUNTS, **in_turn("improve")}
        waiting = {"show_progress": "minimal", "show_progress_on": self.drop, **ALL_COUNT, **in_turn("improve")}
        told_of = [self.said, self.reports]
        dropped = self.drop.upload(told(self._drop), [self.drop, self.reports], told_of, **waiting)
        empty_after(dropped, self.drop).then(told(self._look), self.round, self._shown, **look)
        for event in (self.tab.select, self.kind.input):
            event(told(self._begin), [self.kind, self.round], self._shown, **look)


def _identity(now: Round) -> list[str]:
    """What tells a question from others: an answer to one is none to another."""
    return [now.asked.picture, *now.keys]
