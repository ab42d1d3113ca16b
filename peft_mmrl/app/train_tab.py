"""The second tab: one button, how far it is, and what came of it."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from ..data.wording import counted
from ..projects.project_runs import Run, Status, finished_runs, resume, run_of_now, start
from ..projects.since_training import learned_from
from ..reports.reading import REPORT, REPORT_FILE
from .desk import ALL_COUNT, LAST_COUNTS, Desk, in_turn, told
from .figure import Figure
from .outcome_words import changed_pictures, changes_html, outcome_html
from .thumbnails import address, pictures_html, thumbnail
from .words import duration, pictures


MOST_CHANGED = 24
TITLE_OF_CHANGED = "Pictures that are answered otherwise than before"
EVERY = 2  # seconds between looks at a training
INTRODUCTION = "The program learns your classes from your pictures."
HOW_LONG = (
    "Soon after it has begun it says how many minutes it takes: the more pictures, the more, and many more without a "
    "graphics card."
)
MEANWHILE = "You can stop it at any time, or close this page and come back."
DETAILS = "For experts: what the program says"
NOTHING_TRAINED = '<div class="empty">Nothing was trained yet. It takes pictures of two classes or more.</div>'


class TrainTab:
    """Training.

    Args:
        desk: whose project is trained.
        figure: that changes when a training ends.
    """

    def __init__(self, desk: Desk, figure: Figure) -> None:
        self._desk, self._project = desk, desk.project
        with gr.Tab("Train", id="train") as self.tab:
            self.introduction = gr.HTML(elem_id="introduction", padding=False)
            self.since = gr.HTML(elem_id="since", padding=False)
            with gr.Row():
                self.start = gr.Button("Train", variant="primary", size="lg", elem_id="start")
                self.cancel = gr.Button("Stop", variant="stop", size="lg", visible=False, elem_id="cancel")
                self.resume = gr.Button("Go on", size="lg", visible=False, elem_id="resume")
            self.progress = gr.HTML(elem_id="progress")
            with gr.Accordion(DETAILS, open=False, visible=False) as self.details:
                self.lines = gr.Textbox(
                    label=DETAILS, show_label=False, lines=8, max_lines=8, interactive=False, container=False
                )
            self.which = gr.Dropdown([], label="Trainings, the newest first", visible=False, elem_id="which-run")
            self.outcome = gr.HTML(elem_id="outcome")
            self.changed = gr.HTML(elem_id="changed")
            self.clock = gr.Timer(EVERY, active=False)
            self.newest = gr.State(None)  # name of the newest training that has ended well
        self._connect(figure)

    @property
    def outputs(self) -> list[Any]:
        """What `show` fills."""
        buttons = [self.start, self.cancel, self.resume]
        told = [self.progress, self.details, self.lines]
        shown = [self.which, self.outcome, self.changed]
        return [self.introduction, *buttons, *told, *shown, self.clock, self.newest]

    def show(self, which: str | None = None) -> list[Any]:
        """Values of `outputs`, as it is on the disk.

        Args:
            which: run whose outcome is shown; None: the newest that is done, as it is after a training.
        """
        now = run_of_now(self._project)
        status = None if now is None else now.status()
        running = status is not None and status.state == "running"
        may_go_on = status is not None and status.can_go_on
        progress = NOTHING_TRAINED if status is None else progress_html(status)
        lines = [] if status is None else status.lines
        done = finished_runs(self._project)
        shown = None if running else next((run for run in done if run.name == which), done[0] if done else None)
        newest, names = next(iter(done), None), [run.name for run in done]
        return [
            _introduction(newest),
            gr.update(
                visible=not running,
                value="Train again" if done else "Train",
                variant="secondary" if may_go_on else "primary",
            ),
            gr.update(visible=running),
            gr.update(visible=may_go_on),
            gr.update(value=progress, visible=status is None or status.state != "done"),
            gr.update(visible=bool(lines)),
            "\n".join(lines),
            gr.update(choices=names, value=shown and shown.name, visible=len(done) > 1 and not running),
            *self._outcome(shown),
            gr.Timer(active=running),
            newest and newest.name,
        ]

    def begin(self) -> list[Any]:
        """Start a training; returns, as the next two, what `show` does."""
        start(self._project)
        return self.show()

    def stop(self) -> list[Any]:
        """Stop the training that runs."""
        if (run := run_of_now(self._project)) is not None:
            run.cancel()
        return self.show()

    def go_on(self) -> list[Any]:
        """Go on with the training that was stopped."""
        if (run := run_of_now(self._project)) is not None:
            resume(run)
        return self.show()

    def _changed_since(self) -> str:
        """What the newest training does not know of."""
        try:
            return changes_html(self._desk.changes())
        except (ValueError, OSError):  # the line above all tabs says why
            return ""

    def _outcome(self, run: Run | None) -> list[Any]:
        if run is None:
            return ["", ""]
        page = run.folder / REPORT / REPORT_FILE
        link = f'<p><a href="{address(str(page))}" target="_blank">Open the whole report</a></p>'
        items = []
        for one in changed_pictures(run.folder, MOST_CHANGED):
            mark = "✓" if one.after == one.label else "✗"
            words = f"{mark} <b>{escape(one.label)}</b><br>before: {escape(one.before)}<br>now: {escape(one.after)}"
            items.append((self._thumbnail(one.path), words))
        html = outcome_html(run.folder) + (link if page.is_file() else "")
        there = [item for item in items if item[0]]
        gone = len(items) - len(there)
        words = f"{counted(gone, 'other was', 'others were')} moved or taken out since." if gone else ""
        return [html, pictures_html(there, TITLE_OF_CHANGED, words)]

    def _thumbnail(self, path: str) -> str | None:
        try:
            picture = f"pictures/{path}"
            return address(thumbnail(self._project, picture)) if self._project.path(picture).is_file() else None
        except ValueError:  # a run on other pictures, by a command
            return None

    def _connect(self, figure: Figure) -> None:
        quiet = {"show_progress": "hidden", **in_turn("train")}
        self.start.click(told(self.begin), None, self.outputs, **quiet)
        self.cancel.click(told(self.stop), None, self.outputs, **quiet)
        self.resume.click(told(self.go_on), None, self.outputs, **quiet)
        self.which.input(told(self.show), self.which, self.outputs, **quiet, **ALL_COUNT)
        selected = self.tab.select(told(self.show), self.which, self.outputs, **quiet, **ALL_COUNT)
        for event in (selected, figure.follow(self.newest.change)):
            event.then(told(self._changed_since), None, self.since, show_progress="hidden", **LAST_COUNTS)
        self.clock.tick(told(self.show), self.which, self.outputs, **quiet)


def _introduction(newest: Run | None) -> str:
    """What a training is, and how long it takes, as HTML."""
    how_long = HOW_LONG
    if newest is not None and newest.seconds is not None:
        how_long = f"The last training, with {pictures(len(learned_from(newest)))}, took {duration(newest.seconds)}."
    return f"<p>{escape(' '.join([INTRODUCTION, how_long, MEANWHILE]))}</p>"


def progress_html(status: Status) -> str:
    """How far a training is."""
    left = ""
    if status.state == "running" and status.seconds_left is not None:
        left = f" {duration(status.seconds_left).capitalize()} to go."
    bar = (
        f'<div class="bar"><i style="width:{100 * status.share:.0f}%"></i></div>' if status.state == "running" else ""
    )
    return f'<p class="figure" role="status">{escape(status.words)}{escape(left)}</p>{bar}'
