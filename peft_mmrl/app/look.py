"""How the page looks: a theme of fonts that every machine has, a few rules, and the keys that answer."""

from __future__ import annotations

from pathlib import Path

import gradio


STYLE_SHEET = Path(__file__).with_name("page.css")
KEYS_SCRIPT = Path(__file__).with_name("keys.html")
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
