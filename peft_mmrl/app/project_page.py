"""The page: its parts in the order in which somebody goes through them."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import gradio as gr

from .desk import Desk, told
from .figure import Figure
from .improve_tab import ImproveTab
from .pictures_tab import PicturesTab
from .take_away_tab import TakeAwayTab
from .train_tab import TrainTab
from .try_tab import TryTab


if TYPE_CHECKING:
    from ..projects.project import Project

LONGEST_WAIT = 64  # calls that wait


def build_page(project: Project, *, read_only: bool = False) -> gr.Blocks:
    """The page of a project, to be served by `serving.serve`.

    Args:
        project: what is worked on.
        read_only: pictures can be tried, and nothing else.
    """
    name, desk, quiet = project.folder.name, Desk(project, read_only), {"show_progress": "hidden"}
    forgetting = 600, 3600  # seconds: every ten minutes what was dropped, or made to be saved, an hour ago
    with gr.Blocks(title=name, analytics_enabled=False, delete_cache=forgetting) as page:
        gr.HTML(f"<h1>{escape(name)}</h1>", padding=False)
        figure = Figure(desk)
        with gr.Tabs():
            if not read_only:
                pictures = PicturesTab(desk, figure)
                pictures.after(page.load(told(pictures.show), pictures.chosen, pictures.outputs, **quiet))
                TrainTab(desk, figure)
            trying = TryTab(desk, figure)
            asked = [trying.which, trying.given]
            begun = page.load(told(trying.show), asked, trying.outputs, preprocess=False, **quiet)
            if read_only:
                figure.after(begun)
            else:
                ImproveTab(desk, figure)
                TakeAwayTab(desk)
    return page.queue(max_size=LONGEST_WAIT, default_concurrency_limit=4)
