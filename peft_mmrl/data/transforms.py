"""From pictures to `pixel_values`: as the base model's image processor makes them, and augmented for training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import datasets
import PIL.Image
import torch
from torch.utils.data import Dataset
from torchvision.transforms import v2

from ..tuner.validation import as_number
from .pictures import read_picture


ImageProcessor = Callable[..., Any]  # of transformers, or a processor that has one
LONGEST = 16  # times the short side: of longer pictures only the middle is resized


def output_size(image_processor: ImageProcessor) -> tuple[int, int]:
    """Height and width of `pixel_values`.

    Raises:
        ValueError: they depend on the picture.
    """
    image_processor = _image_processor(image_processor)
    crops, resizes = (getattr(image_processor, name, None) for name in ("do_center_crop", "do_resize"))
    size = image_processor.crop_size if crops else image_processor.size if resizes else None
    if size is None or not (size.height and size.width):
        raise ValueError(
            "`image_processor` must give all pictures one size, by a centre crop or by resizing to a height and a "
            f"width, got {size}."
        )
    return size.height, size.width


class EvalTransform:
    """What the image processor gives for a picture, (3, height, width).

    A picture that is more than sixteen times as long as it is wide is cut to its middle first, which is more than the
    centre crop keeps: resized as a whole, a line of 20000 pixels would take gigabytes.

    Args:
        image_processor: the base model's.
    """

    def __init__(self, image_processor: ImageProcessor) -> None:
        self.image_processor = _image_processor(image_processor)
        output_size(self.image_processor)
        crops, resizes = (getattr(self.image_processor, name, None) for name in ("do_center_crop", "do_resize"))
        self._keeps_the_middle = bool(crops and resizes and self.image_processor.size.shortest_edge)

    def __call__(self, picture: PIL.Image.Image) -> torch.Tensor:
        picture = picture.crop(self._middle(*picture.size))
        return self.image_processor(picture, return_tensors="pt")["pixel_values"][0]

    def _middle(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of what is given to the image processor."""
        # whole squares on both sides: the rest is resized to the same pixels, up to rounding
        short = min(width, height)
        squares = max(0, max(width, height) // short - LONGEST) // 2 if self._keeps_the_middle else 0
        across, down = (squares * short, 0) if width > height else (0, squares * short)
        return across, down, width - across, height - down


class TrainTransform:
    """Random resized crop and horizontal flip, then the image processor's scaling of values: (3, height, width).

    Draws torch's random numbers.

    Args:
        image_processor: the base model's.
        scale: smallest and largest share of a picture's area that a crop takes.
        flip: whether half of the crops are mirrored.
    """

    def __init__(
        self, image_processor: ImageProcessor, scale: Sequence[float] = (0.08, 1.0), flip: bool = True
    ) -> None:
        self.image_processor = _image_processor(image_processor)
        low, high = scale
        high = as_number("scale[1]", high, 0, 1)
        low = as_number("scale[0]", low, 0, high)
        size = output_size(self.image_processor)
        self.augment = v2.Compose(
            [
                v2.RandomResizedCrop(size, scale=(low, high), interpolation=v2.InterpolationMode.BICUBIC),
                v2.RandomHorizontalFlip(0.5 if flip else 0.0),
            ]
        )

    def __call__(self, picture: PIL.Image.Image) -> torch.Tensor:
        views = self.image_processor(self.augment(picture), do_resize=False, do_center_crop=False, return_tensors="pt")
        return views["pixel_values"][0]


class PictureDataset(Dataset):
    """Labelled pictures for training and evaluation: item i is `pixel_values` (3, height, width) and `labels`.

    A picture is read whenever its item is, so that augmentation gives another view each time.

    Args:
        dataset: labelled pictures, see `peft_mmrl.data`.
        transform: from a PIL picture to `pixel_values`.

    Raises:
        PictureError: reading an item whose picture cannot be decoded.
    """

    def __init__(self, dataset: datasets.Dataset, transform: Callable[[PIL.Image.Image], torch.Tensor]) -> None:
        self.dataset, self.transform = dataset.select_columns(["image", "label"]), transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.dataset[index]
        return {"pixel_values": self.transform(read_picture(item["image"])), "labels": item["label"]}


def _image_processor(processor: ImageProcessor) -> ImageProcessor:
    return getattr(processor, "image_processor", processor)
