"""Reads a picture as CLIP should see it, alike in training, evaluation and prediction."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, BinaryIO

import numpy as np
import PIL.Image
from PIL import ImageOps

from ..tuner.validation import InvalidTypeError, as_value_range
from .looks import SIDE, look_of


try:
    import pillow_heif
except ImportError:
    pass
else:
    pillow_heif.register_heif_opener()

# What is opened, by content. Others that Pillow knows are rare as photos, or hand a file to another program (EPS).
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
GROUND = "white"  # what transparent pictures are laid on
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")
NO_SUCH_FILE = "there is no such file"
STRAY = 0.001  # share of a picture's values on either side that may be defects of a sensor
LARGE = 2**22  # pixels


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


@dataclass(frozen=True)
class PictureFacts:
    """What a run must know of a picture before it decides how its pictures are prepared.

    Args:
        width, height: in pixels, as it is stored.
        values: smallest and largest value of grey of more than 8 bits, without stray ones; None: other pictures.
        brightest: largest value, of 65535, of a picture of 16 bits per colour; None: other pictures.
        look: by which near copies are found, see `peft_mmrl.data.looks`.
        digest: of its file.
    """

    width: int
    height: int
    values: tuple[float, float] | None = None
    brightest: int | None = None
    look: str = field(default="", compare=False)
    digest: str = field(default="", compare=False)

    @property
    def elongation(self) -> float:
        """Long side by short side."""
        return max(self.width, self.height) / min(self.width, self.height)


def read_picture(image: Any, value_range: tuple[float, float] | None = None) -> PIL.Image.Image:
    """Decode a picture completely, turn it upright as its EXIF data say and convert it to RGB.

    What a file is, its content says, never its name; formats other than `FORMATS` are refused. Transparent pictures
    are laid on white; animations and files of several pages give their first picture. Colour profiles are not applied,
    and colours of 16 bits keep their upper 8.

    Grey of more than 8 bits has no range that all cameras agree on: `value_range` says what is black and what is
    white. Without it whole numbers run from 0 to 65535, and floats from 0 to 1, or to 255 where a value is above 1.

    Args:
        image: a path, the bytes of a file, a PIL image, or a value of an undecoded `datasets.Image` column (a
            dictionary with `bytes` or `path`).
        value_range: the values of grey of more than 8 bits that become black and white; what is beyond is clipped.

    Returns:
        the picture in RGB; where it was grey of more than 8 bits `info["values"]` says from where to where, without
        stray values.

    Raises:
        PictureError: there is no such file, it is no picture of these formats, or it is damaged or larger than
            Pillow's limit, which is twice `PIL.Image.MAX_IMAGE_PIXELS`.
        InvalidTypeError: `image` is something else.
        ValueError: a range that is none.
    """
    value_range = as_value_range("value_range", value_range)
    with _opened(image) as picture:
        return _as_rgb(picture, value_range)


def examine_picture(image: Any, large: Executor | None = None) -> PictureFacts:
    """Decode a picture as `read_picture` does, but in little memory, and say what it is like.

    Large JPEGs are decoded at down to an eighth of their size, which reads all of the file.

    Args:
        image: as for `read_picture`.
        large: decodes pictures that have more than `LARGE` pixels then; None: done here. Where it is one thread for
            all that call this, one such picture is in memory at a time.

    Raises:
        PictureError, InvalidTypeError: as `read_picture`.
    """
    with _opened(image) as picture:
        width, height = picture.size
        is_own = picture is not image
        if is_own:
            picture.draft(None, (SIDE, 1) if width >= height else (1, SIDE))
        is_large = large is not None and picture.width * picture.height > LARGE
        found = large.submit(_look_at, picture, is_own).result() if is_large else _look_at(picture, is_own)
        return PictureFacts(width, height, *found, digest=_digest(image))


def _look_at(picture: PIL.Image.Image, close: bool) -> tuple[tuple[float, float] | None, int | None, str]:
    """`values`, `brightest` and `look` of `PictureFacts`, of a picture that is not decoded yet."""
    has_deep_colours = _has_deep_colours(picture)
    rgb = _as_rgb(picture, None)
    values = rgb.info.get("values") if _is_deep_grey(picture) else None  # one that was read tells what it once was
    brightest = 256 * max(high for _, high in rgb.getextrema()) + 255 if has_deep_colours else None
    if values is not None and values[0] < values[1]:
        rgb = _as_rgb(picture, values)  # as dark as it may be, it has a look
    look = look_of(rgb)
    if close:
        picture.close()  # its pixels are gone before another picture is decoded
    return values, brightest, look


def _digest(image: Any) -> str:
    """What only the same bytes have; nothing for pictures that are not files."""
    if isinstance(image, PIL.Image.Image):
        return ""
    with _open(image)[1] as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def is_picture_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a picture of one of `FORMATS` does; False where it cannot be opened."""
    try:
        with _open(path)[1] as file:
            _identify(file, None)
    except Exception:  # whatever a format's header makes its decoder stumble over
        return False
    return True


