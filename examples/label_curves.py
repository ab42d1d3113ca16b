"""How many labels choosing saves: accuracy over the number of labels, chosen by `suggest` and at random.

    python examples/label_curves.py                                   # some minutes
    python examples/label_curves.py --seeds 1 --labels 20 40 --output curves.png
    python examples/label_curves.py --also TypiClust CoreSet          # further strategies of scikit-activeml

The pictures are the demo's digits: of 400 without labels (`--pool`), drawn by the seed, ten at a time are labelled.
The classifier is the decision without training on the labels so far, on the demo's CLIP; a class of which there is no
label yet is known by its name. Its accuracy is that on the 997 pictures to test with, most of which others wrote. In
`skewed` three of the digits are six times as frequent among the pictures to choose from as the others.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, pstdev

import datasets
import matplotlib
import numpy as np
import skactiveml.pool as pool_strategies
import torch
from demo_parts.methods import load_clip
from digits import CLASS_NAMES, load_digits
from peft import get_peft_model

from peft_mmrl import MMRLConfig
from peft_mmrl.data.sources import load_columns
from peft_mmrl.projects.suggestions import suggest
from peft_mmrl.scoring.sightings import margins_of
from peft_mmrl.training import FrozenFeatures, make_accelerator


STEP = 10  # labels at a time
FREQUENT, SELDOM = 70, 12  # pictures of a digit, where they are skewed
COLOURS = ("#888888", "#c0392b", "#2980b9", "#27ae60", "#8e44ad", "#e67e22")

Choice = Callable[[FrozenFeatures, torch.Tensor, torch.Tensor, int], list[int]]


def look(part: str) -> FrozenFeatures:
    """What the demo's frozen CLIP sees in a part of the digits."""
    pictures, _ = load_columns(load_digits()[part], "digits", part, "image", "label")
    clip, processor = load_clip()
    model = get_peft_model(clip, MMRLConfig())
    model.set_classes(CLASS_NAMES, processor)
    return FrozenFeatures.of(model, pictures, processor, make_accelerator(cpu=True), with_mirrored=False)


def of_rows(seen: FrozenFeatures, rows: Sequence[int]) -> FrozenFeatures:
    """The same of some pictures."""
    rows = torch.tensor(rows, dtype=torch.long)
    return FrozenFeatures(seen.images[rows], None, seen.text, seen.labels[rows], seen.scale, seen.measures[rows])


def answers(known: FrozenFeatures, images: torch.Tensor) -> torch.Tensor:
    """Probabilities (n, 10) for pictures, by the labels that are known; without any by zero-shot CLIP."""
    if not len(known.labels):
        return (known.scale * images @ known.text.T).softmax(dim=1)
    return known.decide(known.fit_untrained(features="frozen"), images)


def at_random(known: FrozenFeatures, candidates: torch.Tensor, probabilities: torch.Tensor, seed: int) -> list[int]:
    """Any pictures."""
    return random.Random(seed).sample(range(len(candidates)), STEP)


def by_suggestion(
    known: FrozenFeatures, candidates: torch.Tensor, probabilities: torch.Tensor, seed: int
) -> list[int]:
    """What `peft-mmrl suggest` names."""
    guesses, margins = probabilities.argmax(dim=1), margins_of(probabilities)
    return suggest(known.images, known.labels, candidates, guesses, margins, STEP, seed)


def by_strategy(name: str) -> Choice:
    """What a strategy of scikit-activeml that asks no classifier names."""

    def choose(known: FrozenFeatures, candidates: torch.Tensor, probabilities: torch.Tensor, seed: int) -> list[int]:
        features = torch.cat([known.images, candidates]).double().numpy()
        labels = np.concatenate([known.labels.double().numpy(), np.full(len(candidates), np.nan)])
        free = np.arange(len(known.labels), len(features))
        chosen = getattr(pool_strategies, name)(random_state=seed).query(features, labels, free, batch_size=STEP)
        return [int(row) - len(known.labels) for row in chosen]

    return choose


CHOICES: dict[str, Choice] = {"random": at_random, "chosen": by_suggestion}
STRATEGIES = ("CoreSet", "MaxHerding", "ProbCover", "TypiClust")


def draw_pool(labels: Sequence[int], size: int, skewed: bool, rng: random.Random) -> list[int]:
    """Rows of the pictures to choose from."""
    rows = rng.sample(range(len(labels)), len(labels))
    if not skewed:
        return rows[:size]
    frequent = set(rng.sample(range(10), 3))
    left = {digit: FREQUENT if digit in frequent else SELDOM for digit in range(10)}
    pool = []
    for row in rows:
        if left[labels[row]]:
            left[labels[row]] -= 1
            pool.append(row)
    return pool


