"""Reading saved adapters, and the checks that come before anything is changed."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

from peft import PeftModel
from peft.utils import load_peft_weights
from transformers import AutoConfig, AutoTokenizer, CLIPModel, PreTrainedTokenizerBase
from transformers.integrations.peft import PeftAdapterMixin

from .config import MMRLConfig
from .prompts import PromptTokenizer


MAX_FRAMES = 5  # between a loader and our constructors


def check_weights_fit(
    clip: CLIPModel,
    config: MMRLConfig,
    shapes: dict[str, tuple[int, ...]],
    model_id: str | os.PathLike[str],
    key_mapping: dict[str, str] | None = None,
    **kwargs: Any,
) -> None:
    """Raise where an adapter's saved weights do not fit a base model.

    Args:
        clip: the base model, adapted or not.
        config: the config of the adapter that is to take the weights.
        shapes: what they must be on this base model, by name.
        model_id: folder or Hub repository of the adapter.
        key_mapping: as in PEFT's `load_adapter`.
        kwargs: the other arguments of PEFT's `load_adapter`.

    Raises:
        ValueError: a tensor is missing or has another size.
        OSError: the weights cannot be found or read.
    """
    hub_kwargs, other_kwargs = PeftModel._split_kwargs(kwargs)
    if other_kwargs.get("ignore_mismatched_sizes"):
        return
    try:
        weights = load_peft_weights(model_id, device="cpu", key_mapping=key_mapping, **hub_kwargs)
    except Exception as error:  # a damaged or missing file shows as almost any error
        raise OSError(f"The adapter's weights in {model_id} cannot be read: {error}") from error
    wrong = [
        f"{name} is {tuple(weights[name].shape) if name in weights else 'missing'}, should be {shape}"
        for name, shape in shapes.items()
        if name not in weights or tuple(weights[name].shape) != shape
    ]
    if wrong:
        raise ValueError(
            f"The adapter in {model_id} (trained on {config.base_model_name_or_path}) does not fit this base model "
            f"({clip.name_or_path or type(clip).__name__}): {'; '.join(wrong)}."
        )


def arguments_of(loader: Callable[..., Any]) -> dict[str, Any] | None:
    """Local variables of a running call of `loader`, where it is what calls this package a few frames further up.

    PEFT's and transformers' loaders tell our constructors nothing of the folder, and change the base model before
    they read the weights. A look at their frames is the only way to find out in time that the weights do not fit.
    """
    code = inspect.unwrap(loader).__code__
    frame = sys._getframe(1)
    for _ in range(MAX_FRAMES):
        frame = frame.f_back
        if frame is None:
            return None
        if frame.f_code is code:
            return frame.f_locals
    return None


def arguments_of_from_pretrained() -> dict[str, Any] | None:
    """What `PeftModel.from_pretrained` was called with, where it constructs a model."""
    variables = arguments_of(PeftModel.from_pretrained.__func__)
    if variables is None or variables["model_id"] is None:
        return None
    names = ("model_id", "key_mapping", "ephemeral_gpu_offload")
    return {**{name: variables.get(name) for name in names}, **variables.get("kwargs", {})}


def arguments_of_load_adapter() -> dict[str, Any] | None:
    """What transformers' `clip.load_adapter` was called with, where it injects the adapter of a folder."""
    variables = arguments_of(PeftAdapterMixin.load_adapter)
    if variables is None or variables["peft_model_id"] is None or variables["adapter_state_dict"] is not None:
        return None
    load_config = variables["load_config"]
    return {
        "model_id": variables["peft_model_id"],
        "ignore_mismatched_sizes": load_config.ignore_mismatched_sizes,
        **load_config.download_kwargs,
    }


def refuse_offload(kwargs: dict[str, Any]) -> None:
    """Raise a ValueError where PEFT's `ephemeral_gpu_offload` is asked for, which only LoRA has."""
    if kwargs.get("ephemeral_gpu_offload"):
        raise ValueError("`ephemeral_gpu_offload` is not supported by MMRL, load the adapter without it.")


def load_prompt_tokenizer(name: str, revision: str | None = None) -> PromptTokenizer:
    """The tokenizer of a base model, as prompts and names need it.

    Raises:
        OSError: it has none, or no config of a text encoder.
    """
    tokenizer = load_tokenizer(name, revision)
    try:
        return PromptTokenizer(tokenizer, AutoConfig.from_pretrained(name, revision=revision).text_config)
    except (OSError, ValueError, AttributeError) as error:
        raise OSError(f"No config of a CLIP could be loaded from {name!r}.") from error


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a base model.

    Raises:
        OSError: there is none. (transformers makes an empty one for a folder that holds a CLIP without tokenizer.)
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    except (OSError, ValueError) as error:
        raise OSError(f"No tokenizer could be loaded from {name!r}.") from error
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise OSError(f"No tokenizer could be loaded from {name!r}.")
    return tokenizer
