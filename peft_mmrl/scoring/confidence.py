"""What pictures that a model was not trained on say about its answers: accuracy, sets of classes, "none of these".

All of it holds for pictures like those: of the same classes, as frequent as they. Nothing is said of other classes.
"""

from __future__ import annotations

import math
import numbers
from fractions import Fraction
from typing import Any

import torch
from scipy.special import betaincinv

from ..tuner.validation import InvalidTypeError, as_number


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
    outside = (1 - as_share("level", level)) / 2
    low = 0.0 if right == 0 else float(betaincinv(right, pictures - right + 1, outside))
    high = 1.0 if right == pictures else float(betaincinv(right + 1, pictures - right, 1 - outside))
    return low, high


def pictures_needed(risk: float) -> int:
    """The fewest pictures on which `risk_threshold(..., risk)` or `coverage_threshold(..., 1 - risk)` say anything."""
    return math.ceil(1 / _as_fraction("risk", risk)) - 1


def coverage_threshold(own: torch.Tensor, coverage: float) -> float | None:
    """How improbable a class may be to belong to `class_sets` that aim at a coverage (split conformal prediction,
    Vovk; score 1 - p of the true class).

    Args:
        own: probabilities (N,) that pictures which the model was not trained on got for their own class.
        coverage: share of pictures whose set should hold the true class, over all classes, not for each.

    Returns:
        q from 0 to 1; None where there are too few pictures, see `pictures_needed`.
    """
    rank = math.ceil((len(own) + 1) * _as_fraction("coverage", coverage))
    _check("own", own)
    return None if rank > len(own) else (1 - own.double()).sort().values[rank - 1].item()


def class_sets(probabilities: torch.Tensor, threshold: float) -> torch.Tensor:
    """Which classes are in each picture's set: those with 1 - p <= threshold, and always the likeliest.

    Args:
        probabilities: (N, C).
        threshold: from `coverage_threshold`.

    Returns:
        (N, C) bool.
    """
    sets = 1 - probabilities.double() <= threshold
    return sets.scatter(1, probabilities.argmax(dim=1, keepdim=True), True)


def risk_threshold(largest: torch.Tensor, is_right: torch.Tensor, risk: float) -> float | None:
    """From which largest probability on a picture is named, so that few are named wrongly (conformal risk control,
    Angelopoulos et al. 2022).

    Args:
        largest: largest probabilities (N,) of pictures that the model was not trained on.
        is_right: whether they are those of the pictures' own classes (N,).
        risk: share of all pictures that may be named, and wrongly.

    Returns:
        the smallest t with (number named wrongly at t) + 1 <= risk (N + 1); None where there are too few pictures,
        see `pictures_needed`. A picture is named where its largest probability is at least t.
    """
    allowed = math.floor(_as_fraction("risk", risk) * (len(largest) + 1)) - 1
    _check("largest", largest)
    if getattr(is_right, "shape", None) != largest.shape or is_right.dtype != torch.bool:
        raise InvalidTypeError(f"`is_right` must be a tensor of {len(largest)} booleans, got {is_right!r}.")
    if allowed < 0:
        return None
    wrong = largest.double()[~is_right].sort(descending=True).values
    if len(wrong) <= allowed:
        return 0.0
    return math.nextafter(wrong[allowed].item(), math.inf)  # just above the most probable error that is one too many


def as_share(name: str, value: Any) -> float:
    """Return `value` as a float between 0 and 1, both ends left out."""
    value = as_number(name, value, 0, 1)
    if value in (0, 1):
        raise ValueError(f"`{name}` must lie between 0 and 1, got {value}.")
    return value


def _as_fraction(name: str, value: Any) -> Fraction:
    """The share as it was written: 0.1 is a tenth, so that 0.7 of ten is seven."""
    share = Fraction(as_share(name, value)).limit_denominator(10**6)
    if share in (0, 1):
        raise ValueError(f"`{name}` must be at least a millionth away from 0 and 1, got {value}.")
    return share


def _check(name: str, probabilities: Any) -> None:
    if not isinstance(probabilities, torch.Tensor) or not probabilities.is_floating_point():
        raise InvalidTypeError(f"`{name}` must be a tensor of floats, got {probabilities!r}.")
    if probabilities.ndim != 1 or not len(probabilities):
        raise ValueError(f"`{name}` must have the shape (pictures,), got {tuple(probabilities.shape)}.")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():  # NaN fails, too
        raise ValueError(f"`{name}` must lie between 0 and 1, got NaN or others.")
