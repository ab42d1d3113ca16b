"""Accuracy on base and on new classes and their harmonic mean, as an `evaluate` module."""

import inspect
from typing import Any

import datasets
import evaluate

from peft_mmrl.metrics import functions


class BaseToNew(evaluate.Metric):
    """Accuracy on base classes, on new classes, and the harmonic mean of both (H of base-to-new tables)."""

    def _info(self) -> evaluate.MetricInfo:
        # float64: as int64, `evaluate` would cut 1.5 to 1 before anyone could object.
        features = {
            "predictions": datasets.Value("float64"),
            "references": datasets.Value("float64"),
            "is_new": datasets.Value("bool"),
        }
        return evaluate.MetricInfo(
            description=inspect.getdoc(type(self)),
            citation="",
            inputs_description=inspect.getdoc(self._compute),
            features=datasets.Features(features),
        )

    def _compute(self, predictions: list[float], references: list[float], is_new: list[bool]) -> dict[str, Any]:
        """Compute the measure.

        Args:
            predictions: predicted labels. Base and new classes may be numbered apart: only equality counts.
            references: true labels.
            is_new: for each picture, whether its true class is a new one. There must be pictures of both kinds.
        Returns:
            base_accuracy, new_accuracy, harmonic_mean (0 where both are 0).
        """
        return functions.base_to_new(predictions, references, is_new)
