"""The picture of a protocol's results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from .rows import METHODS, TITLES, Row, title


try:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError('The protocols draw with matplotlib: pip install "peft_mmrl[examples]".') from error


COLORS = {"mmrl": "#1f5fa8", "mmrl++": "#d9822b", "zero-shot": "#9a9a9a", "lora": "#3d8b52", "linear-probe": "#8a5aa8"}


def draw(rows: Sequence[Row], path: Path) -> None:
    """Bars for each data set, or curves over shots where there are several; black marks are the papers' numbers."""
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    metric = "h" if "h" in rows[0].mean else "accuracy"
    if len({row.shots for row in rows}) > 1:
        columns = min(4, len(datasets))
        lines = math.ceil(len(datasets) / columns)
        figure = Figure(figsize=(3.2 * columns, 2.6 * lines + 0.5), layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False).flat
        for dataset, axis in zip(datasets, axes, strict=False):
            _curves(axis, dataset, [row for row in rows if row.dataset == dataset], metric)
        for axis in list(axes)[len(datasets) :]:
            axis.set_axis_off()
        axis = figure.axes[0]
    else:
        figure = Figure(figsize=(max(5.0, 1.1 * len(datasets) + 1.5), 4.0), layout="constrained")
        axis = figure.subplots()
        _bars(axis, datasets, rows, metric)
    axis.set_ylabel(f"{TITLES[metric]} in %")
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, [METHODS.get(label, label) for label in labels], loc="outside lower center", ncols=6)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=150)


def _bars(axis: Axes, datasets: Sequence[str], rows: Sequence[Row], metric: str) -> None:
    methods = list(dict.fromkeys(row.method for row in rows))
    width = 0.8 / len(methods)
    for place, method in enumerate(methods):
        found = {row.dataset: row for row in rows if row.method == method}
        positions = [datasets.index(name) + (place - (len(methods) - 1) / 2) * width for name in found]
        means = [row.mean[metric] for row in found.values()]
        spreads = [row.spread.get(metric, 0.0) for row in found.values()]
        axis.bar(positions, means, 0.92 * width, yerr=spreads, capsize=2, color=COLORS[method], label=method)
        known = [
            (position, row.paper[metric])
            for position, row in zip(positions, found.values(), strict=True)
            if metric in row.paper
        ]
        if known:
            axis.scatter(
                *zip(*known, strict=True), marker="_", s=120, color="black", zorder=3, label=_paper_label(axis)
            )
    axis.set_xticks(range(len(datasets)), [title(name) for name in datasets], rotation=35, ha="right")
    axis.set_ylim(bottom=max(0.0, min(row.mean[metric] for row in rows) - 15), top=100)


def _curves(axis: Axes, dataset: str, rows: Sequence[Row], metric: str) -> None:
    for method in dict.fromkeys(row.method for row in rows):
        found = [row for row in rows if row.method == method]
        shots, means = [row.shots for row in found], [row.mean[metric] for row in found]
        spreads = [row.spread.get(metric, 0.0) for row in found]
        axis.errorbar(shots, means, spreads, marker="o", markersize=3, capsize=2, color=COLORS[method], label=method)
        known = [(row.shots, row.paper[metric]) for row in found if metric in row.paper]
        if known:
            axis.scatter(
                *zip(*known, strict=True), marker="_", s=90, color="black", zorder=3, label=_paper_label(axis)
            )
    every = sorted({row.shots for row in rows})
    axis.set_xscale("log", base=2)
    axis.set_xticks(every, map(str, every))
    axis.set_title(title(dataset), fontsize=9)


def _paper_label(axis: Axes) -> str | None:
    """The legend's entry for the papers' numbers, once."""
    return None if "papers" in axis.get_legend_handles_labels()[1] else "papers"
