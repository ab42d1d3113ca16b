"""Training pictures: augmented whenever they are read, or in views that are computed once."""

from __future__ import annotations

import datasets
import torch
from torch.utils.data import Dataset

from ..data import PictureDataset, Preprocessing, TrainTransform
from ..data.preprocessing import ImageProcessor, as_preprocessing
from ..tuner.peft_model import PeftModelForZeroShotImageClassification
from ..tuner.validation import as_positive_int
from .cached_views import CachedViews
from .settings import TrainingSettings


VIEWS = 8
MOST_MEMORY = 4 * 2**30  # bytes


def augmented(
    dataset: datasets.Dataset, preprocessing: Preprocessing | ImageProcessor, settings: TrainingSettings
) -> PictureDataset:
    """Pictures, prepared as it is said or as the base model's image processor does it, with a run's augmentation."""
    preprocessing = as_preprocessing(preprocessing)
    crop_scale = settings.crop_scale or settings.CROP_SCALE[preprocessing.fit]
    transform = TrainTransform(preprocessing, scale=(crop_scale, 1.0), flip=settings.flip)
    return PictureDataset(dataset, transform)


def num_views(
    asked: int | None,
    model: PeftModelForZeroShotImageClassification,
    num_pictures: int,
    num_epochs: int,
    num_processes: int = 1,
) -> int:
    """How many views of each picture to compute in advance.

    Args:
        asked: what the user wants; None: `VIEWS` where that pays. That is on a CPU, for at least twice as many epochs
            as views, and within `MOST_MEMORY`.
        model: on its device.
        num_pictures: pictures to train on.
        num_epochs: epochs of the run.
        num_processes: processes of the run, each of which keeps all views.

    Returns:
        0: none.
    """
    if asked is not None:
        return as_positive_int("cached_views", asked) if asked else 0
    clip = model.get_base_model()
    vision = clip.config.vision_config
    tokens = (vision.image_size // vision.patch_size) ** 2 + 1
    size = num_processes * num_pictures * VIEWS * tokens * vision.hidden_size * 4
    return VIEWS if clip.device.type == "cpu" and num_epochs >= 2 * VIEWS and size <= MOST_MEMORY else 0


def training_pictures(
    model: PeftModelForZeroShotImageClassification,
    dataset: datasets.Dataset,
    image_processor: ImageProcessor,
    settings: TrainingSettings,
    views: int,
) -> Dataset:
    """What `train` reads.

    Args:
        model: the model that is trained, on its device.
        dataset: labelled pictures.
        image_processor: the base model's.
        settings: for augmentation and seed.
        views: views of each picture that are computed once, see
            [`~peft_mmrl.training.cached_views.CachedViews`]; 0: every epoch draws new ones.
    """
    pictures = augmented(dataset, Preprocessing.of(model, image_processor), settings)
    if not views:
        return pictures
    torch.manual_seed(settings.seed)
    return CachedViews(model, pictures, views)
