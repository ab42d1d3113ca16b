"""What the demo compares: MMRL and MMRL++, CLIP as it was, and what a user would pick instead, on the same pictures.

All of it is the package's: classifiers, training loop, decision and scores. Every answer ends as one matrix of logits,
pictures x ten digits, from which `score` reads all accuracies.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from digits import CLASS_NAMES, TEMPLATE, as_benchmark
from transformers import CLIPModel, CLIPProcessor

from peft_mmrl.data import sample_shots
from peft_mmrl.metrics.functions import accuracy, base_to_new
from peft_mmrl.protocols.tasks import select_classes
from peft_mmrl.training import PAPER_METHODS, Classifier, TrainingSettings, fit_classifier, make_accelerator


DEMO_CLIP = Path(__file__).parents[1] / "demo_clip"
# Name of a split -> the trained digits.
DIGIT_SPLITS = {
    "0-4": range(5),
    "5-9": range(5, 10),
    "even": range(0, 10, 2),
    "odd": range(1, 10, 2),
}
SHOTS = 16
# All methods are trained alike: as long as the package does by default, on views with a little of a picture's border
# cut off, and never mirrored.
SHARED = {"flip": False, "crop_scale": 0.8}
# What is a method's own; `tune_demo.py` chose the numbers.
SETTINGS: dict[str, dict[str, Any]] = {
    "zero-shot": {},
    "untrained": {},
    "mmrl": {"learning_rate": 5e-3, "config": {"reg_weight": 3.0}},
    "mmrl++": {"learning_rate": 2e-3, "config": {"reg_weight": 3.0}},
    "lora": {"learning_rate": 3e-3},
    "linear-probe": {},
}
# What is shown, by its name in metrics.json. MMRL decides by what `fit_decision` gives; "papers" is its other way.
TITLES = {
    "zero_shot": "zero-shot",
    "untrained": "without training",
    "mmrl": "MMRL",
    "mmrl++": "MMRL++",
    "lora": "LoRA",
    "linear_probe": "linear probe",
    "mmrl_papers": "MMRL, papers' way",
    "mmrl++_papers": "MMRL++, papers' way",
}


@dataclass
class Task:
    """One few-shot problem: `shots` pictures of each trained digit; validation pictures are none of them.

    Labels of `shots` are positions in `trained`, those of the others are digits.
    """

    trained: list[int]
    shots: datasets.Dataset
    validation: datasets.Dataset
    test: datasets.Dataset

    @property
    def names(self) -> list[str]:
        """Names of the trained digits."""
        return [CLASS_NAMES[digit] for digit in self.trained]


def load_clip() -> tuple[CLIPModel, CLIPProcessor]:
    """The demo's pretrained CLIP, loaded like any CLIP."""
    return CLIPModel.from_pretrained(DEMO_CLIP), CLIPProcessor.from_pretrained(DEMO_CLIP)


def make_task(split: str, shots: int, seed: int) -> Task:
    """Sample the shots of all ten digits, then keep those of the trained ones (the field's protocol)."""
    data, trained = as_benchmark(), list(DIGIT_SPLITS[split])
    chosen = sample_shots(data.train["label"][:], shots, random.Random(seed))
    rest = sorted(set(range(len(data.train))) - set(chosen))
    return Task(trained, select_classes(data.train.select(chosen), trained), data.train.select(rest), data.test)


def fit(method: str, task: Task, seed: int, **changes: Any) -> dict[str, Classifier]:
    """Train a method on a task.

    Args:
        method: one of `SETTINGS`.
        task: a few-shot problem.
        seed: of initial weights, order and augmentation.
        changes: in the place of the method's `SETTINGS`.

    Returns:
        what answers, by its name in `TITLES`.
    """
    settings = TrainingSettings(**SHARED | (changes or SETTINGS[method]), seed=seed)
    accelerator = make_accelerator(settings, cpu=True)
    classifier = fit_classifier(method, *load_clip(), task.shots, task.names, TEMPLATE, settings, accelerator)
    name = method.replace("-", "_")
    if method in PAPER_METHODS:
        return {name: classifier.with_decision(task.shots, task.names), f"{name}_papers": classifier}
    return {name: classifier}


def score(logits: torch.Tensor, digits: list[int] | torch.Tensor, trained: list[int]) -> dict[str, float]:
    """Accuracies in percent: `base` (trained digits among themselves), `new` (the others among themselves), their
    harmonic mean `h`, and `all` ten together.

    Args:
        logits: (N, 10).
        digits: (N,).
        trained: the trained digits.
    """
    digits = torch.as_tensor(digits)
    is_new = ~torch.isin(torch.arange(10), torch.tensor(trained))
    own_kind = is_new == is_new[digits][:, None]  # (N, 10)
    among_kind = base_to_new(logits.masked_fill(~own_kind, -torch.inf).argmax(dim=1), digits, is_new[digits])
    shares = dict(zip(("base", "new", "h"), among_kind.values(), strict=True))
    shares["all"] = accuracy(logits.argmax(dim=1), digits)
    return {name: 100 * share for name, share in shares.items()}
