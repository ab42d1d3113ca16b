"""CLIP's encoders with representation tokens in their upper layers (section 3 of both papers): what all share.

A tower takes the place of a CLIP's `text_model` or `vision_model` and runs the frozen layers inside. The layers below
the first adapted one (the trunk) see no representation token, so the adapted and the frozen pass share them. What
differs between the encoders is in text.py, vision.py and bert.py; backbones.py says which architecture takes which.

Shapes: B rows (images or prompts), n tokens, K representation tokens, L adapted layers, d the tower's width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.output_capturing import capture_outputs

from ..config import MMRLConfig, adapted_layers
from ..layer import Aligner, SharedResidualAligner
from ..outputs import MMRLTowerOutput
from ..validation import refuse_mixed_batch


class MMRLTower(nn.Module, BaseTunerLayer):
    """Common part of the two towers: holds the adapters' weights and runs the layers.

    Args:
        base_layer: the frozen encoder, transformers' `CLIPVisionModel`, `CLIPTextModel` or one like them.
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
        num_layers = len(cls.transformer_layers(base_layer))
        return adapted_layers(getattr(config, cls.layers_field), num_layers, cls.layers_field)

    @staticmethod
    def transformer_layers(base_layer: nn.Module) -> nn.ModuleList:
        """The frozen encoder's layers, each called with states (B, n, d), a mask and `layer_kwargs`."""
        return base_layer.encoder.layers

    @property
    def layers(self) -> nn.ModuleList:
        """The frozen encoder's layers."""
        return self.transformer_layers(self.base_layer)

    @property
    def recording_module(self) -> nn.Module:
        """The module of the frozen encoder that transformers records hidden states and attentions of."""
        return self.base_layer

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

    @property
    def first_layer(self) -> int:
        """Index of the active adapter's first adapted layer."""
        return self.layers_of(self.configs[self.active_adapters[0]], self.base_layer)[0]

    @abstractmethod
    def rep_tokens(self, adapter: str) -> torch.Tensor:
        """R (K, d_r), shared by both towers."""

    def tokens(self, adapter: str) -> torch.Tensor:
        """T_i = F_i(R) of all adapted layers, (L, K, d)."""
        aligner = self.mmrl_aligner[adapter]
        return aligner(self.rep_tokens(adapter).to(aligner.bias.device))  # the towers may lie on two devices

    # --- forward --------------------------------------------------------------------------------------------------

    @abstractmethod
    def embed(self, inputs: dict[str, Any]) -> torch.Tensor:
        """States that enter the first layer, (B, n, d)."""

    @abstractmethod
    def attention_mask(self, hidden: torch.Tensor, inputs: dict[str, Any], num_tokens: int) -> torch.Tensor | None:
        """Mask for states (B, n, d) of which `num_tokens` after the first are representation tokens."""

    @abstractmethod
    def pool(self, hidden: torch.Tensor, inputs: dict[str, Any], num_tokens: int) -> MMRLTowerOutput:
        """Last layer's states (B, n, d), of which `num_tokens` are representation tokens -> output."""

    @abstractmethod
    def trunk_modules(self) -> list[nn.Module]:
        """Modules other than layers that run before the first layer."""

    def run(
        self,
        inputs: dict[str, Any],
        with_frozen: bool,
        extended: bool,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Run the active adapter's pass and, sharing the trunk, the frozen one where asked for.

        Hidden states and attentions are recorded as transformers does it, of the adapted pass only.

        Args:
            inputs: what the tower embeds.
            with_frozen: also run the frozen encoder.
            extended: return a [`MMRLTowerOutput`], not just what the frozen encoder returns.
            return_dict: as in transformers.
            kwargs: passed to every layer.
        """
        refuse_mixed_batch(kwargs)
        return_dict = self.config.return_dict if return_dict is None else return_dict
        output = _recorded(self.recording_module, self._whole_pass, inputs, **kwargs, return_dict=True)
        frozen = self.frozen_pass(output.trunk_output, inputs) if with_frozen else None
        output = replace(output, trunk_output=None, frozen_pooler_output=frozen)
        if not extended:
            names = BaseModelOutputWithPooling.__dataclass_fields__
            output = BaseModelOutputWithPooling(**{name: output[name] for name in names if name in output})
        return output if return_dict else output.to_tuple()

    @torch.no_grad()
    def frozen_pass(self, hidden: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        """States that enter the first adapted layer (B, n, d) -> what the frozen encoder pools, (B, d)."""
        mask = self.attention_mask(hidden, inputs, 0)
        for layer in self.layers[self.first_layer :]:
            hidden = layer(hidden, mask, **self.layer_kwargs)
        return self.pool(hidden, inputs, 0).pooler_output

    def is_recording(self, kwargs: dict[str, Any]) -> bool:
        """Whether the caller, or the model's config, asks for hidden states or attentions."""
        names = ("output_hidden_states", "output_attentions")
        return any(kwargs.get(name, getattr(self.config, name, False)) for name in names)

    def _whole_pass(self, inputs: dict[str, Any], **kwargs: Any) -> MMRLTowerOutput:
        tokens = self.tokens(self.running_adapter)
        trunk = self.run_trunk(inputs, self.first_layer, **kwargs)
        output = self.adapted_pass(trunk, inputs, tokens, **kwargs)
        output.trunk_output = trunk
        return output

    def adapted_pass(
        self, hidden: torch.Tensor, inputs: dict[str, Any], tokens: torch.Tensor, **kwargs: Any
    ) -> MMRLTowerOutput:
        """States that enter the first adapted layer (B, n, d), and the tokens T_i (L, K, d) -> output."""
        config = self.configs[self.running_adapter]
        adapted = self.layers_of(config, self.base_layer)
        num_tokens = tokens.shape[1]
        for index, layer in enumerate(self.layers[adapted[0] :], adapted[0]):
            if index in adapted:
                own = tokens[adapted.index(index)].to(hidden.dtype).expand(len(hidden), -1, -1)  # (B, K, d)
                is_first = index == adapted[0]
                hidden = insert_tokens(hidden, own) if is_first else replace_tokens(hidden, own, config.beta)
            if index == adapted[0]:
                mask = self.attention_mask(hidden, inputs, num_tokens)
            hidden = layer(hidden, mask, **{**self.layer_kwargs, **kwargs})  # (B, n + K, d)
        return self.pool(hidden, inputs, num_tokens)

    def run_trunk(self, inputs: dict[str, Any], first: int, **kwargs: Any) -> torch.Tensor:
        """Inputs -> states that enter layer `first` (B, n, d). They are the same for every adapter, and for none."""
        with self._trunk_grad_mode(inputs, first):
            hidden = self.embed(inputs)
            mask = self.attention_mask(hidden, inputs, 0)
            for layer in self.layers[:first]:
                hidden = layer(hidden, mask, **{**self.layer_kwargs, **kwargs})
        return hidden

    def _trunk_grad_mode(self, inputs: dict[str, Any], first: int) -> torch.no_grad | nullcontext:
        """No gradients below the first adapted layer, unless the caller wants those of the base or of the input.

        PEFT's hooks for gradient checkpointing make embeddings require a gradient; without this they would force a
        backward pass through the frozen trunk.
        """
        parts = [*self.trunk_modules(), *self.layers[:first]]
        wanted = any(parameter.requires_grad for part in parts for parameter in part.parameters())
        wanted = wanted or any(isinstance(value, torch.Tensor) and value.requires_grad for value in inputs.values())
        return nullcontext() if wanted else torch.no_grad()


@capture_outputs(tie_last_hidden_states=False)
def _recorded(encoder: nn.Module, run: Callable[..., MMRLTowerOutput], *args: Any, **kwargs: Any) -> MMRLTowerOutput:
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
