"""CLIP's text encoder with representation tokens, and how class prompts go through it without repeated work.

Shapes: C prompts of n tokens, a shared prefix of p tokens, K representation tokens, d the tower's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..config import MMRLConfig
from ..layer import RepTokens
from ..outputs import MMRLTowerOutput
from ..prompts import PromptChunk, Prompts, eos_index
from .base import MMRLTower, insert_tokens, replace_tokens
from .encoder_layer import attend_causally, attend_with_prefix, can_split, finish, project


@dataclass
class PromptTrunk:
    """States of class prompts that enter the first adapted layer.

    Args:
        prefix: of the shared prefix (1, p, d).
        chunks: the classes, in chunks of like length.
        own: of each chunk's own tokens (c, m, d).
    """

    prefix: torch.Tensor
    chunks: list[PromptChunk]
    own: list[torch.Tensor]


class MMRLTextTower(MMRLTower):
    """CLIP's text encoder: [BOS, K representation tokens, rest of the prompt], causal, pooled at EOS. Holds R."""

    adapter_layer_names = ("mmrl_rep_tokens", "mmrl_aligner")
    layers_field = "text_layers"
    layer_kwargs = {"is_causal": True}
    chunk_size = 1024  # class prompts that are encoded at a time, see `PeftModel...text_chunk_size`

    @classmethod
    def adapter_modules(cls, config: MMRLConfig, base_layer: nn.Module, projection_dim: int) -> dict[str, nn.Module]:
        modules = super().adapter_modules(config, base_layer, projection_dim)
        return {"mmrl_rep_tokens": RepTokens(config.num_rep_tokens, config.rep_dim), **modules}

    def rep_tokens(self, adapter: str) -> torch.Tensor:
        return self.mmrl_rep_tokens[adapter]()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        with_frozen: bool = False,
        extended: bool = False,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """As `CLIPTextModel.forward`.

        Args:
            input_ids (`torch.Tensor` of shape `(B, n)`): token ids with BOS and EOS.
            attention_mask (`torch.Tensor` of shape `(B, n)`, *optional*): 1 for tokens, 0 for padding.
            position_ids (`torch.Tensor` of shape `(B, n)`, *optional*): positions of the prompt's own tokens;
                representation tokens have none.
            with_frozen: also run the frozen encoder, for `frozen_pooler_output`.
            extended: return a [`MMRLTowerOutput`].
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        return self.run_prompts(inputs, with_frozen, extended, **kwargs)

    def run_prompts(
        self, inputs: dict[str, Any], with_frozen: bool, extended: bool, **kwargs: Any
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """The frozen encoder's own forward where no adapter runs, else `run`."""
        if self.running_adapter is None:
            return self.base_layer(**inputs, **kwargs)
        input_ids = inputs["input_ids"]
        if input_ids is None:
            raise ValueError("`input_ids` must be given.")
        kwargs.pop("is_causal", None)
        inputs["input_ids"] = input_ids.view(-1, input_ids.shape[-1])
        return self.run(inputs, with_frozen, extended, **kwargs)

    def prompt_inputs(self, prompts: Prompts) -> dict[str, Any]:
        """Arguments of `forward` for class prompts. Nothing sees the padding behind EOS, so there is no mask."""
        return {"input_ids": prompts.input_ids.to(self.device)}

    # --- class prompts: what they share is computed once --------------------------------------------------------

    def can_share(self, *parts: nn.Module) -> bool:
        """Whether `encode` may be used: layers that can be called in pieces, and frozen weights.

        Args:
            parts: further modules whose weights must be frozen.
        """
        weights = (weight for part in (self.base_layer, *parts) for weight in part.parameters())
        return all(map(can_split, self.layers)) and not any(weight.requires_grad for weight in weights)

    @torch.compiler.disable
    def prompt_trunk(self, prompts: Prompts) -> PromptTrunk:
        """States of class prompts that enter the first adapted layer, kept until what they depend on changes."""
        first, chunk_size = self.first_layer, self.chunk_size
        key = self.state_key(), first, chunk_size
        return prompts.cached("trunk", key, lambda: self._compute_trunk(prompts, first, chunk_size))

    def encode(self, trunk: PromptTrunk, tokens: torch.Tensor | None) -> torch.Tensor:
        """Pooled states (C, d) of class prompts; same as `forward`, without repeated work.

        Nothing before the first word that differs sees anything that differs, so with a causal mask the prefix (BOS,
        representation tokens, shared words) is carried once, and every class adds only its own tokens. In the last
        layer only EOS has a query. With more than one chunk the backward pass computes each again.

        Args:
            trunk: the prompts' states that enter the first adapted layer, which never change.
            tokens: T_i of the running adapter (L, K, d); None: frozen CLIP.
        """
        config = self.configs[self.active_adapters[0]]
        adapted = self.layers_of(config, self.base_layer)
        first = adapted[0]
        layers = self.layers[first:]
        prefix, shared = trunk.prefix, []
        for index, layer in enumerate(layers, first):
            if tokens is not None and index in adapted:
                own = tokens[adapted.index(index)].to(prefix.dtype).unsqueeze(0)  # (1, K, d)
                prefix = insert_tokens(prefix, own) if index == first else replace_tokens(prefix, own, config.beta)
            heads = project(layer, prefix)
            shared += heads[1:]
            if layer is not layers[-1]:
                prefix = finish(layer, prefix, attend_causally(layer, heads))

        encode_chunk = _encode_chunk
        is_checkpointing = layers[0].gradient_checkpointing and layers[0].training
        if torch.is_grad_enabled() and (len(trunk.chunks) > 1 or is_checkpointing):
            encode_chunk = (
                partial(checkpoint, _encode_chunk, use_reentrant=False)
                if torch.compiler.is_compiling()  # cannot trace the other
                else _RecomputedChunk.apply
            )
        states = [
            encode_chunk(layers, own, chunk.eos, *shared) for chunk, own in zip(trunk.chunks, trunk.own, strict=True)
        ]
        order = torch.cat([chunk.classes for chunk in trunk.chunks])
        return self.final_layer_norm(torch.cat(states)[order.argsort()])

    def _compute_trunk(self, prompts: Prompts, first: int, chunk_size: int) -> PromptTrunk:
        """States of class prompts that enter layer `first`."""
        device = self.device
        start = prompts.prefix.to(device)
        trunk = PromptTrunk(torch.empty(0), [chunk.to(device) for chunk in prompts.chunks(chunk_size)], [])
        for chunk in trunk.chunks:
            input_ids = torch.cat([start.expand(len(chunk.classes), -1), chunk.input_ids], dim=1)
            hidden = self.run_trunk({"input_ids": input_ids, "attention_mask": None, "position_ids": None}, first)
            trunk.prefix = hidden[:1, : len(start)].clone()  # the same in every chunk
            trunk.own.append(hidden[:, len(start) :].clone())
        return trunk

    @torch.compiler.disable
    def state_key(self, *parts: nn.Module) -> tuple[Any, ...]:
        """Another key when what frozen weights give may be another: loaded, moved or cast weights, autocast.

        Args:
            parts: further frozen modules that the result depends on.
        """
        weights = [weight for part in (self.base_layer, *parts) for weight in part.parameters()]
        versions = tuple((weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in weights)
        kind = weights[0].device.type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        return weights[0].device, weights[0].dtype, autocast, versions

    def trunk_modules(self) -> list[nn.Module]:
        return [self.embeddings]

    def embed(self, inputs: dict[str, Any]) -> torch.Tensor:
        return self.embeddings(input_ids=inputs["input_ids"], position_ids=inputs["position_ids"])

    def attention_mask(self, hidden: torch.Tensor, inputs: dict[str, Any], num_tokens: int) -> torch.Tensor | None:
        # The last parameter is a cache of keys and values, under a name that changes between releases.
        return create_causal_mask(self.config, hidden, with_tokens_seen(inputs["attention_mask"], num_tokens), None)

    def pool(self, hidden: torch.Tensor, inputs: dict[str, Any], num_tokens: int) -> MMRLTowerOutput:
        hidden = self.final_layer_norm(hidden)
        eos = eos_index(inputs["input_ids"].to(hidden.device), self.config)
        eos = torch.where(eos > 0, eos + num_tokens, eos)  # BOS stays where it is
        rows = torch.arange(len(hidden), device=hidden.device)
        return MMRLTowerOutput(last_hidden_state=hidden, pooler_output=hidden[rows, eos])


def with_tokens_seen(mask: torch.Tensor | None, num_tokens: int) -> torch.Tensor | None:
    """An attention mask (B, n), 1 for tokens and 0 for padding, for states with K representation tokens (B, n + K)."""
    if mask is None or not num_tokens:
        return mask
    return insert_tokens(mask, mask.new_ones(len(mask), num_tokens))


def _encode_chunk(
    layers: Sequence[nn.Module], own: torch.Tensor, eos: torch.Tensor, *shared: torch.Tensor
) -> torch.Tensor:
    """Own states of a chunk (c, m, d), and keys and values of the prefix in each layer -> states at EOS (c, d)."""
    for index, layer in enumerate(layers):
        prefix = shared[2 * index : 2 * index + 2]
        if index < len(layers) - 1:
            own = finish(layer, own, attend_with_prefix(layer, project(layer, own), prefix, None))
        else:
            at_eos = own[torch.arange(len(own), device=own.device), eos].unsqueeze(1)  # (c, 1, d)
            own = finish(layer, at_eos, attend_with_prefix(layer, project(layer, own, at_eos), prefix, eos))
    return own.squeeze(1)


class _RecomputedChunk(torch.autograd.Function):
    """`_encode_chunk` that keeps its arguments alone and computes the rest again in the backward pass.

    `torch.utils.checkpoint` keeps a node for every operation. On a CPU these lie between the large blocks that are
    given back, so that the heap keeps growing: by 2 GiB for 21,000 classes. There is no dropout, see `can_split`.
    """

    @staticmethod
    def forward(
        ctx: Any, layers: Sequence[nn.Module], own: torch.Tensor, eos: torch.Tensor, *shared: torch.Tensor
    ) -> torch.Tensor:
        kind = own.device.type
        ctx.autocast = kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        ctx.layers = layers
        ctx.save_for_backward(own, eos, *shared)
        return _encode_chunk(layers, own, eos, *shared)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        own, eos, *shared = ctx.saved_tensors
        shared = [states.detach().requires_grad_() for states in shared]
        with torch.enable_grad(), torch.autocast(*ctx.autocast):
            states = _encode_chunk(ctx.layers, own, eos, *shared)
        return None, None, None, *torch.autograd.grad(states, shared, grad)
