"""What there is to say of one answer: maps, what either feature says, and the nearest training pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from ..data import Preprocessing
from ..scoring.listing import Listing
from ..scoring.reference import Reference
from ..scoring.unlabelled import PictureBatch, over_pictures
from ..tuner.peft_model import PeftModelForZeroShotImageClassification
from .attention import answer_and_look


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
        read = [path for path, error in zip(batch.paths, batch.errors, strict=True) if error is None]
        rows = iter(())
        if read:
            rows = iter(reasons_for(model, batch.pixel_values.to(accelerator.device), read, accelerator, reference))
        pairs = zip(batch.paths, batch.errors, strict=True)
        return [next(rows) if error is None else Reason(path, error) for path, error in pairs]

    yield from over_pictures(ask, listing, preprocessing, accelerator, batch_size, num_workers)


@torch.no_grad()
def reasons_for(
    model: PeftModelForZeroShotImageClassification,
    pixel_values: torch.Tensor,
    paths: Sequence[str],
    accelerator: Accelerator,
    reference: Reference | None,
    features: torch.Tensor | None = None,
) -> list[Reason]:
    """Reasons for the answers to one batch, in this process.

    Args:
        model: in eval mode, on the device.
        pixel_values: B pictures (B, channels, height, width), on the device.
        paths: their names (B).
        accelerator: of the model.
        reference: the training pictures; None: they are not known here.
        features: f_0 (B, d) of the pictures, normalised; None: they are computed where there is a reference.
    """
    with accelerator.autocast():
        output, maps = answer_and_look(model, pixel_values)
        if reference is not None and features is None:
            with model.disable_adapter():
                features = model(pixel_values=pixel_values).image_embeds.float().cpu()
    probabilities, maps = output.logits.float().softmax(dim=1).cpu(), maps.cpu()
    by_class = output.class_logits.float().cpu()
    by_rep = None if output.rep_logits is None else output.rep_logits.float().cpu()
    found = []
    for row, (path, shares) in enumerate(zip(paths, probabilities, strict=True)):
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
        nearest = None if reference is None else nearest_pictures(features[row], reference, path)
        found.append(Reason(path, maps=named_maps(maps[row]), scores=scores, nearest=nearest))
    return found


def named_maps(maps: torch.Tensor) -> dict[str, list[list[float]]]:
    """The maps of a picture (1 + K, rows, columns), see `attention_maps`, by the names of their tokens."""
    tokens = ["class token", *(f"token {number}" for number in range(1, len(maps)))]
    rows = ([[round(value, 6) for value in line] for line in each.tolist()] for each in maps)
    return dict(zip(tokens, rows, strict=True))


def nearest_pictures(feature: torch.Tensor, reference: Reference, path: str | None = None) -> list[dict[str, Any]]:
    """The training pictures that are most alike to frozen CLIP, the nearest first; never the picture itself.

    Args:
        feature: f_0 (d,), normalised.
        reference: the training pictures.
        path: name of the picture: where it is one of them, it and its group are left out, as from its fold; None: it
            is none of them.
    """
    similar, own = reference.features @ feature, None if path is None else reference.row_of(path)
    others = torch.ones(len(reference), dtype=torch.bool) if own is None else reference.groups != reference.groups[own]
    places = similar.masked_fill(~others, -torch.inf).topk(min(NEAREST, int(others.sum()))).indices.tolist()
    return [
        {
            "path": reference.paths[place],
            "label": reference.class_names[reference.labels[place]],
            "cosine": round(similar[place].item(), 4),
        }
        for place in places
    ]
