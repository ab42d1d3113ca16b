"""Choose the demo's settings on validation pictures, which are neither shots nor test pictures.

    python examples/tune_demo.py                  # all methods, about a quarter of an hour
    python examples/tune_demo.py --methods mmrl

Every candidate is trained on each of the demo's four splits with shots of seed 0; the one with the best mean harmonic
mean H on the rest of the training pool is printed. `SETTINGS` in demo_parts/methods.py holds what it found.
"""

from __future__ import annotations

import argparse
from itertools import product
from statistics import mean

import torch
from demo_parts.methods import (
    DIGIT_SPLITS,
    Settings,
    Task,
    linear_probe_logits,
    load_clip,
    load_pictures,
    lora_logits,
    make_task,
    mmrl_logits,
    score,
    train_mmrl,
)


SEED = 0  # the demo reports seeds 1 to 3
MMRL_GRID = [
    Settings(lr=lr, epochs=50, config={"reg_weight": reg_weight})
    for lr, reg_weight in product((2e-3, 5e-3), (0.5, 3.0))
]
CANDIDATES = {
    "mmrl": MMRL_GRID,
    "mmrl++": MMRL_GRID,
    "lora": [Settings(lr=lr, epochs=epochs) for lr, epochs in product((3e-4, 1e-3, 3e-3), (10, 25))],
    "linear probe": [Settings(lr=0, epochs=0, config={"C": c}) for c in (0.1, 1.0, 10.0, 100.0)],
}


def validation_score(method: str, task: Task, settings: Settings) -> dict[str, float]:
    """Accuracies of one method on a task's validation pictures."""
    shown = task.validation
    if method == "lora":
        logits = lora_logits(task, shown, settings, SEED)
    elif method == "linear probe":
        logits = linear_probe_logits(task, shown, settings)
    else:
        logits = mmrl_logits(train_mmrl(task, method, settings, SEED), load_clip()[1], shown)
    return score(logits, shown.digits, task.trained)


def main(args: argparse.Namespace) -> None:
    """Try every candidate and print the best of each method."""
    torch.set_num_threads(1)  # as the demo does
    pictures = load_pictures(load_clip()[1])
    tasks = [make_task(pictures, split, args.shots, SEED) for split in DIGIT_SPLITS]
    for method in args.methods:
        results = []
        for settings in CANDIDATES[method]:
            scores = [validation_score(method, task, settings) for task in tasks]
            means = {name: mean(score[name] for score in scores) for name in scores[0]}
            results.append((means["h"], settings))
            print(method, settings, {name: round(value, 2) for name, value in means.items()}, flush=True)
        best = max(results, key=lambda result: result[0])
        print(f"best for {method}: {best[1]}, H {best[0]:.2f}\n", flush=True)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--shots", type=int, default=16)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main(parse_args())
