"""How a saved adapter knows its base model again: equal sizes do not make two models the same."""

from __future__ import annotations

import hashlib
import os
import warnings

import torch
from torch import nn

from .config import MMRLConfig


# What changes the outputs of an encoder and shows in no weight.
COMPARED_SETTINGS = ("hidden_act", "layer_norm_eps", "num_attention_heads", "patch_size")
SIGNS_PER_WEIGHT = 64


def fingerprint_of(model: nn.Module) -> str | None:
    """Digest of a base model, the same in every floating-point type and on every device.

    It covers the signs of some entries of every weight, which no cast changes, but training does. Adapters in the
    model do not count.

    Args:
        model: the base model.

    Returns:
        16 hex digits; None where the weights cannot be seen (quantised, on the meta device, split by DeepSpeed).
    """
    digest = hashlib.sha256()
    for part in (model.config.text_config, model.config.vision_config):
        digest.update(repr([getattr(part, name, None) for name in COMPARED_SETTINGS]).encode())
    for name, weight in model.named_parameters():
        if "mmrl_" not in name:
            signs = _signs(weight)
            if signs is None:
                return None
            digest.update(signs)
    return digest.hexdigest()[:16]


def _signs(weight: torch.Tensor) -> bytes | None:
    """Signs of some entries, evenly spread; None where they cannot be seen."""
    if weight.is_meta or not weight.is_floating_point() or not weight.numel():
        return None
    step = -(-weight.numel() // SIGNS_PER_WEIGHT)
    try:
        return torch.signbit(weight.detach().flatten()[::step]).cpu().numpy().tobytes()
    except Exception:  # torchao's and others' tensors say that they are floats, and miss most operations
        return None


def warn_if_other_base(model: nn.Module, fingerprint: str | None, config: MMRLConfig) -> None:
    """Warn where a saved adapter is put on another base model than it was saved with.

    Without fingerprints the names are compared, unless one is a folder, which may hold the same model.

    Args:
        model: the base model.
        fingerprint: its `fingerprint_of`.
        config: the adapter's config.
    """
    name, saved_name = getattr(model, "name_or_path", None), config.base_model_name_or_path
    if fingerprint and config.base_fingerprint:
        differs = fingerprint != config.base_fingerprint
    else:
        is_folder = any(os.path.isabs(path) or os.path.exists(path) for path in (name or "", saved_name or ""))
        differs = bool(name and saved_name) and name != saved_name and not is_folder
    if differs:
        warnings.warn(
            f"This adapter was saved with another base model ({saved_name or 'without a name'}) than this one "
            f"({name or 'without a name'}). Its sizes fit, but weights or settings such as `hidden_act` differ: "
            "expect other scores than it was trained for.",
            stacklevel=2,
        )
