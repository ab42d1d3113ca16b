"""What there is to say of one answer: maps, what either feature says, and the nearest training pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from ..data import Preprocessing
from ..scoring.listing import Listing
from ..scoring.reference import Reference
from ..scoring.unlabelled import PictureBatch, over_pictures
from ..tuner.peft_model import PeftModelForZeroShotImageClassification
from .attention import attention_maps


NEAREST = 3  # training pictures
MOST_CLASSES = 3  # whose logits are shown


@dataclass(frozen=True)
class Reason:
    """Of a picture.

    Args:
        path: its name.
        error: why it cannot be read; then there is no more than its name.
        maps: by token, "class token" and "token 1" to "token K", rows of shares that sum to 1.
        scores: of the likeliest classes: name, probability, and logits by class and by representation feature (None
            where the latter was not computed).
        nearest: training pictures: path, class and cosine of the features in frozen CLIP.
    """

    path: str
    error: str | None = None
    maps: dict[str, list[list[float]]] | None = None
    scores: list[dict[str, Any]] | None = None
    nearest: list[dict[str, Any]] | None = None


@torch.no_grad()
def explain(
    model: PeftModelForZeroShotImageClassification,
    preprocessing: Preprocessing,
    listing: Listing,
    accelerator: Accelerator,
    reference: Reference | None = None,
    *,
    batch_size: int = 32,
    num_workers: int = 0,
) -> Iterator[Reason]:
    """Reasons for the answers to pictures: each once, in their order, and in every process.

    Args:
        model: in eval mode, on the device.
        preprocessing: how pictures become `pixel_values`.
        listing: the pictures.
        accelerator: spreads them over its processes.
        reference: the training pictures; None: they are not known here.
        batch_size: pictures at a time and process.
        num_workers: processes that read pictures, for each process of the accelerator.
    """

    def ask(batch: PictureBatch) -> list[Reason]:
        rows = iter(())
        if len(batch.pixel_values):
            rows = iter(_reasons(model, batch.pixel_values.to(accelerator.device), accelerator, reference))
        return [
            Reason(path, error) if error else Reason(path, **next(rows))
            for path, error in zip(batch.paths, batch.errors, strict=True)
        ]

    yield from over_pictures(ask, listing, preprocessing, accelerator, batch_size, num_workers)


def _reasons(
    model: PeftModelForZeroShotImageClassification,
    pixel_values: torch.Tensor,
    accelerator: Accelerator,
    reference: Reference | None,
) -> list[dict[str, Any]]:
    with accelerator.autocast():
        output = model(pixel_values=pixel_values)
        maps = attention_maps(model, pixel_values).cpu()
        frozen = None
        if reference is not None:
            with model.disable_adapter():
                frozen = model(pixel_values=pixel_values).image_embeds.float().cpu()
    probabilities = output.logits.float().softmax(dim=1).cpu()
    by_class = output.class_logits.float().cpu()
    by_rep = None if output.rep_logits is None else output.rep_logits.float().cpu()
    found = []
    for row, shares in enumerate(probabilities):
        likeliest = shares.topk(min(MOST_CLASSES, len(shares))).indices.tolist()
        scores = [
            {
                "label": model.classes[place],
                "probability": round(shares[place].item(), 6),
                "class_logit": round(by_class[row, place].item(), 4),
                "rep_logit": None if by_rep is None else round(by_rep[row, place].item(), 4),
            }
            for place in likeliest
        ]
        nearest = None if frozen is None else nearest_pictures(frozen[row], reference)
        found.append({"maps": named_maps(maps[row]), "scores": scores, "nearest": nearest})
    return found


def named_maps(maps: torch.Tensor) -> dict[str, list[list[float]]]:
    """The maps of a picture (1 + K, rows, columns), see `attention_maps`, by the names of their tokens."""
    tokens = ["class token", *(f"token {number}" for number in range(1, len(maps)))]
    rows = ([[round(value, 6) for value in line] for line in each.tolist()] for each in maps)
    return dict(zip(tokens, rows, strict=True))


def nearest_pictures(feature: torch.Tensor, reference: Reference) -> list[dict[str, Any]]:
    """The training pictures that are most alike to frozen CLIP, the nearest first.

    Args:
        feature: f_0 (d,), normalised.
        reference: the training pictures.
    """
    values, places = (reference.features @ feature).topk(min(NEAREST, len(reference)))
    return [
        {
            "path": reference.paths[place],
            "label": reference.class_names[reference.labels[place]],
            "cosine": round(value, 4),
        }
        for value, place in zip(values.tolist(), places.tolist(), strict=True)
    ]
