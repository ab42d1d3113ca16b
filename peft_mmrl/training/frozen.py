"""What frozen CLIP sees in the training pictures: whether they may be mirrored, and how the adapter decides."""

from __future__ import annotations

import datasets
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from ..data import PictureDataset, Preprocessing
from ..data.preprocessing import ImageProcessor
from ..scoring.labelled import score
from ..tuner.decision import Decision
from ..tuner.mirroring import MIN_KNOWN, Mirroring, judge_mirroring
from ..tuner.peft_model import PeftModelForZeroShotImageClassification


BATCH_SIZE = 32  # pictures at a time and process


@torch.no_grad()
def look_at_mirrored(
    model: PeftModelForZeroShotImageClassification,
    dataset: datasets.Dataset,
    image_processor: ImageProcessor,
    accelerator: Accelerator,
    num_workers: int = 0,
) -> Mirroring | None:
    """Compare the training pictures with their mirror images, in frozen CLIP.

    Args:
        model: on its device; its bound classes are those of the labels, in the same order.
        dataset: N labelled pictures.
        image_processor: the base model's.
        accelerator: spreads the pictures over its processes, each of which gets the same answer.
        num_workers: further processes that read pictures.

    Returns:
        as [`~peft_mmrl.tuner.mirroring.judge_mirroring`].
    """
    text: list[torch.Tensor] = []

    def features(pixel_values: torch.Tensor) -> torch.Tensor:
        with model.disable_adapter():
            plain, mirrored = (model(pixel_values=view) for view in (pixel_values, pixel_values.flip(-1)))
        text[:] = [plain.text_embeds.float().cpu()]
        return torch.stack([plain.image_embeds, mirrored.image_embeds], dim=1)  # (B, 2, d)

    was_training = model.training
    model.eval()
    try:
        preprocessing = Preprocessing.of(model, image_processor)
        images = score(features, dataset, preprocessing, accelerator, BATCH_SIZE, "mirror images", num_workers)
    finally:
        model.train(was_training)
    scale = model.get_base_model().logit_scale.exp().item()
    return judge_mirroring(*images.unbind(dim=1), *text, torch.tensor(dataset["label"][:]), scale)


def describe_mirroring(found: Mirroring | None) -> str:
    """A line on whether pictures are mirrored, and why."""
    if found is None:
        return "pictures are not mirrored: a class has a single one, which says nothing of it"
    if found.is_harmless:
        return f"half of the views are mirrored: their classes are recognised as well (log p {found.gain:+.2f})"
    if found.known < MIN_KNOWN:
        return "pictures are not mirrored: frozen CLIP recognises too little in them to tell"
    return f"pictures are not mirrored: their classes would be recognised less (log p {found.gain:+.2f})"


def fit_decision(
    model: PeftModelForZeroShotImageClassification,
    dataset: datasets.Dataset,
    image_processor: ImageProcessor,
    accelerator: Accelerator,
    num_workers: int = 0,
    features: str = "adapted",
) -> Decision:
    """`model.fit_decision` on labelled pictures as they are, without augmentation.

    Args:
        model, dataset, image_processor, accelerator, num_workers: as for `look_at_mirrored`.
        features: see `fit_decision` of the model.

    Raises:
        ValueError: what `fit_decision` refuses.
    """
    pictures = PictureDataset(dataset, Preprocessing.of(model, image_processor))
    loader = DataLoader(pictures, BATCH_SIZE, num_workers=num_workers)
    return model.fit_decision(accelerator.prepare_data_loader(loader), features=features)
