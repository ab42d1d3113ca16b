"""What an adapter says to pictures without labels, with what frozen CLIP sees in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from ..data import Preprocessing
from ..data.preprocessing import ImageProcessor
from ..tuner.peft_model import PeftModelForZeroShotImageClassification
from .listing import Listing
from .reference import Reference, measure, seeing
from .unlabelled import PictureBatch, over_pictures


@dataclass(frozen=True)
class Sighting:
    """A picture.

    Args:
        path: its name.
        label: its likeliest class, a position in the bound ones.
        probability: of that class.
        margin: by how much that is above the second largest, see `margins_of`.
        feature: f_0 (d,), its normalised feature in frozen CLIP.
        measures: (3,), see [`~peft_mmrl.scoring.reference.measure`].
        error: why it cannot be read; then there is no more than its name.
    """

    path: str
    label: int = -1
    probability: float = 0.0
    margin: float = 0.0
    feature: torch.Tensor | None = None
    measures: torch.Tensor | None = None
    error: str | None = None


@torch.no_grad()
def look_at(
    model: PeftModelForZeroShotImageClassification,
    image_processor: ImageProcessor,
    listing: Listing,
    accelerator: Accelerator,
    *,
    batch_size: int = 32,
    num_workers: int = 0,
) -> Iterator[Sighting]:
    """Look at pictures: each once, in their order, and in every process.

    Args:
        model, image_processor, accelerator, batch_size, num_workers: as for
            [`~peft_mmrl.scoring.unlabelled.predict_pictures`].
        listing: the pictures.
    """

    def look(batch: PictureBatch) -> list[Sighting]:
        rows: Iterator[tuple[torch.Tensor, ...]] = iter(())
        if len(batch.pixel_values):
            pixel_values = batch.pixel_values.to(accelerator.device)
            with accelerator.autocast():
                logits = model(pixel_values=pixel_values).logits
                found = logits.float().softmax(dim=1), *frozen_sight(model, pixel_values)
            rows = zip(*(part.cpu() for part in found), strict=True)
        return [_sighting(path, error, rows) for path, error in zip(batch.paths, batch.errors, strict=True)]

    preprocessing = Preprocessing.of(model, image_processor)
    yield from over_pictures(look, listing, preprocessing, accelerator, batch_size, num_workers)


def margins_of(probabilities: torch.Tensor) -> torch.Tensor:
    """Distance of the two largest probabilities (M,) of pictures (M, C); of a single class its probability."""
    largest = probabilities.topk(min(2, probabilities.shape[1]), dim=1).values
    return largest[:, 0] - largest[:, 1:].sum(dim=1)


def frozen_sight(
    model: PeftModelForZeroShotImageClassification, pixel_values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What frozen CLIP sees in B pictures: f_0 (B, d) and `measure` of them (B, 3), fp32, on the model's device."""
    with model.disable_adapter():
        return model(pixel_values=pixel_values).image_embeds.float(), measure(pixel_values)


def _sighting(path: str, error: str | None, rows: Iterator[tuple[torch.Tensor, ...]]) -> Sighting:
    if error is not None:
        return Sighting(path, error=error)
    probabilities, feature, measures = next(rows)
    label, margin = int(probabilities.argmax()), margins_of(probabilities[None]).item()
    return Sighting(path, label, probabilities[label].item(), margin, feature, measures)


def as_reference(
    sightings: list[Sighting], model: PeftModelForZeroShotImageClassification, image_processor: ImageProcessor
) -> Reference:
    """Pictures that are known to be of the right kind, by the model's answers, as a reference.

    Raises:
        ValueError: none can be read.
    """
    seen = [one for one in sightings if one.error is None]
    if not seen:
        raise ValueError("--reference holds no picture that can be read.")
    return Reference(
        paths=[one.path for one in seen],
        features=torch.stack([one.feature for one in seen]),
        measures=torch.stack([one.measures for one in seen]),
        labels=torch.tensor([one.label for one in seen]),
        groups=torch.arange(len(seen)),
        class_names=list(model.classes),
        seen_by=seeing(model, Preprocessing.of(model, image_processor)),
    )
