"""Numbers in words that need no knowledge of the field, and the small print."""

from __future__ import annotations

from ..data.wording import counted


LABEL_AT_ONCE = "Your pictures at once, without training"  # what answers where no training is asked


def of_hundred(share: float, low: float, high: float) -> str:
    """What an accuracy means: "Of 100 new pictures like yours it gets about 80 right (between 62 and 91)".

    Args:
        share: accuracy, from 0 to 1.
        low, high: ends of its interval.
    """
    about, least, most = (round(100 * value) for value in (share, low, high))
    between = f" (between {least} and {most})" if least != most else ""
    return f"Of 100 new pictures like yours it gets about {about} right{between}"


def pictures(number: int) -> str:
    """ "1 picture", "2 pictures"."""
    return counted(number, "picture")


def classes(number: int) -> str:
    """ "1 class", "2 classes"."""
    return counted(number, "class", "classes")


def duration(seconds: float) -> str:
    """How long something will take, roughly: "about 3 minutes"."""
    if seconds < 50:
        return "less than a minute"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"about {counted(minutes, 'minute')}"
    return f"about {round(minutes / 60)} hours"


def size(num_bytes: int) -> str:
    """Of a file: "0.8 MB"."""
    return f"{num_bytes / 1e6:,.0f} MB" if num_bytes >= 1e7 else f"{max(num_bytes / 1e6, 0.1):.1f} MB"


def note(html: str, kind: str = "", *, is_news: bool = False) -> str:
    """Small print, as HTML.

    Args:
        html: what it says.
        kind: a further class of the style sheet.
        is_news: whether it has just come about: screen readers tell it then.
    """
    role = ' role="status"' if is_news else ""
    return f'<p class="{f"note {kind}".strip()}"{role}>{html}</p>'
