"""A forward pass of the `PeftModel`: what it runs on, the checks of its inputs, and the way from features to loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import CLIPModel

from .classes import BoundClasses, ExplicitPrompts, class_weights
from .config import MMRLConfig
from .decision import Decision, decide, rows_of
from .features import compute_features
from .losses import decision_logits, mmrl_loss, similarity_logits
from .outputs import MMRLOutput
from .towers.backbones import context_length
from .towers.forward_pass import ForwardPass
from .validation import check_input_ids, check_num_items, check_pixel_values, check_states, check_targets


@dataclass(frozen=True)
class State:
    """What of the model's state one forward pass depends on, read once, so that every answer is of one state.

    Args:
        adapter: name of the active adapter.
        config: a copy of its config, whose coefficients may change at any time.
        classes: the classes bound to it; None: there are none.
        is_frozen: it is disabled.
        is_training: the model is in training mode.
        decision: what decides, in the place of fused and class logits; None: these.
    """

    adapter: str
    config: MMRLConfig
    classes: BoundClasses | None
    is_frozen: bool
    is_training: bool
    decision: Decision | None = None

    @property
    def compares(self) -> bool:
        """Whether a loss compares with the features of frozen CLIP."""
        return self.config.reg_weight > 0 and not self.is_frozen

    def needs_frozen(self, with_loss: bool) -> bool:
        """Whether the features of frozen CLIP are needed beside the adapted ones."""
        return self.decision is not None or (with_loss and self.compares)


@dataclass(frozen=True)
class Images:
    """Images as the vision tower takes them.

    Args:
        arguments: `pixel_values` (B, channels, height, width), or `trunk_states` (B, n, d_v) in their place.
        frozen: their features (B, d) in frozen CLIP, where they are known.
    """

    arguments: dict[str, Any]
    frozen: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(next(iter(self.arguments.values())))


def score(
    clip: CLIPModel,
    state: State,
    images: Images,
    classes: BoundClasses | ExplicitPrompts,
    labels: torch.Tensor | None,
    return_loss: bool | None,
    num_items_in_batch: torch.Tensor | int | None,
    **kwargs: Any,
) -> MMRLOutput:
    """Features, logits, decision and, with `labels` or `return_loss`, the loss.

    Args:
        clip: the base model with MMRL's towers.
        state: what runs.
        images: B checked images.
        classes: C bound classes or checked prompts.
        labels, return_loss, num_items_in_batch, kwargs: as for the model's `forward`.
    """
    config, is_bound = state.config, isinstance(classes, BoundClasses)
    check_targets(labels, return_loss, len(images), len(classes), has_captions=not is_bound)
    labels = None if labels is None else labels.to(clip.device, torch.long)
    weights = None if labels is None or state.is_frozen else class_weights(config, classes)
    with_loss = labels is not None or bool(return_loss)
    decision = state.decision
    # A decision on frozen features needs no adapted layer; the loss does, and so do states that enter one.
    only_frozen = decision is not None and decision.features == "frozen" and not with_loss and images.frozen is None
    forward_pass = ForwardPass(
        state.adapter,
        config.beta,
        is_frozen=state.is_frozen or only_frozen,
        with_frozen=state.needs_frozen(with_loss) and not only_frozen,
        with_states=not is_bound or is_recording(clip, kwargs),
    )
    features = compute_features(clip, images.arguments, images.frozen, classes, forward_pass, **kwargs)
    class_logits, rep_logits = similarity_logits(features, clip.logit_scale.exp())
    if state.is_frozen and not is_bound:
        class_logits = features.outputs["logits_per_image"]  # CLIP's own, bit for bit
    if state.is_training:
        seen = [True] * len(classes)
    else:  # an adapter without trained classes has a representation projection that is still random
        seen = classes.seen if config.classes is not None else [False] * len(classes)
    logits = decision_logits(class_logits, rep_logits, torch.tensor(seen, device=class_logits.device), config.alpha)
    if decision is not None:
        frozen = (features.image, features.text) if only_frozen else (features.frozen_image, features.frozen_text)
        weights_of_logits = config.alpha, config.zero_shot_weight
        scale = clip.logit_scale.exp()
        logits = decide(decision, rows_of(classes), *frozen, class_logits, rep_logits, scale, *weights_of_logits)

    losses = {}
    if with_loss:
        if not state.compares:
            features = replace(features, frozen_image=None, frozen_text=None)
        coefficients = config.alpha, config.reg_weight, config.label_smoothing
        losses = mmrl_loss(class_logits, rep_logits, labels, features, *coefficients, weights)
    if labels is not None and num_items_in_batch is not None:
        check_num_items(num_items_in_batch)
        losses["loss"] = losses["loss"] * len(labels) / num_items_in_batch
    return MMRLOutput(
        logits_per_image=logits,
        logits_per_text=logits.T,
        text_embeds=features.text,
        image_embeds=features.image,
        text_model_output=features.outputs.get("text_model_output"),
        vision_model_output=features.outputs.get("vision_model_output"),
        logits=logits,
        class_logits=class_logits,
        rep_logits=rep_logits,
        rep_image_embeds=features.rep,
        **losses,
    )


def is_recording(clip: CLIPModel, kwargs: dict[str, Any]) -> bool:
    """Whether hidden states or attentions of either tower are asked for."""
    return any(tower.is_recording(kwargs) for tower in (clip.vision_model, clip.text_model))


def checked_images(clip: CLIPModel, pixel_values: Any, interpolate_pos_encoding: bool) -> Images:
    """Images from `pixel_values`.

    Raises:
        ValueError: they do not fit the base model.
    """
    check_pixel_values(pixel_values, clip.config.vision_config)
    return Images({"pixel_values": pixel_values, "interpolate_pos_encoding": interpolate_pos_encoding})


def checked_states(
    clip: CLIPModel, state: State, trunk_states: Any, frozen_image_embeds: Any, with_loss: bool, kwargs: dict[str, Any]
) -> Images:
    """Images from what `image_states` gave for them.

    Raises:
        ValueError: they cannot take the place of images.
    """
    check_states(clip, trunk_states, frozen_image_embeds, state.needs_frozen(with_loss), state.is_frozen)
    if is_recording(clip, kwargs):
        raise ValueError(
            "`output_hidden_states` and `output_attentions` need `pixel_values`: `trunk_states` hold no states of the "
            "layers below the first adapted one."
        )
    return Images({"trunk_states": trunk_states}, frozen_image_embeds)


def checked_prompts(
    clip: CLIPModel,
    config: MMRLConfig,
    input_ids: Any,
    attention_mask: Any,
    position_ids: Any,
    token_type_ids: Any = None,
) -> ExplicitPrompts:
    """Prompts from `input_ids`, which may have leading dimensions, as in CLIPModel; so may what goes with them.

    Raises:
        ValueError: they do not fit the base model.
    """
    text_config = clip.config.text_config
    inputs = input_ids, attention_mask, position_ids, token_type_ids
    check_input_ids(*inputs, text_config, context_length(text_config))
    num_tokens = input_ids.shape[-1]
    rows = (None if given is None else given.reshape(-1, num_tokens) for given in inputs)
    return ExplicitPrompts(*rows, config, text_config)
