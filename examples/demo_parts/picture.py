"""The demo's picture: what zero-shot CLIP and the adapted model say to handwritten digits, and the accuracies."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import matplotlib


matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from digits import CLASS_NAMES
from matplotlib.axes import Axes
from PIL import Image

from .methods import TITLES, Task, score


BAR_COLORS = {
    "zero_shot": "#9aa5b1",
    "untrained": "#57606a",
    "mmrl": "#1f6feb",
    "mmrl++": "#0b3d91",
    "lora": "#e08e0b",
    "linear_probe": "#c9b458",
    "mmrl_papers": "#b6d4fe",
    "mmrl++_papers": "#9db4dd",
}
RIGHT, WRONG = "#1a7f37", "#cf222e"
ACROSS, DOWN = 8, 2


def draw(path: Path, task: Task, logits: dict[str, torch.Tensor], shots: int) -> None:
    """Write the picture of one task.

    Args:
        path: PNG file.
        task: the few-shot problem; its test pictures are shown.
        logits: each method's logits (N, 10) for them, `zero_shot` and `mmrl` among them.
        shots: pictures per trained digit, for the title.
    """
    figure = plt.figure(figsize=(12, 7.4), dpi=110)
    trained = ", ".join(map(str, task.trained))
    new = ", ".join(str(digit) for digit in range(10) if digit not in task.trained)
    figure.suptitle(
        f"A pretrained CLIP after {shots} handwritten pictures each of the digits {trained}",
        fontsize=15,
        weight="bold",
    )
    top, bottom = figure.add_gridspec(2, 1, height_ratios=[1.15, 1], hspace=0.32, top=0.83, bottom=0.07)
    before, after = (logits[name].argmax(dim=1) for name in ("zero_shot", "mmrl"))
    digits = torch.tensor(task.test["label"][:])
    fixed, broken = ((after == digits) & (before != digits), (after != digits) & (before == digits))
    grid = top.subgridspec(DOWN, ACROSS, hspace=0.75, wspace=0.15)
    for position, index in enumerate(choose(fixed, broken, DOWN * ACROSS)):
        axes = figure.add_subplot(grid[position // ACROSS, position % ACROSS])
        picture = Image.open(BytesIO(task.test[index]["image"]["bytes"]))
        draw_digit(axes, picture, int(digits[index]), int(before[index]), int(after[index]))
    figure.text(
        0.5,
        0.868,
        f"It was pretrained on printed characters, and has seen no handwritten {new}. When all ten digits compete on "
        f"{len(digits)} test pictures,\nMMRL corrects {int(fixed.sum())} that zero-shot CLIP gets wrong and gets "
        f"{int(broken.sum())} wrong that it had right. A few of both:",
        ha="center",
        fontsize=10.5,
    )
    scores = {name: score(matrix, digits, task.trained) for name, matrix in logits.items()}
    draw_bars(figure.add_subplot(bottom), scores)
    figure.savefig(path, facecolor="white")
    plt.close(figure)


def choose(fixed: torch.Tensor, broken: torch.Tensor, count: int) -> list[int]:
    """Pictures on which the two models differ: corrected and newly wrong ones in their true proportion, evenly spread
    over the test set."""
    total = int(fixed.sum() + broken.sum())
    num_broken = min(int(broken.sum()), round(count * int(broken.sum()) / max(1, total)))
    chosen = []
    for flags, number in ((fixed, count - num_broken), (broken, num_broken)):
        indices = flags.nonzero().flatten()
        number = min(number, len(indices))
        chosen += indices[torch.linspace(0, max(0, len(indices) - 1), number).long()].tolist()
    return chosen


def draw_digit(axes: Axes, picture: Image.Image, digit: int, before: int, after: int) -> None:
    """One picture with both answers, right ones green and wrong ones red."""
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()
    for line, (who, answer) in enumerate((("CLIP", before), ("MMRL", after))):
        axes.text(
            0.5,
            -0.14 - 0.2 * line,
            f"{who}: {CLASS_NAMES[answer]}",
            color=RIGHT if answer == digit else WRONG,
            weight="bold" if who == "MMRL" else "normal",
            fontsize=9.5,
            ha="center",
            va="center",
            transform=axes.transAxes,
        )


def draw_bars(axes: Axes, scores: dict[str, dict[str, float]]) -> None:
    """Four groups of bars: trained digits, new digits, their harmonic mean, all ten."""
    groups = {
        "base": "trained digits\n(among themselves)",
        "new": "new digits\n(among themselves)",
        "h": "harmonic mean H\nof both",
        "all": "all ten digits\ntogether",
    }
    width = 0.8 / len(scores)
    for index, (method, values) in enumerate(scores.items()):
        positions = [group + (index - (len(scores) - 1) / 2) * width for group in range(len(groups))]
        heights = [values[name] for name in groups]
        bars = axes.bar(positions, heights, width * 0.94, color=BAR_COLORS[method], label=TITLES[method])
        axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=2, rotation=90)
    axes.set_xticks(range(len(groups)), groups.values())
    axes.set_ylim(0, 118)
    axes.set_ylabel("accuracy in %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper center", ncols=len(scores), frameon=False, bbox_to_anchor=(0.5, 1.14), fontsize=8)
