"""Writes the folder of a report."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets

from ..scoring.held_out import Confidence
from ..scoring.labelled import Predictions
from .certainty import sets_and_naming
from .gallery import Shown, choose_pictures
from .page import render_page
from .reading import METRICS_FILE, OF_CLASS, PREDICTIONS_FILE, REPORT_FILE
from .results import by_change, compute_metrics


MOST_CLASSES_DRAWN = 40  # in a figure
MOST_COLUMNS = 100  # of predictions.csv that are classes
CHANGE_TITLES = {
    "gained": "Recognised only after training",
    "lost": "Recognised only before training",
    "wrong": "Recognised neither before nor after",
}


def write_report(
    folder: str | os.PathLike[str],
    predictions: Predictions,
    dataset: datasets.Dataset,
    *,
    title: str,
    settings: dict[str, Any],
    history: list[dict[str, Any]] | None = None,
    split: dict[str, list[str]] | None = None,
    confidence: Confidence | None = None,
    corruptions: list[dict[str, Any]] | None = None,
    reasons: str | None = None,
) -> dict[str, Any]:
    """Write what a model recognises, before and after training, as numbers, figures and a page to open in a browser.

    The folder gets report.html (one file with everything in it), metrics.json, predictions.csv (a row per picture,
    with the probabilities of all classes; of more than 100, those of its own and of the likeliest), config.json,
    split.json (where given), and the figures confusion.png, per_class.png, reliability.png, changed.png (where there
    are such pictures) and curves.png (where there is a history).

    Args:
        folder: is made where it is missing; files of these names in it are replaced.
        predictions: of N pictures.
        dataset: the same N pictures, in the same order.
        title: name of the model.
        settings: what the run was asked to do, for config.json and the page.
        history: a dictionary per epoch with `epoch`, `loss` and, where measured, `accuracy` with `zero_shot_accuracy`.
        split: paths of the pictures of each part of the data.
        confidence: what is saved with the adapter for sets of classes and "none of these".
        corruptions: from [`~peft_mmrl.scoring.robustness.under_corruptions`].
        reasons: name of a page in the folder that says why the pictures shown are answered so.

    Returns:
        what metrics.json holds, see `results.compute_metrics`.

    Raises:
        ValueError: there are no pictures, or `dataset` and `predictions` are of different ones.
    """
    _check(predictions, dataset)
    predictions = replace(
        predictions,
        labels=predictions.labels.cpu(),
        probabilities=predictions.probabilities.float().cpu(),
        zero_shot=predictions.zero_shot.float().cpu(),
    )
    metrics = compute_metrics(predictions)
    if confidence is not None:
        metrics["confidence"] = sets_and_naming(predictions, confidence)
    if corruptions is not None:
        metrics["corruptions"] = corruptions
    shown = choose_pictures(predictions, dataset)
    figures = draw_figures(predictions, metrics, shown, history or [])
    page = render_page(title, predictions, metrics, shown, figures, settings=settings, reasons=reasons)

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", settings)
    _write_json(folder / METRICS_FILE, metrics)
    if split is not None:
        _write_json(folder / "split.json", split)
    _write_rows(folder / PREDICTIONS_FILE, predictions)
    for name, content in figures.items():
        (folder / f"{name}.png").write_bytes(content)
    (folder / REPORT_FILE).write_text(page, encoding="utf-8")
    return metrics


def draw_figures(
    predictions: Predictions, metrics: dict[str, Any], shown: dict[str, list[Shown]], history: list[dict[str, Any]]
) -> dict[str, bytes]:
    """The figures of a report as PNG files, by name.

    Args:
        predictions: of N pictures.
        metrics: from `results.compute_metrics`.
        shown: from `gallery.choose_pictures`.
        history: see `write_report`.
    """
    from . import figures, fonts  # they need matplotlib

    families = fonts.families_for(predictions.class_names)
    names = fonts.drawable_names(predictions.class_names, families)
    name_of = dict(zip(predictions.class_names, names, strict=True))
    groups = {
        CHANGE_TITLES[kind]: [
            (item.picture, f"{name_of[item.label]}\nnot {name_of[item.mistake]}")
            for item in items
            if item.picture is not None
        ]
        for kind, items in shown.items()
    }
    groups = {title: pictures for title, pictures in groups.items() if pictures}
    with figures.style(families):
        drawn = {
            "per_class": figures.draw_per_class(by_change(metrics["per_class"], MOST_CLASSES_DRAWN), names),
            "confusion": figures.draw_confusion(predictions, names),
            "reliability": figures.draw_reliability(predictions),
        }
        if groups:
            drawn["changed"] = figures.draw_pictures(groups)
        if history:
            drawn["curves"] = figures.draw_curves(history)
        return {name: _as_png(figure) for name, figure in drawn.items()}


def _as_png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _check(predictions: Predictions, dataset: datasets.Dataset) -> None:
    if not len(predictions.labels):
        raise ValueError("`predictions` must hold at least one picture.")
    if list(dataset["path"]) != list(predictions.paths):
        raise ValueError(
            f"`dataset` must hold the pictures of `predictions` in their order, got {len(dataset)} pictures where "
            f"predictions are of {len(predictions.paths)}, or other paths."
        )


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")


def _write_rows(path: Path, predictions: Predictions) -> None:
    names, labels = predictions.class_names, predictions.labels.tolist()
    said = []
    for probabilities in (predictions.probabilities, predictions.zero_shot):
        largest, predicted = probabilities.max(dim=1)
        said += [[names[label] for label in predicted], [f"{value:.6f}" for value in largest.tolist()]]
    said.append((predictions.probabilities.argmax(dim=1) == predictions.labels).tolist())
    if len(names) <= MOST_COLUMNS:
        columns, shares = [f"{OF_CLASS}{name}" for name in names], predictions.probabilities
    else:
        columns = ["own_probability"]
        shares = predictions.probabilities.gather(1, predictions.labels[:, None])
    header = ("path", "label", "predicted", "probability", "zero_shot_predicted", "zero_shot_probability", "correct")
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*header, *columns])
        for picture, label, *row, shown in zip(predictions.paths, labels, *said, shares, strict=True):
            writer.writerow([picture, names[label], *row, *(f"{share:.6f}" for share in shown.tolist())])
