"""Class names: when two of them are the same class, and what they differ in.

`name_keys` alone decides it, for `set_classes` and everything around it: names are the same class when the base
model's tokenizer gives them the same ids after Unicode composition, underscores read as blanks. To CLIP's tokenizer
case makes no difference, to a cased one it does.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

from .tokenization import PromptTokenizer
from .validation import InvalidTypeError, as_list


def clean_names(names: Any) -> list[str]:
    """Validate class names; underscores become blanks and outer white space goes."""
    cleaned = []
    for position, name in enumerate(as_list("names", names, "class names")):
        if not isinstance(name, str):
            raise InvalidTypeError(f"The class name at position {position} must be a string, got {name!r}.")
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"The class name at position {position} is no valid Unicode: {name!r}.") from error
        cleaned.append(_with_blanks(name))
        if not cleaned[-1]:
            raise ValueError(f"The class name at position {position} is empty: {name!r}.")
    return cleaned


def _with_blanks(name: str) -> str:
    return name.replace("_", " ").strip()


def _in_single_blanks(name: str) -> str:
    return " ".join(_with_blanks(name).split())


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def spaced(name: str) -> str:
    """A folder's name as prompts say it: single blanks in the place of underscores and blanks, accents composed."""
    return _in_single_blanks(_composed(name))


# What CLIP's tokenizer passes over in names.
DIFFERENCES = {"Unicode composition": _composed, "blanks or underscores": _in_single_blanks, "capitals": str.lower}


def name_keys(names: Sequence[str], tokenizer: PromptTokenizer | None) -> list[Hashable]:
    """What tells classes apart: the token ids of the bare name.

    Args:
        names: class names, or folders' names.
        tokenizer: the base model's. None where it is not at hand: names that differ only in what CLIP's tokenizer
            passes over (Unicode composition, blanks, underscores, capitals) are the same class.

    Raises:
        ValueError: a name without any token.
    """
    if tokenizer is None:
        return [_without_differences(name) for name in names]
    keys = [tuple(ids) for ids in tokenizer(list(map(_with_blanks, names)))] if names else []
    for position, key in enumerate(keys):
        if len(key) <= 2:  # BOS and EOS
            raise ValueError(f"The class name at position {position} is empty: {names[position]!r} gives no token.")
    return keys


def _without_differences(name: str, but: str | None = None) -> str:
    """A name without what CLIP's tokenizer passes over, one thing excepted."""
    for what, change in DIFFERENCES.items():
        name = name if what == but else change(name)
    return name


def how_they_differ(name: str, other: str) -> str:
    """In words, what two names of the same class differ in."""
    if name == other:
        return "they are equal"
    found = []
    if _without_differences(name) == _without_differences(other):
        found = [what for what in DIFFERENCES if _without_differences(name, what) != _without_differences(other, what)]
    if not found:
        return f"the tokenizer reads {name!a} and {other!a} alike"
    shown = f": {name!a} and {other!a}" if "Unicode composition" in found else ""
    return f"they differ in {' and '.join(found)} alone{shown}"


def same_names(keys: Sequence[Hashable]) -> list[list[int]]:
    """Positions of classes that are the same, by their keys: a list for each class that occurs several times."""
    places: dict[Hashable, list[int]] = {}
    for position, key in enumerate(keys):
        places.setdefault(key, []).append(position)
    return [positions for positions in places.values() if len(positions) > 1]


def check_unique(
    names: Sequence[str], keys: Sequence[Hashable], way_out: str = "Remove one, or pass `allow_duplicates=True`."
) -> None:
    """Raise a ValueError, which names a way out, where two names are the same class."""
    for first, second, *_ in same_names(keys):
        raise ValueError(
            f"The class name {names[second]!r} at position {second} is the same class as {names[first]!r} at position "
            f"{first}: {how_they_differ(names[first], names[second])}. {way_out}"
        )


def describe_equal_names(names: Sequence[str], tokenizer: PromptTokenizer | None = None) -> str:
    """The classes that share a name, `'missile' (positions 657 and 744)`, or "" where there are none."""
    return ", ".join(
        f"{names[positions[0]]!r} (positions {' and '.join(map(str, positions))})"
        for positions in same_names(name_keys(names, tokenizer))
    )


def distinct_names(names: Sequence[str], tokenizer: PromptTokenizer | None = None) -> list[str]:
    """The names without those that are the same class as one before."""
    first: dict[Hashable, str] = {}
    for name, key in zip(names, name_keys(names, tokenizer), strict=True):
        first.setdefault(key, name)
    return list(first.values())


def match_keys(keys: Sequence[Hashable], known: Sequence[Hashable]) -> list[int | None]:
    """The position of each key among known ones, or None.

    Where a key is known several times (ImageNet's list has two names twice) its first occurrence means the first of
    them, the second the second, and further ones the last.
    """
    places: dict[Hashable, list[int]] = {}
    for position, key in enumerate(known):
        places.setdefault(key, []).append(position)
    times: Counter[Hashable] = Counter()
    matched = []
    for key in keys:
        found = places.get(key)
        matched.append(found[min(times[key], len(found) - 1)] if found else None)
        times[key] += 1
    return matched
