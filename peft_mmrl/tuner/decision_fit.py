"""Fitting a [`Decision`] on features of the training pictures in frozen CLIP; an adapter's weights play no part.

Symbols: f_0 (N, d) and w_0 (C, d) normalised features of N pictures and C classes, y (N,) labels, s the logit scale,
z = s f_0 w_0^T. Memory is bounded by that of f_0 and w_0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from .decision import Decision, check_features
from .probe import choose_factor, chunks, fit_probe, total
from .validation import InvalidTypeError, check_labels


MAX_PROTOTYPE_SCALE = 10.0
PROTOTYPE_WEIGHTS = (0.0, 0.25, 0.5)


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
        zero_shot_share=zero_shot_share(len(labels), len(frozen_text)),
        **settings,
    )


def zero_shot_share(num_pictures: int, num_classes: int) -> float:
    """q: what is trained on one or two pictures of a class can be worse than zero-shot where that is good; on many it
    knows better. 1/2, or else 1/n for n pictures of a class on average."""
    return 1 / max(2.0, num_pictures / num_classes)


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

    def mean_logit(images: torch.Tensor, rows: torch.Tensor) -> float:
        return float(scale) * total(images * rows) / len(images)

    def mean_of_others(classes: torch.Tensor) -> float:
        every = mean_logit(frozen_image.mean(dim=0, keepdim=True), classes.sum(dim=0))
        return (every - mean_logit(frozen_image, classes[labels])) / (num_classes - 1)

    z_true = mean_logit(frozen_image, frozen_text[labels])
    h_true = mean_logit(frozen_image[repeated], _others_mean(frozen_image, prototypes, labels)[repeated])
    distance = h_true - mean_of_others(prototypes)
    if distance <= 0:
        return 0.0, 0.0
    a = min(max((z_true - mean_of_others(frozen_text)) / distance, 0.0), MAX_PROTOTYPE_SCALE)
    return a, z_true - a * h_true


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
    for rows in chunks(repeated, len(frozen_text)):
        text = scale * frozen_image[rows] @ frozen_text.T
        by_prototype = (scale * frozen_image[rows] @ prototypes.T).scatter_(1, labels[rows, None], own[rows, None])
        by_prototype = a * by_prototype + b
        scores.append(
            torch.stack(
                [-cross_entropy((1 - g) * text + g * by_prototype, labels[rows], reduction="none")
                 for g in allowed]
            )
        )  # fmt: skip
    scores = torch.cat(scores, dim=1).cpu().double()  # (weights, pictures)
    behind = scores[scores.mean(dim=1).argmax()] - scores
    is_close = behind.mean(dim=1) <= behind.std(dim=1, correction=0) / len(repeated) ** 0.5
    return allowed[int(is_close.int().argmax())]


def _others_mean(features: torch.Tensor, prototypes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """For each picture the mean feature of the other pictures of its class (N, d); of no use where there are none."""
    counts = labels.bincount()[labels, None]
    return (counts * prototypes[labels] - features) / (counts - 1).clamp(min=1)


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
