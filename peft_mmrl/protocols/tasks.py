"""The field's three protocols: what is trained on, what is tested, and which accuracies are reported."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import datasets

from ..data.benchmarks import BenchmarkData
from ..data.labels import encode_labels, label_names
from ..data.wording import first_few
from ..metrics.functions import accuracy, harmonic_mean
from ..training import Classifier, Transfer
from ..training.presets import TRANSFER_BETA


Scores = dict[str, float]  # accuracies in percent
Results = dict[str, Scores]  # of one training, by what is asked: a method, and the same by its decision
# Pictures, class names and template -> what is asked, by the names that its results get
Fit = Callable[[datasets.Dataset, list[str], str], Mapping[str, Classifier]]


def base_new_classes(num_classes: int) -> tuple[range, range]:
    """Labels of the base classes, the first half (and the middle one of an odd number), and of the new ones."""
    half = math.ceil(num_classes / 2)
    return range(half), range(half, num_classes)


def select_classes(dataset: datasets.Dataset, labels: Sequence[int]) -> datasets.Dataset:
    """The pictures of some classes, relabelled from 0 in the order of `labels`."""
    names = [dataset.features["label"].names[label] for label in labels]
    relabelled = encode_labels(dataset, label_names(dataset), names)
    return relabelled.select([index for index, label in enumerate(relabelled["label"][:]) if label >= 0])


def _accuracy(
    classifier: Classifier, test: datasets.Dataset, names: list[str], transfer: Transfer | None = None
) -> float:
    """Percentage of pictures that are recognised among some classes."""
    predictions = classifier.logits(test, names, transfer).argmax(dim=1)
    return 100 * accuracy(predictions, test["label"][:])


def base_to_new(data: BenchmarkData, shots: datasets.Dataset, fit: Fit, with_all: bool = False) -> Results:
    """Train on the base classes; test them among themselves, and the new classes among themselves.

    All of these count as new, one too that has the name of a base class: so do the papers.

    Args:
        data: a data set.
        shots: its few-shot pictures, of all classes: those of base classes are trained on.
        fit: trains.
        with_all: test all classes together, too, which no paper does.

    Returns:
        `base`, `new`, `h`, and `all` where it is asked for.
    """
    classes = dict(zip(("base", "new"), base_new_classes(len(data.class_names)), strict=True))
    names = {part: [data.class_names[label] for label in labels] for part, labels in classes.items()}
    fitted = fit(select_classes(shots, classes["base"]), names["base"], data.template)
    results: Results = {name: {} for name in fitted}
    for part, labels in classes.items():
        test, transfer = select_classes(data.test, labels), None if part == "base" else Transfer(data.template)
        for name, classifier in fitted.items():
            results[name][part] = _accuracy(classifier, test, names[part], transfer)
    for name, classifier in fitted.items():
        results[name]["h"] = harmonic_mean(results[name]["base"], results[name]["new"])
        if with_all:
            transfer = Transfer(data.template, trained=len(classes["base"]))
            results[name]["all"] = _accuracy(classifier, data.test, data.class_names, transfer)
    return results


def few_shot(data: BenchmarkData, shots: datasets.Dataset, fit: Fit) -> Results:
    """Train on all classes and test all: `accuracy`."""
    fitted = fit(shots, data.class_names, data.template)
    return {
        name: {"accuracy": _accuracy(classifier, data.test, data.class_names)} for name, classifier in fitted.items()
    }


def cross_dataset(data: BenchmarkData, shots: datasets.Dataset, fit: Fit, targets: Sequence[BenchmarkData]) -> Results:
    """Train on all classes of one data set; test it, and others as they are.

    On the others all classes count as new, those too that have the name of a trained one: so do the papers. ImageNet's
    variants are tested among the classes that they have.

    Returns:
        the accuracy on each data set, by its name.
    """
    results: Results = {}
    for name, classifier in fit(shots, data.class_names, data.template).items():
        results[name] = {data.name: _accuracy(classifier, data.test, data.class_names)}
        for target in targets:
            transfer = Transfer(target.template, TRANSFER_BETA.get(target.name))
            results[name][target.name] = _accuracy(classifier, target.test, target.class_names, transfer)
    return results


def check_classes(data: BenchmarkData, protocol: str) -> None:
    """Raise a ValueError where a data set cannot be used in a protocol: classes without pictures, or too few classes.

    Args:
        data: a data set that is trained on.
        protocol: its name.
    """
    if data.train is None:
        raise ValueError(f"{data.title} has no training pictures: it can only be a target of cross-dataset.")
    if protocol == "base-to-new" and len(data.class_names) < 4:
        raise ValueError(
            f"{data.title} has {len(data.class_names)} classes: base-to-new needs at least 4, two of each kind."
        )
    for part in ("train", "test"):
        check_all_classes_occur(data, part)


def check_all_classes_occur(data: BenchmarkData, part: str) -> None:
    """Raise a ValueError where classes have no pictures in a part, "train" or "test", of a data set."""
    dataset: datasets.Dataset = getattr(data, part)
    names = dataset.features["label"].names
    present = set(label_names(dataset))
    empty = [name for name in names if name not in present]
    if empty:
        raise ValueError(
            f"{data.title}: {len(empty)} of {len(names)} classes have no picture in the {part} split (labels are from "
            f"0 to {len(names) - 1}): {first_few(empty)}."
        )
