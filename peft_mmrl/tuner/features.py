"""From images and prompts to L2-normalised features in the joint space, width d."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn.functional import normalize
from transformers import CLIPModel

from .classes import BoundClasses, ExplicitPrompts
from .prompts import Prompts


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


def compute_features(
    clip: CLIPModel,
    images: dict[str, Any],
    classes: BoundClasses | ExplicitPrompts,
    with_frozen: bool,
    **kwargs: Any,
) -> tuple[Features, dict[str, Any]]:
    """Features of images and classes, by the running adapter, or by frozen CLIP where none runs.

    Args:
        clip: the base model with MMRL's towers.
        images: arguments of the vision tower.
        classes: bound classes, whose shared work is done once, or explicit prompts, whose states are returned.
        with_frozen: also give the features in frozen CLIP.
        kwargs: passed to both towers.

    Returns:
        the features, and what there is of `CLIPOutput`'s fields `vision_model_output` and `text_model_output`; in
        frozen CLIP with explicit prompts all of CLIP's own output.
    """
    is_bound = isinstance(classes, BoundClasses)
    is_frozen = clip.vision_model.running_adapter is None
    if is_frozen and not is_bound:
        (text,) = classes.text_inputs(clip.text_model)
        plain = clip(**images, **text, **kwargs, return_dict=True)
        return Features(plain.image_embeds, plain.text_embeds), plain

    towers = clip.vision_model, clip.text_model
    keep_states = not is_bound or any(tower.is_recording(kwargs) for tower in towers)
    features, outputs = Features(), {}
    frozen_embeds = images.pop("frozen_image_embeds", None)
    vision = clip.vision_model(
        **images,
        with_frozen=with_frozen and frozen_embeds is None,
        extended=True,
        pooled_only=not keep_states,
        **kwargs,
        return_dict=True,
    )
    features.image = normalized(clip.visual_projection(vision.pooler_output))
    if not is_frozen:
        rep = clip.vision_model.project_rep(vision.rep_pooler_output, clip.visual_projection)
        features.rep = normalized(rep)
    if with_frozen and frozen_embeds is not None:
        features.frozen_image = frozen_embeds.to(features.image)
    elif with_frozen:
        with torch.no_grad():
            features.frozen_image = normalized(clip.visual_projection(vision.frozen_pooler_output))

    if is_bound and not keep_states and clip.text_model.can_share(clip.text_projection):
        class_features(clip, features, classes.prompts, with_frozen)
    else:
        texts = [
            clip.text_model(**text, with_frozen=with_frozen, extended=True, **kwargs, return_dict=True)
            for text in classes.text_inputs(clip.text_model)
        ]
        features.text = ensemble([clip.text_projection(text.pooler_output) for text in texts])
        if with_frozen:
            with torch.no_grad():
                features.frozen_text = ensemble([clip.text_projection(text.frozen_pooler_output) for text in texts])
        if keep_states:
            outputs = {"vision_model_output": vision, "text_model_output": texts[-1]}
    return features, outputs


def image_states(
    clip: CLIPModel, pixel_values: torch.Tensor, interpolate_pos_encoding: bool
) -> dict[str, torch.Tensor]:
    """Of images what no training step changes: `trunk_states` (B, n, d_v) and `frozen_image_embeds` (B, d)."""
    tower = clip.vision_model
    inputs = {"pixel_values": pixel_values, "interpolate_pos_encoding": interpolate_pos_encoding}
    states = tower.run_trunk(inputs, tower.first_layer)
    frozen = normalized(clip.visual_projection(tower.frozen_pooled(states)))
    return {"trunk_states": states, "frozen_image_embeds": frozen}


def class_features(clip: CLIPModel, features: Features, prompts: Sequence[Prompts], with_frozen: bool) -> None:
    """Fill in the text features of bound classes, what they share computed once.

    Frozen features are computed once, adapted ones once as long as no gradients are asked for and the tokens T_i, of
    which alone they depend, stay the same to the bit.

    Args:
        clip: the base model with MMRL's towers.
        features: `text` and, with `with_frozen`, `frozen_text` are set.
        prompts: the class prompts of each template; the features of a class's templates are averaged.
        with_frozen: also give the features in frozen CLIP.
    """
    tower = clip.text_model
    adapter = tower.running_adapter
    key = tower.state_key(clip.text_projection)

    def encode(template: Prompts, tokens: torch.Tensor | None) -> torch.Tensor:
        return normalized(clip.text_projection(tower.encode(tower.prompt_trunk(template), tokens)))

    if with_frozen or adapter is None:
        features.frozen_text = ensemble(
            [template.cached("frozen", key, partial(encode, template, None)) for template in prompts]
        )
    if adapter is None:
        features.text, features.frozen_text = features.frozen_text, None
        return
    tokens = tower.tokens(adapter)  # (L, K, d)
    if torch.is_grad_enabled():
        features.text = ensemble([encode(template, tokens) for template in prompts])
    else:
        key = key, adapter, tower.configs[adapter].beta, content(tokens)
        features.text = ensemble(
            [template.cached("adapted", key, partial(encode, template, tokens)) for template in prompts]
        )


def normalized(features: torch.Tensor) -> torch.Tensor:
    """L2-normalised features, in fp32 at least: logits of a scale of 100 are too coarse in half precision."""
    return normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


@torch.compiler.disable
def content(tensor: torch.Tensor) -> bytes:
    """A tensor's bytes. Version counters do not tell: fused optimizers and `.data` change weights without a trace."""
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()


def ensemble(features: Sequence[torch.Tensor]) -> torch.Tensor:
    """Features (C, d) of each template -> one normalised feature per class: normalise, average, normalise."""
    normalised = [normalized(feature) for feature in features]
    return normalised[0] if len(normalised) == 1 else normalized(torch.stack(normalised).mean(dim=0))
