"""Checks of user input that several modules share. Every message names the argument, its value and what is allowed."""

import math
import numbers
import os
import sys
from collections.abc import Iterable, Mapping, Set
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import CLIPModel, PreTrainedConfig


FITS = ("crop", "pad", "squeeze")  # of pictures into the model's square, see `peft_mmrl.Preprocessing`


class InvalidTypeError(TypeError, ValueError):
    """A value of a wrong type. It is both errors, so that `except ValueError` catches every kind of bad input."""


def is_hub_id(name: str | None) -> bool:
    """Whether a name can be that of a repository on the Hub, `namespace/name`, and is no path of this machine."""
    if not name or "/" not in name or os.path.exists(name):
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def as_positive_int(name: str, value: Any) -> int:
    """Return `value` as a Python integer of at least 1."""
    return as_whole(name, value, 1)


def as_whole(name: str, value: Any, low: int, high: float = math.inf) -> int:
    """Return `value` as a Python integer of the closed interval [low, high]."""
    allowed = "a positive whole number" if low == 1 else f"a whole number of at least {low}"
    if not math.isinf(high):
        allowed = f"a whole number from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise InvalidTypeError(f"`{name}` must be {allowed}, got {value!r}.")
    if not low <= value <= high:
        raise ValueError(f"`{name}` must be {allowed}, got {_shown(value)}.")
    return int(value)


def as_number(name: str, value: Any, low: float, high: float = math.inf, *, below: float = math.inf) -> float:
    """Return `value` as a finite float of the closed interval [low, high], and smaller than `below`."""
    allowed = f"a number of at least {low:g}" if math.isinf(high) else f"a number from {low:g} to {high:g}"
    allowed = "a finite number" if math.isinf(low) else allowed
    if not math.isinf(below):
        allowed += f" and below {below:g}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InvalidTypeError(f"`{name}` must be {allowed}, got {value!r}.")
    if not low <= value <= high or value >= below or abs(value) > sys.float_info.max:
        raise ValueError(f"`{name}` must be {allowed}, got {_shown(value)}.")
    return float(value)


def _shown(value: numbers.Real) -> str:
    """A number for a message; Python refuses to write those of thousands of digits."""
    try:
        return repr(value)
    except ValueError:
        return "a number too long to show"


def as_list(name: str, value: Any, of: str) -> list[Any]:
    """Return an ordered collection as a non-empty list; strings, sets and mappings are none of it."""
    if isinstance(value, str | bytes | Set | Mapping) or not isinstance(value, Iterable):
        raise InvalidTypeError(f"`{name}` must be a list of {of}, got {value!r}.")
    items = list(value)
    if not items:
        raise ValueError(f"`{name}` must hold at least one of {of}, got an empty list.")
    return items


def as_weights(name: str, value: Any) -> list[float]:
    """Return a list, array or tensor of positive numbers as a list of floats."""
    weights = as_list(name, value.tolist() if hasattr(value, "tolist") else value, "positive numbers")
    for weight in weights:
        as_number(name, weight, 0)
        if weight == 0:
            raise ValueError(f"`{name}` must hold positive numbers, got {weight!r}.")
    return list(map(float, weights))


def as_layers(name: str, value: Any) -> list[int]:
    """Return 0-based layer indices, ascending. The upper bound is checked when the base model is known."""
    indices = as_list(name, value, "0-based layer indices")
    for index in indices:
        if isinstance(index, bool) or not isinstance(index, numbers.Integral):
            raise InvalidTypeError(f"`{name}` must hold 0-based layer indices, got {index!r}.")
        if index < 0:
            raise ValueError(f"`{name}` must hold layer indices of at least 0 (count from the front), got {index}.")
    if len(set(indices)) != len(indices):
        raise ValueError(f"`{name}` must not repeat a layer, got {list(map(int, indices))}.")
    return sorted(map(int, indices))


