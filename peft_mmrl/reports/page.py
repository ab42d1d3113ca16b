"""The page of a report: what the template `report.html` is filled with."""

from __future__ import annotations

import io
from typing import Any

import PIL.Image

from ..scoring.held_out import CAVEAT
from ..scoring.labelled import Predictions
from .gallery import Shown, data_uri
from .results import by_change, confused_pairs, fits_matrix, rungs_in
from .templates import template
from .verdict import lost_classes, training_added, verdict, weakest_class


MOST_CLASSES_FIRST = 16  # on the first screens; the table at the end has all
MOST_MISTAKES = 5
MOST_LOST = 5
BEFORE_STEP = {"label": "before", "kind": "before"}
BETWEEN_STEP = {"label": "no training", "kind": "between"}
AFTER_STEP = {"label": "after", "kind": ""}
MEASURES = {
    "accuracy": ("Accuracy", "share of all pictures that are recognised"),
    "top_5_accuracy": ("Top-5 accuracy", "share of pictures whose class is among the five likeliest"),
    "base_accuracy": ("Accuracy, trained classes", "pictures of classes that it was trained on"),
    "new_accuracy": ("Accuracy, new classes", "pictures of classes that it knows by name only"),
    "harmonic_mean": ("H", "harmonic mean of the two above: high only where both are"),
    "macro_precision": ("Precision", "of the pictures called a class, the share that are; mean over classes"),
    "macro_recall": ("Mean recall", "of the pictures of a class, the share that is recognised; mean over classes"),
    "macro_f1": ("F1", "harmonic mean of precision and recall; mean over classes"),
    "expected_calibration_error": ("Calibration error", "how far stated and true certainty are apart; small is good"),
}


def render_page(
    title: str,
    predictions: Predictions,
    metrics: dict[str, Any],
    shown: dict[str, list[Shown]],
    figures: dict[str, bytes],
    *,
    settings: dict[str, Any],
    reasons: str | None = None,
) -> str:
    """One HTML page that needs no other file and no network.

    Args:
        title: name of the model.
        predictions: of N pictures.
        metrics: from `results.compute_metrics`.
        shown: from `gallery.choose_pictures`.
        figures: PNG files by name.
        settings: what the run was asked to do.
        reasons: name of a page beside it that says why the pictures shown are answered so.
    """
    names, weakest = predictions.class_names, weakest_class(metrics)
    with_pictures = [row for row in metrics["per_class"] if row["pictures"]]
    changes = [row["recall"] - row["zero_shot_recall"] for row in with_pictures]
    return template(__package__, "report.html").render(
        title=title,
        metrics=metrics,
        recognised=round(metrics["accuracy"] * metrics["pictures"]),
        recognised_before=round(metrics["zero_shot_accuracy"] * metrics["pictures"]),
        verdict=verdict(metrics),
        is_trained=predictions.is_trained,
        steps=_steps(rungs_in(metrics)),
        training_added=training_added(metrics),
        without_pictures=[row["class"] for row in metrics["per_class"] if not row["pictures"]],
        mean_class=_before_and_after(metrics["zero_shot_macro_recall"], metrics["macro_recall"]),
        weakest=weakest,
        weakest_class=_before_and_after(weakest["zero_shot_recall"], weakest["recall"]),
        lost=lost_classes(metrics),
        most_lost=MOST_LOST,
        better=sum(change > 0 for change in changes),
        worse=sum(change < 0 for change in changes),
        same=sum(change == 0 for change in changes),
        classes=by_change(metrics["per_class"], MOST_CLASSES_FIRST),
        left_out=max(len(with_pictures) - MOST_CLASSES_FIRST, 0),
        is_matrix=fits_matrix(predictions),
        mistakes=[
            (names[actual], names[called], count)
            for actual, called, count in confused_pairs(predictions, MOST_MISTAKES)
        ],
        shown=shown,
        figures={name: _embed(content) for name, content in figures.items()},
        measures=[
            (*MEASURES[name], metrics[f"zero_shot_{name}"], metrics[name]) for name in MEASURES if name in metrics
        ],
        settings={name: _as_text(value) for name, value in settings.items()},
        confidence=metrics.get("confidence"),
        caveat=CAVEAT,
        corruptions=metrics.get("corruptions"),
        reasons=reasons,
    )


def _steps(rungs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Accuracies with their intervals, labelled and coloured: between CLIP as it was and what is reported is, where
    both were scored, the decision without training."""
    first, *between, last = rungs
    return [BEFORE_STEP | first, *(BETWEEN_STEP | rung for rung in between), AFTER_STEP | last]


def _before_and_after(before: float, after: float) -> list[dict[str, Any]]:
    return [BEFORE_STEP | {"accuracy": before}, AFTER_STEP | {"accuracy": after}]


def _embed(figure: bytes) -> dict[str, Any]:
    """A figure's address and its width in CSS pixels, of which 96 are an inch."""
    with PIL.Image.open(io.BytesIO(figure)) as picture:
        width = round(picture.width / picture.info["dpi"][0] * 96)
    return {"uri": data_uri(figure, "image/png"), "width": width}


def _as_text(value: Any) -> str:
    if value is None or value == []:
        return "–"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
