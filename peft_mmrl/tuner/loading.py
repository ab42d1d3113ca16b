"""Reading saved adapters, and the checks that come before anything is changed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from peft import PeftConfig, PeftModel
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME, load_peft_weights
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer, CLIPModel, PreTrainedTokenizerBase

from .config import MMRLConfig
from .tokenization import PromptTokenizer


BUNDLED_BASE = "./base"  # in place of a base model's name: the folder of that name in the adapter's own folder


def locate_base(config: PeftConfig, model_id: str | os.PathLike[str], subfolder: str | None = None) -> None:
    """Let a base model that lies in its adapter's folder be found from anywhere, and wherever the folder was moved.

    Args:
        config: of the adapter; a name that is no such folder stays as it is.
        model_id: folder or Hub repository of the adapter.
        subfolder: of it, where the adapter lies.
    """
    place = os.path.join(model_id, subfolder or "", BUNDLED_BASE)
    if config.base_model_name_or_path == BUNDLED_BASE and os.path.isdir(place):
        config.base_model_name_or_path = os.path.abspath(place)


def is_beside(base: str | None, folder: str | os.PathLike[str]) -> bool:
    """Whether a base model is the one that lies in an adapter's folder."""
    place = os.path.join(folder, BUNDLED_BASE)
    return base is not None and os.path.isdir(base) and os.path.isdir(place) and os.path.samefile(base, place)


def name_bundled_base(folder: str | os.PathLike[str]) -> None:
    """Let the config of an adapter in a folder name the base model beside it, wherever both are moved."""
    path = Path(folder, CONFIG_NAME)
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": BUNDLED_BASE, "revision": None}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


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
    if os.path.isdir(model_id):
        folder = os.path.join(model_id, hub_kwargs.get("subfolder") or "")
        if not any(os.path.exists(os.path.join(folder, name)) for name in (SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME)):
            raise OSError(f"There are no weights in {folder}: {SAFETENSORS_WEIGHTS_NAME} is missing.")
    try:
        saved = saved_shapes(model_id, key_mapping, **hub_kwargs)
    except Exception as error:  # a damaged or missing file shows as almost any error
        raise OSError(f"The adapter's weights in {model_id} cannot be read: {error}") from error
    wrong = [
        f"{name} is {saved.get(name, 'missing')}, should be {shape}"
        for name, shape in shapes.items()
        if saved.get(name) != shape
    ]
    if wrong:
        raise ValueError(
            f"The adapter in {model_id} (trained on {config.base_model_name_or_path}) does not fit this base model "
            f"({clip.name_or_path or type(clip).__name__}): {'; '.join(wrong)}."
        )


def saved_shapes(
    model_id: str | os.PathLike[str], key_mapping: dict[str, str] | None = None, **hub_kwargs: Any
) -> dict[str, tuple[int, ...]]:
    """Shapes of an adapter's saved weights by name, from the header of the safetensors file.

    Args:
        model_id: folder or Hub repository of the adapter.
        key_mapping: as in PEFT's `load_adapter`.
        hub_kwargs: as for `hf_hub_download`.
    """
    path = None if key_mapping else _safetensors_file(model_id, **hub_kwargs)
    if path is not None:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    # Pickles have no header, and PEFT renames only what it has read.
    device = "cpu" if key_mapping else "meta"
    weights = load_peft_weights(model_id, device=device, key_mapping=key_mapping, **hub_kwargs)
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def _safetensors_file(model_id: str | os.PathLike[str], subfolder: str | None = None, **hub_kwargs: Any) -> str | None:
    if os.path.isdir(model_id):
        path = os.path.join(model_id, subfolder or "", SAFETENSORS_WEIGHTS_NAME)
        return path if os.path.exists(path) else None
    try:
        return hf_hub_download(model_id, SAFETENSORS_WEIGHTS_NAME, subfolder=subfolder, **hub_kwargs)
    except EntryNotFoundError:
        return None


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
