"""What differs between architectures and is no code of a tower."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedConfig


CLIP_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")
BERT_PROJECTIONS = ("self.query", "self.key", "self.value", "attention.output.dense")


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


@dataclass(frozen=True)
class Architecture:
    """Facts of an architecture. The defaults fit a CLIP under another name; they are right, if not fast.

    Args:
        split_layers: classes of encoder layers that are CLIP's under another name, with the same modules called in
            the same order: the short cuts call these modules one by one.
        eos_index: (prompts (B, n), text config) -> position of each prompt's last token (B,).
        context_length: text config -> number of tokens that a prompt may have.
        attention_projections: ends of the names of all linear layers around attention, for methods that adapt those.
    """

    split_layers: tuple[type[nn.Module], ...] = ()
    eos_index: Callable[[torch.Tensor, PreTrainedConfig], torch.Tensor] = first_eos
    context_length: Callable[[PreTrainedConfig], int] = all_positions
    attention_projections: tuple[str, ...] = CLIP_PROJECTIONS
