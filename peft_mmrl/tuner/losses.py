"""Logits and losses of MMRL (section 3.3 and 3.4 of the paper), on normalised features."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from .features import Features


def similarity_logits(features: Features, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Class logits s f_c w^T and representation logits s f_r w^T, (B, C) each; None for the second in frozen CLIP."""
    with torch.autocast(features.image.device.type, enabled=False):  # logits of a scale of 100 need fp32
        class_logits = scale * features.image @ features.text.T
        return class_logits, None if features.rep is None else scale * features.rep @ features.text.T


def decision_logits(
    class_logits: torch.Tensor, rep_logits: torch.Tensor | None, seen: torch.Tensor, alpha: float
) -> torch.Tensor:
    """Logits (B, C) that decide ("decoupling"): alpha class + (1 - alpha) representation logits for trained classes,
    class logits for new ones.

    Args:
        class_logits: s f_c w^T, (B, C).
        rep_logits: s f_r w^T, (B, C); None in frozen CLIP.
        seen: (C,) bool, which classes count as trained.
        alpha: weight of the class logits.
    """
    if rep_logits is None:
        return class_logits
    return torch.where(seen, alpha * class_logits + (1 - alpha) * rep_logits, class_logits)


def mmrl_loss(
    class_logits: torch.Tensor,
    rep_logits: torch.Tensor | None,
    labels: torch.Tensor | None,
    features: Features,
    alpha: float,
    reg_weight: float,
    label_smoothing: float = 0.0,
    class_weight: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """alpha CE(class) + (1 - alpha) CE(rep) + lambda (1 - mean cos(f_c, f_0)) + lambda (1 - mean cos(w, w_0)).

    Args:
        class_logits, rep_logits: (B, C); without `rep_logits` (frozen CLIP) the loss is CE(class), plain.
        labels: (B,) class indices. None: the rows of C are the images' captions, and CLIP's contrastive loss takes
            the place of both cross entropies.
        features: with the frozen ones where `reg_weight` is not 0; the second mean runs over all classes.
        alpha, reg_weight: alpha and lambda.
        label_smoothing: share of the target that both cross entropies spread evenly over all classes.
        class_weight: of each class in both cross entropies (C,), see [`weighted_cross_entropy`]; None: 1.

    Returns:
        `loss` and its terms by their names in [`MMRLOutput`], unweighted scalars.
    """

    def classification(logits: torch.Tensor, *how: Any) -> torch.Tensor:
        return contrastive_loss(logits) if labels is None else weighted_cross_entropy(logits, labels, *how)

    if rep_logits is None:
        loss_class = classification(class_logits)
        return {"loss": loss_class, "loss_class": loss_class}
    loss_class = classification(class_logits, label_smoothing, class_weight)
    loss_rep = classification(rep_logits, label_smoothing, class_weight)
    losses = {"loss_class": loss_class, "loss_rep": loss_rep}
    losses["loss"] = alpha * loss_class + (1 - alpha) * loss_rep
    if features.frozen_image is not None and features.frozen_text is not None:
        losses["loss_image_reg"] = 1 - (features.image * features.frozen_image).sum(dim=-1).mean()
        losses["loss_text_reg"] = 1 - (features.text * features.frozen_text).sum(dim=-1).mean()
        losses["loss"] = losses["loss"] + reg_weight * (losses["loss_image_reg"] + losses["loss_text_reg"])
    return losses


def contrastive_loss(logits: torch.Tensor) -> torch.Tensor:
    """CLIP's loss of images and their captions (N, N) -> scalar: cross entropy both ways."""
    pairs = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, pairs) + cross_entropy(logits.T, pairs)) / 2


def weighted_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0, class_weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Cross entropy (B, C), (B,) -> scalar: the mean over pictures, each weighted.

    torch's own mean divides by the sum of the batch's weights: a batch of one class alone, whatever its weight, would
    count as any other, and batches of 2 x 4 pictures would not add up to one of 8.
    """
    if class_weight is None:
        return cross_entropy(logits, labels, label_smoothing=label_smoothing)
    weight = class_weight.to(logits)
    return cross_entropy(logits, labels, weight, reduction="sum", label_smoothing=label_smoothing) / len(labels)
