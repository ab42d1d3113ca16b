"""Text encoders with representation tokens: what those that are causal (clip_text.py) and BERTs (bert.py) share.

Shapes: C prompts of n tokens, a shared prefix of p tokens, K representation tokens, d the tower's width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..config import MMRLConfig
from ..layer import RepTokens
from ..prompts import PromptChunk, Prompts
from .base import MMRLTower
from .encoder_layer import has_hooks
from .forward_pass import ForwardPass, LayerTokens, insert_tokens


@dataclass
class PromptTrunk:
    """States of class prompts that enter the first adapted layer. They never change.

    Args:
        first: index of that layer.
        chunks: the classes, in chunks of like length.
        own: states of each chunk's own tokens (c, m, d).
        prefix: states of the prefix that all prompts share (1, p, d); None where none is shared.
    """

    first: int
    chunks: list[PromptChunk]
    own: list[torch.Tensor]
    prefix: torch.Tensor | None = None

    def in_order(self, states: Sequence[torch.Tensor]) -> torch.Tensor:
        """What was computed of each chunk's classes (c, ...), in the order of the classes (C, ...)."""
        order = torch.cat([chunk.classes for chunk in self.chunks])
        return torch.cat(list(states))[order.argsort()]


class TextTower(MMRLTower):
    """A text encoder. Holds R."""

    adapter_layer_names = ("mmrl_rep_tokens", "mmrl_aligner")
    layers_field = "text_layers"
    chunk_size = 1024  # class prompts that are encoded at a time, see `PeftModel...text_chunk_size`

    @classmethod
    def adapter_modules(cls, config: MMRLConfig, base_layer: nn.Module, projection_dim: int) -> dict[str, nn.Module]:
        modules = super().adapter_modules(config, base_layer, projection_dim)
        return {"mmrl_rep_tokens": RepTokens(config.num_rep_tokens, config.rep_dim), **modules}

    def rep_tokens(self, adapter: str) -> torch.Tensor:
        return self.mmrl_rep_tokens[adapter]()

    def run(
        self, inputs: dict[str, Any], forward_pass: ForwardPass | None, **kwargs: Any
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        if inputs["input_ids"] is not None:
            inputs["input_ids"] = inputs["input_ids"].view(-1, inputs["input_ids"].shape[-1])
        return super().run(inputs, forward_pass, **kwargs)

    # --- class prompts ------------------------------------------------------------------------------------------

    @abstractmethod
    def prompt_inputs(self, prompts: Prompts) -> dict[str, Any]:
        """Arguments of `forward` for class prompts."""

    def can_share(self, *parts: nn.Module) -> bool:
        """Whether work on class prompts may be shared and kept: frozen weights, and no hook that would miss calls.

        Args:
            parts: further modules whose weights must be frozen.
        """
        weights = (weight for part in (self.base_layer, *parts) for weight in part.parameters())
        return not has_hooks(self) and not any(weight.requires_grad for weight in weights)

    @abstractmethod
    def prompt_trunk(self, prompts: Prompts, first: int, chunk_size: int) -> PromptTrunk:
        """States of class prompts that enter layer `first`, in chunks of at most `chunk_size` classes."""

    @abstractmethod
    def encode(self, trunk: PromptTrunk, tokens: LayerTokens | None) -> torch.Tensor:
        """Pooled states (C, d) of class prompts; same as `forward`, without repeated work.

        Args:
            trunk: the prompts' states that enter the first adapted layer.
            tokens: those of the running adapter; None: frozen CLIP.
        """


def with_tokens_seen(mask: torch.Tensor | None, num_tokens: int) -> torch.Tensor | None:
    """An attention mask (B, n), 1 for tokens and 0 for padding, for states with K representation tokens (B, n + K)."""
    if mask is None or not num_tokens:
        return mask
    return insert_tokens(mask, mask.new_ones(len(mask), num_tokens))
