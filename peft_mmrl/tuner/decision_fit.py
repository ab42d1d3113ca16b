"""Fitting a [`Decision`] on features of the training pictures in frozen CLIP; an adapter's weights play no part.

Symbols: f_0 (N, d) and w_0 (C, d) normalised features of N pictures and C classes, y (N,) labels, s the logit scale,
z = s f_0 w_0^T. All that is as large as N x C is computed in chunks, so memory is bounded by that of f_0 and w_0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from .decision import Decision, check_features
from .validation import InvalidTypeError, check_labels


PROBE_STRENGTH = 10.0  # weight of the cross entropies against half the squared norm of W
PROBE_FACTORS = (0.0, 0.5, 1.0, 2.0)  # k, of which cross-validation chooses
UNTRIED_FACTOR = 0.5  # k where every class has one picture
MAX_FOLDS = 5
MAX_PROTOTYPE_SCALE = 10.0
PROTOTYPE_WEIGHTS = (0.0, 0.25, 0.5)
MIN_MIRROR_GAIN = -0.25  # in nats: below, mirrored pictures are other things
MIN_KNOWN = 0.25  # in nats above chance: below, frozen CLIP sees too little to tell
CHUNK_NUMBERS = 2**24


def fit(
    frozen_image: torch.Tensor,
    frozen_text: torch.Tensor,
    labels: torch.Tensor,
    scale: torch.Tensor | float,
    class_weight: torch.Tensor | None = None,
    **settings: Any,
) -> Decision:
    """Fit a decision.

    Args:
        frozen_image: f_0 (N, d) of plain pictures, without augmentation.
        frozen_text: w_0 (C, d).
        labels: (N,), each class at least once.
        scale: s.
        class_weight: (C,) weights of the classes' pictures in the probe; None: 1.
        settings: further fields of [`Decision`], such as `features`.

    Raises:
        ValueError: shapes that do not fit, features that are not finite, labels out of range, a class without
            pictures.
    """
    check_features(settings.get("features", "adapted"))
    check_problem(frozen_image, frozen_text, labels)
    labels = labels.to(frozen_image.device, torch.long)
    weight, bias = fit_probe(frozen_image, labels, len(frozen_text), class_weight)
    factor = choose_factor(frozen_image, frozen_text, labels, scale, class_weight)
    prototypes = class_means(frozen_image, labels, len(frozen_text))
    a, b = prototype_scale(frozen_image, frozen_text, prototypes, labels, scale)
    return Decision(
        probe_weight=factor * weight,
        probe_bias=factor * bias,
        prototypes=prototypes,
        prototype_scale=a,
        prototype_shift=b,
        prototype_weight=choose_prototype_weight(frozen_image, frozen_text, prototypes, labels, scale, a, b),
        **settings,
    )


@dataclass(frozen=True)
class Mirroring:
    """What pictures say on whether their mirror images may stand for them in training.

    p is the softmax of z + k (probe fitted on the other folds), k the better one of 1 and 2, so that the probe is heard
    where names mean nothing to CLIP.

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


# --- the probe ---------------------------------------------------------------------------------------------------


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
    parameters = inputs.new_zeros(num_classes, inputs.shape[1], requires_grad=True)  # W and c side by side
    if num_classes == 1:
        return parameters.detach()[:, :-1], parameters.detach()[:, -1]
    weights = inputs.new_ones(num_classes) if class_weight is None else class_weight.to(inputs)
    penalty = 1 / (PROBE_STRENGTH * len(inputs))
    everything = torch.arange(len(inputs), device=inputs.device)

    @torch.no_grad()
    def loss_and_gradient() -> torch.Tensor:
        gradient = parameters * penalty
        gradient[:, -1] = 0
        loss = (parameters * gradient).sum(dtype=torch.double) / 2
        for rows in _chunks(everything, num_classes):
            log_p = (inputs[rows] @ parameters.T).log_softmax(dim=1)
            of_label, weight = labels[rows, None], weights[labels[rows], None]
            loss -= (weight * log_p.gather(1, of_label)).sum(dtype=torch.double) / len(inputs)
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
            for rows in _chunks(held_out, len(frozen_text)):
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


# --- prototypes --------------------------------------------------------------------------------------------------


