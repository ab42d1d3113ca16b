"""What pictures that a model was not trained on say about its answers: accuracy, sets of classes, "none of these".

All of it holds for pictures like those: of the same classes, as frequent as they. Nothing is said of other classes.
"""

from __future__ import annotations

import math
import numbers
from fractions import Fraction
from typing import Any

import torch
from torch.distributions import Binomial

from ..tuner.validation import InvalidTypeError, as_number, check_labels


def accuracy_interval(right: int, pictures: int, level: float = 0.9) -> tuple[float, float]:
    """Clopper-Pearson interval of an accuracy: it holds the true one at least as often as `level` says.

    Args:
        right: how many pictures were named rightly.
        pictures: of how many.
        level: from 0 to 1, both ends left out.

    Returns:
        lower and upper end, from 0 to 1.

    Raises:
        ValueError: no pictures, more right ones than pictures, a level that is none.
    """
    for name, value in {"right": right, "pictures": pictures}.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise InvalidTypeError(f"`{name}` must be a whole number, got {value!r}.")
    if pictures < 1 or not 0 <= right <= pictures:
        raise ValueError(f"`right` must lie between 0 and `pictures`, at least 1 of them, got {right}, {pictures}.")
    outside = (1 - _as_share("level", level)) / 2
    low = 0.0 if right == 0 else _solve(lambda p: 1 - _at_most(right - 1, pictures, p) < outside)
    high = 1.0 if right == pictures else _solve(lambda p: _at_most(right, pictures, p) > outside)
    return low, high


def _at_most(count: int, pictures: int, p: float) -> float:
    """Probability of at most `count` of `pictures`, each with probability p."""
    counts = torch.arange(count + 1, dtype=torch.double)
    probability = torch.tensor(p, dtype=torch.double)
    return Binomial(pictures, probs=probability).log_prob(counts).exp().sum().item()


def _solve(is_below: Any) -> float:
    """The number between 0 and 1 where `is_below` turns from true to false."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2


def pictures_needed(risk: float) -> int:
    """The fewest pictures on which `risk_threshold(..., risk)` or `coverage_threshold(..., 1 - risk)` say anything."""
    return math.ceil(1 / _as_fraction("risk", risk)) - 1


def coverage_threshold(probabilities: torch.Tensor, labels: torch.Tensor, coverage: float) -> float | None:
    """How improbable a class may be to belong to `class_sets` that aim at a coverage (split conformal prediction,
    Vovk; score 1 - p of the true class).

    Args:
        probabilities: (N, C) of pictures that the model was not trained on.
        labels: their classes (N,).
        coverage: share of pictures whose set should hold the true class, over all classes, not for each.

    Returns:
        q from 0 to 1; None where there are too few pictures, see `pictures_needed`.
    """
    miss = 1 - _as_fraction("coverage", coverage)
    _check(probabilities, labels)
    surprise = (1 - probabilities.gather(1, labels.long()[:, None])[:, 0].double()).sort().values
    rank = math.ceil((len(labels) + 1) * (1 - miss))
    return None if rank > len(labels) else surprise[rank - 1].item()


def class_sets(probabilities: torch.Tensor, threshold: float) -> torch.Tensor:
    """Which classes are in each picture's set: those with 1 - p <= threshold; (N, C) bool. Sets may be empty."""
    return 1 - probabilities.double() <= threshold


def risk_threshold(probabilities: torch.Tensor, labels: torch.Tensor, risk: float) -> float | None:
    """From which largest probability on a picture is named, so that few are named wrongly (conformal risk control,
    Angelopoulos et al. 2022).

    Args:
        probabilities: (N, C) of pictures that the model was not trained on.
        labels: their classes (N,).
        risk: share of all pictures that may be named, and wrongly.

    Returns:
        the smallest t with (number named wrongly at t) + 1 <= risk (N + 1); None where there are too few pictures,
        see `pictures_needed`. A picture is named where its largest probability is at least t.
    """
    allowed = math.floor(_as_fraction("risk", risk) * (len(labels) + 1)) - 1
    _check(probabilities, labels)
    if allowed < 0:
        return None
    best, predicted = probabilities.double().max(dim=1)
    wrong = best[predicted != labels].sort(descending=True).values
    if len(wrong) <= allowed:
        return 0.0
    return math.nextafter(wrong[allowed].item(), math.inf)  # just above the most probable error that is one too many


def _as_share(name: str, value: Any) -> float:
    value = as_number(name, value, 0, 1)
    if value in (0, 1):
        raise ValueError(f"`{name}` must lie between 0 and 1, got {value}.")
    return value


def _as_fraction(name: str, value: Any) -> Fraction:
    """The share as it was written: 0.1 is a tenth, so that 1 - 0.7 of ten is three."""
    return Fraction(_as_share(name, value)).limit_denominator(10**6)


def _check(probabilities: Any, labels: Any) -> None:
    if not isinstance(probabilities, torch.Tensor) or not probabilities.is_floating_point():
        raise InvalidTypeError(f"`probabilities` must be a tensor of floats, got {probabilities!r}.")
    if probabilities.ndim != 2 or not probabilities.numel():
        raise ValueError(f"`probabilities` must have the shape (pictures, classes), got {tuple(probabilities.shape)}.")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():  # NaN fails, too
        raise ValueError("`probabilities` must lie between 0 and 1, got NaN or others.")
    check_labels(labels, *probabilities.shape)
