"""What predictions come to in numbers: the content of `metrics.json`, which the page and the figures show."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch

from ..metrics import functions
from ..scoring.labelled import Predictions
from ..scoring.rungs import TRAINED, UNTRAINED, ZERO_SHOT, rungs


LARGEST_MATRIX = 40  # classes
PREFIXES = {ZERO_SHOT: "zero_shot_", UNTRAINED: "untrained_", TRAINED: ""}  # of measures


def compute_metrics(predictions: Predictions) -> dict[str, Any]:
    """All measures of a report.

    Args:
        predictions: of N pictures over C classes.

    Returns:
        `pictures` (N), the measures of `measure` for the trained model and, as `zero_shot_...`, for frozen CLIP;
        `gained` and `lost`, numbers of pictures that only the trained model or only frozen CLIP recognises;
        `difference_p_value`, how likely chance alone makes them differ as much; `accuracy_low` and `accuracy_high`,
        ends of the 90 % interval, for each model, `untrained_...` the decision without training (`rungs_in` takes
        them out again); where both were scored `training_gained`, `training_lost` and
        `training_p_value`, the trained model against that; `folds`; `per_class`, a dictionary per class.
        What has no value, as the recall of a class without pictures, is None.
    """
    gained, lost = changed_pictures(predictions)
    metrics: dict[str, Any] = {"pictures": len(predictions.labels)}
    metrics |= measure(predictions, predictions.probabilities)
    metrics |= {f"zero_shot_{name}": value for name, value in measure(predictions, predictions.zero_shot).items()}
    metrics |= {"gained": len(gained), "lost": len(lost), "difference_p_value": p_value(len(gained), len(lost))}
    metrics |= what_training_did(predictions) | {"folds": predictions.folds}
    for rung in rungs(predictions):
        prefix = PREFIXES[rung["model"]]
        metrics |= {f"{prefix}accuracy": rung["accuracy"]}
        metrics |= {f"{prefix}accuracy_{end}": rung[end] for end in ("low", "high")}
    return metrics | {"per_class": per_class(predictions)}


def rungs_in(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """What [`~peft_mmrl.scoring.rungs.rungs`] gave, from the metrics that hold it."""
    ends = {"accuracy": "accuracy", "low": "accuracy_low", "high": "accuracy_high"}
    return [
        {"model": model} | {name: metrics[prefix + measure] for name, measure in ends.items()}
        for model, prefix in PREFIXES.items()
        if f"{prefix}accuracy_low" in metrics
    ]


def what_training_did(predictions: Predictions) -> dict[str, Any]:
    """How many pictures the trained model gained and lost against the decision without training, and how likely chance
    alone does as much; nothing where only one of them was scored."""
    if predictions.untrained is None or not predictions.is_trained:
        return {}
    after, before = (
        probabilities.argmax(dim=1) == predictions.labels
        for probabilities in (predictions.probabilities, predictions.untrained)
    )
    gained, lost = (after & ~before).sum().item(), (before & ~after).sum().item()
    return {"training_gained": gained, "training_lost": lost, "training_p_value": p_value(gained, lost)}


def measure(predictions: Predictions, probabilities: torch.Tensor) -> dict[str, float]:
    """Measures over all classes.

    Args:
        predictions: says labels and trained classes.
        probabilities: of one model (N, C).

    Returns:
        `accuracy`, `top_5_accuracy` (of more than five classes), `macro_precision`, `macro_recall`, `macro_f1`,
        `expected_calibration_error`, and where there are pictures of trained and of new classes `base_accuracy`,
        `new_accuracy` and `harmonic_mean`, with all classes competing.
    """
    labels, num_classes = predictions.labels, len(predictions.class_names)
    predicted = probabilities.argmax(dim=1)
    measures = {"accuracy": functions.accuracy(predicted, labels)}
    if num_classes > 5:
        measures["top_5_accuracy"] = functions.top_k_accuracy(probabilities, labels, k=5)
    columns = functions.per_class(predicted, labels, num_classes)
    measures |= {name: value for name, value in columns.items() if name.startswith("macro_")}
    measures["expected_calibration_error"] = functions.expected_calibration_error(probabilities, labels)
    is_new = ~torch.tensor(predictions.trained)[labels]
    if is_new.any() and not is_new.all():
        measures |= functions.base_to_new(predicted, labels, is_new)
    return measures


def per_class(predictions: Predictions) -> list[dict[str, Any]]:
    """For each class its label, name, whether it was trained, its number of pictures, and precision, recall and F1.

    Of a class without pictures these three are None.
    """
    models = {"": predictions.probabilities, "zero_shot_": predictions.zero_shot}
    names = predictions.class_names
    columns: dict[str, Any] = {"label": range(len(names)), "class": names, "trained": predictions.trained}
    for prefix, probabilities in models.items():
        found = functions.per_class(probabilities.argmax(dim=1), predictions.labels, len(names))
        columns["pictures"] = found["support"]
        columns |= {prefix + name: found[name] for name in ("precision", "recall", "f1")}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def by_change(rows: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Classes that have pictures, from the one that gained most recall to the one that lost most.

    Args:
        rows: from `per_class`.
        most: number of classes to return; of more than these, those in the middle are left out.
    """
    rows = [row for row in rows if row["pictures"]]
    rows.sort(key=lambda row: row["zero_shot_recall"] - row["recall"])
    return rows if len(rows) <= most else rows[: most - most // 2] + rows[len(rows) - most // 2 :]


def changed_pictures(predictions: Predictions) -> tuple[list[int], list[int]]:
    """Positions of the pictures that only the trained model recognises, and of those that only frozen CLIP does.

    Those whose own class gained or lost most probability come first.
    """
    after, before = (
        probabilities.argmax(dim=1) == predictions.labels
        for probabilities in (predictions.probabilities, predictions.zero_shot)
    )
    after_own, before_own = (
        probabilities.gather(1, predictions.labels[:, None])[:, 0]
        for probabilities in (predictions.probabilities, predictions.zero_shot)
    )
    change = after_own - before_own
    order = change.argsort(descending=True, stable=True)
    gained = order[(after & ~before)[order]].tolist()
    lost = order[(before & ~after)[order]].tolist()
    return gained, lost[::-1]


def confused_pairs(predictions: Predictions, most: int) -> list[tuple[int, int, int]]:
    """The trained model's most frequent mistakes: true label, predicted label and number of pictures.

    Args:
        predictions: of N pictures.
        most: number of pairs to return at most.
    """
    predicted = predictions.probabilities.argmax(dim=1)
    pairs = zip(predictions.labels.tolist(), predicted.tolist(), strict=True)
    counts = Counter((actual, called) for actual, called in pairs if actual != called)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [(actual, called, count) for (actual, called), count in ordered[:most]]


def occurring(predictions: Predictions) -> torch.Tensor:
    """Labels of the classes that have pictures or were named by the trained model, in order."""
    return torch.cat([predictions.labels, predictions.probabilities.argmax(dim=1)]).unique()


def fits_matrix(predictions: Predictions) -> bool:
    """Whether the confusion matrix is small enough to be drawn as a whole."""
    return len(occurring(predictions)) <= LARGEST_MATRIX


def p_value(gained: int, lost: int) -> float:
    """How likely two equally good models differ as much on the same pictures: McNemar's test, with correction."""
    if gained == lost:
        return 1.0
    return math.erfc((abs(gained - lost) - 1) / math.sqrt(2 * (gained + lost)))
