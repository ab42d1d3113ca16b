"""Which models MMRL adapts, and all that is said of each of them.

The method needs of a model

- a vision encoder with a class token, whose state a linear projection turns into the image's feature: training keeps
  that feature close to the frozen one, and the representation tokens get a projection of their own beside it;
- a text encoder that takes the text's feature from one token's state (which one, its tower says), and a projection;
- cosine similarity times `logit_scale.exp()`, trained with a softmax.

All models here name these parts as CLIPModel does: `vision_model`, `visual_projection`, `text_model`,
`text_projection`, `logit_scale`, and in the config `vision_config`, `text_config`, `projection_dim`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import (
    AltCLIPModel,
    ChineseCLIPModel,
    CLIPModel,
    MetaClip2Model,
    PreTrainedConfig,
    PreTrainedModel,
    Siglip2Model,
    SiglipModel,
)
from transformers.models.altclip.modeling_altclip import AltCLIPEncoderLayer
from transformers.models.chinese_clip.modeling_chinese_clip import ChineseCLIPVisionLayer
from transformers.models.clip.modeling_clip import CLIPEncoderLayer
from transformers.models.metaclip_2.modeling_metaclip_2 import MetaClip2EncoderLayer

from .bert import AltCLIPTextTower, ChineseCLIPTextTower
from .clip_text import CLIPTextTower
from .text import TextTower
from .vision import VisionTower


# --- where a prompt ends, and how long it may be -----------------------------------------------------------------


def first_eos(input_ids: torch.Tensor, text_config: PreTrainedConfig) -> torch.Tensor:
    """Position of the first EOS of each prompt, (B, n) -> (B,). A row without EOS gives 0."""
    return (input_ids == text_config.eos_token_id).int().argmax(dim=-1)


def clip_eos(input_ids: torch.Tensor, text_config: PreTrainedConfig) -> torch.Tensor:
    """As CLIPTextModel: the largest id where the config says 2, as those made before the EOS id was corrected do."""
    return input_ids.argmax(dim=-1) if text_config.eos_token_id == 2 else first_eos(input_ids, text_config)


def last_before_padding(input_ids: torch.Tensor, text_config: PreTrainedConfig) -> torch.Tensor:
    """Position of the last token that is no padding, for configs that name no EOS."""
    if text_config.eos_token_id is not None:
        return first_eos(input_ids, text_config)
    positions = torch.arange(input_ids.shape[-1], device=input_ids.device)
    return ((input_ids != text_config.pad_token_id) * positions).argmax(dim=-1)


def all_positions(text_config: PreTrainedConfig) -> int:
    """Every position takes a token."""
    return text_config.max_position_embeddings


def positions_behind_padding(text_config: PreTrainedConfig) -> int:
    """RoBERTa counts positions from behind the padding's id."""
    return text_config.max_position_embeddings - text_config.pad_token_id - 1


# --- the table -----------------------------------------------------------------------------------------------------

CLIP_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")
BERT_PROJECTIONS = ("self.query", "self.key", "self.value", "attention.output.dense")


@dataclass(frozen=True)
class Backbone:
    """One architecture. The defaults fit a CLIP under another name; they are right, if not fast.

    Args:
        text_model: the tower that takes the text encoder's place.
        vision_model: the tower that takes the vision encoder's place.
        split_layers: classes of encoder layers that are CLIP's under another name, with the same modules called in
            the same order: the short cuts call these modules one by one.
        eos_index: (prompts (B, n), text config) -> position of each prompt's last token (B,).
        context_length: text config -> number of tokens that a prompt may have.
        attention_projections: ends of the names of all linear layers around attention, for methods that adapt those.
    """

    text_model: type[TextTower] = CLIPTextTower
    vision_model: type[VisionTower] = VisionTower
    split_layers: tuple[type[nn.Module], ...] = ()
    eos_index: Callable[[torch.Tensor, PreTrainedConfig], torch.Tensor] = first_eos
    context_length: Callable[[PreTrainedConfig], int] = all_positions
    attention_projections: tuple[str, ...] = CLIP_PROJECTIONS

    @property
    def towers(self) -> dict[str, type[TextTower] | type[VisionTower]]:
        """The towers by the names of the encoders whose place they take."""
        return {"text_model": self.text_model, "vision_model": self.vision_model}


BACKBONES: dict[type[PreTrainedModel], Backbone] = {
    CLIPModel: Backbone(split_layers=(CLIPEncoderLayer,), eos_index=clip_eos),
    MetaClip2Model: Backbone(split_layers=(MetaClip2EncoderLayer,)),
    AltCLIPModel: Backbone(
        text_model=AltCLIPTextTower,
        split_layers=(AltCLIPEncoderLayer,),
        context_length=positions_behind_padding,
        attention_projections=CLIP_PROJECTIONS + BERT_PROJECTIONS,
    ),
    ChineseCLIPModel: Backbone(
        text_model=ChineseCLIPTextTower,
        split_layers=(ChineseCLIPVisionLayer,),
        eos_index=last_before_padding,
        attention_projections=CLIP_PROJECTIONS + BERT_PROJECTIONS,
    ),
}

_NO_CLASS_TOKEN = (
    "It has no class token: its image feature is pooled from all patches by attention, so that representation tokens "
    "would either be pooled with them or have no part in it, and there is no linear projection that theirs could be "
    "trained beside."
)
REFUSED: dict[type[PreTrainedModel], str] = {SiglipModel: _NO_CLASS_TOKEN, Siglip2Model: _NO_CLASS_TOKEN}


def backbone_of(model: nn.Module) -> Backbone:
    """What is said of a base model.

    Raises:
        ValueError: MMRL does not adapt such a model.
    """
    for model_cls, backbone in BACKBONES.items():
        if isinstance(model, model_cls):
            return backbone
    supported = ", ".join(f"`{model_cls.__name__}`" for model_cls in BACKBONES)
    reason = next((f" {text}" for model_cls, text in REFUSED.items() if isinstance(model, model_cls)), "")
    raise ValueError(
        f"MMRL adapts transformers' {supported} (any size); this base model is a {type(model).__name__}.{reason}"
    )


def backbone_of_text(text_config: PreTrainedConfig) -> Backbone:
    """What is said of the model that a text encoder with this config is a part of."""
    for model_cls, backbone in BACKBONES.items():
        if isinstance(text_config, model_cls.config_class.sub_configs["text_config"]):
            return backbone
    raise ValueError(f"MMRL adapts no model whose text encoder has a {type(text_config).__name__}.")


def eos_index(input_ids: torch.Tensor, text_config: PreTrainedConfig) -> torch.Tensor:
    """Position of the last token of each prompt, (B, n) -> (B,). A row without EOS gives 0."""
    return backbone_of_text(text_config).eos_index(input_ids, text_config)


def context_length(text_config: PreTrainedConfig) -> int:
    """Number of tokens that a prompt may have."""
    return backbone_of_text(text_config).context_length(text_config)
