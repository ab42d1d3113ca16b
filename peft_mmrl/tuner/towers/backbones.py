"""Which models MMRL adapts, and which towers each of them takes.

The method needs of a model

- a vision encoder with a class token, whose state a linear projection turns into the image's feature: training keeps
  that feature close to the frozen one, and the representation tokens get a projection of their own beside it;
- a text encoder that takes the text's feature from one token's state (which one, its tower says), and a projection;
- cosine similarity times `logit_scale.exp()`, trained with a softmax.

All models here name these parts as CLIPModel does: `vision_model`, `visual_projection`, `text_model`,
`text_projection`, `logit_scale`, and in the config `vision_config`, `text_config`, `projection_dim`.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn
from transformers import (
    AltCLIPModel,
    ChineseCLIPModel,
    CLIPModel,
    MetaClip2Model,
    PreTrainedModel,
    Siglip2Model,
    SiglipModel,
)

from .bert import AltCLIPTextTower, ChineseCLIPTextTower
from .text import MMRLTextTower
from .vision import MMRLVisionTower


class Towers(NamedTuple):
    """Towers that take the place of a model's two encoders, under the encoders' names."""

    text_model: type[MMRLTextTower] = MMRLTextTower
    vision_model: type[MMRLVisionTower] = MMRLVisionTower


BACKBONES: dict[type[PreTrainedModel], Towers] = {
    CLIPModel: Towers(),
    MetaClip2Model: Towers(),
    AltCLIPModel: Towers(text_model=AltCLIPTextTower),
    ChineseCLIPModel: Towers(text_model=ChineseCLIPTextTower),
}

_NO_CLASS_TOKEN = (
    " It has no class token: its image feature is pooled from all patches by attention, so that representation tokens "
    "would either be pooled with them or have no part in it, and there is no linear projection that theirs could be "
    "trained beside."
)
REASONS: dict[type[PreTrainedModel], str] = {SiglipModel: _NO_CLASS_TOKEN, Siglip2Model: _NO_CLASS_TOKEN}


def towers_for(model: nn.Module) -> Towers:
    """The towers that a base model takes.

    Raises:
        ValueError: MMRL does not adapt such a model.
    """
    for model_cls, towers in BACKBONES.items():
        if isinstance(model, model_cls):
            return towers
    supported = ", ".join(f"`{model_cls.__name__}`" for model_cls in BACKBONES)
    reason = next((text for model_cls, text in REASONS.items() if isinstance(model, model_cls)), "")
    raise ValueError(
        f"MMRL adapts transformers' {supported} (any size); this base model is a {type(model).__name__}.{reason}"
    )
