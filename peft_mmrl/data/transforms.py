"""Training's view of a picture, and data sets of `pixel_values`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import datasets
import torch
from torch.utils.data import Dataset
from torchvision.transforms import v2

from ..tuner.validation import as_number
from .preprocessing import ImageProcessor, Preprocessing, as_preprocessing


SPARE = 2  # times the size of `pixel_values`: of this size crops are taken where all of a picture is to be seen


class TrainTransform:
    """Random resized crop and horizontal flip, then the image processor's scaling of values: (3, height, width).

    Draws torch's random numbers. Crops are taken of the picture as it is, which of a long one is about its middle, or
    of the padded or squeezed one.

    Args:
        preprocessing: how pictures are prepared, or the base model's image processor.
        scale: smallest and largest share of a picture's area that a crop takes.
        flip: whether half of the crops are mirrored.
    """

    def __init__(
        self, preprocessing: Preprocessing | ImageProcessor, scale: Sequence[float] = (0.08, 1.0), flip: bool = True
    ) -> None:
        self.preprocessing = as_preprocessing(preprocessing)
        low, high = scale
        high = as_number("scale[1]", high, 0, 1)
        low = as_number("scale[0]", low, 0, high)
        size = self.preprocessing.size
        self.augment = v2.Compose(
            [
                v2.RandomResizedCrop(size, scale=(low, high), interpolation=v2.InterpolationMode.BICUBIC),
                v2.RandomHorizontalFlip(0.5 if flip else 0.0),
            ]
        )

    def __call__(self, image: Any) -> torch.Tensor:
        """A view of a picture, given as for `read_picture`."""
        picture = self.preprocessing.decode(image)
        if self.preprocessing.fit in ("pad", "squeeze"):
            picture = self.preprocessing.fitted(picture, tuple(SPARE * side for side in self.preprocessing.size))
        views = self.preprocessing.image_processor(
            self.augment(picture), do_resize=False, do_center_crop=False, return_tensors="pt"
        )
        return views["pixel_values"][0]


class PictureDataset(Dataset):
    """Labelled pictures for training and evaluation: item i is `pixel_values` (3, height, width) and `labels`.

    A picture is read whenever its item is, so that augmentation gives another view each time.

    Args:
        dataset: labelled pictures, see `peft_mmrl.data`.
        transform: from what `read_picture` takes to `pixel_values`.

    Raises:
        PictureError: reading an item whose picture cannot be decoded.
    """

    def __init__(self, dataset: datasets.Dataset, transform: Callable[[Any], torch.Tensor]) -> None:
        self.dataset, self.transform = dataset.select_columns(["image", "label"]), transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.dataset[index]
        return {"pixel_values": self.transform(item["image"]), "labels": item["label"]}
