"""What the towers and the model return."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPOutput


@dataclass
class MMRLTowerOutput(BaseModelOutputWithPooling):
    """Output of a tower: transformers' fields, and what the method adds.

    Args:
        rep_pooler_output (`torch.Tensor` of shape `(B, d)`): mean of the K normalised representation tokens (vision).
        frozen_pooler_output (`torch.Tensor` of shape `(B, d)`): what the frozen encoder pools for the same input.
    """

    rep_pooler_output: torch.Tensor | None = None
    frozen_pooler_output: torch.Tensor | None = None


@dataclass
class MMRLOutput(CLIPOutput):
    """Output of [`PeftModelForZeroShotImageClassification`], for B images and C classes, joint width d.

    The fields of transformers' `CLIPOutput` come first, with their meaning there; `logits_per_image` is the
    decision, `image_embeds` and `text_embeds` are normalised. `text_model_output` and `vision_model_output` are
    filled with explicit `input_ids` and where hidden states or attentions were asked for.

    Args:
        logits (`torch.Tensor` of shape `(B, C)`): the decision, same as `logits_per_image`. Where one was fitted
            (`fit_decision`), in eval mode: log-probabilities up to a constant, not image times text.
        class_logits (`torch.Tensor` of shape `(B, C)`): by the class feature; with a decision on frozen features, and
            without a loss, those of frozen CLIP.
        rep_logits (`torch.Tensor` of shape `(B, C)`): by the representation feature; None where frozen CLIP runs.
        rep_image_embeds (`torch.Tensor` of shape `(B, d)`): normalised representation features.
        loss_class (`torch.Tensor`): cross entropy (or contrastive loss) of the class logits, unweighted scalar.
        loss_rep (`torch.Tensor`): the same of the representation logits.
        loss_image_reg (`torch.Tensor`): 1 - mean cosine of class and frozen image features; None if `reg_weight` is 0.
        loss_text_reg (`torch.Tensor`): 1 - mean cosine of class and frozen text features; None if `reg_weight` is 0.
    """

    logits: torch.Tensor | None = None
    class_logits: torch.Tensor | None = None
    rep_logits: torch.Tensor | None = None
    rep_image_embeds: torch.Tensor | None = None
    loss_class: torch.Tensor | None = None
    loss_rep: torch.Tensor | None = None
    loss_image_reg: torch.Tensor | None = None
    loss_text_reg: torch.Tensor | None = None