def curve(
    choose: Choice, pool: FrozenFeatures, test: FrozenFeatures, first: list[int], labels: Sequence[int], seed: int
) -> dict[int, float]:
    """Accuracy by number of labels.

    Args:
        choose: which pictures to label next.
        pool: pictures to choose from.
        test: pictures to test with.
        first: rows of the pool that have labels before.
        labels: the numbers of labels that are wanted.
        seed: of what is drawn.
    """
    has, found = list(first), {}
    while True:
        known = of_rows(pool, has)
        if len(has) in labels:
            found[len(has)] = (answers(known, test.images).argmax(dim=1) == test.labels).float().mean().item()
        if len(has) >= max(labels):
            return found
        others = sorted(set(range(len(pool.labels))) - set(has))
        candidates = pool.images[others]
        if not (new := choose(known, candidates, answers(known, candidates), 1000 * seed + len(has))):
            return found
        has += [others[row] for row in new]


def compare(args: argparse.Namespace) -> dict[str, dict[str, list[dict[int, float]]]]:
    """Curves of each seed, by setting and choice."""
    train, test = look("train"), look("test")
    print(f"zero-shot accuracy: {(test.zero_shot.argmax(dim=1) == test.labels).float().mean():.1%}")
    found: dict[str, dict[str, list[dict[int, float]]]] = {}
    choices = CHOICES | {name: by_strategy(name) for name in args.also}
    for name, skewed, start in (("no labels yet", False, 0), ("20 random ones first", False, 20), ("skewed", True, 0)):
        found[name] = {choice: [] for choice in choices}
        for seed in args.seeds:
            rng = random.Random(seed)
            pool = of_rows(train, draw_pool(train.labels.tolist(), args.pool, skewed, rng))
            first = rng.sample(range(len(pool.labels)), start)
            for choice, choose in choices.items():
                wanted = [number for number in args.labels if number >= start]
                found[name][choice].append(curve(choose, pool, test, first, wanted, seed))
        print(describe(name, found[name]), flush=True)
    return found


def describe(name: str, curves: dict[str, list[dict[int, float]]]) -> str:
    """A table."""
    numbers = list(next(iter(curves.values()))[0])
    lines = [f"\n{name:24}" + "".join(f"{number:>12}" for number in numbers)]
    for choice, runs in curves.items():
        cells = [[100 * run[number] for run in runs] for number in numbers]
        lines.append(f"{choice:24}" + "".join(f"{mean(cell):6.1f} ±{pstdev(cell):4.1f}" for cell in cells))
    return "\n".join(lines)


def draw(found: dict[str, dict[str, list[dict[int, float]]]], path: Path) -> None:
    """The curves, with a band of one standard deviation."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(found), figsize=(4 * len(found), 3.2), sharey=True, layout="constrained")
    for axis, (name, curves) in zip(axes, found.items(), strict=True):
        for colour, (choice, runs) in zip(COLOURS, curves.items(), strict=False):
            numbers = list(runs[0])
            middle = [100 * mean(run[number] for run in runs) for number in numbers]
            spread = [100 * pstdev([run[number] for run in runs]) for number in numbers]
            low, high = ([m + sign * s for m, s in zip(middle, spread, strict=True)] for sign in (-1, 1))
            axis.plot(numbers, middle, color=colour, marker="o", label=choice)
            axis.fill_between(numbers, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.set(title=name, xlabel="labels")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy, %")
    axes[0].legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main(args: argparse.Namespace) -> None:
    """Compare, and draw."""
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    found = compare(args)
    if args.output is not None:
        draw(found, args.output)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, nargs="+", default=[10, 20, 30, 40, 60, 80, 100, 140], help="tens")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="(1 2 3 4 5)")
    parser.add_argument("--pool", type=int, default=400, help="pictures to choose from (%(default)s)")
    parser.add_argument("--also", nargs="+", choices=STRATEGIES, default=[], help="further choices to compare")
    parser.add_argument("--output", type=Path, help="PNG file for the curves")
    args = parser.parse_args(argv)
    if any(number < STEP or number % STEP for number in args.labels):
        parser.error(f"--labels must be multiples of {STEP}, got {args.labels}")
    return args


if __name__ == "__main__":
    main(parse_args())
