"""From images and prompts to L2-normalised features in the joint space, width d."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize
from transformers import CLIPModel

from .classes import BoundClasses, ExplicitPrompts
from .prompts import Prompts
from .towers.forward_pass import ForwardPass, LayerTokens
from .towers.text import PromptTrunk, TextTower


@dataclass
class Features:
    """L2-normalised features of B images and C classes.

    Args:
        image: class features f_c (B, d).
        text: class text features w (C, d).
        rep: representation features f_r (B, d); None in frozen CLIP.
        frozen_image: features f_0 (B, d) of the same images in frozen CLIP, where the loss needs them.
        frozen_text: features w_0 (C, d) of the same prompts in frozen CLIP, where the loss needs them.
        outputs: `vision_model_output` and `text_model_output`, where all states were asked for; in frozen CLIP with
            explicit prompts all of CLIP's own output.
    """

    image: torch.Tensor
    text: torch.Tensor
    rep: torch.Tensor | None = None
    frozen_image: torch.Tensor | None = None
    frozen_text: torch.Tensor | None = None
    outputs: dict[str, Any] = field(default_factory=dict)


def compute_features(
    clip: CLIPModel,
    images: dict[str, Any],
    frozen_image: torch.Tensor | None,
    classes: BoundClasses | ExplicitPrompts,
    forward_pass: ForwardPass,
    **kwargs: Any,
) -> Features:
    """Features of images and classes, by the running adapter, or by frozen CLIP where none runs.

    Args:
        clip: the base model with MMRL's towers.
        images: arguments of the vision tower.
        frozen_image: the images' features (B, d) in frozen CLIP, where they are known.
        classes: bound classes, whose shared work is done once, or explicit prompts, whose states are returned.
        forward_pass: what runs.
        kwargs: passed to both towers.
    """
    if forward_pass.is_frozen and isinstance(classes, ExplicitPrompts):
        (inputs,) = classes.text_inputs(clip.text_model)
        plain = clip(**images, **inputs, **kwargs, forward_pass=forward_pass, return_dict=True)
        return Features(plain.image_embeds, plain.text_embeds, outputs=plain)

    tower, projection = clip.vision_model, clip.visual_projection
    vision_pass = replace(forward_pass, with_frozen=forward_pass.with_frozen and frozen_image is None)
    vision = tower(**images, **kwargs, forward_pass=vision_pass, return_dict=True)
    image, rep = normalized(projection(vision.pooler_output)), None
    if not forward_pass.is_frozen:
        rep = normalized(tower.project_rep(forward_pass.adapter, vision.rep_pooler_output, projection))
    if vision_pass.with_frozen:
        with torch.no_grad():
            frozen_image = normalized(projection(vision.frozen_pooler_output))
    frozen_image = frozen_image.to(image) if forward_pass.with_frozen else None

    text, frozen_text, texts = text_features(clip, classes, forward_pass, **kwargs)
    outputs = {"vision_model_output": vision, "text_model_output": texts[-1]} if forward_pass.with_states else {}
    return Features(image, text, rep, frozen_image, frozen_text, outputs)


def text_features(
    clip: CLIPModel, classes: BoundClasses | ExplicitPrompts, forward_pass: ForwardPass, **kwargs: Any
) -> tuple[torch.Tensor, torch.Tensor | None, list[Any]]:
    """Features of classes (C, d), those in frozen CLIP where the pass asks for them, and the text tower's outputs for
    each template where it ran as a whole."""
    if not forward_pass.with_states and clip.text_model.can_share(clip.text_projection):
        return *class_features(clip, classes.prompts, forward_pass), []
    texts = [
        clip.text_model(**inputs, **kwargs, forward_pass=forward_pass, return_dict=True)
        for inputs in classes.text_inputs(clip.text_model)
    ]
    text, frozen_text = ensemble([clip.text_projection(output.pooler_output) for output in texts]), None
    if forward_pass.with_frozen:
        with torch.no_grad():
            frozen_text = ensemble([clip.text_projection(output.frozen_pooler_output) for output in texts])
    return text, frozen_text, texts


def image_states(
    clip: CLIPModel, adapter: str, pixel_values: torch.Tensor, interpolate_pos_encoding: bool
) -> dict[str, torch.Tensor]:
    """Of images what no training step changes: `trunk_states` (B, n, d_v) and `frozen_image_embeds` (B, d)."""
    tower = clip.vision_model
    first = tower.first_layer(adapter)
    inputs = {"pixel_values": pixel_values, "interpolate_pos_encoding": interpolate_pos_encoding}
    states = tower.run_trunk(inputs, first)
    frozen = normalized(clip.visual_projection(tower.frozen_pooled(states, first)))
    return {"trunk_states": states, "frozen_image_embeds": frozen}


# --- bound classes: what does not change is computed once --------------------------------------------------------


def class_features(
    clip: CLIPModel, prompts: Sequence[Prompts], forward_pass: ForwardPass
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Text features of bound classes (C, d), and those in frozen CLIP where the pass asks for them.

    Frozen features are computed once, adapted ones once as long as no gradients are asked for and the tokens T_i, of
    which alone they depend, stay the same to the bit.

    Args:
        clip: the base model with MMRL's towers.
        prompts: the class prompts of each template; the features of a class's templates are averaged.
        forward_pass: what runs.
    """
    tower, adapter = clip.text_model, forward_pass.adapter
    weights = weights_key(tower.base_layer, clip.text_projection)
    encoder = _PromptEncoder(tower, clip.text_projection, tower.first_layer(adapter), weights)
    frozen_text = None
    if forward_pass.with_frozen or forward_pass.is_frozen:
        frozen_text = ensemble([encoder.kept_features("frozen", weights, template, None) for template in prompts])
    if forward_pass.is_frozen:
        return frozen_text, None
    tokens = tower.tokens(adapter, forward_pass.beta)
    if torch.is_grad_enabled():
        features = [encoder.features(template, tokens) for template in prompts]
    else:
        key = weights, adapter, tokens.beta, content(tokens.values)
        features = [encoder.kept_features("adapted", key, template, tokens) for template in prompts]
    return ensemble(features), frozen_text


