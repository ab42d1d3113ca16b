"""The figures of a report. They are drawn and saved inside of `style(...)`, without matplotlib's global figures."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import matplotlib
import numpy as np
import PIL.Image
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..metrics import functions
from ..scoring.labelled import Predictions
from .results import confused_pairs, fits_matrix, occurring


AFTER, BEFORE, GRID_COLOUR, INK = "#1f6feb", "#8a94a0", "#d9dee3", "#1f2328"
DPI = 160
LARGEST_MATRIX_WITH_NUMBERS = 15  # classes
MOST_PAIRS = 20


def style(families: list[str]) -> AbstractContextManager[None]:
    """What all figures share. Nothing is bold: matplotlib warns of each family that has no bold font.

    Args:
        families: fonts for the class names, see `fonts.families_for`.
    """
    colors = {f"{part}.color": INK for part in ("text", "xtick", "ytick")} | {"axes.labelcolor": INK}
    axes = {"axes.edgecolor": GRID_COLOUR, "axes.titlesize": 11, "axes.titlelocation": "left"}
    spines = {"axes.spines.top": False, "axes.spines.right": False}
    fonts = {"font.family": families, "font.size": 9, "legend.frameon": False}
    return matplotlib.rc_context(colors | axes | spines | fonts)


def draw_curves(history: list[dict[str, Any]]) -> Figure:
    """Loss and, where it was measured, accuracy of each epoch.

    Args:
        history: a dictionary per epoch with `epoch`, `loss` and, where measured, `accuracy` with `zero_shot_accuracy`.
    """
    measured = [record for record in history if "accuracy" in record]
    figure = _figure(9, 3.2)
    panels = figure.subplots(1, 2)
    _line(panels[0], history, "loss")
    panels[0].set(title="Loss: what training makes small", ylim=(0, None))
    panels[1].set(title="Pictures recognised, %")
    if measured:
        _line(panels[1], [record | {"percent": 100 * record["accuracy"]} for record in measured], "percent")
        panels[1].axhline(100 * measured[-1]["zero_shot_accuracy"], color=BEFORE, linestyle="--", label="before")
        panels[1].legend()
    else:
        panels[1].remove()
    return figure


def draw_reliability(predictions: Predictions, n_bins: int = 10) -> Figure:
    """Reliability diagrams of frozen CLIP and of the trained model, with the number of pictures in each bin."""
    figure = _figure(9, 3.9)
    panels = figure.subplots(1, 2, sharey=True)
    models = (("Before", predictions.zero_shot, BEFORE), ("After training", predictions.probabilities, AFTER))
    for axes, (name, probabilities, color) in zip(panels, models, strict=True):
        found = functions.reliability(probabilities, predictions.labels, n_bins)
        for edge, accuracy, count in zip(100 * found.edges, 100 * found.accuracy, found.count, strict=True):
            if count:
                bar = axes.bar(edge, accuracy, -100 / n_bins, align="edge", color=color, edgecolor="white")
                axes.bar_label(bar, [str(count)], fontsize=7, padding=1)
        axes.plot([0, 100], [0, 100], color=INK, linewidth=1, linestyle=":")
        axes.set(title=name, xlabel="how sure the model was, %", xlim=(0, 100), ylim=(0, 108))
    panels[0].set_ylabel("of these recognised, %")
    return figure


def draw_confusion(predictions: Predictions, names: list[str]) -> Figure:
    """Which classes the trained model takes for which: a matrix, or of many classes the pairs it confuses most.

    Args:
        predictions: of N pictures over C classes.
        names: of the C classes, see `fonts.drawable_names`.
    """
    if not fits_matrix(predictions):
        return _draw_pairs(confused_pairs(predictions, MOST_PAIRS), names)
    occurs = occurring(predictions)
    called, actual = (
        torch.searchsorted(occurs, labels) for labels in (predictions.probabilities.argmax(dim=1), predictions.labels)
    )
    counts = functions.confusion_matrix(called, actual, len(occurs))
    return _draw_matrix(counts, [names[label] for label in occurs])


def draw_per_class(rows: list[dict[str, Any]], names: list[str]) -> Figure:
    """Share of each class's pictures that is recognised, before and after.

    Args:
        rows: of `results.per_class`, from top to bottom.
        names: of all classes, see `fonts.drawable_names`.
    """
    figure = _figure(7.5, 1 + 0.28 * len(rows))
    axes = figure.subplots()
    before, after = ([100 * row[name] for row in rows] for name in ("zero_shot_recall", "recall"))
    places = np.arange(len(rows))
    axes.hlines(places, before, after, color=GRID_COLOUR, linewidth=3, zorder=1)
    axes.scatter(before, places, color=BEFORE, label="before", zorder=2)
    axes.scatter(after, places, color=AFTER, label="after training", zorder=3)
    axes.set_yticks(places, [names[row["label"]] for row in rows])
    axes.set(xlim=(-2, 102), ylim=(len(rows) - 0.4, -0.6), xlabel="pictures recognised, %")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def draw_pictures(groups: dict[str, list[tuple[PIL.Image.Image, str]]], columns: int = 6) -> Figure:
    """Groups of pictures, each under its title.

    Args:
        groups: for each title its pictures with a caption each.
        columns: pictures in a row.
    """
    heights = [max(1, -(-len(shown) // columns)) for shown in groups.values()]
    figure = _figure(9, 0.4 * len(groups) + 2 * sum(heights))
    parts = figure.subfigures(len(groups), 1, height_ratios=[0.2 + height for height in heights], squeeze=False)
    for part, (title, shown), height in zip(parts[:, 0], groups.items(), heights, strict=True):
        part.suptitle(title, x=0.01, ha="left", fontsize=11)
        panels = part.subplots(height, columns, squeeze=False).ravel()
        for axes in panels:
            axes.set_axis_off()
        for axes, (picture, caption) in zip(panels, shown, strict=False):
            axes.imshow(picture)
            axes.set_title(caption, fontsize=6, loc="center")
    return figure


def _draw_matrix(counts: np.ndarray, names: list[str]) -> Figure:
    size = len(names)
    figure = _figure(2.6 + max(0.26 * size, 2.5), 2 + max(0.26 * size, 2.5))
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(size), names, rotation=90)
    axes.set_yticks(range(size), names)
    axes.set(xlabel="what it was called", ylabel="what it is")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if size <= LARGEST_MATRIX_WITH_NUMBERS:
        for row, column in np.argwhere(counts):
            color = "white" if shares[row, column] > 0.5 else INK
            axes.text(column, row, counts[row, column], ha="center", va="center", color=color, fontsize=8)
    return figure


def _draw_pairs(pairs: list[tuple[int, int, int]], names: list[str]) -> Figure:
    figure = _figure(8, 1.2 + 0.28 * len(pairs))
    axes = figure.subplots()
    bars = axes.barh(range(len(pairs)), [count for _, _, count in pairs], color=AFTER)
    axes.bar_label(bars, padding=2, fontsize=8)
    axes.set_yticks(range(len(pairs)), [f"{names[row]}  →  {names[column]}" for row, column, _ in pairs])
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(title="Most frequent mistakes: is → was called", xlabel="pictures", ylim=(len(pairs) - 0.4, -0.6))
    return figure


def _line(axes: Axes, records: list[dict[str, Any]], name: str) -> None:
    epochs, values = ([record[key] for record in records] for key in ("epoch", name))
    axes.plot(
        epochs, values, color=AFTER, marker="o" if len(records) < 25 else None, markersize=3, label="in training"
    )
    axes.grid(axis="y", color=GRID_COLOUR)
    axes.set_xlabel("epoch: all training pictures once")
    axes.xaxis.get_major_locator().set_params(integer=True)


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
