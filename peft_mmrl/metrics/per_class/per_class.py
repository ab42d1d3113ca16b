"""Precision, recall and F1 of each class as an `evaluate` module."""

from typing import Any

import evaluate

from peft_mmrl.metrics import functions
from peft_mmrl.metrics.info import LABEL, metric_info


class PerClass(evaluate.Metric):
    """Precision, recall, F1 and number of pictures of each class, and their means over classes."""

    def _info(self) -> evaluate.MetricInfo:
        return metric_info(self, predictions=LABEL, references=LABEL)

    def _compute(self, predictions: list[float], references: list[float], num_classes: int) -> dict[str, Any]:
        """Compute the measure.

        Args:
            predictions: predicted labels.
            references: true labels.
            num_classes: C; labels run from 0 to C - 1.
        Returns:
            precision, recall, f1, support: lists of C. A class without pictures has None for the first three.
            macro_precision, macro_recall, macro_f1: means over the classes that have pictures.
        """
        return functions.per_class(predictions, references, num_classes)
