"""Pictures as a worse camera, hand or light would make them, for measuring how much of that a classifier stands."""

from __future__ import annotations

import io
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import PIL.Image
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from .preprocessing import LONGEST, Preprocessing


STRENGTHS = ("weak", "medium", "strong")
Corrupt = Callable[[torch.Tensor, Any, random.Random, list[float]], torch.Tensor]


@dataclass(frozen=True)
class Corruption:
    """One way in which pictures are worse.

    Args:
        name: of it.
        meaning: of its values, for people.
        values: of the three strengths.
        apply: picture (3, height, width) in uint8, a value of these, random numbers and a colour for what is not in
            the picture -> another of the kind, of any height and width.
    """

    name: str
    meaning: str
    values: tuple[Any, Any, Any]
    apply: Corrupt


def _light(picture: torch.Tensor, value: float, draw: random.Random, fill: list[float]) -> torch.Tensor:
    return functional.adjust_brightness(picture, draw.choice([value, 1 / value]))


def _contrast(picture: torch.Tensor, value: float, draw: random.Random, fill: list[float]) -> torch.Tensor:
    return functional.adjust_contrast(picture, value)


def _blur(picture: torch.Tensor, value: float, draw: random.Random, fill: list[float]) -> torch.Tensor:
    sigma = value * min(picture.shape[-2:])
    return functional.gaussian_blur(picture, 2 * round(3 * sigma) + 1, sigma) if sigma >= 0.2 else picture


def _noise(picture: torch.Tensor, value: float, draw: random.Random, fill: list[float]) -> torch.Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw.getrandbits(32))
        noisy = functional.gaussian_noise(functional.to_dtype(picture, torch.float32, scale=True), sigma=value)
    return functional.to_dtype(noisy, torch.uint8, scale=True)


def _jpeg(picture: torch.Tensor, value: int, draw: random.Random, fill: list[float]) -> torch.Tensor:
    file = io.BytesIO()
    functional.to_pil_image(picture).save(file, "JPEG", quality=value)  # torchvision's own is deprecated
    with PIL.Image.open(file) as decoded:
        return functional.pil_to_tensor(decoded)


def _cast(picture: torch.Tensor, value: float, draw: random.Random, fill: list[float]) -> torch.Tensor:
    red_to_blue = torch.tensor(draw.choice([[1, 1, value], [value, 1, 1], [1, value, 1]]))[:, None, None]
    return (picture * red_to_blue).round().to(torch.uint8)


def _rotation(picture: torch.Tensor, value: float, draw: random.Random, fill: list[float]) -> torch.Tensor:
    angle = draw.choice([value, -value])
    return functional.rotate(picture, angle, v2.InterpolationMode.BILINEAR, fill=fill)


def _crop(picture: torch.Tensor, value: float, draw: random.Random, fill: list[float]) -> torch.Tensor:
    height, width = (max(1, round(side * value**0.5)) for side in picture.shape[-2:])
    top, left = draw.randint(0, picture.shape[-2] - height), draw.randint(0, picture.shape[-1] - width)
    return functional.crop(picture, top, left, height, width)


def _scale(picture: torch.Tensor, value: float, draw: random.Random, fill: list[float]) -> torch.Tensor:
    shrink = partial(functional.affine, angle=0.0, translate=[0, 0], shear=[0.0, 0.0])
    return shrink(picture, scale=value, interpolation=v2.InterpolationMode.BILINEAR, fill=fill)


CORRUPTIONS = (
    Corruption("light", "brightness times or by it", (0.7, 0.5, 0.3), _light),
    Corruption("contrast", "contrast times it", (0.6, 0.4, 0.2), _contrast),
    Corruption("blur", "deviation of a Gaussian, in shorter sides", (0.005, 0.01, 0.02), _blur),
    Corruption("noise", "deviation of the noise, where white is 1", (0.05, 0.1, 0.2), _noise),
    Corruption("JPEG", "quality", (30, 15, 7), _jpeg),
    Corruption("colour cast", "one colour times it", (0.8, 0.6, 0.4), _cast),
    Corruption("rotation", "degrees, to either side", (10, 20, 40), _rotation),
    Corruption("crop", "share of the area that is left, anywhere", (0.7, 0.5, 0.3), _crop),
    Corruption("scale", "size of what is seen, on a plain ground", (0.8, 0.6, 0.4), _scale),
)


class CorruptedView:
    """`pixel_values` of corrupted pictures.

    A picture is corrupted at the size at which the base model looks at it, as in ImageNet-C (arXiv 1903.12261): so
    strengths mean the same for pictures of any size. What is random depends on the seed and on the picture alone, not
    on the order of pictures.

    Args:
        preprocessing: how pictures are prepared.
        corruption: one of `CORRUPTIONS`.
        strength: 0, 1 or 2, see `STRENGTHS`.
        seed: of what is random.
    """

    def __init__(self, preprocessing: Preprocessing, corruption: Corruption, strength: int, seed: int = 0) -> None:
        self.preprocessing, self.corruption, self.strength, self.seed = preprocessing, corruption, strength, seed

    def __call__(self, image: Any) -> torch.Tensor:
        """(3, height, width) of a picture, given as for `read_picture`."""
        return self.preprocessing.pixel_values(self.corrupted(self.preprocessing.decode(image)))

    def corrupted(self, picture: PIL.Image.Image) -> PIL.Image.Image:
        """A picture in RGB, corrupted."""
        picture = self._at_the_model_s_size(picture)
        draw = random.Random(f"{self.seed} {self.corruption.name} {zlib.crc32(picture.tobytes())}")
        value = self.corruption.values[self.strength]
        tensor = self.corruption.apply(functional.pil_to_tensor(picture), value, draw, [*self.preprocessing.ground])
        return functional.to_pil_image(tensor)

    def _at_the_model_s_size(self, picture: PIL.Image.Image) -> PIL.Image.Image:
        size = max(self.preprocessing.size)
        scale = min(size / min(picture.size), LONGEST * size / max(picture.size))
        width, height = (max(1, round(side * scale)) for side in picture.size)
        return picture.resize((width, height), PIL.Image.Resampling.BICUBIC)