def as_templates(template: Any) -> list[str]:
    """Return one template or several as a list; each must have a place `{}` for the class name."""
    templates = [template] if isinstance(template, str) else as_list("template", template, "prompt templates")
    for item in templates:
        if not isinstance(item, str):
            raise InvalidTypeError(f"`template` must be a string or a list of strings, got {item!r}.")
        if "{}" not in item:
            raise ValueError(f"`template` must have a place {{}} for the class name, got {item!r}.")
    return templates


def as_fit(value: Any) -> str | None:
    """Return how pictures are made to fit a model's square, or None."""
    if value is not None and not (isinstance(value, str) and value in FITS):
        raise (ValueError if isinstance(value, str) else InvalidTypeError)(
            f"`fit` must be one of {', '.join(FITS)}, or None, got {value!r}."
        )
    return value


def as_value_range(name: str, value: Any) -> tuple[float, float] | None:
    """Return a smallest and a largest value as floats, or None."""
    if value is None:
        return None
    ends = as_list(name, value, "two numbers, the smaller first")
    if len(ends) != 2:
        raise ValueError(f"`{name}` must hold two numbers, the smaller first, got {value!r}.")
    low, high = (as_number(f"{name}[{index}]", number, -math.inf) for index, number in enumerate(ends))
    if not low < high:
        raise ValueError(f"`{name}` must hold two numbers, the smaller first, got {value!r}.")
    return low, high


def refuse_mixed_batch(kwargs: dict[str, Any]) -> None:
    """Take PEFT's `adapter_names` out of `kwargs`; raise where it asks for several adapters in one batch."""
    if kwargs.pop("adapter_names", None) is not None:
        raise NotImplementedError("`adapter_names`: MMRL runs one adapter for the whole batch, see `set_adapter`.")


def check_pixel_values(pixel_values: Any, vision_config: PreTrainedConfig) -> None:
    """Raise where images are not a tensor (B, channels, height, width) of numbers, with one patch or more each."""
    channels, patch = vision_config.num_channels, vision_config.patch_size
    if pixel_values is None:
        raise ValueError("`pixel_values` must be given: the processed images, (batch, channels, height, width).")
    is_numbers = isinstance(pixel_values, torch.Tensor) and not (
        pixel_values.is_complex() or pixel_values.dtype == torch.bool
    )
    if not is_numbers:
        raise InvalidTypeError(f"`pixel_values` must be a tensor of numbers, got {_describe(pixel_values)}.")
    shape = tuple(pixel_values.shape)
    if len(shape) != 4 or shape[0] < 1 or shape[1] != channels or min(shape[2:]) < patch:
        raise ValueError(
            f"`pixel_values` must have the shape (batch, {channels}, height, width), with at least one image and "
            f"sides of at least {patch} pixels, got {shape}."
        )


def check_states(
    clip: CLIPModel, trunk_states: Any, frozen_image_embeds: Any, with_frozen: bool, is_frozen: bool
) -> None:
    """Raise where precomputed image states cannot take the place of images."""
    if is_frozen:
        raise ValueError("`trunk_states` are for a running adapter; with the adapter disabled pass `pixel_values`.")
    width, joint = clip.config.vision_config.hidden_size, clip.config.projection_dim
    if not isinstance(trunk_states, torch.Tensor) or not trunk_states.is_floating_point():
        raise InvalidTypeError(f"`trunk_states` must be a tensor of floats, got {_describe(trunk_states)}.")
    if trunk_states.ndim != 3 or trunk_states.shape[-1] != width or not trunk_states.numel():
        raise ValueError(
            f"`trunk_states` must have the shape (images, tokens, {width}), got {tuple(trunk_states.shape)}."
        )
    if with_frozen and getattr(frozen_image_embeds, "shape", None) != (len(trunk_states), joint):
        raise ValueError(
            f"`frozen_image_embeds` must have the shape ({len(trunk_states)}, {joint}) for the loss or the "
            "decision; `image_states` gives both."
        )


