"""The field's benchmarks: CoOp's eleven data sets and ImageNet's four variants, from folders as they are published.

Folders, split files and class names are those of CoOp's instructions (`INSTRUCTIONS`), so that one `data_dir` serves
both codebases. Only paths are read here; pictures are decoded when they are needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets

from .class_names import prompt_names
from .labels import match_labels
from .layouts import (
    CLASS_NAMES_FILE,
    Benchmark,
    read_aircraft,
    read_imagenet,
    read_imagenet_v2,
    read_imagenet_variant,
    read_split_file,
)
from .sources import labelled, load_named, split_names


INSTRUCTIONS = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"


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
TRAINING_BENCHMARKS = [name for name in BENCHMARKS if name not in VARIANTS]


def load_benchmark(name: str, data_dir: str | os.PathLike[str]) -> BenchmarkData:
    """Read the paths, labels and class names of a benchmark; whether all pictures are there is not looked at.

    Pictures of class folders are in the order of their names, not in that in which a file system lists them, so a
    seed draws the same pictures on every machine.

    Args:
        name: one of `BENCHMARKS`.
        data_dir: the folder that holds the data sets' folders.

    Raises:
        OSError: a folder or a file is missing.
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
    parts = {part: _labelled_part(root, pairs, list(names)) for part, pairs in items.items()}
    class_names = [title.replace("_", " ") for title in names.values()]
    train, validation = parts.get("train"), parts.get("val")
    return BenchmarkData(name, benchmark.title, benchmark.template, class_names, train, validation, parts["test"])


def _labelled_part(root: Path, pairs: Sequence[tuple[str, str]], names: list[str]) -> datasets.Dataset:
    pictures = [{"path": str(root / path), "bytes": None} for path, _ in pairs]
    return labelled(pictures, [name for _, name in pairs], [path for path, _ in pairs], names)


def load_copy(name: str, source: str) -> BenchmarkData:
    """Read a data set from the Hugging Face Hub, or from a folder of `datasets`, in place of its published folder.

    Such copies have splits and class names of their own: their results are not exactly the papers'. Without a test
    split the validation split is tested; that of ImageNet always is, as in the papers. Test labels are matched by
    name; pictures of classes that are not trained are left out.

    Args:
        name: one of `BENCHMARKS`, for its template, or any other.
        source: Hub id or folder, see `load_named`.

    Raises:
        OSError: there is no such data set.
        ValueError: it has no split to train on or to test.
    """
    known = split_names(source) or ["train"]
    held_out = ["validation", "val", "valid", "dev"]
    train = None if name in VARIANTS else _first(known, ["train"], source)
    order = [*held_out, "test"] if name == "imagenet" else ["test", *held_out]
    part = _first(known, [*order, "train"] if train is None else order, source)
    test, _ = load_named(source, part)
    class_names = test.features["label"].names
    if train is not None:
        pictures, _ = load_named(source, train)
        class_names = pictures.features["label"].names
        test, _, _ = match_labels(test, class_names)
    benchmark = BENCHMARKS.get(name)
    title, template = (benchmark.title, benchmark.template) if benchmark else (name, "a photo of a {}.")
    names = list(prompt_names(class_names)[0].values())
    return BenchmarkData(name, title, template, names, pictures if train else None, None, test)


def _first(known: Sequence[str], wanted: Sequence[str], source: str) -> str:
    """The first wanted split that there is."""
    found = [split for split in wanted if split in known]
    if not found:
        raise ValueError(f"{source} has no split {' or '.join(map(repr, wanted))}, only {', '.join(known)}.")
    return found[0]
