"""CLIP's text encoder with representation tokens, and how class prompts go through it without repeated work.

Shapes: C prompts of n tokens, a shared prefix of p tokens, K representation tokens, d the tower's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..outputs import MMRLTowerOutput
from ..prompts import Prompts
from .encoder_layer import attend_causally, attend_with_prefix, finish, project
from .forward_pass import ForwardPass, LayerTokens
from .text import PromptTrunk, TextTower, with_tokens_seen


class CLIPTextTower(TextTower):
    """CLIP's text encoder: [BOS, K representation tokens, rest of the prompt], causal, pooled at EOS."""

    layer_kwargs = {"is_causal": True}

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        forward_pass: ForwardPass | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """As `CLIPTextModel.forward`.

        Args:
            input_ids (`torch.Tensor` of shape `(B, n)`): token ids with BOS and EOS.
            attention_mask (`torch.Tensor` of shape `(B, n)`, *optional*): 1 for tokens, 0 for padding.
            position_ids (`torch.Tensor` of shape `(B, n)`, *optional*): positions of the prompt's own tokens;
                representation tokens have none.
            forward_pass: what runs, see `MMRLTower.run`.
        """
        kwargs.pop("is_causal", None)  # always, as in CLIPTextModel
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        return self.run(inputs, forward_pass, **kwargs)

    # --- class prompts: what they share is computed once --------------------------------------------------------

    def prompt_inputs(self, prompts: Prompts) -> dict[str, Any]:
        """Nothing sees the padding behind EOS, so there is no mask."""
        return {"input_ids": prompts.input_ids.to(self.device)}

    def can_share(self, *parts: nn.Module) -> bool:
        is_split = all(type(layer) in self.architecture.split_layers for layer in self.layers)
        return is_split and super().can_share(*parts)

    def prompt_trunk(self, prompts: Prompts, first: int, chunk_size: int) -> PromptTrunk:
        device = self.device
        start = prompts.prefix.to(device)
        chunks = [chunk.to(device) for chunk in prompts.chunks(chunk_size)]
        own = []
        for chunk in chunks:
            input_ids = torch.cat([start.expand(len(chunk.classes), -1), chunk.input_ids], dim=1)
            hidden = self.run_trunk({"input_ids": input_ids, "attention_mask": None, "position_ids": None}, first)
            prefix = hidden[:1, : len(start)].clone()  # the same in every chunk
            own.append(hidden[:, len(start) :].clone())
        return PromptTrunk(first, chunks, own, prefix)

    def encode(self, trunk: PromptTrunk, tokens: LayerTokens | None) -> torch.Tensor:
        """As declared in [`TextTower`].

        Nothing before the first word that differs sees anything that differs, so with a causal mask the prefix (BOS,
        representation tokens, shared words) is carried once, and every class adds only its own tokens. In the last
        layer only EOS has a query. With more than one chunk the backward pass computes each again.
        """
        layers = self.layers[trunk.first :]
        prefix, shared = trunk.prefix, []
        for index, layer in enumerate(layers, trunk.first):
            if tokens is not None:
                prefix = tokens.enter(prefix, index)
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
        return self.final_layer_norm(trunk.in_order(states))

    # --- pieces of the forward pass -------------------------------------------------------------------------------

    def trunk_modules(self) -> list[nn.Module]:
        return [self.embeddings]

    def embed(self, inputs: dict[str, Any]) -> torch.Tensor:
        return self.embeddings(input_ids=inputs["input_ids"], position_ids=inputs["position_ids"])

    def attention_mask(self, hidden: torch.Tensor, inputs: dict[str, Any], num_tokens: int) -> torch.Tensor | None:
        # The last parameter is a cache of keys and values, under a name that changes between releases.
        return create_causal_mask(self.config, hidden, with_tokens_seen(inputs["attention_mask"], num_tokens), None)

    def pool(self, hidden: torch.Tensor, inputs: dict[str, Any], num_tokens: int) -> MMRLTowerOutput:
        hidden = self.final_layer_norm(hidden)
        eos = self.architecture.eos_index(inputs["input_ids"].to(hidden.device), self.config)
        eos = torch.where(eos > 0, eos + num_tokens, eos)  # BOS stays where it is
        rows = torch.arange(len(hidden), device=hidden.device)
        return MMRLTowerOutput(last_hidden_state=hidden, pooler_output=hidden[rows, eos])


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
    given back, so that the heap keeps growing: by 2 GiB for 21,000 classes. There is no dropout, see [`MMRLTower`].
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
