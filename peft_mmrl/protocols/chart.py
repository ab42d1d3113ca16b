"""The picture of a protocol's results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .rows import METHOD_TITLES, SCORE_TITLES, Row, title


METHOD_COLORS = {
    "mmrl": "#1f5fa8",
    "mmrl-decision": "#6fa8dc",
    "mmrl++": "#d9822b",
    "mmrl++-decision": "#f0b878",
    "zero-shot": "#7a7a7a",
    "untrained": "#222222",
    "lora": "#3d8b52",
    "linear-probe": "#8a5aa8",
}
MARKERS = {
    "mmrl": "o",
    "mmrl-decision": "P",
    "mmrl++": "s",
    "mmrl++-decision": "*",
    "zero-shot": "X",
    "untrained": "v",
    "lora": "^",
    "linear-probe": "D",
}


def draw(rows: Sequence[Row], path: Path) -> None:
    """A panel for each data set with curves over shots where there are several, otherwise all data sets in one: H or
    accuracy, and below it the accuracy among all classes where that was asked for.

    Bars are standard deviations over seeds, hollow marks the papers' numbers.
    """
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    metrics = [name for name in ("h", "all", "accuracy") if name in rows[0].mean]
    if len({row.shots for row in rows}) > 1:
        columns = min(4, len(datasets))
        lines = math.ceil(len(datasets) / columns)
        figure = Figure(figsize=(max(4.5, 3.2 * columns), 2.6 * lines + 0.8), layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False).flatten().tolist()
        for dataset, axis in zip(datasets, axes, strict=False):
            _draw_shots(axis, dataset, [row for row in rows if row.dataset == dataset], metrics[0])
        for axis in axes[len(datasets) :]:
            axis.set_axis_off()
        figure.supylabel(f"{SCORE_TITLES[metrics[0]]} in %")
    else:
        size = max(4.5, 0.8 * len(datasets) + 1.5), 3.0 * len(metrics) + 1
        figure = Figure(figsize=size, layout="constrained")
        for axis, metric in zip(figure.subplots(len(metrics), squeeze=False).flat, metrics, strict=True):
            _draw_datasets(axis, datasets, rows, metric)
            axis.set_ylabel(f"{SCORE_TITLES[metric]} in %")
    _add_legend(figure)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=150)


def _draw_datasets(axis: Axes, datasets: Sequence[str], rows: Sequence[Row], metric: str) -> None:
    methods = list(dict.fromkeys(row.method for row in rows))
    for place, method in enumerate(methods):
        found = [row for row in rows if row.method == method]
        shift = 0.6 * ((place + 0.5) / len(methods) - 0.5)
        _draw_method(axis, [datasets.index(row.dataset) + shift for row in found], found, metric, line="")
    axis.set_xticks(range(len(datasets)), [title(name) for name in datasets], rotation=35, ha="right")
    axis.set_xlim(-0.5, len(datasets) - 0.5)
    axis.grid(axis="y", alpha=0.3)


def _draw_shots(axis: Axes, dataset: str, rows: Sequence[Row], metric: str) -> None:
    for method in dict.fromkeys(row.method for row in rows):
        found = [row for row in rows if row.method == method]
        _draw_method(axis, [row.shots for row in found], found, metric, line="-")
    every = sorted({row.shots for row in rows})
    axis.set_xscale("log", base=2)
    axis.set_xticks(every, map(str, every))
    axis.set_xlabel("pictures of each class", fontsize=8)
    axis.set_title(title(dataset), fontsize=9)
    axis.grid(alpha=0.3)


def _draw_method(axis: Axes, positions: Sequence[float], rows: Sequence[Row], metric: str, line: str) -> None:
    method = rows[0].method
    style = {"color": METHOD_COLORS[method], "marker": MARKERS[method], "markersize": 5}
    spreads = [row.spread.get(metric, 0.0) if row.seeds > 1 else 0.0 for row in rows]
    means = [row.mean[metric] for row in rows]
    axis.errorbar(positions, means, spreads, linestyle=line, elinewidth=1, label=METHOD_TITLES[method], **style)
    known = [(place, row.paper[metric]) for place, row in zip(positions, rows, strict=True) if metric in row.paper]
    if known:
        label = f"{METHOD_TITLES[method]}, paper"
        axis.plot(*zip(*known, strict=True), linestyle="", label=label, fillstyle="none", **style | {"markersize": 9})


def _add_legend(figure: Figure) -> None:
    entries = {}
    for axis in figure.axes:
        entries |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=4, fontsize=8)
