"""From images and prompts to L2-normalised features in the joint space, width d."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import normalize
from transformers import CLIPModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .prompts import Prompts
from .towers import cached


@dataclass
class Features:
    """L2-normalised features of B images and C classes.

    Args:
        image: class features f_c (B, d).
        text: class text features w (C, d).
        rep: representation features f_r (B, d); None in frozen CLIP.
        frozen_image: features f_0 (B, d) of the same images in frozen CLIP, where the loss needs them.
        frozen_text: features w_0 (C, d) of the same prompts in frozen CLIP, where the loss needs them.
    """

    image: torch.Tensor | None = None
    text: torch.Tensor | None = None
    rep: torch.Tensor | None = None
    frozen_image: torch.Tensor | None = None
    frozen_text: torch.Tensor | None = None


def image_features(
    clip: CLIPModel, features: Features, images: dict[str, Any], with_frozen: bool, pooled_only: bool, **kwargs: Any
) -> BaseModelOutputWithPooling:
    """Fill in the features of images; without an active adapter those of frozen CLIP.

    Args:
        clip: the base model with MMRL's towers.
        features: `image`, `rep` and `frozen_image` are set.
        images: arguments of the vision tower.
        with_frozen: also compute the features in frozen CLIP.
        pooled_only: the states of all patches are not needed.
        kwargs: passed to the tower.

    Returns:
        the tower's output.
    """
    output = clip.vision_model(**images, with_frozen=with_frozen, pooled_only=pooled_only, **kwargs)
    features.image = normalize(clip.visual_projection(output.pooler_output), dim=-1)
    if clip.vision_model.running_adapter is not None:
        features.rep = normalize(
            clip.vision_model.project_rep(output.rep_pooler_output, clip.visual_projection), dim=-1
        )
    if with_frozen:
        with torch.no_grad():
            features.frozen_image = normalize(clip.visual_projection(output.frozen_pooler_output), dim=-1)
    return output


def text_features(
    clip: CLIPModel, features: Features, texts: Sequence[dict[str, Any]], with_frozen: bool, **kwargs: Any
) -> BaseModelOutputWithPooling:
    """Fill in the features of explicit prompts, through whole layers; `text` and `frozen_text` are set.

    Args:
        clip: the base model with MMRL's towers.
        features: the features to fill in.
        texts: arguments of the text tower, one dictionary per template; their features are averaged.
        with_frozen: also compute the features in frozen CLIP.
        kwargs: passed to the tower.

    Returns:
        the tower's output for the last template.
    """
    outputs = [clip.text_model(**text, with_frozen=with_frozen, **kwargs) for text in texts]
    features.text = ensemble([clip.text_projection(output.pooler_output) for output in outputs])
    if with_frozen:
        with torch.no_grad():
            features.frozen_text = ensemble([clip.text_projection(output.frozen_pooler_output) for output in outputs])
    return outputs[-1]


def class_features(
    clip: CLIPModel, features: Features, prompts: Sequence[Prompts], with_frozen: bool, chunk_size: int
) -> None:
    """Fill in the features of bound classes, what they share computed once; `text` and `frozen_text` are set.

    Frozen features are computed once, adapted ones once as long as no gradients are asked for and the tokens T_i, of
    which alone they depend, stay the same to the bit.

    Args:
        clip: the base model with MMRL's towers.
        features: the features to fill in.
        prompts: the class prompts of each template; the features of a class's templates are averaged.
        with_frozen: also give the features in frozen CLIP.
        chunk_size: classes that are encoded at a time.
    """
    tower = clip.text_model
    adapter = tower.running_adapter

    def compute(template: Prompts, tokens: torch.Tensor | None) -> torch.Tensor:
        return normalize(clip.text_projection(tower.encode(template, tokens, chunk_size)), dim=-1)

    def frozen() -> torch.Tensor:
        key = tower.state_key()
        return ensemble([cached(template, "frozen", key, compute, template, None) for template in prompts])

    if adapter is None:
        features.text = frozen()
        return
    tokens = tower.mmrl_aligner[adapter](tower.rep_tokens(adapter))  # (L, K, d)
    if torch.is_grad_enabled():
        features.text = ensemble([compute(template, tokens) for template in prompts])
    else:
        key = tower.state_key(), adapter, tower.configs[adapter].beta, content(tokens)
        features.text = ensemble([cached(template, "adapted", key, compute, template, tokens) for template in prompts])
    if with_frozen:
        features.frozen_text = frozen()


def content(tensor: torch.Tensor) -> bytes:
    """A tensor's bytes. Version counters do not tell: fused optimizers and `.data` change weights without a trace."""
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()


def ensemble(features: Sequence[torch.Tensor]) -> torch.Tensor:
    """Features (C, d) of each template -> one normalised feature per class: normalise, average, normalise."""
    normalised = [normalize(feature, dim=-1) for feature in features]
    return normalised[0] if len(normalised) == 1 else normalize(torch.stack(normalised).mean(dim=0), dim=-1)