def class_means(features: torch.Tensor, labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Mean feature of each class (C, d), not normalised."""
    sums = features.new_zeros(num_classes, features.shape[1]).index_add(0, labels, features)
    return sums / labels.bincount(minlength=num_classes)[:, None]


def prototype_scale(
    frozen_image: torch.Tensor,
    frozen_text: torch.Tensor,
    prototypes: torch.Tensor,
    labels: torch.Tensor,
    scale: torch.Tensor | float,
) -> tuple[float, float]:
    """a and b, with which a h + b has the mean of z at the true class, and its distance to the mean of the others.

    h is s f_0 M^T, at a picture's own class with the mean of the class's other pictures. Both are 0 where prototypes
    tell nothing.
    """
    num_classes = len(frozen_text)
    repeated = labels.bincount()[labels] > 1
    if num_classes < 2 or not repeated.any():
        return 0.0, 0.0

    def of_label(rows: torch.Tensor) -> torch.Tensor:
        return scale * (frozen_image * rows).sum(dim=1, dtype=torch.double)

    def mean_of_others(classes: torch.Tensor) -> torch.Tensor:
        every = scale * (frozen_image.double() @ classes.double().sum(dim=0))
        return (every - of_label(classes[labels])).mean() / (num_classes - 1)

    z_true = of_label(frozen_text[labels]).mean()
    h_true = of_label(_others_mean(frozen_image, prototypes, labels))[repeated].mean()
    distance = h_true - mean_of_others(prototypes)
    if distance <= 0:
        return 0.0, 0.0
    a = ((z_true - mean_of_others(frozen_text)) / distance).clamp(0, MAX_PROTOTYPE_SCALE)
    return a.item(), (z_true - a * h_true).item()


def choose_prototype_weight(
    frozen_image: torch.Tensor,
    frozen_text: torch.Tensor,
    prototypes: torch.Tensor,
    labels: torch.Tensor,
    scale: torch.Tensor | float,
    a: float,
    b: float,
) -> float:
    """w: the smallest weight of prototypes against text whose mean log p of the true class, leave-one-out, is within
    one standard error of the best; 0 where prototypes tell nothing.

    N pictures allow at most (N - 4) / 8: a few pictures of two or three classes say little of how they compare with
    new classes.
    """
    repeated = (labels.bincount()[labels] > 1).nonzero().flatten()
    allowed = [g for g in PROTOTYPE_WEIGHTS if g <= (len(repeated) - 4) / 8]
    if not a or not allowed:
        return 0.0
    own = scale * (frozen_image * _others_mean(frozen_image, prototypes, labels)).sum(dim=1)
    scores = []
    for rows in _chunks(repeated, len(frozen_text)):
        text = scale * frozen_image[rows] @ frozen_text.T
        by_prototype = (scale * frozen_image[rows] @ prototypes.T).scatter_(1, labels[rows, None], own[rows, None])
        by_prototype = a * by_prototype + b
        scores.append(
            torch.stack(
                [-cross_entropy((1 - g) * text + g * by_prototype, labels[rows], reduction="none")
                 for g in allowed]
            )
        )  # fmt: skip
    scores = torch.cat(scores, dim=1).double()  # (weights, pictures)
    behind = scores[scores.mean(dim=1).argmax()] - scores
    is_close = behind.mean(dim=1) <= behind.std(dim=1, correction=0) / len(repeated) ** 0.5
    return allowed[int(is_close.int().argmax())]


def _others_mean(features: torch.Tensor, prototypes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """For each picture the mean feature of the other pictures of its class (N, d); of no use where there are none."""
    counts = labels.bincount()[labels, None]
    return (counts * prototypes[labels] - features) / (counts - 1).clamp(min=1)


# --- input -------------------------------------------------------------------------------------------------------


def check_problem(frozen_image: Any, frozen_text: Any, labels: Any) -> None:
    """Raise where features and labels are no classification problem with pictures of every class."""
    for name, value in {"frozen_image": frozen_image, "frozen_text": frozen_text}.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            raise InvalidTypeError(f"`{name}` must be a tensor of floats, got {value!r}.")
        if value.ndim != 2 or not value.numel() or value.shape[1] != frozen_image.shape[-1]:
            raise ValueError(f"`{name}` must have the shape (number, width), got {tuple(value.shape)}.")
        if not value.isfinite().all():
            raise ValueError(f"`{name}` must hold finite numbers, got NaN or infinite ones.")
    check_labels(labels, len(frozen_image), len(frozen_text))
    missing = (labels.long().bincount(minlength=len(frozen_text)) == 0).nonzero().flatten().tolist()
    if missing:
        raise ValueError(f"`labels`: there are no pictures of the class(es) at position {missing[:10]}.")


def _chunks(rows: torch.Tensor, num_classes: int) -> tuple[torch.Tensor, ...]:
    return rows.split(max(1, CHUNK_NUMBERS // num_classes))
