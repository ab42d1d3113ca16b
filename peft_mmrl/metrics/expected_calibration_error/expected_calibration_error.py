"""Expected calibration error (ECE) as an `evaluate` module."""

from typing import Any

import evaluate

from peft_mmrl.metrics import functions
from peft_mmrl.metrics.info import LABEL, SCORES_ROW, metric_info


CITATION = """
@inproceedings{guo2017calibration,
  title={On Calibration of Modern Neural Networks},
  author={Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.},
  booktitle={International Conference on Machine Learning},
  year={2017}
}
"""


class ExpectedCalibrationError(evaluate.Metric):
    """How far the probability of the predicted class is from the share of right predictions.

    Predictions are sorted by their probability into bins of equal width, open to the left and closed to the right; the
    distances of mean probability and accuracy are averaged over the bins, weighted by their number of pictures.
    """

    def _info(self) -> evaluate.MetricInfo:
        return metric_info(self, CITATION, predictions=SCORES_ROW, references=LABEL)

    def _compute(self, predictions: list[list[float]], references: list[float], n_bins: int = 15) -> dict[str, Any]:
        """Compute the measure.

        Args:
            predictions: probabilities, a row of C numbers per picture that sum to 1.
            references: true labels, from 0 to C - 1.
            n_bins: number of bins between 0 and 1.
        Returns:
            expected_calibration_error, from 0 to 1.
        """
        return {"expected_calibration_error": functions.expected_calibration_error(predictions, references, n_bins)}
