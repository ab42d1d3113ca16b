"""How messages list many things: the first of them, and how many more there are."""

from __future__ import annotations

from collections.abc import Sequence


def first_few(texts: Sequence[str], most: int = 10) -> str:
    """The first `most` texts with commas, `a, b and 3 more`; "none" where there is none."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return (", ".join(texts[:most]) or "none") + more
