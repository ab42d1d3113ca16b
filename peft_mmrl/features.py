"""From images and prompts to L2-normalised features in the joint space, width d."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import normalize
from transformers import CLIPModel
from transformers.modeling_outputs import BaseModelOutputWithPooling


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

    image: torch.Tensor
    text: torch.Tensor
    rep: torch.Tensor | None = None
    frozen_image: torch.Tensor | None = None
    frozen_text: torch.Tensor | None = None


def compute_features(
    clip: CLIPModel,
    images: dict[str, Any],
    prompts: Sequence[dict[str, Any]],
    with_frozen: bool,
    **kwargs: Any,
) -> tuple[Features, BaseModelOutputWithPooling, BaseModelOutputWithPooling]:
    """Run both towers; without an active adapter these are frozen CLIP's.

    Args:
        clip: the base model with MMRL's towers.
        images: arguments of the vision tower.
        prompts: arguments of the text tower, one dictionary per template; the features of a class's templates are
            averaged (CLIP's prompt ensembling).
        with_frozen: also compute the features in frozen CLIP.
        kwargs: passed to both towers.

    Returns:
        the features, the vision tower's output, the last text output.
    """
    vision = clip.vision_model(**images, with_frozen=with_frozen, **kwargs)
    texts = [clip.text_model(**prompt, with_frozen=with_frozen, **kwargs) for prompt in prompts]
    features = Features(
        image=normalize(clip.visual_projection(vision.pooler_output), dim=-1),
        text=ensemble([clip.text_projection(text.pooler_output) for text in texts]),
    )
    if clip.vision_model.running_adapter is not None:
        rep = clip.vision_model.project_rep(vision.rep_pooler_output, clip.visual_projection)
        features.rep = normalize(rep, dim=-1)
    if with_frozen:
        with torch.no_grad():
            features.frozen_image = normalize(clip.visual_projection(vision.frozen_pooler_output), dim=-1)
            features.frozen_text = ensemble([clip.text_projection(text.frozen_pooler_output) for text in texts])
    return features, vision, texts[-1]


def ensemble(features: Sequence[torch.Tensor]) -> torch.Tensor:
    """Features (C, d) of each template -> one normalised feature per class: normalise, average, normalise."""
    normalised = [normalize(feature, dim=-1) for feature in features]
    return normalised[0] if len(normalised) == 1 else normalize(torch.stack(normalised).mean(dim=0), dim=-1)
