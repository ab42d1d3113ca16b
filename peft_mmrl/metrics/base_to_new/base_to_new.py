"""Accuracy on base and on new classes and their harmonic mean, as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from peft_mmrl.metrics import functions
from peft_mmrl.metrics.info import LABEL, metric_info


class BaseToNew(evaluate.Metric):
    """Accuracy on base classes, on new classes, and the harmonic mean of both (H of base-to-new tables)."""

    def _info(self) -> evaluate.MetricInfo:
        return metric_info(self, predictions=LABEL, references=LABEL, is_new=datasets.Value("bool"))

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
