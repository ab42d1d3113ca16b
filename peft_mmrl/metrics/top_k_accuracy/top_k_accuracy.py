"""Top-k accuracy as an `evaluate` module."""

from typing import Any

import evaluate

from peft_mmrl.metrics import functions
from peft_mmrl.metrics.info import LABEL, SCORES_ROW, metric_info


class TopKAccuracy(evaluate.Metric):
    """Share of pictures whose class is among the k of highest score."""

    def _info(self) -> evaluate.MetricInfo:
        return metric_info(self, predictions=SCORES_ROW, references=LABEL)

    def _compute(self, predictions: list[list[float]], references: list[float], k: int = 5) -> dict[str, Any]:
        """Compute the measure.

        Args:
            predictions: logits or probabilities, a row of C numbers per picture. Of equal ones the lower label
                comes first.
            references: true labels, from 0 to C - 1.
            k: from 1 to C.
        Returns:
            top_k_accuracy.
        """
        return {"top_k_accuracy": functions.top_k_accuracy(predictions, references, k)}