@torch.compiler.disable  # reads values
def check_input_ids(
    input_ids: Any,
    attention_mask: Any,
    position_ids: Any,
    token_type_ids: Any,
    text_config: PreTrainedConfig,
    context: int,
) -> None:
    """Raise where prompts are not token ids (..., n) of the base model's vocabulary and context length."""
    _check_ids("input_ids", input_ids, text_config.vocab_size)
    if not 1 <= input_ids.shape[-1] <= context:
        raise ValueError(
            f"`input_ids` must have the shape (prompts, tokens) with at most {context} tokens, the context of this "
            f"CLIP, got {tuple(input_ids.shape)}."
        )
    sizes = {
        "position_ids": (position_ids, text_config.max_position_embeddings),
        "token_type_ids": (token_type_ids, getattr(text_config, "type_vocab_size", 1)),
    }
    for name, (ids, size) in sizes.items():
        if ids is not None:
            _check_ids(name, ids, size)
            if ids.shape not in (input_ids.shape, (1, input_ids.shape[-1])):
                raise ValueError(f"`{name}` must have {_shape_of(input_ids)}, got {tuple(ids.shape)}.")
    if attention_mask is not None:
        if not isinstance(attention_mask, torch.Tensor):
            raise InvalidTypeError(f"`attention_mask` must be a tensor, got {attention_mask!r}.")
        if attention_mask.shape != input_ids.shape:
            raise ValueError(f"`attention_mask` must have {_shape_of(input_ids)}, got {tuple(attention_mask.shape)}.")


def _check_ids(name: str, ids: Any, size: int) -> None:
    if not isinstance(ids, torch.Tensor) or not _is_integer(ids):
        raise InvalidTypeError(f"`{name}` must be a tensor of whole numbers, got {_describe(ids)}.")
    if not ids.numel():
        raise ValueError(f"`{name}` must hold at least one number, got the shape {tuple(ids.shape)}.")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= size:
        raise ValueError(f"`{name}` must lie between 0 and {size - 1}, got {low if low < 0 else high}.")


def _shape_of(input_ids: torch.Tensor) -> str:
    return f"the shape of `input_ids`, {tuple(input_ids.shape)}"


@torch.compiler.disable  # reads values
def check_targets(labels: Any, return_loss: Any, num_images: int, num_classes: int, has_captions: bool) -> None:
    """Raise where the loss that is asked for cannot be computed."""
    if return_loss:
        if labels is not None:
            raise ValueError("`return_loss` (captions) and `labels` (classes) ask for different losses; pass one.")
        if not has_captions or num_classes != num_images:
            raise ValueError("`return_loss` needs `input_ids` with one caption per image.")
    if labels is not None:
        check_labels(labels, num_images, num_classes)


def check_labels(labels: Any, batch_size: int, num_classes: int) -> None:
    """Raise where labels are not one class index per image."""
    if not isinstance(labels, torch.Tensor) or not _is_integer(labels):
        raise InvalidTypeError(f"`labels` must be a tensor of whole numbers, got {_describe(labels)}.")
    if labels.shape != (batch_size,):
        raise ValueError(
            f"`labels` must have the shape ({batch_size},), one label per image, got {tuple(labels.shape)}."
        )
    low, high = int(labels.long().min()), int(labels.long().max())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"`labels` must lie between 0 and {num_classes - 1} ({num_classes} classes), "
            f"got {low if low < 0 else high}."
        )


@torch.compiler.disable  # reads values
def check_num_items(num_items_in_batch: Any) -> None:
    """Raise where the number of images that a loss is averaged over is not a positive number."""
    is_scalar = isinstance(num_items_in_batch, torch.Tensor) and num_items_in_batch.numel() == 1
    if not is_scalar and not isinstance(num_items_in_batch, numbers.Real):
        raise InvalidTypeError(f"`num_items_in_batch` must be a number, got {num_items_in_batch!r}.")
    if not num_items_in_batch > 0:
        raise ValueError(f"`num_items_in_batch` must be positive, got {num_items_in_batch}.")
    if num_items_in_batch > sys.float_info.max:
        raise ValueError(f"`num_items_in_batch` must be finite, got {_shown(num_items_in_batch)}.")


def _is_integer(tensor: torch.Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def _describe(value: Any) -> str:
    return f"a tensor of {value.dtype}" if isinstance(value, torch.Tensor) else repr(value)
