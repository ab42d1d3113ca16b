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

from .architecture import (
    BERT_PROJECTIONS,
    CLIP_PROJECTIONS,
    Architecture,
    clip_eos,
    last_before_padding,
    positions_behind_padding,
)
from .bert import AltCLIPTextTower, ChineseCLIPTextTower
from .clip_text import CLIPTextTower
from .text import TextTower
from .vision import VisionTower


@dataclass(frozen=True)
class Backbone(Architecture):
    """A row of the table: facts and towers.

    Args:
        text_model: the tower that takes the text encoder's place.
        vision_model: the tower that takes the vision encoder's place.
    """

    text_model: type[TextTower] = CLIPTextTower
    vision_model: type[VisionTower] = VisionTower

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
