"""What a classifier says to labelled pictures, beside zero-shot CLIP."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass
class Predictions:
    """Probabilities of N labelled pictures over C classes, of the trained model and of frozen CLIP.

    Args:
        class_names: C names, as prompts say them.
        trained: for each class, whether it was trained.
        paths: what names each picture, the data set's column `path`.
        labels: positions in `class_names` (N,).
        probabilities: of the trained model (N, C), fp32.
        zero_shot: of frozen CLIP with the same prompts (N, C), fp32.
    """

    class_names: list[str]
    trained: list[bool]
    paths: list[str]
    labels: torch.Tensor
    probabilities: torch.Tensor
    zero_shot: torch.Tensor
