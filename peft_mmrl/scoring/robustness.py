"""How much is still recognised of pictures that a worse camera, hand or light has taken."""

from __future__ import annotations

from typing import Any

import datasets
import torch
from accelerate import Accelerator

from ..data.corruptions import CORRUPTIONS, STRENGTHS, CorruptedView
from ..data.preprocessing import ImageProcessor, Preprocessing
from ..tuner.peft_model import PeftModelForZeroShotImageClassification
from .labelled import beside_zero_shot, score


def under_corruptions(
    model: PeftModelForZeroShotImageClassification,
    dataset: datasets.Dataset,
    image_processor: ImageProcessor,
    accelerator: Accelerator,
    batch_size: int = 32,
    num_workers: int = 0,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Accuracy of a model in eval mode and of zero-shot CLIP on corrupted pictures, at three strengths each.

    Args:
        model, dataset, image_processor, accelerator, batch_size, num_workers: as for
            [`~peft_mmrl.scoring.labelled.predict`].
        seed: of what is random in corruptions.

    Returns:
        for each corruption `corruption`, `meaning` of its `values` at the three `strengths`, `accuracy` and
        `zero_shot_accuracy` at these, and the means `mean_accuracy` and `zero_shot_mean_accuracy`: the one with which
        the model recognises least first.
    """
    preprocessing, labels = Preprocessing.of(model, image_processor), torch.tensor(dataset["label"][:])
    forward, rows = beside_zero_shot(model), []
    for corruption in CORRUPTIONS:
        right = []
        for strength, word in enumerate(STRENGTHS):
            view = CorruptedView(preprocessing, corruption, strength, seed)
            description = f"{corruption.name}, {word}"
            logits = score(forward, dataset, view, accelerator, batch_size, description, num_workers)  # (N, 2, C)
            right.append((logits.argmax(dim=2) == labels[:, None]).double().mean(dim=0))
        accuracies = torch.stack(right)  # (3, 2)
        mean = accuracies.mean(dim=0).tolist()
        rows.append(
            {
                "corruption": corruption.name,
                "meaning": corruption.meaning,
                "strengths": list(STRENGTHS),
                "values": list(corruption.values),
                "accuracy": accuracies[:, 0].tolist(),
                "zero_shot_accuracy": accuracies[:, 1].tolist(),
                "mean_accuracy": mean[0],
                "zero_shot_mean_accuracy": mean[1],
            }
        )
    return sorted(rows, key=lambda row: row["mean_accuracy"])


def describe_corruptions(rows: list[dict[str, Any]]) -> list[str]:
    """Lines on what `under_corruptions` found."""
    lines = ["accuracy on corrupted pictures (weak, medium, strong), weakest first:"]
    for row in rows:
        adapter, zero_shot = (
            ", ".join(f"{value:.1%}" for value in row[name]) for name in ("accuracy", "zero_shot_accuracy")
        )
        lines.append(f"  {row['corruption']:11}  {adapter} (zero-shot {zero_shot})")
    return lines
