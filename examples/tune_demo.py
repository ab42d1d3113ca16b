"""Choose the demo's settings on validation pictures, which are neither shots nor test pictures.

    python examples/tune_demo.py                  # all methods that are trained, about ten minutes
    python examples/tune_demo.py --methods mmrl

Every candidate is trained on each of the demo's four splits with shots of seed 0; the one with the best mean of H and
of the accuracy among all ten digits, on the rest of the training pool, is printed. MMRL and MMRL++ answer by their
decision. `SETTINGS` in demo_parts/methods.py holds what it found.
"""

from __future__ import annotations

import argparse
from itertools import product
from statistics import mean
from typing import Any

import torch
from demo_parts.methods import DIGIT_SPLITS, SHOTS, Task, fit, make_task, score
from digits import CLASS_NAMES
from transformers.utils import logging as transformers_logging


SEED = 0  # the demo reports seeds 1 to 3
MMRL_GRID = [
    {"learning_rate": learning_rate, "config": {"reg_weight": reg_weight}}
    for learning_rate, reg_weight in product((2e-3, 5e-3), (0.5, 3.0, 7.0))
]
CANDIDATES = {
    "mmrl": MMRL_GRID,
    "mmrl++": MMRL_GRID,
    "lora": [{"learning_rate": learning_rate} for learning_rate in (3e-4, 1e-3, 3e-3, 1e-2)],
}


def validation_scores(method: str, task: Task, settings: dict[str, Any]) -> dict[str, float]:
    """Accuracies of one method on a task's validation pictures."""
    logits = fit(method, task, SEED, **settings)[method].logits(task.validation, CLASS_NAMES)
    return score(logits, task.validation["label"][:], task.trained)


def main(args: argparse.Namespace) -> None:
    """Try every candidate and print the best of each method."""
    torch.set_num_threads(1)  # as the demo does
    transformers_logging.disable_progress_bar()
    tasks = [make_task(split, args.shots, SEED) for split in DIGIT_SPLITS]
    for method in args.methods:
        results = []
        for settings in CANDIDATES[method]:
            scores = [validation_scores(method, task, settings) for task in tasks]
            means = {name: mean(score[name] for score in scores) for name in scores[0]}
            results.append(((means["h"] + means["all"]) / 2, settings))
            print(method, settings, {name: round(value, 2) for name, value in means.items()}, flush=True)
        best = max(results, key=lambda result: result[0])
        print(f"best for {method}: {best[1]}, mean of H and all ten {best[0]:.2f}\n", flush=True)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--shots", type=int, default=SHOTS)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main(parse_args())
