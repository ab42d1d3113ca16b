"""Labels: encoded, and matched by name."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from difflib import get_close_matches

import datasets

from ..tuner.names import name_keys, spaced
from ..tuner.tokenization import PromptTokenizer
from .class_names import in_natural_order, listed, notes_on_codes, prompt_names, without_number
from .wording import first_few


SHOWN_PAIRS = 10  # names that look alike, in a message
ALIKE = 0.8  # of the letters of two names in common order, as `difflib` counts them


def encode_labels(dataset: datasets.Dataset, labels: Sequence[str], names: Sequence[str]) -> datasets.Dataset:
    """Put a column `label` into a data set, or another in its place.

    Args:
        dataset: N pictures.
        labels: the class of each; those that are not in `names` become -1.
        names: all classes, in their order.
    """
    position = {name: index for index, name in enumerate(names)}
    if "label" in dataset.column_names:
        dataset = dataset.remove_columns("label")
    feature = datasets.ClassLabel(names=list(names))
    return dataset.add_column("label", [position.get(label, -1) for label in labels], feature=feature)


def label_names(dataset: datasets.Dataset) -> list[str]:
    """The class of each picture, by name."""
    names = dataset.features["label"].names
    return [names[label] for label in dataset["label"][:]]


def drop_empty_classes(dataset: datasets.Dataset) -> tuple[datasets.Dataset, list[str]]:
    """Leave out classes without pictures.

    Returns:
        the data set, and the names of the classes that were left out.
    """
    names, labels = dataset.features["label"].names, label_names(dataset)
    present = set(labels)
    empty = [name for name in names if name not in present]
    kept = [name for name in names if name in present]
    return (encode_labels(dataset, labels, kept), empty) if empty else (dataset, [])


def check_several_classes(dataset: datasets.Dataset, source: str) -> None:
    """Raise a ValueError where there is only one class, so that nothing can be told apart.

    Args:
        dataset: labelled pictures.
        source: what the user calls them.
    """
    names = set(label_names(dataset))
    if len(names) < 2:
        raise ValueError(f"{source} must have pictures of at least two classes, got {listed(names)}.")


def match_labels(
    dataset: datasets.Dataset,
    class_names: Sequence[str],
    renamed: dict[str, str] | None = None,
    tokenizer: PromptTokenizer | None = None,
    notes: list[str] | None = None,
) -> tuple[datasets.Dataset, list[str], list[str]]:
    """Relabel pictures with positions in other class names, by name: never by position.

    Args:
        dataset: labelled pictures.
        class_names: the classes that count, each once, as folders or as prompts name them.
        renamed: names of some of the data set's classes for prompts, see `read_class_names`.
        tokenizer: the base model's, which says when two names are the same class, see
            [`~peft_mmrl.tuner.names.name_keys`].
        notes: takes what a user should know of the matching, a line each.

    Returns:
        the pictures of these classes, the data set's classes that are not among them (their pictures are left out),
        and those of `class_names` that have no picture.

    Raises:
        ValueError: no class matches, or one could be any of two.
    """
    labels = label_names(dataset)
    target, found_notes = match_names(in_natural_order(labels), class_names, renamed, tokenizer)
    unknown = [name for name, place in target.items() if place is None]
    found = set(target.values())
    missing = [name for name in class_names if name not in found]
    close = close_names(unknown, missing)
    if len(unknown) == len(target):
        raise ValueError(
            f"No class of these pictures is among the classes of the model. Theirs: {listed(target)}. The model's: "
            f"{listed(class_names)}. {''.join(f'{line}. ' for line in close)}Rename the folders, or pass names "
            "with --class_names."
        )
    if notes is not None:
        notes += [*found_notes, *(f"{line}; if they are the same, rename one, or use --class_names" for line in close)]
    matched = encode_labels(dataset, [target[name] or "" for name in labels], class_names)
    matched = matched.select([index for index, name in enumerate(labels) if target[name] is not None])
    return matched, unknown, missing


def match_names(
    names: Sequence[str],
    class_names: Sequence[str],
    renamed: Mapping[str, str] | None = None,
    tokenizer: PromptTokenizer | None = None,
) -> tuple[dict[str, str | None], list[str]]:
    """For each of a data set's classes which of other class names it is, or None; and notes.

    A number in front of a name counts only where the name is not found with it.

    Args:
        names, class_names, renamed, tokenizer: as for `match_labels`.

    Raises:
        ValueError: one could be any of two.
    """
    renamed = renamed or {}
    said = {name: renamed.get(name, name) for name in names}
    target = _match(said, class_names, tokenizer)
    by_key = dict(zip(name_keys(list(renamed), tokenizer), renamed.values(), strict=True))
    keys = zip(names, name_keys(names, tokenizer), strict=True)
    again = {name: by_key[key] for name, key in keys if target[name] is None and key in by_key}
    target |= _match(again, class_names, tokenizer)
    # 101.White_Pelican is White Pelican, unless a further class, or class of the pictures, is that but for its number
    ours, theirs = (name_keys(list(map(without_number, part)), tokenizer) for part in (names, class_names))
    times, place = Counter(ours) + Counter(theirs), dict(zip(theirs, class_names, strict=True))
    found = {
        name: place[key]
        for name, key in zip(names, ours, strict=True)
        if target[name] is None and name not in renamed and key in place and times[key] == 2
        if spaced(name) == without_number(name) or spaced(place[key]) == without_number(place[key])
    }
    notes = [f"a number in front makes no difference here: {_pairs(found)}"] if found else []
    target |= found
    several = Counter(place for place in target.values() if place is not None)
    if merged := {name: place for name, place in target.items() if several[place] > 1}:
        notes.append(f"several of these pictures' classes are one class of the model: {_pairs(merged)}")
    return target, notes


def _match(
    said: Mapping[str, str], class_names: Sequence[str], tokenizer: PromptTokenizer | None
) -> dict[str, str | None]:
    same: dict[Hashable, list[str]] = {}
    for name, key in zip(class_names, name_keys(class_names, tokenizer), strict=True):
        same.setdefault(key, []).append(name)
    keys = name_keys(list(said.values()), tokenizer)
    return {
        name: _choose_name(other, same.get(key, [])) for (name, other), key in zip(said.items(), keys, strict=True)
    }


def _choose_name(name: str, same: Sequence[str]) -> str | None:
    """Which of the class names that are the same class it means: one that is written alike, or the only one."""
    exact = [other for other in same if spaced(other) == spaced(name)]
    found = set(exact or same)
    if len(found) > 1:
        raise ValueError(f"The class {name!r} of these pictures could be any of {listed(found)}: rename one.")
    return (exact or same or [None])[0]


def _pairs(found: Mapping[str, str]) -> str:
    return first_few([f"{name!r} is {place!r}" for name, place in found.items()])


def close_names(unknown: Sequence[str], missing: Sequence[str]) -> list[str]:
    """Lines on names that look alike, and are different classes to the base model all the same.

    Args:
        unknown: names of a data set's classes that are not among others.
        missing: those of the others that have no pictures.
    """
    bare = {_bare(name): name for name in missing}
    found = {name: get_close_matches(_bare(name), bare, n=1, cutoff=ALIKE) for name in unknown}
    pairs = [(name, bare[close[0]]) for name, close in found.items() if close]
    return [f"{name!a} is not {place!a} to the model" for name, place in pairs[:SHOWN_PAIRS]]


def _bare(name: str) -> str:
    """Letters and digits alone, without accents, capitals and a number in front."""
    letters = unicodedata.normalize("NFKD", without_number(name)).casefold()
    return "".join(letter for letter in letters if letter.isalnum()) or name


def new_class_names(
    dataset: datasets.Dataset,
    class_names: Sequence[str],
    renamed: dict[str, str] | None = None,
    tokenizer: PromptTokenizer | None = None,
    notes: list[str] | None = None,
) -> list[str]:
    """Names, as prompts say them, of the data set's classes that are not among others.

    Args:
        dataset: labelled pictures.
        class_names: the others.
        renamed, tokenizer, notes: as for `match_labels`.
    """
    names = dataset.features["label"].names
    target, _ = match_names(names, class_names, renamed, tokenizer)
    said, more = prompt_names(names, tokenizer)
    new = [(renamed or {}).get(name, said[name]) for name in names if target[name] is None]
    if notes is not None and new:
        notes += [*more, *notes_on_codes(new)]
    return new
