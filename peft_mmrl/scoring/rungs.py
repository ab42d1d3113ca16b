"""How accurate each step makes a model: CLIP as it was, a decision without training, the trained adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .confidence import accuracy_interval
from .labelled import Predictions


LEVEL = 0.9
ZERO_SHOT, UNTRAINED, TRAINED = "zero-shot", "without training", "trained"


def rungs(predictions: Predictions) -> list[dict[str, Any]]:
    """Accuracy of each model that was scored, with its 90 % Clopper-Pearson interval.

    Returns:
        for each, from zero-shot CLIP up, `model`, `accuracy`, `low` and `high`, from 0 to 1.
    """
    models = {ZERO_SHOT: predictions.zero_shot, UNTRAINED: predictions.untrained}
    models[TRAINED if predictions.is_trained else UNTRAINED] = predictions.probabilities
    found = []
    for name, probabilities in models.items():
        if probabilities is None:
            continue
        right = int((probabilities.argmax(dim=1) == predictions.labels).sum())
        low, high = accuracy_interval(right, len(predictions.labels), LEVEL)
        found.append({"model": name, "accuracy": right / len(predictions.labels), "low": low, "high": high})
    return found


def describe_rungs(found: Sequence[Mapping[str, Any]]) -> str:
    """A line on what `rungs` gave."""
    shown = ", ".join(
        f"{rung['model']} {rung['accuracy']:.1%} ({rung['low']:.1%} to {rung['high']:.1%})" for rung in found
    )
    return f"accuracy with its {LEVEL:.0%} interval: {shown}"