@dataclass
class _PromptEncoder:
    """Encodes class prompts, and keeps with them what will not change.

    Args:
        tower: the text tower.
        projection: the text projection.
        first: index of the first adapted layer.
        weights: `weights_key` of both.
    """

    tower: TextTower
    projection: nn.Module
    first: int
    weights: Hashable

    def features(self, prompts: Prompts, tokens: LayerTokens | None) -> torch.Tensor:
        """Features (C, d); `tokens=None`: in frozen CLIP."""
        return normalized(self.projection(self.tower.encode(self.trunk(prompts), tokens)))

    @torch.compiler.disable
    def kept_features(self, name: str, key: Hashable, prompts: Prompts, tokens: LayerTokens | None) -> torch.Tensor:
        """`features`, computed once for a key and kept under a name."""
        features = prompts.kept(name, key)
        if features is None:
            with torch.inference_mode(False), torch.no_grad():  # inference tensors would break a later backward pass
                features = prompts.keep(name, key, self.features(prompts, tokens))
        return features

    @torch.compiler.disable
    def trunk(self, prompts: Prompts) -> PromptTrunk:
        """States that enter the first adapted layer, computed once."""
        chunk_size = self.tower.chunk_size
        key = self.weights, self.first, chunk_size
        trunk = prompts.kept("trunk", key)
        if trunk is None:
            with torch.inference_mode(False), torch.no_grad():
                trunk = prompts.keep("trunk", key, self.tower.prompt_trunk(prompts, self.first, chunk_size))
        return trunk


@torch.compiler.disable
def weights_key(*modules: nn.Module) -> tuple[Any, ...]:
    """Another key when what frozen weights give may be another: loaded, moved or cast weights, autocast."""
    weights = [weight for module in modules for weight in module.parameters()]
    versions = tuple((_place(weight), 0 if weight.is_inference() else weight._version) for weight in weights)
    kind = weights[0].device.type
    autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    return weights[0].device, weights[0].dtype, autocast, versions


def _place(weight: torch.Tensor) -> int:
    try:
        return weight.data_ptr()
    except RuntimeError:  # a quantised weight that is made of several tensors
        return id(weight)


@torch.compiler.disable
def content(tensor: torch.Tensor) -> bytes:
    """A tensor's bytes. Version counters do not tell: fused optimizers and `.data` change weights without a trace."""
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()


def normalized(features: torch.Tensor) -> torch.Tensor:
    """L2-normalised features, in fp32 at least: logits of a scale of 100 are too coarse in half precision."""
    return normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


def ensemble(features: Sequence[torch.Tensor]) -> torch.Tensor:
    """Features (C, d) of each template -> one normalised feature per class: normalise, average, normalise."""
    normalised = [normalized(feature) for feature in features]
    return normalised[0] if len(normalised) == 1 else normalized(torch.stack(normalised).mean(dim=0))
