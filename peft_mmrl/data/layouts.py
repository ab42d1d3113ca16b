"""How the field's data sets lie on disk, as CoOp's instructions lay them out: readers of classes and paths."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .folders import is_hidden, is_picture
from .wording import first_few


CLASS_NAMES_FILE = "classnames.txt"
Classes = dict[str, str]  # name of a label -> class name for prompts, in the order of the labels
Items = dict[str, list[tuple[str, str]]]  # part -> a picture's path and the name of its label


@dataclass(frozen=True)
class Benchmark:
    """Where a data set lies and how it is read.

    Args:
        title: as papers write it; also its heading in `INSTRUCTIONS`.
        folder: below the data directory.
        images: folder of its pictures, below `folder`.
        read: gives the names of its classes, by label in their order, and the pictures of each part.
        needs: files beside the pictures that must be there.
        template: prompt of its classes.
    """

    title: str
    folder: str
    images: str
    read: Callable[[Path, Benchmark], tuple[Classes, Items]]
    needs: tuple[str, ...]
    template: str = "a photo of a {}."


def read_split_file(root: Path, benchmark: Benchmark) -> tuple[Classes, Items]:
    """A JSON file `{"train": [[path, label, class name], ...], "val": ..., "test": ...}`."""
    path = root / benchmark.needs[0]
    try:
        rows = {
            part: [(name, label, title) for name, label, title in json.loads(path.read_text(encoding="utf-8"))[part]]
            for part in ("train", "val", "test")
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} must be a JSON object with lists `train`, `val`, `test` of [path, label, class name]: {error!r}"
        ) from error
    names = _names_by_label(path, [row for part in rows.values() for row in part])
    times, images = Counter(names.values()), Path(benchmark.images)
    keys = {label: title if times[title] == 1 else f"{title} ({label})" for label, title in sorted(names.items())}
    items = {part: [((images / name).as_posix(), keys[label]) for name, label, _ in rows[part]] for part in rows}
    classes = {key: names[label] for label, key in keys.items()}
    _check_classes(root, classes, items)
    return classes, items


def _names_by_label(path: Path, rows: Sequence[tuple[str, int, str]]) -> dict[int, str]:
    """Class names of a split file; raises a ValueError where its labels do not number them from 0."""
    names: dict[int, str] = {}
    for name, label, title in rows:
        if isinstance(label, bool) or not isinstance(label, int) or label < 0:
            raise ValueError(f"{path}: the label of {name} must be a whole number of at least 0, got {label!r}.")
        if names.setdefault(label, title) != title:
            raise ValueError(f"{path}: the label {label} stands for {names[label]!r} and, at {name}, for {title!r}.")
    unused = [label for label in range(len(names)) if label not in names]
    if unused:
        raise ValueError(
            f"{path}: its {len(names)} classes must have the labels 0 to {len(names) - 1}, but no picture has the "
            f"label {unused[0]}, and the largest label is {max(names)}."
        )
    return names


def read_aircraft(root: Path, benchmark: Benchmark) -> tuple[Classes, Items]:
    """Text files: `variants.txt` with the classes, `images_variant_*.txt` with picture and class in each line."""
    names = [line.strip() for line in (root / "variants.txt").read_text(encoding="utf-8").splitlines() if line.strip()]
    items: Items = {}
    for part in ("train", "val", "test"):
        pairs = _read_pairs(root / f"images_variant_{part}.txt", "number of a picture and its class (1025794 707-320)")
        items[part] = [(f"{benchmark.images}/{number}.jpg", name) for number, name in pairs]
    classes = {name: name for name in names}
    _check_classes(root, classes, items)
    return classes, items


def read_imagenet(root: Path, benchmark: Benchmark) -> tuple[Classes, Items]:
    """Folders `train` and `val` with a folder for each WordNet id of `classnames.txt`."""
    names = dict(sorted(read_wordnet_names(root).items()))
    folders = {name: name for name in names}
    parts = {"train": f"{benchmark.images}/train", "test": f"{benchmark.images}/val"}
    return names, {part: list(_class_folders(root, images, folders)) for part, images in parts.items()}


def read_imagenet_variant(root: Path, benchmark: Benchmark) -> tuple[Classes, Items]:
    """A folder for each WordNet id, all of ImageNet's or some: only the classes that are there count."""
    names = dict(sorted(read_wordnet_names(root).items()))
    present = {name: title for name, title in names.items() if (root / benchmark.images / name).is_dir()}
    return present, {"test": list(_class_folders(root, benchmark.images, {name: name for name in present}))}


def read_imagenet_v2(root: Path, benchmark: Benchmark) -> tuple[Classes, Items]:
    """Folders that are numbered from 0, as the lines of `classnames.txt`."""
    names = read_wordnet_names(root)
    numbered = {str(number): name for number, name in enumerate(names)}
    return names, {"test": list(_class_folders(root, benchmark.images, numbered))}


def read_wordnet_names(root: Path) -> dict[str, str]:
    """Class names by WordNet id: a line `n01440764 tench` for each class."""
    return dict(_read_pairs(root / CLASS_NAMES_FILE, "WordNet id and a name (n01440764 tench)"))


def _read_pairs(path: Path, what: str) -> list[tuple[str, str]]:
    """The first word of each line, and the rest of it."""
    lines = [line.strip().split(" ", 1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines or not all(len(line) == 2 for line in lines):
        raise ValueError(f"{path}: each line must be a {what}.")
    return [(first, rest.strip()) for first, rest in lines]


def _class_folders(root: Path, images: str, folders: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Pictures of class folders and the class that each folder stands for; other folders are an error."""
    found = {entry.name for entry in os.scandir(root / images) if entry.is_dir() and not is_hidden(entry.name)}
    missing, unknown = sorted(folders.keys() - found), sorted(found - folders.keys())
    if missing or unknown or not found:
        raise ValueError(
            f"{root / images} must have a folder for each of {len(folders)} classes, but "
            f"{f'{len(missing)} are missing ({first_few(missing)})' if missing or not found else ''}"
            f"{' and ' if missing and unknown else ''}"
            f"{f'{len(unknown)} are not in {CLASS_NAMES_FILE} ({first_few(unknown)})' if unknown else ''}."
        )
    for folder in sorted(folders):
        for name in sorted(os.listdir(root / images / folder)):
            if not is_hidden(name) and is_picture(Path(name)):
                yield f"{images}/{folder}/{name}", folders[folder]


def _check_classes(root: Path, names: Mapping[str, str], items: Items) -> None:
    """Raise a ValueError where a listed picture has no known class."""
    unknown = sorted({name for pairs in items.values() for _, name in pairs if name not in names})
    if unknown:
        raise ValueError(f"{root}: pictures are listed for classes that there are not: {first_few(unknown)}.")
