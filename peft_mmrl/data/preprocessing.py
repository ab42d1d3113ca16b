"""How pictures become `pixel_values`: decided once for a run, saved with its adapter, the same ever after."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from peft import PeftModel
from PIL import ImageOps
from transformers import AutoImageProcessor

from ..tuner.config import MMRLConfig
from ..tuner.validation import as_fit, as_value_range
from .pictures import PictureFacts, read_picture


ImageProcessor = Callable[..., Any]  # of transformers, or a processor that has one
LONGEST = 16  # times the short side: of longer pictures only the middle is resized
OF_LONG_PICTURES = "squeeze"  # padding leaves a third of the pixels of 3:1, and learned less from marks at the ends
FAR = 1.5  # long side by short side, beyond which a picture is far from square
DARK = 2**14  # of 2 ** 16: pictures of 16 bits per colour that are darker throughout hold fewer bits
FLAT = 0.05  # share of a run's range below which a picture has hardly any contrast


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """How pictures become `pixel_values`. Two that compare equal make the same of every picture.

    Args:
        image_processor: the base model's, or its processor.
        fit: how a picture that is not of the model's shape is made to fit: "crop" takes its middle and never sees the
            rest, "pad" sets all of it on a ground of the mean colour, "squeeze" takes all of it out of proportion.
            None: as the image processor itself does it, which is "crop" for OpenAI's CLIP.
        value_range: what is black and white in grey of more than 8 bits, see [`~peft_mmrl.read_picture`].

    Raises:
        ValueError: the image processor gives pictures of different sizes, or another value of `fit` or `value_range`.

    Example:

        ```py
        >>> from peft_mmrl import Preprocessing

        >>> preprocess = Preprocessing.of(model, processor)
        >>> model(pixel_values=preprocess("photo.jpg")[None]).logits
        >>> pipeline("image-classification", model=model, image_processor=processor)(preprocess.read("photo.jpg"))
        ```
    """

    image_processor: ImageProcessor
    fit: str | None = None
    value_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        image_processor = getattr(self.image_processor, "image_processor", self.image_processor)
        for name, value in (
            ("image_processor", image_processor),
            ("value_range", as_value_range("value_range", self.value_range)),
            ("fit", as_fit(self.fit) or _own_fit(image_processor)),
        ):
            object.__setattr__(self, name, value)
        self.size  # noqa: B018, raises where pictures differ in it

    @classmethod
    def of(cls, adapter: PeftModel | MMRLConfig, image_processor: ImageProcessor | None = None) -> Preprocessing:
        """What an adapter was trained with.

        A model remembers the image processor's settings: it says so, and does without, where its decision was fitted
        on pictures that were prepared otherwise.

        Args:
            adapter: the model, whose active adapter it is, or the adapter's config.
            image_processor: the base model's, or its processor; None: loaded from where the base model lies.

        Raises:
            OSError: the image processor is to be loaded and cannot be found.
        """
        config = adapter if isinstance(adapter, MMRLConfig) else adapter.active_peft_config
        if image_processor is None:
            image_processor = AutoImageProcessor.from_pretrained(
                config.base_model_name_or_path, revision=config.revision
            )
        preprocessing = cls(image_processor, config.fit, config.value_range)
        if adapter is not config:
            adapter.image_settings = preprocessing.to_dict()["image_processor"]
        return preprocessing

    @classmethod
    def choose(
        cls, image_processor: ImageProcessor, pictures: Sequence[PictureFacts], fit: str | None = None
    ) -> tuple[Preprocessing, list[str]]:
        """Decide for a run, by the pictures that it trains on.

        Grey of more than 8 bits runs from the smallest to the largest value of all pictures, but for a thousandth of
        each picture's values on either side, which may be a sensor's defects.

        Args:
            image_processor: the base model's.
            pictures: to train on.
            fit: as the user wants it; None: "squeeze" where most pictures are far from square and the image processor
                would crop them.

        Returns:
            the decision, and notes on it for the user.

        Raises:
            ValueError: pictures of 16 bits per colour that would be nearly black.
        """
        _refuse_dark_colours(pictures)
        value_range, range_notes = _choose_range(pictures)
        chosen, fit_notes = _choose_fit(cls(image_processor, fit).fit, fit is None, pictures)
        return cls(image_processor, chosen, value_range), range_notes + fit_notes

    @property
    def config(self) -> dict[str, Any]:
        """The fields of [`~peft_mmrl.MMRLConfig`] that keep it."""
        return {"fit": self.fit, "value_range": self.value_range and list(self.value_range)}

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it: equal for what makes the same of every picture."""
        names = ("size", "crop_size", "resample", "rescale_factor", "image_mean", "image_std")
        names += ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
        settings = self.image_processor.to_dict()
        content = {**self.config, "image_processor": {name: settings.get(name) for name in names}}
        return json.loads(json.dumps(content))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Preprocessing) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.fit, self.value_range))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of `pixel_values`."""
        crops, resizes = (getattr(self.image_processor, name, None) for name in ("do_center_crop", "do_resize"))
        size = self.image_processor.crop_size if crops else self.image_processor.size if resizes else None
        if size is None or not (size.height and size.width):
            raise ValueError(
                "`image_processor` must give all pictures one size, by a centre crop or by resizing to a height and a "
                f"width, got {size}."
            )
        return size.height, size.width

    def decode(self, image: Any) -> PIL.Image.Image:
        """A picture as [`~peft_mmrl.read_picture`] gives it, with the run's range of values and of any shape."""
        return read_picture(image, self.value_range)

    def is_beyond(self, values: tuple[float, float] | None) -> bool:
        """Whether grey of more than 8 bits is not what the run was decided for: beyond its range by more than a
        twentieth of it, or there was none.

        Args:
            values: from where to where it goes; None: it has no more than 8 bits.
        """
        if values is None or self.value_range is None:
            return values is not None
        low, high = self.value_range
        slack = FLAT * (high - low)
        return values[0] < low - slack or values[1] > high + slack

    def warning(self, beyond: int) -> str:
        """What to say of so many pictures that are beyond the range."""
        if self.value_range is None:
            return (
                f"{beyond} pictures are grey of more than 8 bits, and there were none in training: 0 is black, 65535 "
                "white, in floats 1 or 255"
            )
        low, high = self.value_range
        return f"{beyond} pictures hold values beyond {low:g} (black) and {high:g} (white): they are clipped"

    def read(self, image: Any) -> PIL.Image.Image:
        """A picture in RGB of which the base model's image processor, as it stands, makes the right `pixel_values`.

        It is what transformers' pipelines should be given.

        Args:
            image: as for [`~peft_mmrl.read_picture`].

        Raises:
            PictureError: it cannot be read.
        """
        return self._arranged(self.decode(image))

    def _arranged(self, picture: PIL.Image.Image) -> PIL.Image.Image:
        own = _own_fit(self.image_processor)
        if own == "squeeze":
            return picture if self.fit == own else self.fitted(picture, self.size)
        if self.fit == own:
            return picture.crop(self._middle(*picture.size))
        # the image processor resizes to `canvas` and keeps the middle of that: all of the picture should be in there
        canvas = self.canvas
        height, width = map(min, self.size, canvas)
        ground = PIL.Image.new("RGB", canvas[::-1], self.ground)
        corner = round((canvas[1] - width) / 2), round((canvas[0] - height) / 2)
        ground.paste(self.fitted(picture, (height, width)), corner)
        return ground

    def __call__(self, image: Any) -> torch.Tensor:
        """`pixel_values` (3, height, width) of a picture.

        Args:
            image: as for [`~peft_mmrl.read_picture`].

        Raises:
            PictureError: it cannot be read.
        """
        return self.pixel_values(self.decode(image))

    def pixel_values(self, picture: PIL.Image.Image) -> torch.Tensor:
        """The same of a picture that `decode` gave."""
        return self.image_processor(self._arranged(picture), return_tensors="pt")["pixel_values"][0]

    def fitted(self, picture: PIL.Image.Image, size: tuple[int, int]) -> PIL.Image.Image:
        """A picture in RGB in another height and width, as `fit` says."""
        height, width = size
        resample = getattr(self.image_processor, "resample", None)  # 0 is NEAREST
        resample = PIL.Image.Resampling(PIL.Image.BICUBIC if resample is None else resample)
        if self.fit == "crop":
            return ImageOps.fit(picture, (width, height), resample)
        if self.fit == "squeeze":
            return picture.resize((width, height), resample)
        scale = min(width / picture.width, height / picture.height)
        inner = tuple(max(1, round(side * scale)) for side in picture.size)
        ground = PIL.Image.new("RGB", (width, height), self.ground)
        ground.paste(picture.resize(inner, resample), ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return ground

    @property
    def ground(self) -> tuple[int, ...]:
        """What pictures are padded with: the mean colour, which is about 0 in `pixel_values`."""
        return tuple(round(255 * value) for value in getattr(self.image_processor, "image_mean", None) or [0.5] * 3)

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width of what the image processor's centre crop is taken of, where a picture is square."""
        size = self.image_processor.size
        if not getattr(self.image_processor, "do_resize", None):
            return self.size
        return (size.height, size.width) if size.height else (size.shortest_edge, size.shortest_edge)

    def _middle(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of what is given to the image processor.

        A picture that is more than sixteen times as long as it is wide is cut to its middle first, which is more than
        the centre crop keeps: resized as a whole, a line of 20000 pixels would take gigabytes.
        """
        # whole squares on both sides: the rest is resized to the same pixels, up to rounding
        short = min(width, height)
        resizes = getattr(self.image_processor, "do_resize", None) and self.image_processor.size.shortest_edge
        squares = max(0, max(width, height) // short - LONGEST) // 2 if resizes else 0
        across, down = (squares * short, 0) if width > height else (0, squares * short)
        return across, down, width - across, height - down


def as_preprocessing(value: Preprocessing | ImageProcessor) -> Preprocessing:
    """A preprocessing, or that of a base model's image processor."""
    return value if isinstance(value, Preprocessing) else Preprocessing(value)


def _refuse_dark_colours(pictures: Sequence[PictureFacts]) -> None:
    brightest = [facts.brightest for facts in pictures if facts.brightest is not None]
    if brightest and max(brightest) < DARK:
        raise ValueError(
            f"{len(brightest)} pictures have 16 bits per colour, but use {max(brightest).bit_length()} of them: they "
            "would be nearly black. Convert them to 8 bits per colour, or to the full 16."
        )


def _choose_range(pictures: Sequence[PictureFacts]) -> tuple[tuple[float, float] | None, list[str]]:
    ranges = [facts.values for facts in pictures if facts.values is not None]
    if not ranges:
        return None, []
    low, high = min(ends[0] for ends in ranges), max(ends[1] for ends in ranges)
    if low == high:
        high = low + max(1, abs(low))
    flat = sum(ends[1] - ends[0] < FLAT * (high - low) for ends in ranges)
    note = (
        f"{len(ranges)} pictures are grey of more than 8 bits: {low:g} becomes black and {high:g} white in all of them"
    )
    note += f"; {flat} of them have hardly any contrast then" if flat else ""
    return (low, high), [note]


def _choose_fit(fit: str, is_free: bool, pictures: Sequence[PictureFacts]) -> tuple[str, list[str]]:
    """How pictures are made to fit, and notes; another way than `fit` only where it `is_free` to be chosen."""
    unseen = [1 - 1 / facts.elongation for facts in pictures if facts.elongation > FAR]
    if not unseen or fit != "crop":
        return fit, []
    note = (
        f"{len(unseen)} of {len(pictures)} pictures are far from square (more than {FAR:g} times as long as wide): "
        f"of them a centre crop never sees {np.mean(unseen):.0%}, at the ends"
    )
    if is_free and 2 * len(unseen) > len(pictures):
        return OF_LONG_PICTURES, [f"{note}. So all are squeezed (--fit squeeze; also possible: pad, crop)"]
    return fit, [f"{note} (--fit pad or squeeze shows all)"]


def _own_fit(image_processor: ImageProcessor) -> str:
    """How an image processor itself makes pictures fit."""
    return "crop" if getattr(image_processor, "do_center_crop", None) else "squeeze"
