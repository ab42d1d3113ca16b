"""Class names of any script in matplotlib's figures, as far as the machine has fonts for them."""

from __future__ import annotations

import functools

from matplotlib import font_manager


DEFAULT = "DejaVu Sans"  # comes with matplotlib
PLACEHOLDERS = "Last Resort"  # has a box for each letter
REGULAR = (400, "normal", "regular", "book")  # weights; families without an upright font of one have matplotlib warn
MOST_LETTERS = 26


def families_for(texts: list[str]) -> list[str]:
    """Font families of this machine that draw the texts together, matplotlib's own first."""
    families, missing = [DEFAULT], set("".join("".join(texts).split())) - _letters(DEFAULT)
    fonts = font_manager.fontManager.ttflist
    installed = {font.name for font in fonts if font.weight in REGULAR and font.style == "normal"}
    for family in sorted(installed) if missing else []:
        if not family.startswith(PLACEHOLDERS) and missing & _letters(family):
            families.append(family)
            missing -= _letters(family)
    return families


def drawable_names(names: list[str], families: list[str]) -> list[str]:
    """Class names as matplotlib should get them: on one line, shortened, and "class 7" for what no font can draw.

    Args:
        names: class names.
        families: from `families_for`.
    """
    letters = frozenset().union(*map(_letters, families))
    drawable = []
    for label, name in enumerate(names):
        text = " ".join(name.split())
        if len(text) > MOST_LETTERS:
            text = text[: MOST_LETTERS - 1] + "…"
        drawable.append(text.replace("$", r"\$") if set(text) <= letters else f"class {label}")
    return drawable


@functools.cache
def _letters(family: str) -> frozenset[str]:
    try:
        font = font_manager.get_font(font_manager.findfont(family, fallback_to_default=False))
    except (OSError, RuntimeError, ValueError):  # a file that FreeType cannot read
        return frozenset()
    return frozenset(map(chr, font.get_charmap()) if font.scalable else ())  # fonts of emoji may not be
