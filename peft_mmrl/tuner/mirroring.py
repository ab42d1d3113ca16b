"""Whether mirror images of pictures may stand for them in training, by what frozen CLIP sees in both.

Symbols: f_0 (N, d) and w_0 (C, d) normalised features of N pictures and C classes, y (N,) labels, s the logit scale,
z = s f_0 w_0^T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .decision_fit import check_problem
from .probe import PROBE_FACTORS, held_out_losses


MIN_MIRROR_GAIN = -0.25  # in nats: below, mirrored pictures are other things
MIN_KNOWN = 0.25  # in nats above chance: below, frozen CLIP sees too little to tell


@dataclass(frozen=True)
class Mirroring:
    """What pictures say on whether their mirror images may stand for them in training.

    p is the softmax of z + k (probe fitted on the other folds), k the better one of 1 and 2, so that the probe is
    heard where names mean nothing to CLIP.

    Args:
        gain: mean log p of the true class for mirrored pictures, minus that for the pictures, in nats.
        known: mean log p of the true class for the pictures, minus that of chance.
    """

    gain: float
    known: float

    @property
    def is_harmless(self) -> bool:
        """Whether mirrored pictures are still recognised, and the pictures so far that this says something."""
        return self.gain >= MIN_MIRROR_GAIN and self.known >= MIN_KNOWN


def judge_mirroring(
    frozen_image: torch.Tensor,
    mirrored: torch.Tensor,
    frozen_text: torch.Tensor,
    labels: torch.Tensor,
    scale: torch.Tensor | float,
) -> Mirroring | None:
    """Compare pictures with their mirror images.

    Args:
        frozen_image, frozen_text, labels, scale: as for `fit`.
        mirrored: f_0 (N, d) of the mirrored pictures.

    Returns:
        None where a class has one picture, or there is one class: nothing can be said, so do not mirror.
    """
    check_problem(frozen_image, frozen_text, labels)
    if mirrored.shape != frozen_image.shape:
        raise ValueError(f"`mirrored` must have the shape {tuple(frozen_image.shape)}, got {tuple(mirrored.shape)}.")
    labels = labels.to(frozen_image.device, torch.long)
    losses = held_out_losses([frozen_image, mirrored], frozen_text, labels, scale)
    if losses is None or labels.bincount().min() < 2:
        return None
    losses = losses[:, [factor >= 1 for factor in PROBE_FACTORS]].mean(dim=2)  # (views, factors)
    plain, reflected = losses[:, losses[0].argmin()].tolist()
    return Mirroring(gain=plain - reflected, known=math.log(len(frozen_text)) - plain)