@contextmanager
def _opened(image: Any) -> Iterator[PIL.Image.Image]:
    """A picture whose pixels are yet to be decoded; what goes wrong while it is open is a `PictureError`."""
    if isinstance(image, PIL.Image.Image):
        if image.format not in (None, *FORMATS) and getattr(image, "tile", None):
            raise PictureError(_not_opened(image.format), getattr(image, "filename", None))
        path, file = None, nullcontext()
    else:
        path, file = _open(image)
    with file:
        try:
            yield image if path is None and isinstance(image, PIL.Image.Image) else _identify(file, path)
        except PictureError as error:
            raise PictureError(error.reason, path) from error
        except MemoryError as error:
            raise PictureError("too large for the memory that there is", path) from error
        except Exception as error:  # decoders raise whatever their format makes them stumble over
            raise PictureError(f"damaged: {error}", path) from error


def _identify(file: BinaryIO, path: str | None) -> PIL.Image.Image:
    try:
        return PIL.Image.open(file, formats=_formats())
    except PIL.UnidentifiedImageError as error:
        raise PictureError(_why_unidentified(file), path) from error
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise PictureError(f"too large: {error}", path) from error


@cache
def _formats() -> list[str]:
    """Those of `FORMATS` for which there is a decoder here."""
    PIL.Image.init()
    return [name for name in FORMATS if name in PIL.Image.OPEN]


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
        raise PictureError(NO_SUCH_FILE, path) from error
    except (OSError, ValueError) as error:
        raise PictureError(f"cannot be opened: {getattr(error, 'strerror', None) or error}", path) from error


def _why_unidentified(file: BinaryIO) -> str:
    file.seek(0)
    header = file.read(16)
    if not header:
        return "the file is empty"
    if header[4:8] == b"ftyp" and header[8:12] in HEIF_BRANDS:
        return "a HEIC picture, which needs `pip install pillow-heif` (or was damaged, where that is installed)"
    if header[4:8] == b"ftyp" and header[8:12] in AVIF_BRANDS:
        return "an AVIF picture that is damaged, or that this build of Pillow cannot decode (`pip install -U pillow`)"
    for name, (_, accepts) in PIL.Image.OPEN.items():  # looks at the first bytes and opens nothing
        with suppress(Exception):  # of which there may be fewer than it expects
            if name not in FORMATS and accepts is not None and accepts(header) is True:
                return _not_opened(name)
    return "not a picture, or of a format that is not opened"


def _not_opened(name: str) -> str:
    return f"of a format that is not opened ({name}): convert it to PNG or JPEG"


def _as_rgb(picture: PIL.Image.Image, value_range: tuple[float, float] | None) -> PIL.Image.Image:
    picture.load()
    picture = _upright(picture)
    if _is_deep_grey(picture):
        values = np.asarray(picture)
        picture = PIL.Image.fromarray(_as_grey(values, value_range)).convert("RGB")
        picture.info["values"] = _inner_range(values)
        return picture
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, GROUND), picture).convert("RGB")
    return picture.convert("RGB")


def _upright(picture: PIL.Image.Image) -> PIL.Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # damaged EXIF data say nothing about the pixels
        return picture


def _is_deep_grey(picture: PIL.Image.Image) -> bool:
    return picture.mode.startswith(("I", "F"))


def _has_deep_colours(picture: PIL.Image.Image) -> bool:
    """Whether a picture that is not decoded yet holds 16 bits per colour, of which Pillow keeps the upper 8."""
    return not _is_deep_grey(picture) and any(
        re.search(";16[BLN]", str(tile[3])) for tile in getattr(picture, "tile", ())
    )


def _inner_range(values: np.ndarray) -> tuple[float, float]:
    """Smallest and largest of the finite values, without a share of `STRAY` on either side."""
    values = values[np.isfinite(values)] if values.dtype.kind == "f" else values.ravel()
    if not values.size:
        raise PictureError("it holds no numbers, only NaN and infinity")
    stray = round(STRAY * values.size)
    ordered = np.partition(values, (stray, values.size - 1 - stray))
    return float(ordered[stray]), float(ordered[-1 - stray])


def _as_grey(values: np.ndarray, value_range: tuple[float, float] | None) -> np.ndarray:
    """Grey of more than 8 bits (H, W) as uint8."""
    if value_range is not None:
        low, high = value_range
        scaled = np.nan_to_num((values.astype(np.float64) - low) * (255 / (high - low)), posinf=255, neginf=0)
        return scaled.clip(0, 255).round().astype(np.uint8)
    if values.dtype.kind != "f":
        return (values.clip(0, 65535) >> 8).astype(np.uint8)
    values = np.nan_to_num(values, posinf=255, neginf=0)
    return (values * (255 if values.max() <= 1 else 1)).clip(0, 255).round().astype(np.uint8)
