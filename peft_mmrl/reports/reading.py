"""Reads what a report holds in numbers; what is damaged, or was only partly written, counts as nothing."""

from __future__ import annotations

import csv
import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple


REPORT = "report"  # in the folder of a run
METRICS_FILE, PREDICTIONS_FILE, REPORT_FILE = "metrics.json", "predictions.csv", "report.html"
OF_CLASS = "probability_"  # begins a column of predictions.csv, with the name of a class
COUNTS = ("pictures", "gained", "lost", "folds")
SHARES = ("accuracy", "macro_recall", "zero_shot_accuracy", "zero_shot_macro_recall", "difference_p_value")
WHERE_KNOWN = (
    *(f"{of}accuracy{end}" for of in ("", "zero_shot_", "untrained_") for end in ("", "_low", "_high")),
    *("training_gained", "training_lost", "training_p_value"),
)


class Predicted(NamedTuple):
    """A row of predictions.csv.

    Args:
        path: of a picture.
        label: its class.
        before, after: what zero-shot CLIP and the trained model call it; None: the file does not tell.
        shares: the probability of each class; none where there are more than `writing.MOST_COLUMNS`.
    """

    path: str
    label: str
    before: str | None
    after: str | None
    shares: dict[str, float]


def read_metrics(folder: Path) -> dict[str, Any] | None:
    """What `results.compute_metrics` gave, with the values that `verdict` and the page need all there.

    Args:
        folder: of the report.

    Returns:
        None: there is none, or it is damaged.
    """
    try:
        found = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if _is_whole(found) else None


def read_predictions(folder: Path) -> list[Predicted]:
    """The rows of a report's predictions.csv; none where there is no such file, or where it is damaged.

    Args:
        folder: of the report.
    """
    path = folder / PREDICTIONS_FILE
    try:
        return list(_rows(path, path.stat().st_mtime_ns))
    except (OSError, ValueError, KeyError, csv.Error):
        return []


@lru_cache(maxsize=2)
def _rows(path: Path, changed: int) -> tuple[Predicted, ...]:
    with open(path, newline="", encoding="utf-8") as file:
        return tuple(map(_row, csv.DictReader(file)))


def _row(row: dict[str, str]) -> Predicted:
    if None in row or None in row.values():
        raise ValueError("longer or shorter than the first line")
    shares = {name.removeprefix(OF_CLASS): _share(row[name]) for name in row if name.startswith(OF_CLASS)}
    return Predicted(row["path"], row["label"], row.get("zero_shot_predicted"), row.get("predicted"), shares)


def _share(text: str) -> float:
    if not 0 <= (share := float(text)) <= 1:
        raise ValueError(f"{text} is no probability")
    return share


def _is_whole(metrics: Any) -> bool:
    if not isinstance(metrics, dict) or not isinstance(metrics.get("per_class"), list):
        return False
    known = [metrics.get(name) for name in (*COUNTS, *SHARES)] + [
        metrics[name] for name in WHERE_KNOWN if name in metrics
    ]
    return all(map(_is_number, known)) and all(map(_is_class, metrics["per_class"]))


def _is_class(row: Any) -> bool:
    """Whether it is a row of a class; of one without pictures no recall is known."""
    if not isinstance(row, dict) or not isinstance(row.get("class"), str) or not _is_number(row.get("pictures")):
        return False
    return not row["pictures"] or all(_is_number(row.get(name)) for name in ("recall", "zero_shot_recall"))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
