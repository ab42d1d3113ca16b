"""Reads a picture as CLIP should see it, alike in training, evaluation and prediction."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
import PIL.Image
from PIL import ImageOps

from ..tuner.validation import InvalidTypeError


try:
    import pillow_heif
except ImportError:
    pass
else:
    pillow_heif.register_heif_opener()

GROUND = "white"  # what transparent pictures are laid on
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")


class PictureError(ValueError):
    """A picture that cannot be read.

    Args:
        reason: what is wrong with it.
        path: its file; None where it has none.
    """

    def __init__(self, reason: str, path: str | None = None) -> None:
        super().__init__(reason, path)
        self.reason, self.path = reason, path

    def __str__(self) -> str:
        return self.reason if self.path is None else f"{self.path}: {self.reason}"


def read_picture(image: Any) -> PIL.Image.Image:
    """Decode a picture completely, turn it upright as its EXIF data say and convert it to RGB.

    Transparent pictures are laid on white; animations and files of several pages give their first picture. 16-bit
    grey keeps its upper 8 bits, as does grey of 32-bit integers, whose values Pillow counts up to 65535. Grey of
    floats runs from 0 to 1, or to 255 where a value is above 1. Colour profiles are not applied.

    Args:
        image: a path, the bytes of a file, a PIL image, or a value of an undecoded `datasets.Image` column (a
            dictionary with `bytes` or `path`).

    Raises:
        PictureError: there is no such file, it is no picture that Pillow can decode, or it is damaged or larger than
            Pillow's limit, which is twice `PIL.Image.MAX_IMAGE_PIXELS`.
        InvalidTypeError: `image` is something else.
    """
    if isinstance(image, PIL.Image.Image):
        return _as_rgb(image, None)
    path, file = _open(image)
    with file:
        try:
            picture = PIL.Image.open(file)
        except PIL.UnidentifiedImageError as error:
            raise PictureError(_why_unidentified(file), path) from error
        except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
            raise PictureError(f"too large: {error}", path) from error
        except Exception as error:  # decoders raise whatever their format makes them stumble over
            raise PictureError(f"damaged: {error}", path) from error
        return _as_rgb(picture, path)


def _open(image: Any) -> tuple[str | None, BinaryIO]:
    if isinstance(image, Mapping):
        content, path = image.get("bytes"), image.get("path")
    elif isinstance(image, bytes):
        content, path = image, None
    else:
        content, path = None, image
    if content is not None:
        return path, io.BytesIO(content)
    if not isinstance(path, str | os.PathLike):
        raise InvalidTypeError(f"`image` must be a path, bytes, a PIL image or a dictionary of these, got {image!r}.")
    path = os.fspath(path)
    try:
        return path, open(path, "rb")
    except FileNotFoundError as error:
        raise PictureError("there is no such file", path) from error
    except (OSError, ValueError) as error:
        raise PictureError(f"cannot be opened: {getattr(error, 'strerror', None) or error}", path) from error


def _why_unidentified(file: BinaryIO) -> str:
    file.seek(0)
    header = file.read(12)
    if not header:
        return "the file is empty"
    if header[4:8] == b"ftyp" and header[8:] in HEIF_BRANDS:
        return "a HEIC picture, which needs `pip install pillow-heif` (or was damaged, where that is installed)"
    if header[4:8] == b"ftyp" and header[8:] in AVIF_BRANDS:
        return "an AVIF picture that is damaged, or that this build of Pillow cannot decode (`pip install -U pillow`)"
    return "not a picture, or of a format that Pillow does not know"


def _as_rgb(picture: PIL.Image.Image, path: str | None) -> PIL.Image.Image:
    try:
        picture.load()
        picture = _upright(picture)
        if picture.mode.startswith(("I", "F")):
            return PIL.Image.fromarray(_as_grey(np.asarray(picture))).convert("RGB")
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            return PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, GROUND), picture).convert("RGB")
        return picture.convert("RGB")
    except Exception as error:
        raise PictureError(f"damaged: {error}", path) from error


def _upright(picture: PIL.Image.Image) -> PIL.Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # damaged EXIF data say nothing about the pixels
        return picture


def _as_grey(values: np.ndarray) -> np.ndarray:
    """Grey of more than 8 bits (H, W) as uint8."""
    if values.dtype.kind != "f":
        return (values.clip(0, 65535) >> 8).astype(np.uint8)
    values = np.nan_to_num(values, posinf=255, neginf=0)
    return (values * (255 if values.max() <= 1 else 1)).clip(0, 255).round().astype(np.uint8)
