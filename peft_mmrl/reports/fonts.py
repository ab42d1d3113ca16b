"""Class names of any script in matplotlib's figures, as far as the machine has fonts for them."""

from __future__ import annotations

from matplotlib import font_manager


DEFAULT = "DejaVu Sans"  # comes with matplotlib
PLACEHOLDERS = "Last Resort"  # has a box for each letter
REGULAR = (400, "normal", "regular", "book")
MOST_LETTERS = 26


def families_for(texts: list[str]) -> list[str]:
    """Font families of this machine that draw the texts together, matplotlib's own first."""
    fonts, families = _regular_fonts(), [DEFAULT]
    missing = set("".join("".join(texts).split())) - _letters(fonts[DEFAULT])
    for family, path in sorted(fonts.items()):
        if not missing:
            break
        found = missing & _letters(path)
        if found:
            families.append(family)
            missing -= found
    return families


def drawable_names(names: list[str], families: list[str]) -> list[str]:
    """Class names as matplotlib should get them: on one line, shortened, and "class 7" for what no font can draw.

    Args:
        names: class names.
        families: from `families_for`.
    """
    fonts = _regular_fonts()
    letters = set().union(*(_letters(fonts[family]) for family in families))
    drawable = []
    for label, name in enumerate(names):
        text = " ".join(name.split())
        if len(text) > MOST_LETTERS:
            text = text[: MOST_LETTERS - 1] + "…"
        drawable.append(text.replace("$", r"\$") if set(text) <= letters else f"class {label}")
    return drawable


def _regular_fonts() -> dict[str, str]:
    """File of each family; matplotlib would complain of families that have no regular font."""
    return {
        font.name: font.fname
        for font in font_manager.fontManager.ttflist
        if (font.style, font.stretch) == ("normal", "normal")
        and font.weight in REGULAR
        and not font.name.startswith(PLACEHOLDERS)
    }


def _letters(path: str) -> set[str]:
    try:
        font = font_manager.get_font(path)
    except (OSError, RuntimeError, ValueError):  # a file that FreeType cannot read
        return set()
    return set(map(chr, font.get_charmap())) if font.scalable else set()  # fonts of emoji may not be
