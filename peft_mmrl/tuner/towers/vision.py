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
from .base import MMRLTower, insert_tokens, replace_tokens
from .encoder_layer import attend, can_split, finish, project
from .text import MMRLTextTower


class MMRLVisionTower(MMRLTower):
    """CLIP's vision encoder: [CLS, K representation tokens, patches], pooled at CLS and over the tokens.

    Args:
        text_tower: the tower that holds R.
    """

    adapter_layer_names = ("mmrl_aligner", "mmrl_rep_projection")
    layers_field = "vision_layers"

    def __init__(self, base_layer: nn.Module, configs: Mapping[str, MMRLConfig], text_tower: MMRLTextTower) -> None:
        super().__init__(base_layer, configs)
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

    def project_rep(self, pooled: torch.Tensor, visual_projection: nn.Module) -> torch.Tensor:
        """Mean representation token (B, d_v) -> representation feature f_r (B, d), not normalised."""
        return self.mmrl_rep_projection[self.running_adapter](pooled, visual_projection)

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        with_frozen: bool = False,
        extended: bool = False,
        pooled_only: bool = False,
        trunk_states: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """As `CLIPVisionModel.forward`.

        Args:
            pixel_values (`torch.Tensor` of shape `(B, channels, height, width)`): processed images.
            interpolate_pos_encoding: resize the position embeddings to the images' size.
            with_frozen: also run the frozen encoder, for `frozen_pooler_output`.
            extended: return a [`MMRLTowerOutput`].
            pooled_only: the states of all patches are not needed; implies `extended`.
            trunk_states (`torch.Tensor` of shape `(B, n, d)`, *optional*): states that enter the first adapted layer,
                in the place of images; implies `pooled_only`.
        """
        if trunk_states is not None:
            trunk_states = trunk_states.to(self.device, self.dtype)
            return self.pooled_only(trunk_states, with_frozen)
        inputs = {"pixel_values": pixel_values, "interpolate_pos_encoding": interpolate_pos_encoding}
        if self.running_adapter is None:
            return self.base_layer(**inputs, **kwargs)
        if pixel_values is None:
            raise ValueError("`pixel_values` must be given.")
        if pooled_only and not self.is_recording(kwargs) and all(map(can_split, self.layers)):
            return self.pooled_only(self.run_trunk(inputs, self.first_layer), with_frozen)
        return self.run(inputs, with_frozen, extended, **kwargs)

    def pooled_only(self, trunk: torch.Tensor, with_frozen: bool) -> MMRLTowerOutput:
        """Pooled outputs of both passes without what they do not depend on.

        The first adapted layer projects CLS and patches once for both passes; the last layer has queries only for
        CLS and the K tokens, in the frozen pass only for CLS. The patches' last states are not computed.

        Args:
            trunk: states that enter the first adapted layer (B, n, d).
            with_frozen: also run the frozen encoder.
        """
        adapter = self.running_adapter
        config = self.configs[adapter]
        adapted = self.layers_of(config, self.base_layer)
        tokens = self.tokens(adapter)  # (L, K, d)
        num_tokens, first = tokens.shape[1], adapted[0]
        layers = self.layers[first:]

        shared = project(layers[0], trunk)
        own = tokens[0].to(trunk.dtype).unsqueeze(0)  # (1, K, d)
        heads = [
            insert_tokens(part.transpose(1, 2), new.transpose(1, 2).expand(len(part), -1, -1, -1)).transpose(1, 2)
            for part, new in zip(shared, project(layers[0], own), strict=True)
        ]
        hidden = insert_tokens(trunk, own.expand(len(trunk), -1, -1))  # (B, n + K, d)
        for index, layer in enumerate(layers, first):
            if index in adapted[1:]:
                new = tokens[adapted.index(index)].to(hidden.dtype).expand(len(hidden), -1, -1)
                hidden = replace_tokens(hidden, new, config.beta)
            num_queries = 1 + num_tokens if layer is layers[-1] else None
            hidden = _run_layer(layer, hidden, num_queries, heads if index == first else None)
        output = self.pool(hidden, {}, num_tokens)
        if with_frozen:
            output.frozen_pooler_output = self.frozen_pooled(trunk, shared)
        return output

    @torch.no_grad()
    def frozen_pooled(self, trunk: torch.Tensor, shared: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
        """What the frozen encoder pools (B, d) for states that enter the first adapted layer (B, n, d).

        Args:
            trunk: these states.
            shared: their queries, keys and values in that layer, where they are known.
        """
        layers = self.layers[self.first_layer :]
        for index, layer in enumerate(layers):
            trunk = _run_layer(layer, trunk, 1 if layer is layers[-1] else None, None if index else shared)
        return self.pool(trunk, {}, 0).pooler_output

    def trunk_modules(self) -> list[nn.Module]:
        return [self.embeddings, self.pre_layrnorm]

    def embed(self, inputs: dict[str, Any]) -> torch.Tensor:
        return self.pre_layrnorm(self.embeddings(**inputs))

    def attention_mask(self, hidden: torch.Tensor, inputs: dict[str, Any], num_tokens: int) -> None:
        return None

    def pool(self, hidden: torch.Tensor, inputs: dict[str, Any], num_tokens: int) -> MMRLTowerOutput:
        rep = self.post_layernorm(hidden[:, 1 : 1 + num_tokens]).mean(dim=1) if num_tokens else None
        return MMRLTowerOutput(
            last_hidden_state=hidden, pooler_output=self.post_layernorm(hidden[:, 0]), rep_pooler_output=rep
        )


def _run_layer(
    layer: nn.Module, hidden: torch.Tensor, num_queries: int | None, heads: Sequence[torch.Tensor] | None
) -> torch.Tensor:
    """A layer without a mask, in pieces only where that saves something.

    Args:
        layer: the encoder layer.
        hidden: its input (B, n, d).
        num_queries: how many of the first positions need an output; None: all.
        heads: queries, keys and values of `hidden`, where they are known.
    """
    if num_queries is None and heads is None:
        return layer(hidden, None)
    if layer.gradient_checkpointing and layer.training and hidden.requires_grad:
        return checkpoint(_run_pieces, layer, hidden, num_queries, heads, use_reentrant=False)
    return _run_pieces(layer, hidden, num_queries, heads)


def _run_pieces(
    layer: nn.Module, hidden: torch.Tensor, num_queries: int | None, heads: Sequence[torch.Tensor] | None
) -> torch.Tensor:
    wanted = hidden if num_queries is None else hidden[:, :num_queries]
    if heads is None:
        queries, keys, values = project(layer, hidden, wanted)
    else:
        queries, keys, values = heads
        queries = queries[:, :, : wanted.shape[1]]
    return finish(layer, wanted, attend(layer, (queries, keys, values)))
