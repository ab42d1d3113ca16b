"""The field's benchmarks: CoOp's eleven data sets and ImageNet's four variants, from folders as they are published.

Folders, split files and class names are those of CoOp's instructions (`INSTRUCTIONS`), so that one `data_dir` serves
both codebases. Only paths are read here; pictures are decoded when they are needed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets

from .folders import is_hidden, is_picture
from .sources import labelled


INSTRUCTIONS = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"
CLASS_NAMES_FILE = "classnames.txt"
Items = dict[str, list[tuple[str, str]]]  # part -> a picture's path and class


@dataclass
class BenchmarkData:
    """A data set as the protocols use it.

    Args:
        name: as users ask for it, and in results.
        title: as papers write it.
        template: prompt of its classes.
        class_names: C names for prompts, in the order of the labels; two may be the same, as in ImageNet's list.
        train: None where the data set is for tests only.
        validation: None where it has none of its own (ImageNet: the papers have its validation split as test split).
        test: the test split. All three are as `peft_mmrl.data` describes a labelled data set.
        settings: training settings that its pictures need, fields of [`~peft_mmrl.training.TrainingSettings`].
        base_model: a CLIP that suits it better than the papers'.
    """

    name: str
    title: str
    template: str
    class_names: list[str]
    train: datasets.Dataset | None
    validation: datasets.Dataset | None
    test: datasets.Dataset
    settings: dict[str, Any] = field(default_factory=dict)
    base_model: str | None = None


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
    read: Callable[[Path, Benchmark], tuple[dict[str, str], Items]]
    needs: tuple[str, ...]
    template: str = "a photo of a {}."


def read_split_file(root: Path, benchmark: Benchmark) -> tuple[dict[str, str], Items]:
    """A JSON file `{"train": [[path, label, class name], ...], "val": ..., "test": ...}`."""
    path = root / benchmark.needs[0]
    try:
        rows = {
            part: [(name, label, title) for name, label, title in json.loads(path.read_text())[part]]
            for part in ("train", "val", "test")
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} must be a JSON object with lists `train`, `val`, `test` of [path, label, class name]: {error!r}"
        ) from error
    names: dict[int, str] = {}
    for name, label, title in (row for part in rows.values() for row in part):
        if isinstance(label, bool) or not isinstance(label, int) or label < 0:
            raise ValueError(f"{path}: the label of {name} must be a whole number of at least 0, got {label!r}.")
        if names.setdefault(label, title) != title:
            raise ValueError(f"{path}: the label {label} stands for {names[label]!r} and, at {name}, for {title!r}.")
    images = Path(benchmark.images)
    items = {part: [((images / name).as_posix(), title) for name, _, title in rows[part]] for part in rows}
    return {names[label]: names[label] for label in sorted(names)}, items


def read_aircraft(root: Path, benchmark: Benchmark) -> tuple[dict[str, str], Items]:
    """Text files: `variants.txt` with the classes, `images_variant_*.txt` with picture and class in each line."""
    names = (root / "variants.txt").read_text().splitlines()
    items: Items = {}
    for part in ("train", "val", "test"):
        lines = (root / f"images_variant_{part}.txt").read_text().splitlines()
        pairs = [line.split(" ", 1) for line in lines]
        items[part] = [(f"{benchmark.images}/{number}.jpg", name) for number, name in pairs]
    return {name: name for name in names}, items


def read_imagenet(root: Path, benchmark: Benchmark) -> tuple[dict[str, str], Items]:
    """Folders `train` and `val` with a folder for each WordNet id of `classnames.txt`."""
    names = dict(sorted(read_wordnet_names(root).items()))
    folders = {name: name for name in names}
    parts = {"train": f"{benchmark.images}/train", "test": f"{benchmark.images}/val"}
    return names, {part: list(_class_folders(root, images, folders)) for part, images in parts.items()}


def read_imagenet_variant(root: Path, benchmark: Benchmark) -> tuple[dict[str, str], Items]:
    """A folder for each WordNet id, all of ImageNet's or some: only the classes that are there count."""
    names = dict(sorted(read_wordnet_names(root).items()))
    present = {name: title for name, title in names.items() if (root / benchmark.images / name).is_dir()}
    return present, {"test": list(_class_folders(root, benchmark.images, {name: name for name in present}))}


def read_imagenet_v2(root: Path, benchmark: Benchmark) -> tuple[dict[str, str], Items]:
    """Folders that are numbered from 0, as the lines of `classnames.txt`."""
    names = read_wordnet_names(root)
    numbered = {str(number): name for number, name in enumerate(names)}
    return names, {"test": list(_class_folders(root, benchmark.images, numbered))}


def read_wordnet_names(root: Path) -> dict[str, str]:
    """Class names by WordNet id: a line `n01440764 tench` for each class."""
    lines = [line.split(" ", 1) for line in (root / CLASS_NAMES_FILE).read_text().splitlines() if line.strip()]
    if not lines or not all(len(line) == 2 for line in lines):
        raise ValueError(f"{root / CLASS_NAMES_FILE}: each line must be a WordNet id and a name (n01440764 tench).")
    return {number: name.strip() for number, name in lines}


