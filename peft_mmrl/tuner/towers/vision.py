"""CLIP's vision encoder with representation tokens.

Shapes: B images of n tokens (CLS and patches), K representation tokens, d the tower's width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..config import MMRLConfig
from ..layer import RepProjection, ResidualRepProjection
from ..outputs import MMRLTowerOutput
from .architecture import Architecture
from .base import MMRLTower
from .encoder_layer import attend, finish, project
from .forward_pass import ForwardPass, LayerTokens, insert_tokens
from .text import TextTower


class VisionTower(MMRLTower):
    """CLIP's vision encoder: [CLS, K representation tokens, patches], pooled at CLS and over the tokens.

    Args:
        text_tower: the tower that holds R.
    """

    adapter_layer_names = ("mmrl_aligner", "mmrl_rep_projection")
    layers_field = "vision_layers"

    def __init__(
        self,
        base_layer: nn.Module,
        configs: Mapping[str, MMRLConfig],
        architecture: Architecture,
        text_tower: TextTower,
    ) -> None:
        super().__init__(base_layer, configs, architecture)
        self._text_tower = (text_tower,)  # in a tuple, so that R is registered once

    @classmethod
    def adapter_modules(cls, config: MMRLConfig, base_layer: nn.Module, projection_dim: int) -> dict[str, nn.Module]:
        modules = super().adapter_modules(config, base_layer, projection_dim)
        hidden_size = base_layer.config.hidden_size
        if config.proj_rank is None:
            projection = RepProjection(hidden_size, projection_dim)
        else:
            projection = ResidualRepProjection(hidden_size, projection_dim, config.proj_rank)
        return {**modules, "mmrl_rep_projection": projection}

    def rep_tokens(self, adapter: str) -> torch.Tensor:
        return self._text_tower[0].rep_tokens(adapter)

    def project_rep(self, adapter: str, pooled: torch.Tensor, visual_projection: nn.Module) -> torch.Tensor:
        """Mean representation token (B, d_v) -> representation feature f_r (B, d), not normalised."""
        return self.mmrl_rep_projection[adapter](pooled, visual_projection)

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        trunk_states: torch.Tensor | None = None,
        forward_pass: ForwardPass | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """As `CLIPVisionModel.forward`.

        Args:
            pixel_values (`torch.Tensor` of shape `(B, channels, height, width)`): processed images.
            interpolate_pos_encoding: resize the position embeddings to the images' size.
            trunk_states (`torch.Tensor` of shape `(B, n, d)`, *optional*): states that enter the first adapted layer,
                in the place of images.
            forward_pass: what runs, see `MMRLTower.run`.
        """
        if trunk_states is not None:
            return self.pooled(trunk_states.to(self.device, self.dtype), forward_pass)
        inputs = {"pixel_values": pixel_values, "interpolate_pos_encoding": interpolate_pos_encoding}
        return self.run(inputs, forward_pass, **kwargs)

    def adapted(self, inputs: dict[str, Any], forward_pass: ForwardPass, **kwargs: Any) -> MMRLTowerOutput:
        if forward_pass.with_states or self.is_recording(kwargs):
            return super().adapted(inputs, forward_pass, **kwargs)
        return self.pooled(self.run_trunk(inputs, self.first_layer(forward_pass.adapter), **kwargs), forward_pass)

    def pooled(self, trunk: torch.Tensor, forward_pass: ForwardPass) -> MMRLTowerOutput:
        """Pooled outputs of both passes without what they do not depend on.

        The first adapted layer projects CLS and patches once for both passes; the last layer has queries only for
        CLS and the K tokens, in the frozen pass only for CLS. The patches' last states are not computed.

        Args:
            trunk: states that enter the first adapted layer (B, n, d).
            forward_pass: what runs.
        """
        tokens = self.tokens(forward_pass.adapter, forward_pass.beta)
        return self.pooled_with(trunk, tokens, forward_pass.with_frozen)

    def pooled_with(self, trunk: torch.Tensor, tokens: LayerTokens, with_frozen: bool) -> MMRLTowerOutput:
        """`pooled` where the tokens T_i are known; lengths are taken of shapes, which `torch.export` can follow."""
        layer = self.layers[tokens.first]
        heads = shared = None
        if self.can_split(layer):
            shared = project(layer, trunk)
            own = project(layer, tokens.values[:1].to(trunk.dtype))
            heads = [_with_tokens(part, new) for part, new in zip(shared, own, strict=True)]
        output = self._upper_layers(trunk, tokens.first, tokens, heads)
        if with_frozen:
            output.frozen_pooler_output = self.frozen_pooled(trunk, tokens.first, shared)
        return output

    @torch.no_grad()
    def frozen_pooled(
        self, trunk: torch.Tensor, first: int, shared: Sequence[torch.Tensor] | None = None
    ) -> torch.Tensor:
        """What the frozen encoder pools (B, d) for states that enter layer `first` (B, n, d).

        Args:
            trunk: these states.
            first: index of the first adapted layer.
            shared: the states' queries, keys and values in that layer, where they are known.
        """
        return self._upper_layers(trunk, first, None, shared).pooler_output

    def _upper_layers(
        self,
        hidden: torch.Tensor,
        first: int,
        tokens: LayerTokens | None,
        heads: Sequence[torch.Tensor] | None,
    ) -> MMRLTowerOutput:
        """`upper_pass` as far as pooling needs it; `heads`: queries, keys and values in layer `first`, if known."""
        num_tokens = 0 if tokens is None else tokens.count
        layers = self.layers[first:]
        for index, layer in enumerate(layers, first):
            if tokens is not None:
                hidden = tokens.enter(hidden, index)
            num_queries = 1 + num_tokens if layer is layers[-1] else None
            known = heads if index == first else None
            if (num_queries is None and known is None) or not self.can_split(layer):
                hidden = layer(hidden, None)
            elif layer.gradient_checkpointing and layer.training and hidden.requires_grad:
                hidden = checkpoint(_in_pieces, layer, hidden, num_queries, known, use_reentrant=False)
            else:
                hidden = _in_pieces(layer, hidden, num_queries, known)
        return self.pool(hidden, {}, num_tokens)

    def trunk_modules(self) -> list[nn.Module]:
        return [self.embeddings, self.pre_layrnorm]

    def embed(self, inputs: dict[str, Any]) -> torch.Tensor:
        return self.pre_layrnorm(self.embeddings(**inputs))

    def attention_mask(self, hidden: torch.Tensor, inputs: dict[str, Any], num_tokens: int) -> None:
        return None

    def pool(self, hidden: torch.Tensor, inputs: dict[str, Any], num_tokens: int) -> MMRLTowerOutput:
        if not num_tokens:
            return MMRLTowerOutput(last_hidden_state=hidden, pooler_output=self.post_layernorm(hidden[:, 0]))
        pooled = self.post_layernorm(hidden[:, : 1 + num_tokens])
        return MMRLTowerOutput(
            last_hidden_state=hidden, pooler_output=pooled[:, 0], rep_pooler_output=pooled[:, 1:].mean(dim=1)
        )


def _with_tokens(part: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Heads (B, h, n, e) with those of the K tokens (1, h, K, e) behind the first position."""
    own = own.transpose(1, 2).expand(part.shape[0], -1, -1, -1)
    return insert_tokens(part.transpose(1, 2), own).transpose(1, 2)


def _in_pieces(
    layer: nn.Module, hidden: torch.Tensor, num_queries: int | None, heads: Sequence[torch.Tensor] | None
) -> torch.Tensor:
    """A layer without a mask, its modules called one by one.

    Args:
        layer: the encoder layer.
        hidden: its input (B, n, d).
        num_queries: how many of the first positions need an output; None: all.
        heads: queries, keys and values of `hidden`, where they are known.
    """
    wanted = hidden if num_queries is None else hidden[:, :num_queries]
    if heads is None:
        heads = project(layer, hidden, wanted)
    queries, keys, values = heads
    return finish(layer, wanted, attend(layer, (queries[:, :, : wanted.shape[1]], keys, values)))
