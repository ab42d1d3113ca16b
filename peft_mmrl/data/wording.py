"""How messages count things, say how sure something is, and list many: the first, and how many more there are."""

from __future__ import annotations

from collections.abc import Sequence


def first_few(texts: Sequence[str], most: int = 10) -> str:
    """The first `most` texts with commas, `a, b and 3 more`; "none" where there is none."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return (", ".join(texts[:most]) or "none") + more


def in_words(names: Sequence[str], joint: str = "or") -> str:
    """`cat`, `cat or fox`, `cat, fox or dog`."""
    return f" {joint} ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def counted(number: int, one: str, several: str = "") -> str:
    """`1 file`, `1,200 files`; `several` is said of several where that is not `one` with an s."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def percent(share: float) -> str:
    """A probability: never "100%" or "0%", as nothing is certain."""
    return "> 99%" if share > 0.995 else "< 1%" if share < 0.005 else f"{share:.0%}"
