"""A linear probe on features of frozen CLIP, and what it is worth beside the text.

Symbols: f_0 (N, d) and w_0 (C, d) normalised features of N pictures and C classes, y (N,) labels, s the logit scale,
z = s f_0 w_0^T. All that is as large as N x C is computed in chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from torch.nn.functional import cross_entropy


PROBE_STRENGTH = 10.0  # weight of the cross entropies against half the squared norm of W
PROBE_FACTORS = (0.0, 0.5, 1.0, 2.0)  # k, of which cross-validation chooses
UNTRIED_FACTOR = 0.5  # k where every class has one picture
MAX_FOLDS = 5
CHUNK_NUMBERS = 2**24


def fit_probe(
    features: torch.Tensor,
    labels: torch.Tensor,
    num_classes: int,
    class_weight: torch.Tensor | None = None,
    tolerance: float = 1e-7,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Multinomial logistic regression: W (C, d) and c (C,) that minimise 10 sum CE(W f + c, y) + |W|^2 / 2.

    c is free, then centred. The solver is L-BFGS; it works on centred features, which changes c alone.

    Args:
        features: (N, d).
        labels: (N,).
        num_classes: C.
        class_weight: (C,) weights of the classes' pictures; None: 1.
        tolerance: largest entry of the gradient of the mean cross entropy at which it stops.
    """
    mean = features.mean(dim=0)
    inputs = torch.cat([features - mean, torch.ones_like(features[:, :1])], dim=1)  # (N, d + 1)
    parameters = inputs.new_zeros(num_classes, inputs.shape[1]).requires_grad_()  # W and c side by side
    if num_classes == 1:
        return parameters.detach()[:, :-1], parameters.detach()[:, -1]
    weights = inputs.new_ones(num_classes) if class_weight is None else class_weight.to(inputs)
    penalty = 1 / (PROBE_STRENGTH * len(inputs))
    everything = torch.arange(len(inputs), device=inputs.device)

    @torch.no_grad()
    def loss_and_gradient() -> float:
        gradient = parameters * penalty
        gradient[:, -1] = 0
        loss = total(parameters * gradient) / 2
        for rows in chunks(everything, num_classes):
            log_p = (inputs[rows] @ parameters.T).log_softmax(dim=1)
            of_label, weight = labels[rows, None], weights[labels[rows], None]
            loss -= total(weight * log_p.gather(1, of_label)) / len(inputs)
            error = log_p.exp_().scatter_add_(1, of_label, -torch.ones_like(weight)).mul_(weight)
            gradient += error.T @ inputs[rows] / len(inputs)
        parameters.grad = gradient
        return loss

    options = {"max_iter": 1000, "max_eval": 2000, "history_size": 10, "line_search_fn": "strong_wolfe"}
    torch.optim.LBFGS([parameters], tolerance_grad=tolerance, tolerance_change=1e-12, **options).step(
        loss_and_gradient
    )
    weight, bias = parameters.detach().split([features.shape[1], 1], dim=1)
    bias = bias.flatten() - weight @ mean
    return weight, bias - bias.mean()


def choose_factor(
    frozen_image: torch.Tensor,
    frozen_text: torch.Tensor,
    labels: torch.Tensor,
    scale: torch.Tensor | float,
    class_weight: torch.Tensor | None = None,
) -> float:
    """k, by which the probe's logits are multiplied: the one with the smallest cross entropy of z + k (probe) over
    held-out pictures; 1/2 where every class has one picture."""
    losses = held_out_losses([frozen_image], frozen_text, labels, scale, class_weight)
    return UNTRIED_FACTOR if losses is None else PROBE_FACTORS[int(losses[0].mean(dim=1).argmin())]


def held_out_losses(
    views: list[torch.Tensor],
    frozen_text: torch.Tensor,
    labels: torch.Tensor,
    scale: torch.Tensor | float,
    class_weight: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """Cross entropies of z + k (probe fitted on the other folds of the first view).

    Args:
        views: f_0 (N, d) of the pictures, and of changed ones.

    Returns:
        (views, `PROBE_FACTORS`, N), 0 for the only picture of a class; None where all are such, or there is one class.
    """
    losses = None
    for held_out, weight, bias in probes_of_folds(views[0], frozen_text, labels, scale, class_weight):
        if losses is None:
            losses = bias.new_zeros(len(views), len(PROBE_FACTORS), len(labels))
        for (v, view), (k, factor) in product(enumerate(views), enumerate(PROBE_FACTORS)):
            classifier = scale * frozen_text + factor * weight
            for rows in chunks(held_out, len(frozen_text)):
                logits = view[rows] @ classifier.T + factor * bias
                losses[v, k, rows] = cross_entropy(logits, labels[rows], reduction="none")
    return losses


def probes_of_folds(
    frozen_image: torch.Tensor,
    frozen_text: torch.Tensor,
    labels: torch.Tensor,
    scale: torch.Tensor | float,
    class_weight: torch.Tensor | None = None,
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """For each of at most 5 folds the pictures that are held out, and a probe (W, c) fitted on the others.

    The only picture of a class is never held out. Nothing where every class has one, or there is one class.
    """
    counts = labels.bincount()
    if counts.max() < 2 or len(frozen_text) < 2:
        return
    num_folds = min(MAX_FOLDS, int(counts[counts > 1].min()))
    of_label = scale * (frozen_image * frozen_text[labels]).sum(dim=1)
    fold = deal_into_folds(labels, of_label, num_folds).masked_fill(counts[labels] == 1, -1)
    for index in range(num_folds):
        train = fold != index
        # Looser: it is scored on pictures that it was not fitted on.
        probe = fit_probe(frozen_image[train], labels[train], len(frozen_text), class_weight, tolerance=1e-5)
        yield (~train).nonzero().flatten(), *probe


def deal_into_folds(labels: torch.Tensor, scores: torch.Tensor, num_folds: int) -> torch.Tensor:
    """Fold (N,) of each picture: those of a class are dealt out in the order of their scores, so that folds are alike
    and do not depend on the pictures' order.

    Args:
        labels: (N,).
        scores: (N,) any number of each picture.
        num_folds: not more than the smallest class has pictures.
    """
    order = scores.argsort(stable=True)
    order = order[labels[order].argsort(stable=True)]
    counts = labels.bincount()
    first = counts.cumsum(0) - counts  # of each class in that order
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device) - first[labels[order]]
    return rank % num_folds


def total(rows: torch.Tensor) -> float:
    """Sum of all entries of rows (N, n), in double: on the CPU, since not every device has doubles (MPS)."""
    return rows.sum(dim=1).cpu().double().sum().item()


def chunks(rows: torch.Tensor, num_classes: int) -> tuple[torch.Tensor, ...]:
    """Parts of `rows` for which logits over C classes are small enough to hold."""
    return rows.split(max(1, CHUNK_NUMBERS // num_classes))