def _class_folders(root: Path, images: str, folders: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Pictures of class folders and the class that each folder stands for; other folders are an error."""
    found = {entry.name for entry in os.scandir(root / images) if entry.is_dir() and not is_hidden(entry.name)}
    missing, unknown = sorted(folders.keys() - found), sorted(found - folders.keys())
    if missing or unknown or not found:
        raise ValueError(
            f"{root / images} must have a folder for each of {len(folders)} classes, but "
            f"{f'{len(missing)} are missing ({_few(missing)})' if missing or not found else ''}"
            f"{' and ' if missing and unknown else ''}"
            f"{f'{len(unknown)} are not in {CLASS_NAMES_FILE} ({_few(unknown)})' if unknown else ''}."
        )
    for folder in sorted(folders):
        for name in sorted(os.listdir(root / images / folder)):
            if not is_hidden(name) and is_picture(Path(name)):
                yield f"{images}/{folder}/{name}", folders[folder]


def _with_split_file(title: str, folder: str, images: str, split: str, template: str | None = None) -> Benchmark:
    prompt = {} if template is None else {"template": template}
    return Benchmark(title, folder, images, read_split_file, (f"split_zhou_{split}.json",), **prompt)


def _imagenet(title: str, folder: str, images: str, read: Callable[..., Any] = read_imagenet_variant) -> Benchmark:
    return Benchmark(title, folder, images, read, (CLASS_NAMES_FILE,))


BENCHMARKS = {
    "imagenet": _imagenet("ImageNet", "imagenet", "images", read_imagenet),
    "caltech101": _with_split_file("Caltech101", "caltech-101", "101_ObjectCategories", "Caltech101"),
    "oxford_pets": _with_split_file(
        "OxfordPets", "oxford_pets", "images", "OxfordPets", "a photo of a {}, a type of pet."
    ),
    "stanford_cars": _with_split_file("StanfordCars", "stanford_cars", ".", "StanfordCars"),
    "flowers102": _with_split_file(
        "Flowers102", "oxford_flowers", "jpg", "OxfordFlowers", "a photo of a {}, a type of flower."
    ),
    "food101": _with_split_file("Food101", "food-101", "images", "Food101", "a photo of {}, a type of food."),
    "fgvc_aircraft": Benchmark(
        "FGVCAircraft",
        "fgvc_aircraft",
        "images",
        read_aircraft,
        ("variants.txt", "images_variant_train.txt", "images_variant_val.txt", "images_variant_test.txt"),
        "a photo of a {}, a type of aircraft.",
    ),
    "sun397": _with_split_file("SUN397", "sun397", "SUN397", "SUN397"),
    "dtd": _with_split_file("DTD", "dtd", "images", "DescribableTextures", "{} texture."),
    "eurosat": _with_split_file("EuroSAT", "eurosat", "2750", "EuroSAT", "a centered satellite photo of {}."),
    "ucf101": _with_split_file("UCF101", "ucf101", "UCF-101-midframes", "UCF101", "a photo of a person doing {}."),
    "imagenetv2": _imagenet("ImageNetV2", "imagenetv2", "imagenetv2-matched-frequency-format-val", read_imagenet_v2),
    "imagenet_sketch": _imagenet("ImageNet-Sketch", "imagenet-sketch", "images"),
    "imagenet_a": _imagenet("ImageNet-A", "imagenet-adversarial", "imagenet-a"),
    "imagenet_r": _imagenet("ImageNet-R", "imagenet-rendition", "imagenet-r"),
}
VARIANTS = ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")  # of ImageNet, for tests only


def load_benchmark(name: str, data_dir: str | os.PathLike[str]) -> BenchmarkData:
    """Read the paths, labels and class names of a benchmark.

    Pictures of class folders are in the order of their names, not in that in which a file system lists them, so a
    seed draws the same pictures on every machine.

    Args:
        name: one of `BENCHMARKS`.
        data_dir: the folder that holds the data sets' folders.

    Raises:
        OSError: a folder, a file or a picture of the split files is missing.
        ValueError: an unknown name, or a folder or file of another form.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"There is no data set {name!r}, only {', '.join(BENCHMARKS)}.")
    benchmark = BENCHMARKS[name]
    root = Path(data_dir) / benchmark.folder
    for needed in (benchmark.images, *benchmark.needs):
        if not (root / needed).exists():
            heading = benchmark.title.lower()
            raise FileNotFoundError(
                f"{benchmark.title}: there is no {root / needed}. Download it as {INSTRUCTIONS}#{heading} says, to "
                f"{root}, or choose the folder above it with --data_dir."
            )
    names, items = benchmark.read(root, benchmark)
    if benchmark.read in (read_split_file, read_aircraft):
        _check_items(root, names, items)
    parts = {part: _labelled_part(root, pairs, list(names)) for part, pairs in items.items()}
    class_names = [title.replace("_", " ") for title in names.values()]
    train, validation = parts.get("train"), parts.get("val")
    return BenchmarkData(name, benchmark.title, benchmark.template, class_names, train, validation, parts["test"])


def _check_items(root: Path, names: Mapping[str, str], items: Items) -> None:
    """Raise where a listed picture has no known class or is not there."""
    listed = [(path, name) for pairs in items.values() for path, name in pairs]
    unknown = sorted({name for _, name in listed if name not in names})
    if unknown:
        raise ValueError(f"{root}: pictures are listed for classes that there are not: {_few(unknown)}.")
    missing = [path for path, _ in listed if not (root / path).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{root}: {len(missing)} of {len(listed)} listed pictures are missing: {_few(missing)}."
        )


def _labelled_part(root: Path, pairs: Sequence[tuple[str, str]], names: list[str]) -> datasets.Dataset:
    pictures = [{"path": str(root / path), "bytes": None} for path, _ in pairs]
    return labelled(pictures, [name for _, name in pairs], [path for path, _ in pairs], names)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
