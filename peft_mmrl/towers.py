"""CLIP's two encoders with representation tokens in their upper layers (section 3 of both papers).

A tower takes the place of `CLIPModel.vision_model` or `.text_model` and runs the frozen layers inside. The layers
below the first adapted one (the trunk) see no representation token, so the adapted and the frozen pass share them.
What differs between the encoders (embedding, mask, pooling) sits in the two small classes at the end.

Shapes: B rows (images or prompts), n tokens, K representation tokens, d the tower's width.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.output_capturing import capture_outputs

from .config import MMRLConfig, adapted_layers
from .encoder import attend, attend_causally, attend_with_prefix, can_split, finish, project
from .layer import Aligner, RepProjection, RepTokens, ResidualRepProjection, SharedResidualAligner
from .prompts import PromptChunk, Prompts, eos_index


@dataclass
class MMRLTowerOutput(BaseModelOutputWithPooling):
    """Output of a tower: transformers' fields, and what the method adds.

    Args:
        rep_pooler_output (`torch.Tensor` of shape `(B, d)`): mean of the K normalised representation tokens (vision).
        trunk_output (`torch.Tensor` of shape `(B, n, d)`): states that enter the first adapted layer.
        frozen_pooler_output (`torch.Tensor` of shape `(B, d)`): what the frozen encoder pools for the same input.
    """

    rep_pooler_output: torch.Tensor | None = None
    trunk_output: torch.Tensor | None = None
    frozen_pooler_output: torch.Tensor | None = None


class MMRLTower(nn.Module, BaseTunerLayer):
    """Common part of the two towers: holds the adapters' weights and runs the layers.

    Args:
        base_layer: the frozen encoder, transformers' `CLIPVisionModel` or `CLIPTextModel`.
        configs: the adapters' configs by name; the tuner's own dictionary, read at every call.
    """

    adapter_layer_names: tuple[str, ...] = ("mmrl_aligner",)
    layers_field: str  # the config field that lists the adapted layers
    layer_kwargs: dict[str, Any] = {}  # what the frozen encoder passes to each of its layers

    def __init__(self, base_layer: nn.Module, configs: Mapping[str, MMRLConfig]) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.configs = configs
        for name in self.adapter_layer_names:
            setattr(self, name, nn.ModuleDict())

    def __getattr__(self, name: str) -> Any:
        """Forward unknown attributes (`encoder`, `config`, ...) to the frozen encoder."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_layer":
                raise
            return getattr(self.base_layer, name)

    # --- adapters -------------------------------------------------------------------------------------------------

    @classmethod
    def adapter_modules(cls, config: MMRLConfig, base_layer: nn.Module, projection_dim: int) -> dict[str, nn.Module]:
        """Make one adapter's new modules for this tower, by the name of the ModuleDict that takes them."""
        hidden_size = base_layer.config.hidden_size
        num_layers = len(cls.layers_of(config, base_layer))
        if config.aligner_rank is None:
            return {"mmrl_aligner": Aligner(num_layers, config.rep_dim, hidden_size)}
        return {"mmrl_aligner": SharedResidualAligner(num_layers, config.rep_dim, hidden_size, config.aligner_rank)}

    @classmethod
    def layers_of(cls, config: MMRLConfig, base_layer: nn.Module) -> list[int]:
        """0-based indices of the adapted layers, ascending."""
        return adapted_layers(getattr(config, cls.layers_field), len(base_layer.encoder.layers), cls.layers_field)

    def update_layer(self, adapter_name: str, config: MMRLConfig, projection_dim: int) -> None:
        """Add the weights of an adapter, on the device and in the dtype of the frozen encoder."""
        for name, module in self.adapter_modules(config, self.base_layer, projection_dim).items():
            getattr(self, name)[adapter_name] = module
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def _get_base_layer_device_and_dtype(self, base_layer: nn.Module) -> tuple[torch.device, torch.dtype]:
        # PEFT looks for `base_layer.weight`, which an encoder does not have.
        weight = next(parameter for parameter in base_layer.parameters() if parameter.is_floating_point())
        return weight.device, weight.dtype

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Activate one adapter (an empty list: none).

        Raises:
            ValueError: more than one adapter; MMRL adapters cannot be combined.
        """
        if not isinstance(adapter_names, str) and len(adapter_names) > 1:
            raise ValueError(f"MMRL runs one adapter at a time, got `adapter_name`={list(adapter_names)}.")
        super().set_adapter(adapter_names, inference_mode=inference_mode)

    @property
    def running_adapter(self) -> str | None:
        """Name of the adapter that the next forward pass uses; None where the frozen encoder runs."""
        if self.disable_adapters or not self.active_adapters:
            return None
        return self.active_adapters[0]

    def rep_tokens(self, adapter: str) -> torch.Tensor:
        """R (K, d_r), shared by both towers."""
        raise NotImplementedError

    def tokens(self, adapter: str) -> torch.Tensor:
        """T_i = F_i(R) of all adapted layers, (L, K, d)."""
        aligner = self.mmrl_aligner[adapter]
        return aligner(self.rep_tokens(adapter).to(aligner.bias.device))  # the towers may lie on two devices

    # --- forward --------------------------------------------------------------------------------------------------

    def embed(self, inputs: dict[str, Any]) -> torch.Tensor:
        """States that enter the first layer, (B, n, d)."""
        raise NotImplementedError

    def attention_mask(self, hidden: torch.Tensor, inputs: dict[str, Any], num_tokens: int) -> torch.Tensor | None:
        """Mask for states (B, n, d) of which `num_tokens` after the first are representation tokens."""
        raise NotImplementedError

    def pool(self, hidden: torch.Tensor, inputs: dict[str, Any], num_tokens: int) -> MMRLTowerOutput:
        """Last layer's states (B, n, d), of which `num_tokens` are representation tokens -> output."""
        raise NotImplementedError

    def trunk_modules(self) -> list[nn.Module]:
        """Modules other than layers that run before the first layer."""
        raise NotImplementedError

    def run(
        self, inputs: dict[str, Any], with_frozen: bool = False, return_dict: bool | None = None, **kwargs: Any
    ) -> MMRLTowerOutput | tuple[Any, ...]:
        """Run the active adapter's pass and, sharing the trunk, the frozen one where asked for.

        Hidden states and attentions are recorded as transformers does it, of the adapted pass only.
        """
        return_dict = self.config.return_dict if return_dict is None else return_dict
        output = _recorded(self.base_layer, self._adapted_pass, inputs, **kwargs, return_dict=True)
        frozen = self._frozen_pass(output.trunk_output, inputs) if with_frozen else None
        output = replace(output, trunk_output=None, frozen_pooler_output=frozen)
        return output if return_dict else output.to_tuple()

    @torch.no_grad()
    def _frozen_pass(self, hidden: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        """States that enter the first adapted layer (B, n, d) -> what the frozen encoder pools, (B, d)."""
        first = self.layers_of(self.configs[self.running_adapter], self.base_layer)[0]
        mask = self.attention_mask(hidden, inputs, 0)
        for layer in self.encoder.layers[first:]:
            hidden = layer(hidden, mask, **self.layer_kwargs)
        return self.pool(hidden, inputs, 0).pooler_output

    def is_recording(self, kwargs: dict[str, Any]) -> bool:
        """Whether the caller, or the model's config, asks for hidden states or attentions."""
        names = ("output_hidden_states", "output_attentions")
        return any(kwargs.get(name, getattr(self.config, name, False)) for name in names)

    def _adapted_pass(self, inputs: dict[str, Any], **kwargs: Any) -> MMRLTowerOutput:
        adapter = self.running_adapter
        config = self.configs[adapter]
        adapted = self.layers_of(config, self.base_layer)
        tokens = self.tokens(adapter)  # (L, K, d)
        num_tokens = tokens.shape[1]
        kwargs = {**self.layer_kwargs, **kwargs}

        with self._trunk_grad_mode(inputs, adapted[0]):
            hidden = self.embed(inputs)  # (B, n, d)
            mask = self.attention_mask(hidden, inputs, 0)
            for layer in self.encoder.layers[: adapted[0]]:
                hidden = layer(hidden, mask, **kwargs)
        trunk = hidden

        for index, layer in enumerate(self.encoder.layers[adapted[0] :], adapted[0]):
            if index in adapted:
                own = tokens[adapted.index(index)].to(hidden.dtype).expand(len(hidden), -1, -1)  # (B, K, d)
                is_first = index == adapted[0]
                hidden = insert_tokens(hidden, own) if is_first else replace_tokens(hidden, own, config.beta)
            if index == adapted[0]:
                mask = self.attention_mask(hidden, inputs, num_tokens)
            hidden = layer(hidden, mask, **kwargs)  # (B, n + K, d)

        output = self.pool(hidden, inputs, num_tokens)
        output.trunk_output = trunk
        return output

    def _trunk_grad_mode(self, inputs: dict[str, Any], first: int) -> torch.no_grad | nullcontext:
        """No gradients below the first adapted layer, unless the caller wants those of the base or of the input.

        PEFT's hooks for gradient checkpointing make embeddings require a gradient; without this they would force a
        backward pass through the frozen trunk.
        """
        parts = [*self.trunk_modules(), *self.encoder.layers[:first]]
        wanted = any(parameter.requires_grad for part in parts for parameter in part.parameters())
        wanted = wanted or any(isinstance(value, torch.Tensor) and value.requires_grad for value in inputs.values())
        return nullcontext() if wanted else torch.no_grad()


@capture_outputs(tie_last_hidden_states=False)
def _recorded(encoder: nn.Module, run: Any, *args: Any, **kwargs: Any) -> MMRLTowerOutput:
    """Call `run` while the hooks of `encoder` record what `output_hidden_states`, `output_attentions` ask for."""
    return run(*args, **kwargs)


def insert_tokens(hidden: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Put the first adapted layer's tokens (B, K, ...) behind the first position of (B, n, ...); (B, n + K, ...)."""
    return torch.cat([hidden[:, :1], own, hidden[:, 1:]], dim=1)


def replace_tokens(hidden: torch.Tensor, own: torch.Tensor, beta: float) -> torch.Tensor:
    """Put a later adapted layer's tokens T_i (B, K, d) in the place of the K tokens of `hidden` (B, n + K, d).

    With MMRL++'s progressive composition they become beta T_i + (1 - beta) (the K tokens that the layer before put
    out).
    """
    end = 1 + own.shape[1]
    if beta != 1:
        own = beta * own + (1 - beta) * hidden[:, 1:end]
    return torch.cat([hidden[:, :1], own, hidden[:, end:]], dim=1)


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


class MMRLTextTower(MMRLTower):
    """CLIP's text encoder: [BOS, K representation tokens, rest of the prompt], causal, pooled at EOS. Holds R."""

    adapter_layer_names = ("mmrl_rep_tokens", "mmrl_aligner")
    layers_field = "text_layers"
    layer_kwargs = {"is_causal": True}

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
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """As `CLIPTextModel.forward`; with an active adapter a [`MMRLTowerOutput`].

        Args:
            input_ids (`torch.Tensor` of shape `(B, n)`): token ids with BOS and EOS.
            attention_mask (`torch.Tensor` of shape `(B, n)`, *optional*): 1 for tokens, 0 for padding.
            position_ids (`torch.Tensor` of shape `(B, n)`, *optional*): positions of the prompt's own tokens;
                representation tokens have none.
            with_frozen: also run the frozen encoder, for `frozen_pooler_output`.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        if self.running_adapter is None:
            return self.base_layer(**inputs, **kwargs)
        if input_ids is None:
            raise ValueError("`input_ids` must be given.")
        kwargs.pop("is_causal", None)
        inputs["input_ids"] = input_ids.view(-1, input_ids.shape[-1])
        return self.run(inputs, with_frozen, **kwargs)

    # --- class prompts: what they share is computed once --------------------------------------------------------

    def can_share(self) -> bool:
        """Whether `encode` may be used: frozen weights, and layers that can be called in pieces."""
        layers = self.encoder.layers
        return all(map(can_split, layers)) and not any(p.requires_grad for p in self.base_layer.parameters())

    def encode(self, prompts: Prompts, tokens: torch.Tensor | None) -> torch.Tensor:
        """Pooled states (C, d) of class prompts; same as `forward`, without repeated work.

        Nothing before the first word that differs sees anything that differs, so with a causal mask the prefix (BOS,
        representation tokens, shared words) is carried once, and every class adds only its own tokens. In the last
        layer only EOS has a query. The states below the first adapted layer never change and are kept. With more
        classes than the config's `text_chunk_size` the backward pass computes each chunk again.

        Args:
            prompts: the class prompts of one template.
            tokens: T_i of the running adapter (L, K, d); None: frozen CLIP.
        """
        config = self.configs[self.active_adapters[0]]
        adapted = self.layers_of(config, self.base_layer)
        trunk = self._prompt_trunk(prompts, adapted[0], config.text_chunk_size)
        layers = self.encoder.layers[adapted[0] :]
        prefix, shared = trunk.prefix, []
        for index, layer in enumerate(layers, adapted[0]):
            if tokens is not None and index in adapted:
                own = tokens[adapted.index(index)].to(prefix.dtype).unsqueeze(0)  # (1, K, d)
                is_first = index == adapted[0]
                prefix = insert_tokens(prefix, own) if is_first else replace_tokens(prefix, own, config.beta)
            heads = project(layer, prefix)
            shared += heads[1:]
            if layer is not layers[-1]:
                prefix = finish(layer, prefix, attend_causally(layer, heads))

        recompute = len(trunk.chunks) > 1 or (layers[0].gradient_checkpointing and layers[0].training)
        recompute = recompute and torch.is_grad_enabled() and tokens is not None
        states = []
        for chunk, own in zip(trunk.chunks, trunk.own, strict=True):
            arguments = (layers, own, chunk.eos, *shared)
            run = partial(checkpoint, _encode_chunk, use_reentrant=False) if recompute else _encode_chunk
            states.append(run(*arguments))
        order = torch.cat([chunk.classes for chunk in trunk.chunks])
        return self.final_layer_norm(torch.cat(states)[order.argsort()])

    def _prompt_trunk(self, prompts: Prompts, first: int, chunk_size: int) -> PromptTrunk:
        """States that enter the first adapted layer, kept as long as nothing that they depend on changes."""
        return cached(
            prompts, "trunk", (self.state_key(), first, chunk_size), self._compute_trunk, prompts, first, chunk_size
        )

    def _compute_trunk(self, prompts: Prompts, first: int, chunk_size: int) -> PromptTrunk:
        device = self.embeddings.token_embedding.weight.device
        start = prompts.prefix.to(device)
        trunk = PromptTrunk(torch.empty(0), [chunk.to(device) for chunk in prompts.chunks(chunk_size)], [])
        for chunk in trunk.chunks:
            input_ids = torch.cat([start.expand(len(chunk.classes), -1), chunk.input_ids], dim=1)
            hidden = self.embeddings(input_ids=input_ids)
            mask = create_causal_mask(self.config, hidden, None, None)
            for layer in self.encoder.layers[:first]:
                hidden = layer(hidden, mask, **self.layer_kwargs)
            trunk.prefix = hidden[:1, : len(start)].clone()  # the same in every chunk
            trunk.own.append(hidden[:, len(start) :].clone())
        return trunk

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
        mask = inputs["attention_mask"]
        if mask is not None and num_tokens:
            seen = mask.new_ones(len(mask), num_tokens)
            mask = torch.cat([mask[:, :1], seen, mask[:, 1:]], dim=1)  # (B, n + K)
        # The fourth parameter changed its name between releases of transformers.
        return create_causal_mask(self.config, hidden, mask, None)

    def pool(self, hidden: torch.Tensor, inputs: dict[str, Any], num_tokens: int) -> MMRLTowerOutput:
        hidden = self.final_layer_norm(hidden)
        eos = eos_index(inputs["input_ids"].to(hidden.device), self.eos_token_id)
        eos = torch.where(eos > 0, eos + num_tokens, eos)  # BOS stays where it is
        rows = torch.arange(len(hidden), device=hidden.device)
        return MMRLTowerOutput(last_hidden_state=hidden, pooler_output=hidden[rows, eos])


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


def cached(prompts: Prompts, name: str, key: Hashable, compute: Callable[..., Any], *arguments: Any) -> Any:
    """What `compute` gives, from the prompts' cache where it was computed under the same key.

    Without gradients and outside of `inference_mode`, whose tensors would break a later backward pass.
    """
    known = prompts.cache.get(name)
    if known is None or known[0] != key:
        with torch.inference_mode(False), torch.no_grad():
            known = key, compute(*arguments)
        prompts.cache[name] = known
    return known[1]


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
        pooled_only: bool = False,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """As `CLIPVisionModel.forward`; with an active adapter a [`MMRLTowerOutput`].

        Args:
            pixel_values (`torch.Tensor` of shape `(B, channels, height, width)`): processed images.
            interpolate_pos_encoding: resize the position embeddings to the images' size.
            with_frozen: also run the frozen encoder, for `frozen_pooler_output`.
            pooled_only: the states of all patches are not needed.
        """
        inputs = {"pixel_values": pixel_values, "interpolate_pos_encoding": interpolate_pos_encoding}
        if self.running_adapter is None:
            return self.base_layer(**inputs, **kwargs)
        if pixel_values is None:
            raise ValueError("`pixel_values` must be given.")
        if pooled_only and not self.is_recording(kwargs) and all(map(can_split, self.encoder.layers)):
            return self.features_only(inputs, with_frozen)
        return self.run(inputs, with_frozen, **kwargs)

    def features_only(self, inputs: dict[str, Any], with_frozen: bool) -> MMRLTowerOutput:
        """Pooled outputs of both passes without what they do not depend on.

        The first adapted layer projects CLS and patches once for both passes; the last layer has queries only for
        CLS and the K tokens, in the frozen pass only for CLS. The patches' last states are not computed.
        """
        adapter = self.running_adapter
        config = self.configs[adapter]
        adapted = self.layers_of(config, self.base_layer)
        tokens = self.tokens(adapter)  # (L, K, d)
        num_tokens, first = tokens.shape[1], adapted[0]
        layers = self.encoder.layers[first:]
        with self._trunk_grad_mode(inputs, first):
            trunk = self.embed(inputs)  # (B, n, d)
            for layer in self.encoder.layers[:first]:
                trunk = layer(trunk, None)
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
        output = self.pool(hidden, inputs, num_tokens)
        if with_frozen:
            with torch.no_grad():
                for index, layer in enumerate(layers):
                    trunk = _run_layer(layer, trunk, 1 if layer is layers[-1] else None, None if index else shared)
                output.frozen_pooler_output = self.pool(trunk, inputs, 0).pooler_output
        return output

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
