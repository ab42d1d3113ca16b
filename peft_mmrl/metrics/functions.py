"""Measures of classification in numpy. They take lists, arrays and tensors of any precision; labels count from 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..tuner.validation import InvalidTypeError, as_positive_int


SUM_TOLERANCE = 0.01  # bf16 keeps 8 bits of a probability


def accuracy(predictions: Any, references: Any) -> float:
    """Share of predictions that are right.

    Args:
        predictions: predicted labels (N,).
        references: true labels (N,).
    """
    predictions, references = _pairs(predictions, references)
    return float((predictions == references).mean())


def harmonic_mean(base: float, new: float) -> float:
    """H of two accuracies, "H" of base-to-new tables; 0 where both are 0."""
    return 2 * base * new / (base + new) if base + new else 0.0


def base_to_new(predictions: Any, references: Any, is_new: Any) -> dict[str, float]:
    """Accuracy on base and on new classes, and their harmonic mean.

    Args:
        predictions: predicted labels (N,). Base and new may be numbered apart: only equality counts.
        references: true labels (N,).
        is_new: whether a picture's true class is a new one (N,).

    Raises:
        ValueError: one of the two groups has no picture.
    """
    predictions, references = _pairs(predictions, references)
    is_new = _array("is_new", is_new, 1).astype(bool)
    _same_length(references, is_new, "is_new")
    if is_new.all() or not is_new.any():
        raise ValueError(f"`is_new` must hold both, base and new, got {is_new.sum()} new of {len(is_new)}.")
    base, new = (accuracy(predictions[group], references[group]) for group in (~is_new, is_new))
    return {"base_accuracy": base, "new_accuracy": new, "harmonic_mean": harmonic_mean(base, new)}


def top_k_accuracy(scores: Any, references: Any, k: int = 5) -> float:
    """Share of pictures whose class is among the k of highest score; of equal scores the lower label comes first.

    Args:
        scores: logits or probabilities (N, C).
        references: true labels (N,).
        k: from 1 to C.
    """
    scores, references = _scores("scores", scores, references)
    if as_positive_int("k", k) > scores.shape[1]:
        raise ValueError(f"`k` must be at most the number of classes, {scores.shape[1]}, got {k}.")
    own = np.take_along_axis(scores, references[:, None], axis=1)
    lower = np.arange(scores.shape[1]) < references[:, None]
    rank = ((scores > own) | ((scores == own) & lower)).sum(axis=1)
    return float((rank < k).mean())


def confusion_matrix(predictions: Any, references: Any, num_classes: int) -> np.ndarray:
    """Number of pictures of each class (rows) that were called each class (columns), (C, C).

    Args:
        predictions: predicted labels (N,).
        references: true labels (N,).
        num_classes: C.
    """
    num_classes = as_positive_int("num_classes", num_classes)
    predictions, references = _pairs(predictions, references, num_classes)
    counts = np.bincount(references * num_classes + predictions, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def per_class(predictions: Any, references: Any, num_classes: int) -> dict[str, Any]:
    """Precision, recall and F1 of each class, and their means.

    A class without pictures has none of them, whether it was predicted or not: so two models are compared over the
    same classes. The precision of a class that has pictures but was never predicted is 0, as in scikit-learn.

    Args:
        predictions: predicted labels (N,).
        references: true labels (N,).
        num_classes: C.

    Returns:
        `precision`, `recall`, `f1` (None of a class without pictures) and `support` (number of pictures), lists of C;
        `macro_precision`, `macro_recall`, `macro_f1`, their means over the classes that have pictures.
        `macro_recall` is scikit-learn's balanced accuracy.
    """
    num_classes = as_positive_int("num_classes", num_classes)
    predictions, references = _pairs(predictions, references, num_classes)
    support, predicted, right = (
        np.bincount(labels, minlength=num_classes)
        for labels in (references, predictions, references[predictions == references])
    )
    columns = {
        "precision": _divide(right, predicted),
        "recall": _divide(right, support),
        "f1": _divide(2 * right, support + predicted),
    }
    occurs = support > 0
    means = {f"macro_{name}": float(column[occurs].mean()) for name, column in columns.items()}
    lists = {name: np.where(occurs, column, None).tolist() for name, column in columns.items()}
    return lists | {"support": support.tolist()} | means


@dataclass(frozen=True)
class Reliability:
    """How often predictions of similar probability are right: the numbers of a reliability diagram.

    Args:
        edges: upper end of each bin, itself included (n_bins,).
        confidence: mean probability of the predicted class in each bin, 0 in an empty one (n_bins,).
        accuracy: share of right predictions in each bin, 0 in an empty one (n_bins,).
        count: number of pictures in each bin (n_bins,).
    """

    edges: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray

    @property
    def expected_calibration_error(self) -> float:
        """Mean distance of confidence and accuracy, weighted by the number of pictures."""
        return float((self.count * np.abs(self.confidence - self.accuracy)).sum() / self.count.sum())


def reliability(probabilities: Any, references: Any, n_bins: int = 15) -> Reliability:
    """Sort predictions by their probability into bins.

    Args:
        probabilities: (N, C), rows that sum to 1.
        references: true labels (N,).
        n_bins: bins of equal width between 0 and 1, open to the left and closed to the right.
    """
    probabilities, references = _scores("probabilities", probabilities, references)
    sums = probabilities.sum(axis=1, dtype=np.float64)
    if probabilities.min() < 0 or (np.abs(sums - 1) > SUM_TOLERANCE).any():
        raise ValueError("`probabilities` must be at least 0 and sum to 1 in each row; take the softmax of logits.")
    edges = np.linspace(0, 1, as_positive_int("n_bins", n_bins) + 1)[1:]
    confidence = probabilities.max(axis=1).clip(max=1)
    bins = np.searchsorted(edges, confidence)  # of values on an edge, the bin below
    count = np.bincount(bins, minlength=n_bins)
    right = np.bincount(bins, weights=probabilities.argmax(axis=1) == references, minlength=n_bins)
    total = np.bincount(bins, weights=confidence, minlength=n_bins)
    return Reliability(edges, _divide(total, count), _divide(right, count), count)


def expected_calibration_error(probabilities: Any, references: Any, n_bins: int = 15) -> float:
    """How far the probability of the predicted class is from the share of right predictions, on average.

    Args:
        probabilities: (N, C), rows that sum to 1.
        references: true labels (N,).
        n_bins: see `reliability`.
    """
    return reliability(probabilities, references, n_bins).expected_calibration_error


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)


def _array(name: str, values: Any, ndim: int) -> np.ndarray:
    shape = "(pictures,)" if ndim == 1 else "(pictures, classes)"
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values  # which numpy does not know
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"`{name}` must have the shape {shape}, got rows of different length.") from error
    if array.ndim != ndim or not array.size:
        raise ValueError(f"`{name}` must have the shape {shape} and not be empty, got the shape {array.shape}.")
    if array.dtype.kind not in "biuf":
        raise InvalidTypeError(f"`{name}` must hold numbers, got {array.item(0)!r}.")
    return array


def _labels(name: str, values: Any, num_classes: int | None = None) -> np.ndarray:
    array = _array(name, values, 1)
    if array.dtype.kind == "b" or not (array == np.floor(array)).all():
        raise InvalidTypeError(f"`{name}` must hold class labels, whole numbers, got {array.tolist()[:10]}.")
    labels = array.astype(np.int64)
    if labels.min() < 0 or (num_classes is not None and labels.max() >= num_classes):
        allowed = "at least 0" if num_classes is None else f"from 0 to {num_classes - 1} ({num_classes} classes)"
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(f"`{name}` must hold class labels {allowed}, got {wrong}.")
    return labels


def _pairs(predictions: Any, references: Any, num_classes: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    predictions = _labels("predictions", predictions, num_classes)
    return _same_length(predictions, _labels("references", references, num_classes))


def _scores(name: str, scores: Any, references: Any) -> tuple[np.ndarray, np.ndarray]:
    scores = _array(name, scores, 2)
    if not np.isfinite(scores).all():
        raise ValueError(f"`{name}` must hold finite numbers, got NaN or infinity.")
    return _same_length(scores, _labels("references", references, scores.shape[1]))


def _same_length(first: np.ndarray, second: np.ndarray, name: str = "references") -> tuple[np.ndarray, np.ndarray]:
    if len(first) != len(second):
        raise ValueError(f"`{name}` must hold one value for each of {len(first)} pictures, got {len(second)}.")
    return first, second
