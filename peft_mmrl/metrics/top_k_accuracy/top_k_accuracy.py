"""Top-k accuracy as an `evaluate` module."""

import inspect
from typing import Any

import datasets
import evaluate

from peft_mmrl.metrics import functions


class TopKAccuracy(evaluate.Metric):
    """Share of pictures whose class is among the k of highest score."""

    def _info(self) -> evaluate.MetricInfo:
        # float64 for labels: as int64, `evaluate` would cut 1.5 to 1 before anyone could object.
        features = {
            "predictions": datasets.List(datasets.Value("float64")),
            "references": datasets.Value("float64"),
        }
        return evaluate.MetricInfo(
            description=inspect.getdoc(type(self)),
            citation="",
            inputs_description=inspect.getdoc(self._compute),
            features=datasets.Features(features),
        )

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
