"""Text encoders that are a BERT, of AltCLIP and Chinese-CLIP, with representation tokens.

Every token sees all others, so no prefix of the prompts can be shared, padding must be masked, and the layers run
whole. What no representation token changes is still computed once: the trunk, and the features of frozen CLIP.

Shapes: C prompts of n tokens, K representation tokens, d the tower's width.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..outputs import MMRLTowerOutput
from ..prompts import Prompts
from .forward_pass import ForwardPass, LayerTokens
from .text import PromptTrunk, TextTower, with_tokens_seen


class BertTextTower(TextTower):
    """A BERT: [CLS, K representation tokens, rest of the prompt], not causal, pooled at CLS."""

    @staticmethod
    def bert(base_layer: nn.Module) -> nn.Module:
        """The BERT in the frozen encoder."""
        return base_layer

    @property
    def recording_module(self) -> nn.Module:
        return self.bert(self.base_layer)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        forward_pass: ForwardPass | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """As the frozen encoder's `forward`.

        Args:
            input_ids (`torch.Tensor` of shape `(B, n)`): token ids with CLS.
            attention_mask (`torch.Tensor` of shape `(B, n)`, *optional*): 1 for tokens, 0 for padding.
            token_type_ids (`torch.Tensor` of shape `(B, n)`, *optional*): BERT's segment ids.
            position_ids (`torch.Tensor` of shape `(B, n)`, *optional*): positions of the prompt's own tokens.
            forward_pass: what runs, see `MMRLTower.run`.
        """
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
        }
        return self.run(inputs, forward_pass, **kwargs)

    # --- class prompts ------------------------------------------------------------------------------------------

    def prompt_inputs(self, prompts: Prompts) -> dict[str, Any]:
        input_ids = prompts.input_ids.to(self.device)
        mask = padding_mask(torch.tensor(prompts.lengths, device=self.device), input_ids.shape[1])
        return {"input_ids": input_ids, "attention_mask": mask}

    def prompt_trunk(self, prompts: Prompts, first: int, chunk_size: int) -> PromptTrunk:
        chunks = [chunk.to(self.device) for chunk in prompts.chunks(chunk_size, 0)]
        own = []
        for chunk in chunks:
            mask = padding_mask(chunk.eos + 1, chunk.input_ids.shape[1])
            own.append(self.run_trunk({"input_ids": chunk.input_ids, "attention_mask": mask}, first))
        return PromptTrunk(first, chunks, own)

    def encode(self, trunk: PromptTrunk, tokens: LayerTokens | None) -> torch.Tensor:
        encode_chunk = self._encode_chunk
        if torch.is_grad_enabled() and len(trunk.chunks) > 1:
            encode_chunk = partial(checkpoint, encode_chunk, use_reentrant=False)
        states = [
            encode_chunk(own, padding_mask(chunk.eos + 1, own.shape[1]), trunk.first, tokens)
            for chunk, own in zip(trunk.chunks, trunk.own, strict=True)
        ]
        return trunk.in_order(states)

    def _encode_chunk(
        self, own: torch.Tensor, mask: torch.Tensor, first: int, tokens: LayerTokens | None
    ) -> torch.Tensor:
        """States of a chunk that enter layer `first` (c, m, d) -> pooled states (c, d)."""
        return self.upper_pass(own, {"attention_mask": mask}, first, tokens).pooler_output

    # --- pieces of the forward pass -------------------------------------------------------------------------------

    def trunk_modules(self) -> list[nn.Module]:
        return [self.bert(self.base_layer).embeddings]

    def embed(self, inputs: dict[str, Any]) -> torch.Tensor:
        names = ("input_ids", "token_type_ids", "position_ids")
        return self.bert(self.base_layer).embeddings(**{name: inputs.get(name) for name in names})

    def attention_mask(self, hidden: torch.Tensor, inputs: dict[str, Any], num_tokens: int) -> torch.Tensor | None:
        return create_bidirectional_mask(self.config, hidden, with_tokens_seen(inputs["attention_mask"], num_tokens))

    def pool(self, hidden: torch.Tensor, inputs: dict[str, Any], num_tokens: int) -> MMRLTowerOutput:
        return MMRLTowerOutput(last_hidden_state=hidden, pooler_output=hidden[:, 0])


class ChineseCLIPTextTower(BertTextTower):
    """Chinese-CLIP's text encoder."""

    @staticmethod
    def transformer_layers(base_layer: nn.Module) -> nn.ModuleList:
        return base_layer.encoder.layer


class AltCLIPTextTower(BertTextTower):
    """AltCLIP's text encoder: an XLM-RoBERTa, and a map to the width of the CLIP that it was taught by."""

    @staticmethod
    def transformer_layers(base_layer: nn.Module) -> nn.ModuleList:
        return base_layer.roberta.encoder.layers

    @staticmethod
    def bert(base_layer: nn.Module) -> nn.Module:
        return base_layer.roberta

    def pool(self, hidden: torch.Tensor, inputs: dict[str, Any], num_tokens: int) -> MMRLTowerOutput:
        return super().pool(self.transformation(self.pre_LN(hidden)), inputs, num_tokens)


def padding_mask(lengths: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """Attention mask (C, n) of prompts with these lengths (C,), padded to n tokens."""
    return (torch.arange(num_tokens, device=lengths.device) < lengths.unsqueeze(1)).long()
