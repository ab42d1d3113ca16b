"""Predictions of random numbers with difficult class names, and their report."""

import io

import datasets
import PIL.Image
import torch

from peft_mmrl.reports import write_report
from peft_mmrl.scoring.labelled import Predictions


NAMES = [
    "<script>alert(1)</script>",
    "\"><img src='http://example.com/x.png' onerror='alert(1)'>",
    "price $5 & $x^$",
    "a name that is so long that no box and no axis has a place for all of it",
    "averylongnamewithoutanyblankthatcouldnotbebrokenanywhereotherwise",
    "猫",
    "कुत्ता",
    "كلب",
    "Größe",
    "two\nlines",
]
HISTORY = [
    {"epoch": 1, "loss": 2.0, "accuracy": 0.5, "zero_shot_accuracy": 0.4},
    {"epoch": 2, "loss": 1.0, "accuracy": 0.6, "zero_shot_accuracy": 0.4},
]


def make_predictions(names=NAMES, pictures=60, trained=None, before=2.0, between=None, after=4.0, folds=0, seed=0):
    """Random probabilities that favour the true class; the numbers say how much, before training, with a decision
    without it, and after it."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(pictures) % len(names)

    def probabilities(favour):
        logits = torch.randn(pictures, len(names), generator=generator)
        return (logits + favour * torch.nn.functional.one_hot(labels, len(names))).softmax(dim=1)

    return Predictions(
        class_names=list(names),
        trained=trained or [True] * len(names),
        paths=[f"<b>{index}</b>/{index}.jpg" for index in range(pictures)],
        labels=labels,
        probabilities=probabilities(after),
        zero_shot=probabilities(before),
        untrained=None if between is None else probabilities(between),
        folds=folds,
    )


def make_dataset(predictions, broken=()):
    """Pictures of several shapes; those at the positions `broken` cannot be read."""
    images = []
    for index in range(len(predictions.paths)):
        size = [(40, 30), (300, 500), (500, 100)][index % 3]
        file = io.BytesIO()
        PIL.Image.new("RGB", size, (index * 4 % 256, 120, 90)).save(file, "JPEG")
        images.append({"bytes": b"" if index in broken else file.getvalue(), "path": None})
    features = {
        "image": datasets.Image(decode=False),
        "label": datasets.ClassLabel(num_classes=len(predictions.class_names)),
        "path": datasets.Value("string"),
    }
    columns = {"image": images, "label": predictions.labels.tolist(), "path": predictions.paths}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def report_of(folder, predictions, **options):
    options = {"title": "my <adapter>", "settings": {"seed": 1}} | options
    return write_report(folder, predictions, make_dataset(predictions), **options)
