"""Labelled pictures from folders and `datasets` data sets; `tables.py` reads tables.

Each function returns the data set, as `peft_mmrl.data` describes it, and notes: what a user should know about it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub.errors import HFValidationError

from .class_names import in_natural_order
from .folders import UNREADABLE, holds_picture, is_hidden, is_picture, natural_key, walk
from .labels import drop_empty_classes, encode_labels


Source = tuple[datasets.Dataset, list[str]]
IMAGE_COLUMNS = ("image", "path", "file", "file_name", "filename", "filepath", "image_path", "img", "picture")
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target")
TABLE_COLUMNS = ["image", "label", "path"]
SPLIT_NAMES = {"train", "training", "test", "testing", "val", "valid", "validation", "eval", "dev"}


def are_splits(names: Iterable[str]) -> bool:
    """Whether names are those of splits and none of a class: folders "train" and "Test" are no classes."""
    return {name.lower() for name in names} <= SPLIT_NAMES


def load_folder(root: str | os.PathLike[str]) -> Source:
    """Read a folder with a sub-folder per class; pictures deeper down belong to the class too.

    Classes are in natural order, pictures in the order of their paths. Hidden files and folders are ignored. A class
    folder without pictures is no class. A folder in a class folder is a group: its pictures belong together (column
    `group`).

    Raises:
        OSError: there is no such folder.
        ValueError: it has no class folders with pictures, or splits in their place.
    """
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f"There is no folder {root}.")
    entries = [path for path in sorted(root.iterdir()) if not is_hidden(path.name)]
    folders = sorted((path.name for path in entries if path.is_dir()), key=natural_key)
    paths, labels, others, skipped = [], [], Counter(), []
    for folder in folders:
        for path in walk(root / folder, lambda path, reason: skipped.append((path, reason))):
            if holds_picture(path):
                paths.append(path.relative_to(root).as_posix())
                labels.append(folder)
            else:
                others[path.suffix.lower() or "without extension"] += 1
    present = set(labels)
    names = [folder for folder in folders if folder in present]
    if not names or are_splits(names):
        raise ValueError(
            f"There are no class folders under {root}: expected {root / 'cat' / '1.jpg'}, {root / 'dog' / '2.jpg'} "
            f"and so on, found {', '.join(folders[:5]) or 'no folder'}"
            f"{' (parts of a data set: point at one of them)' if names else ', without pictures'}."
        )
    pictures = [{"path": str(root / path), "bytes": None} for path in paths]
    groups = ["/".join(path.split("/")[:2]) if path.count("/") > 1 else "" for path in paths]
    notes = [f"{path} {reason}" for path, reason in skipped if reason.startswith(UNREADABLE)]
    return labelled(pictures, labels, paths, names, groups), notes + _notes(entries, folders, names, paths, others)


def _notes(
    entries: Sequence[Path], folders: Sequence[str], names: Sequence[str], paths: Sequence[str], others: Counter[str]
) -> list[str]:
    notes = []
    if empty := [folder for folder in folders if folder not in names]:
        notes.append(f"class folders without pictures, left out: {', '.join(empty)}")
    if others:
        counts = ", ".join(f"{extension} ({count})" for extension, count in sorted(others.items()))
        notes.append(f"{others.total()} files are no pictures and left out: {counts}")
    if beside := [path for path in entries if is_picture(path) and path.is_file()]:
        notes.append(f"{len(beside)} pictures lie beside the class folders and are left out: {beside[0].name} ...")
    if deeper := sum(path.count("/") > 1 for path in paths):
        notes.append(f"{deeper} pictures lie in folders below their class folder and belong to that class")
    if tables := [path.name for path in entries if path.suffix.lower() in (".csv", ".jsonl")]:
        notes.append(f"{', '.join(tables)}: not read, since the folders' names are the classes")
    return notes


def load_named(
    name: str | os.PathLike[str],
    split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    config_name: str | None = None,
) -> Source:
    """Read a split of a `datasets` data set.

    Args:
        name: Hub id, a folder that `datasets.load_dataset` reads, or one that `save_to_disk` wrote.
        split: the split, "train" unless given.
        image_column, label_column: None: the only column of images, and the only one of class labels, or else the
            only one with a customary name or of text.
        group_column: says which pictures belong together; None: none.
        config_name: configuration of the data set, where it has several.

    Raises:
        OSError: there is no such data set.
        ValueError: there is no such split, configuration or column, more than one that it could be, or no labels.
    """
    split = split or "train"
    dataset, notes = _load_split(str(name), split, config_name)
    columns = (image_column, label_column, group_column)
    pictures, more = load_columns(dataset, f"{name}, split {split!r}", split, *columns)
    return pictures, notes + more


def load_columns(
    dataset: datasets.Dataset,
    source: str,
    prefix: str,
    image_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
) -> Source:
    """The labelled pictures of a `datasets` data set in memory.

    Args:
        dataset: with a column of images and one of labels.
        source: what it is called in messages.
        prefix: of the pictures' names, "train" gives "train/12".
        image_column, label_column, group_column: see `load_named`.

    Raises:
        ValueError: there is no such column, more than one that it could be, or no labels.
    """
    images = [column for column, feature in dataset.features.items() if isinstance(feature, datasets.Image)]
    image_column = find_column(dataset.column_names, image_column, images, "image_column", source)
    if image_column not in images:
        raise ValueError(f"{source}: the column {image_column!r} has no images, but {dataset.features[image_column]}.")
    label_column = _find_label_column(dataset, label_column, image_column, source)
    labels, names = _label_texts(dataset, label_column, source)
    groups = None if group_column is None else _group_texts(dataset, group_column, source)
    classes = in_natural_order(labels)
    if are_splits(classes):
        raise ValueError(f"{source}: its labels are names of splits ({', '.join(classes)}), not classes.")
    pictures = dataset.select_columns([image_column]).rename_columns({image_column: "image"})
    pictures = pictures.cast_column("image", datasets.Image(decode=False))
    pictures = pictures.add_column("path", [f"{prefix}/{index}" for index in range(len(pictures))])
    if groups is not None:
        pictures = pictures.add_column("group", groups)
    pictures, empty = drop_empty_classes(encode_labels(pictures, labels, names or classes))
    notes = [f"classes without pictures in {source}, left out: {', '.join(empty)}"] if empty else []
    return pictures.select_columns([*TABLE_COLUMNS, *(["group"] if groups is not None else [])]), notes


def split_names(name: str, config_name: str | None = None) -> list[str]:
    """The splits of a `datasets` data set, see `load_named`; none where `save_to_disk` wrote it without splits."""
    if is_saved(name):
        saved = datasets.load_from_disk(name)
        return [] if isinstance(saved, datasets.Dataset) else list(saved)
    return datasets.get_dataset_split_names(name, config_name)


def is_saved(name: str) -> bool:
    """Whether a name is a folder that `datasets` wrote by `save_to_disk`."""
    return any(Path(name, file).is_file() for file in ("state.json", "dataset_dict.json"))


def _load_split(name: str, split: str, config_name: str | None) -> tuple[datasets.Dataset, list[str]]:
    if not is_saved(name):
        try:
            return datasets.load_dataset(name, config_name, split=split), []
        except (HFValidationError, ConnectionError, datasets.exceptions.DatasetNotFoundError) as error:
            raise FileNotFoundError(
                f"There is no file or folder {name}, and no data set of that name that the Hub gives: {error}"
            ) from error
        except (datasets.exceptions.DatasetGenerationError, RuntimeError) as error:
            raise ValueError(f"{name} cannot be read by `datasets`: {error.__cause__ or error}") from error
    if config_name is not None:
        raise ValueError(f"{name} was written by `save_to_disk` and has no configuration {config_name!r}.")
    saved = datasets.load_from_disk(name)
    if isinstance(saved, datasets.Dataset):
        return saved, [f"{name} has no splits: all of it is read"]
    if split not in saved:
        raise ValueError(f"{name} has no split {split!r}, only {', '.join(saved)}.")
    return saved[split], []


def _find_label_column(dataset: datasets.Dataset, given: str | None, image_column: str, source: str) -> str:
    features = {column: feature for column, feature in dataset.features.items() if column != image_column}
    kinds = (
        [column for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)],
        [column for column in features if column.lower() in LABEL_COLUMNS],
        [
            column
            for column, feature in features.items()
            if getattr(feature, "dtype", None) in ("string", "large_string")
        ],
    )
    candidates = next((columns for columns in kinds if columns), [])
    return find_column(dataset.column_names, given, candidates, "label_column", source)


def _label_texts(dataset: datasets.Dataset, column: str, source: str) -> tuple[list[str], list[str] | None]:
    """The class of each picture, and the classes in their order where the data set says it."""
    feature, values = dataset.features[column], dataset[column][:]
    names = feature.names if isinstance(feature, datasets.ClassLabel) else None
    if not re.match("(large_)?string|u?int|bool", str(getattr(feature, "dtype", None))):
        raise ValueError(f"{source}: the column {column!r} must hold a label per picture, got {feature}.")
    absent = sum(value in (None, "") or (names is not None and value < 0) for value in values)
    if absent:
        raise ValueError(f"{source}: {absent} of {len(values)} pictures have no label in the column {column!r}.")
    return [str(value) if names is None else names[value] for value in values], names


def _group_texts(dataset: datasets.Dataset, column: str, source: str) -> list[str]:
    """What each picture belongs to; "" where that is not said."""
    find_column(dataset.column_names, column, (), "group_column", source)
    feature = dataset.features[column]
    if not isinstance(feature, datasets.Value | datasets.ClassLabel):
        raise ValueError(f"{source}: the column {column!r} must hold a group per picture, got {feature}.")
    return ["" if value is None else str(value) for value in dataset[column][:]]


def find_column(columns: Sequence[str], given: str | None, candidates: Sequence[str], what: str, source: str) -> str:
    """The column that is given, or the only candidate.

    Raises:
        ValueError: there is no such column, or not exactly one candidate.
    """
    if given is not None and given not in columns:
        raise ValueError(f"{source} has no column {given!r} (`{what}`), only {', '.join(columns)}.")
    found = candidates if given is None else [given]
    if len(found) != 1:
        which = f"more than one that it could be ({', '.join(found)})" if found else "none that it could be"
        raise ValueError(f"{source}: `{what}` must be given, there is {which}. Columns: {', '.join(columns)}.")
    return found[0]


def labelled(
    pictures: Sequence[dict[str, Any]],
    labels: Sequence[str],
    paths: Sequence[str],
    names: Sequence[str],
    groups: Sequence[str] = (),
) -> datasets.Dataset:
    """A data set as `peft_mmrl.data` describes it.

    Args:
        pictures: path or bytes of each, as `datasets.Image(decode=False)` has them.
        labels: the class of each.
        paths: what names each.
        names: all classes, in their order.
        groups: what each belongs to, "" where it is on its own.
    """
    features = datasets.Features({"image": datasets.Image(decode=False), "path": datasets.Value("string")})
    try:
        dataset = datasets.Dataset.from_dict({"image": list(pictures), "path": list(paths)}, features=features)
    except UnicodeEncodeError as error:
        raise ValueError(f"The name {error.object!r} is no valid Unicode: rename the file.") from error
    dataset = encode_labels(dataset, labels, names).select_columns(TABLE_COLUMNS)
    return dataset.add_column("group", list(groups)) if any(groups) else dataset
