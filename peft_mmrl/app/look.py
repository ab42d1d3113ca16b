"""How the page looks: a theme of fonts that every machine has, a few rules and words; and its scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio


STYLE_SHEET = Path(__file__).with_name("page.css")
SCRIPTS = [Path(__file__).with_name(name) for name in ("keys.html", "folders.html")]
LINE_WIDTH = 260  # pixels of a line to write in, below which its button goes under it
DROP_WORDS = {  # instead of Gradio's
    "upload_text.drop_file": "Drop pictures here",
    "upload_text.drop_image": "Drop a picture here",
    "upload_text.click_to_upload": "click to choose",
    "common.complete": "Done",  # said to screen readers; Gradio itself has no words for it
}
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Arial", "sans-serif"]


def theme() -> gradio.themes.Base:
    """Gradio's plain theme, without its fonts from the web."""
    plain = gradio.themes.Default(primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=["monospace"])
    return plain.set(
        block_title_text_weight="500",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        layout_gap="12px",
    )


def drop_words() -> gradio.I18n:
    """What stands where files are dropped, where the browser asks for English."""
    return gradio.I18n(en=DROP_WORDS)


def typed_line(
    label: str, button: str, name: str, button_name: str, *, variant: str = "secondary", **options: Any
) -> tuple[gradio.Textbox, gradio.Button]:
    """A line to write in, and the button that does something with what is written.

    Args:
        label: of the line.
        button: what stands on the button.
        name: of the line in the page.
        button_name: of the button in the page.
        variant: of the button.
        options: further ones of the line.
    """
    with gradio.Row(equal_height=True, elem_classes="line"):
        line = gradio.Textbox(label=label, max_lines=1, scale=4, min_width=LINE_WIDTH, elem_id=name, **options)
        return line, gradio.Button(button, variant=variant, scale=1, min_width=120, elem_id=button_name)


def new_class_line(name: str) -> gradio.Textbox:
    """A line, sent by Enter or its arrow, for the name of a class that there is not yet.

    Args:
        name: of the line in the page.
    """
    return gradio.Textbox(
        label="A new class",
        placeholder="A new class: its name",
        max_lines=1,
        submit_btn=True,
        show_label=False,
        container=False,
        min_width=200,
        elem_id=name,
    )


def plain_menu(label: str, name: str, min_width: int) -> gradio.Dropdown:
    """A menu whose first choice says what it is for.

    Args:
        label: heard by those who cannot see that.
        name: in the page.
        min_width: in pixels.
    """
    return gradio.Dropdown([], label=label, show_label=False, container=False, min_width=min_width, elem_id=name)
