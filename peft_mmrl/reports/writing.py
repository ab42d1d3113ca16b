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

from ..scoring.labelled import Predictions
from .gallery import Shown, choose_pictures
from .page import render_page
from .results import by_change, compute_metrics


MOST_CLASSES_DRAWN = 40  # in a figure
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
    threshold: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write what a model recognises, before and after training, as numbers, figures and a page to open in a browser.

    The folder gets report.html (one file with everything in it), metrics.json, predictions.csv (a row per picture),
    config.json, split.json (where given), and the figures confusion.png, per_class.png, reliability.png,
    changed.png (where there are such pictures) and curves.png (where there is a history).

    Args:
        folder: is made where it is missing; files of these names in it are replaced.
        predictions: of N pictures.
        dataset: the same N pictures, in the same order.
        title: name of the model.
        settings: what the run was asked to do, for config.json and the page.
        history: a dictionary per epoch with `epoch`, `loss` and, where measured, `accuracy` with `zero_shot_accuracy`.
        split: paths of the pictures of each part of the data.
        threshold: for "none of these", the fields of `peft_mmrl.scoring.threshold.Threshold`.

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
    if threshold is not None:
        metrics["threshold"] = threshold
    shown = choose_pictures(predictions, dataset)
    figures = draw_figures(predictions, metrics, shown, history or [])
    page = render_page(title, predictions, metrics, shown, figures, settings=settings, threshold=threshold)

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", settings)
    _write_json(folder / "metrics.json", metrics)
    if split is not None:
        _write_json(folder / "split.json", split)
    _write_rows(folder / "predictions.csv", predictions)
    for name, content in figures.items():
        (folder / f"{name}.png").write_bytes(content)
    (folder / "report.html").write_text(page, encoding="utf-8")
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
    names = predictions.class_names
    sure, after = predictions.probabilities.max(dim=1)
    zero_shot_sure, before = predictions.zero_shot.max(dim=1)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        header = ("path", "label", "predicted", "probability", "zero_shot_predicted", "zero_shot_probability")
        writer.writerow([*header, "correct"])
        for index, (picture, label) in enumerate(zip(predictions.paths, predictions.labels.tolist(), strict=True)):
            said = (names[after[index]], f"{sure[index]:.6f}", names[before[index]], f"{zero_shot_sure[index]:.6f}")
            writer.writerow([picture, names[label], *said, after[index].item() == label])
