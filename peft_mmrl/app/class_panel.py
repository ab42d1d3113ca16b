"""What can be done with a whole class: other names, putting it together with another one, taking it away."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr

from ..projects.intake import merge_classes, take_class_out
from ..projects.project import ClassFolder
from .desk import Desk
from .look import LINE_WIDTH, typed_line
from .words import pictures


class ClassPanel:
    """An accordion about the class that is shown.

    Args:
        desk: whose project it belongs to.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.shown = gr.Textbox(visible=False)  # folder of the class: another may be chosen, but not shown yet
        with gr.Accordion("Rename, join or take away this class", open=False, elem_id="names") as self.panel:
            self.name, self.rename = typed_line("Name of its folder", "Rename", "class-name", "rename")
            self.prompt_name, self.say = typed_line(
                "How you would say it in “a photo of a …”",
                "Use these words",
                "prompt-name",
                "say",
                info="The page shows these. Better words help: “siamese cat” says more than “class 7” or “siam01”.",
            )
            with gr.Row(equal_height=True, elem_classes="line", visible=False) as self.joining:
                self.into = gr.Dropdown(
                    [], label="Put all its pictures into", scale=4, min_width=LINE_WIDTH, elem_id="merge-into"
                )
                self.merge = gr.Button("Join", scale=1, min_width=120, elem_id="merge")
            self.take_away = gr.Button(size="sm", elem_id="take-class")

    @property
    def outputs(self) -> list[gr.blocks.Block]:
        """What `show` fills."""
        return [self.shown, self.panel, self.name, self.prompt_name, self.joining, self.into, self.take_away]

    def show(self, one: ClassFolder | None, others: Sequence[tuple[str, str]], anew: bool) -> list[Any]:
        """Values of `outputs`.

        Args:
            one: the class; None: there is none.
            others: how people say each of the other classes, and its folder.
            anew: it was not shown before: what was written for another class goes.
        """
        own = [] if one is None else one.pictures
        away = f"Take this class and its {pictures(len(own))} out" if own else "Take this class away"
        folder, words = ("", "") if one is None else (one.name, one.prompt_name)
        return [
            folder,
            # closed: the next class has its own button there, and a second click does not reach it
            *([gr.update(open=False), folder, words] if anew else [gr.skip()] * 3),
            gr.update(visible=bool(own and others)),
            gr.update(choices=list(others), value=None),
            away,
        ]

    def changes(self) -> Iterator[tuple[Any, Callable[..., tuple[str | None, str]], list[Any]]]:
        """For each button its event, what it does (which gives the class to be shown and a sentence), its inputs."""
        project, said = self._desk.project, self._desk.said

        def rename(shown: str, name: str) -> tuple[str, str]:
            return project.rename_class(shown, name), ""

        def say(shown: str, words: str) -> tuple[str, str]:
            project.set_prompt_name(shown, words.strip() or None)
            return shown, ""

        def merge(shown: str, into: str | None) -> tuple[str, str]:
            if into is None:
                raise ValueError("Say first which class the pictures are to go into.")
            joined = said(shown)
            merge_classes(project, shown, into)
            return into, f"The pictures of “{joined}” are in “{said(into)}” now."

        def take_away(shown: str) -> tuple[None, str]:
            gone = said(shown)
            take_class_out(project, shown)
            return None, f"“{gone}” was taken out. Its pictures, if it had any, lie in “Taken out”, below."

        yield self.rename.click, rename, [self.shown, self.name]
        yield self.say.click, say, [self.shown, self.prompt_name]
        yield self.merge.click, merge, [self.shown, self.into]
        yield self.take_away.click, take_away, [self.shown]
