"""Class names and labels: cleaned for prompts, encoded, matched by name."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Sequence

import datasets

from .folders import natural_key


PREFIX = re.compile(r"^n\d{8}[-_ ]+(?=.)|^\d{2,}\.(?=[^\W\d])")


def clean_class_name(name: str) -> str:
    """A folder's name as a prompt should say it.

    Underscores become blanks, blanks are not doubled, and the numbers that data sets put in front of names go:
    `n02085620-Chihuahua`, `001.Black_footed_Albatross`. Everything else stays, hyphens and capitals included; where
    that is not what is meant, `read_class_names` reads better names.
    """
    return " ".join(PREFIX.sub("", name).replace("_", " ").split())


def read_class_names(path: str | os.PathLike[str], folders: Iterable[str]) -> dict[str, str]:
    """Read names for prompts from a file with a line `folder,name` for each class that is not named as its folder.

    Args:
        path: a CSV file without header.
        folders: the classes that there are.

    Raises:
        OSError: there is no such file.
        ValueError: a line of another form, an unknown folder, or one that is named twice.
    """
    known, names = set(folders), {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file, skipinitialspace=True)
        for row in rows:
            if not row:
                continue
            where = f"{path}, line {rows.line_num}"
            if len(row) != 2 or not row[1].strip():
                raise ValueError(f"{where}: each line must be `folder,name`, got {','.join(row)!r}.")
            folder, name = row[0].strip(), row[1].strip()
            if folder not in known:
                raise ValueError(f"{where}: there is no class {folder!r}, only {_listed(known)}.")
            if folder in names:
                raise ValueError(f"{where}: the class {folder!r} is named a second time.")
            names[folder] = name
    return names


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


def in_natural_order(labels: Iterable[str]) -> list[str]:
    """The classes that occur: `class 2` before `class 10`."""
    return sorted(set(labels), key=natural_key)


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
        raise ValueError(f"{source} must have pictures of at least two classes, got {_listed(names)}.")


def match_labels(
    dataset: datasets.Dataset, class_names: Sequence[str], renamed: dict[str, str] | None = None
) -> tuple[datasets.Dataset, list[str], list[str]]:
    """Relabel pictures with positions in other class names, by name: never by position.

    Names match where they are the same after `clean_class_name`; capitals count only where nothing else tells two
    classes apart.

    Args:
        dataset: labelled pictures.
        class_names: the classes that count, as folders or as prompts name them.
        renamed: names of some of the data set's classes for prompts, see `read_class_names`.

    Returns:
        the pictures of these classes, the data set's classes that are not among them (their pictures are left out),
        and those of `class_names` that have no picture.

    Raises:
        ValueError: no class matches, or one matches two that differ in capitals alone.
    """
    renamed = renamed or {}
    labels = label_names(dataset)
    same: dict[str, list[str]] = {}
    for name in class_names:
        same.setdefault(_key(name), []).append(name)
    wanted = {name: renamed.get(name, name) for name in in_natural_order(labels)}
    target = {name: _choose_name(other, same.get(_key(other), [])) for name, other in wanted.items()}
    if not any(target.values()):
        raise ValueError(
            f"No class of these pictures is among the classes of the model. Theirs: {_listed(target)}. The model's: "
            f"{_listed(class_names)}. Rename the folders, or pass names with --class_names."
        )
    matched = encode_labels(dataset, [target[name] or "" for name in labels], class_names)
    matched = matched.select([index for index, name in enumerate(labels) if target[name]])
    unknown = [name for name, place in target.items() if place is None]
    found = set(target.values())
    missing = [name for name in class_names if name not in found]
    return matched, unknown, missing


def _choose_name(name: str, same: Sequence[str]) -> str | None:
    """Which of the class names that differ from a name in spelling alone it means."""
    exact = [other for other in same if clean_class_name(other) == clean_class_name(name)]
    found = set(exact or same)
    if len(found) > 1:
        raise ValueError(f"The class {name!r} of these pictures could be any of {_listed(found)}: rename one.")
    return (exact or same or [None])[0]


def new_class_names(
    dataset: datasets.Dataset, class_names: Sequence[str], renamed: dict[str, str] | None = None
) -> list[str]:
    """Names, as prompts say them, of the data set's classes that are not among others.

    Args:
        dataset: labelled pictures.
        class_names: the others.
        renamed: as for `match_labels`.
    """
    known = {_key(name) for name in class_names}
    names = [(renamed or {}).get(name, clean_class_name(name)) for name in dataset.features["label"].names]
    return [name for name in names if _key(name) not in known]


def _key(name: str) -> str:
    return clean_class_name(name).casefold()


def _listed(names: Iterable[str]) -> str:
    names = in_natural_order(names)
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(map(repr, names[:10])) + more if names else "none"
