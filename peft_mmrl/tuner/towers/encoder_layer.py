"""CLIP's encoder layers in pieces, so that what no feature depends on is left out. Exact, and for frozen layers only.

A whole layer is `hidden + out_proj(attention(LN1(hidden)))`, then the same with the MLP. Calling its modules one by
one allows to project some positions once for several uses, and to ask for the output of a few positions.

Shapes: B rows, n positions, m of them with output, h heads of width e, d = h e.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.modeling_clip import CLIPEncoderLayer, eager_attention_forward
from transformers.utils import output_capturing


Heads = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # queries (B, h, m, e), keys and values (B, h, n, e)


def has_hooks(module: nn.Module) -> bool:
    """Whether anything hangs on a module, or on a part of it, that wants to see whole calls with all positions.

    Users put hooks there (Grad-CAM, feature extraction, observers), FSDP and offloading do, or they replace `forward`.
    """
    return any(_is_watched(part) for part in module.modules())


def _is_watched(module: nn.Module) -> bool:
    return bool(
        module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
        or any(not _is_of_transformers(hook) for hook in module._forward_hooks.values())
    )


def _is_of_transformers(hook: Callable[..., Any]) -> bool:
    """What transformers leaves behind once hidden states were asked for, or for gradient checkpointing."""
    return hook.__module__ == output_capturing.__name__ or "make_inputs_require_grad" in getattr(hook, "__name__", "")


def project(layer: CLIPEncoderLayer, hidden: torch.Tensor, queries: torch.Tensor | None = None) -> Heads:
    """Queries, keys and values of a layer.

    Args:
        layer: the encoder layer.
        hidden: the layer's input (B, n, d).
        queries: the inputs (B, m, d) of the positions whose output is wanted; None: all of `hidden`.
    """
    attention = layer.self_attn
    hidden = layer.layer_norm1(hidden)
    queries = hidden if queries is None else layer.layer_norm1(queries)
    parts = attention.q_proj(queries), attention.k_proj(hidden), attention.v_proj(hidden)
    return tuple(part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in parts)


def attend(layer: CLIPEncoderLayer, heads: Heads) -> torch.Tensor:
    """Attention of every query to every key, by the model's own implementation; (B, m, d)."""
    attention = layer.self_attn
    implementation = ALL_ATTENTION_FUNCTIONS.get_interface(
        attention.config._attn_implementation, eager_attention_forward
    )
    context, _ = implementation(attention, *heads, None, scaling=attention.scale, dropout=0.0, is_causal=False)
    return context.flatten(2)


def attend_causally(layer: CLIPEncoderLayer, heads: Heads) -> torch.Tensor:
    """Causal attention, the m queries being the last of the n positions; (B, m, d)."""
    queries, keys, values = heads
    scores = queries @ keys.transpose(-1, -2) + causal_bias(queries, keys.shape[2])
    return _merge_heads(_softmax(scores * layer.self_attn.scale) @ values)


def attend_with_prefix(
    layer: CLIPEncoderLayer, heads: Heads, prefix: tuple[torch.Tensor, torch.Tensor], eos: torch.Tensor | None
) -> torch.Tensor:
    """Causal attention of C rows to themselves and to a prefix that all rows share, which is carried once; (C, m, d).

    Args:
        layer: the encoder layer.
        heads: of the rows' own positions.
        prefix: keys and values (1, h, p, e) of the prefix, all before the rows' own positions.
        eos: with one query per row, its position among the row's own (C,); None: every own position is a query.
    """
    queries, keys, values = heads
    prefix_keys, prefix_values = (part.squeeze(0) for part in prefix)  # (h, p, e)
    to_prefix = torch.einsum("chme,hpe->chmp", queries, prefix_keys)
    to_own = queries @ keys.transpose(-1, -2)  # (C, h, m, n)
    if eos is None:
        to_own = to_own + causal_bias(queries, keys.shape[2])
    else:
        hidden_from = torch.arange(keys.shape[2], device=eos.device) > eos.unsqueeze(1)  # (C, n)
        to_own = to_own.masked_fill(hidden_from[:, None, None, :], float("-inf"))
    weights = _softmax(torch.cat([to_prefix, to_own], dim=-1) * layer.self_attn.scale)
    num_prefix = prefix_keys.shape[1]
    context = torch.einsum("chmp,hpe->chme", weights[..., :num_prefix], prefix_values)
    return _merge_heads(context + weights[..., num_prefix:] @ values)


def finish(layer: CLIPEncoderLayer, hidden: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """The rest of a layer behind its attention, for the m positions with output.

    Args:
        layer: the encoder layer.
        hidden: the layer's input at these positions (B, m, d).
        context: what attention gave for them (B, m, d).
    """
    hidden = hidden + layer.self_attn.out_proj(context)
    return hidden + layer.mlp(layer.layer_norm2(hidden))


def causal_bias(queries: torch.Tensor, num_keys: int) -> torch.Tensor:
    """0 where a query may look, -inf elsewhere, (m, n); the m queries are the last of the n positions."""
    num_queries = queries.shape[2]
    bias = queries.new_full((num_queries, num_keys), float("-inf"))
    return bias.triu(diagonal=num_keys - num_queries + 1)


def _softmax(scores: torch.Tensor) -> torch.Tensor:
    return scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)


def _merge_heads(context: torch.Tensor) -> torch.Tensor:
    return context.transpose(1, 2).flatten(2)
