"""CLIP's encoders with representation tokens in their upper layers (section 3 of both papers): what all share.

A tower takes the place of a CLIP's `text_model` or `vision_model` and runs the frozen layers inside. The layers below
the first adapted one (the trunk) see no representation token, so the adapted and the frozen pass share them. What
differs between the encoders is in text.py and its two kinds clip_text.py and bert.py, and in vision.py; backbones.py
says which architecture takes which.

Shapes: B rows (images or prompts), n tokens, K representation tokens, L adapted layers, d the tower's width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, NoReturn

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.output_capturing import capture_outputs

from ..config import MMRLConfig, adapted_layers
from ..layer import Aligner, SharedResidualAligner
from ..outputs import MMRLTowerOutput
from ..validation import refuse_mixed_batch
from .architecture import Architecture
from .encoder_layer import has_hooks
from .forward_pass import ForwardPass, LayerTokens


class MMRLTower(nn.Module, BaseTunerLayer):
    """Common part of the two towers: holds the adapters' weights and runs the layers.

    The encoder inside is frozen: dropout stays off in it, since the method compares its features with the adapted
    ones, and keeps them.

    Args:
        base_layer: the frozen encoder, transformers' `CLIPVisionModel`, `CLIPTextModel` or one like them.
        configs: the adapters' configs by name; the tuner's own dictionary, read at every call.
        architecture: facts of the base model.
    """

    adapter_layer_names: tuple[str, ...] = ("mmrl_aligner",)
    layers_field: str  # the config field that lists the adapted layers
    layer_kwargs: dict[str, Any] = {}  # what the frozen encoder passes to each of its layers

    def __init__(self, base_layer: nn.Module, configs: Mapping[str, MMRLConfig], architecture: Architecture) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.configs = configs
        self.architecture = architecture
        for name in self.adapter_layer_names:
            setattr(self, name, nn.ModuleDict())
        self.train(base_layer.training)

    def __getattr__(self, name: str) -> Any:
        """Forward unknown attributes (`encoder`, `config`, ...) to the frozen encoder."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_layer":
                raise
            return getattr(self.base_layer, name)

    def train(self, mode: bool = True) -> MMRLTower:
        """As in torch, but for the frozen encoder's dropout."""
        super().train(mode)
        self.base_layer.eval()
        for layer in self.layers:
            layer.training = mode  # what gradient checkpointing goes by; dropout is in modules below
        return self

    def _replicate_for_data_parallel(self) -> NoReturn:
        raise ValueError(
            "`torch.nn.DataParallel` is not supported by MMRL: its copies of the model share one set of kept class "
            "features. Start one process per GPU (`accelerate launch` or `torchrun --nproc_per_node`), or use one GPU "
            "(`CUDA_VISIBLE_DEVICES=0`)."
        )

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

    def current_pass(self) -> ForwardPass | None:
        """What a call of the tower by itself runs; None: the frozen encoder."""
        if self.disable_adapters or not self.active_adapters:
            return None
        adapter = self.active_adapters[0]
        return ForwardPass(adapter, self.configs[adapter].beta)

    def first_layer(self, adapter: str) -> int:
        """Index of an adapter's first adapted layer."""
        return self.layers_of(self.configs[adapter], self.base_layer)[0]

    @abstractmethod
    def rep_tokens(self, adapter: str) -> torch.Tensor:
        """R (K, d_r), shared by both towers."""

    def tokens(self, adapter: str, beta: float) -> LayerTokens:
        """T_i = F_i(R) of all adapted layers."""
        aligner = self.mmrl_aligner[adapter]
        values = aligner(self.rep_tokens(adapter).to(aligner.bias.device))  # the towers may lie on two devices
        return LayerTokens(values, self.layers_of(self.configs[adapter], self.base_layer), beta)

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
        self, inputs: dict[str, Any], forward_pass: ForwardPass | None, **kwargs: Any
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """What a tower's `forward` does with its inputs.

        Args:
            inputs: what the tower embeds.
            forward_pass: what runs. None: the active adapter, and what comes back is of the frozen encoder's type.
            kwargs: as for the frozen encoder; passed to every layer.

        Returns:
            [`MMRLTowerOutput`] where `forward_pass` is given and does not say `is_frozen`.
        """
        current = forward_pass or self.current_pass()
        if current is None or current.is_frozen:
            return self.base_layer(**inputs, **kwargs)
        if inputs[self.main_input_name] is None:
            raise ValueError(f"`{self.main_input_name}` must be given.")
        refuse_mixed_batch(kwargs)
        return_dict = kwargs.pop("return_dict", None)
        output = self.adapted(inputs, current, **kwargs)
        if forward_pass is not None:
            return output
        names = BaseModelOutputWithPooling.__dataclass_fields__
        output = BaseModelOutputWithPooling(**{name: output[name] for name in names if name in output})
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def adapted(self, inputs: dict[str, Any], forward_pass: ForwardPass, **kwargs: Any) -> MMRLTowerOutput:
        """The adapted pass through whole layers and, sharing the trunk, the frozen one where it is asked for.

        Hidden states and attentions are recorded as transformers does it, of the adapted pass only.
        """
        tokens = self.tokens(forward_pass.adapter, forward_pass.beta)
        trunk: torch.Tensor

        def whole_pass(**kwargs: Any) -> MMRLTowerOutput:
            nonlocal trunk
            trunk = self.run_trunk(inputs, tokens.first, **kwargs)
            return self.upper_pass(trunk, inputs, tokens.first, tokens, **kwargs)

        output = _recorded(self.recording_module, whole_pass, **kwargs, return_dict=True)
        if forward_pass.with_frozen:
            output.frozen_pooler_output = self.frozen_pass(trunk, inputs, tokens.first)
        return output

    def is_recording(self, kwargs: dict[str, Any]) -> bool:
        """Whether the caller, or the model's config, asks for hidden states or attentions."""
        names = ("output_hidden_states", "output_attentions")
        return any(kwargs.get(name, getattr(self.config, name, False)) for name in names)

    def run_trunk(self, inputs: dict[str, Any], first: int, **kwargs: Any) -> torch.Tensor:
        """Inputs -> states that enter layer `first` (B, n, d). They are the same for every adapter, and for none."""
        with self._trunk_grad_mode(inputs, first):
            hidden = self.embed(inputs)
            mask = self.attention_mask(hidden, inputs, 0)
            for layer in self.layers[:first]:
                hidden = layer(hidden, mask, **{**self.layer_kwargs, **kwargs})
        return hidden

    def upper_pass(
        self, hidden: torch.Tensor, inputs: dict[str, Any], first: int, tokens: LayerTokens | None, **kwargs: Any
    ) -> MMRLTowerOutput:
        """States that enter layer `first` (B, n, d) -> output, with an adapter's tokens or (None) without."""
        num_tokens = 0 if tokens is None else tokens.count
        for index, layer in enumerate(self.layers[first:], first):
            if tokens is not None:
                hidden = tokens.enter(hidden, index)
            if index == first:
                mask = self.attention_mask(hidden, inputs, num_tokens)
            hidden = layer(hidden, mask, **{**self.layer_kwargs, **kwargs})  # (B, n + K, d)
        return self.pool(hidden, inputs, num_tokens)

    @torch.no_grad()
    def frozen_pass(self, hidden: torch.Tensor, inputs: dict[str, Any], first: int) -> torch.Tensor:
        """States that enter layer `first` (B, n, d) -> what the frozen encoder pools, (B, d)."""
        return self.upper_pass(hidden, inputs, first, None).pooler_output

    def _trunk_grad_mode(self, inputs: dict[str, Any], first: int) -> torch.no_grad | nullcontext:
        """No gradients below the first adapted layer, unless the caller wants those of the base or of the input.

        PEFT's hooks for gradient checkpointing make embeddings require a gradient; without this they would force a
        backward pass through the frozen trunk.
        """
        parts = [*self.trunk_modules(), *self.layers[:first]]
        wanted = any(parameter.requires_grad for part in parts for parameter in part.parameters())
        wanted = wanted or any(isinstance(value, torch.Tensor) and value.requires_grad for value in inputs.values())
        return nullcontext() if wanted else torch.no_grad()

    def can_split(self, layer: nn.Module) -> bool:
        """Whether a layer's modules may be called one by one: it is CLIP's, and nobody watches any part of it."""
        return type(layer) in self.architecture.split_layers and not has_hooks(layer)


@capture_outputs(tie_last_hidden_states=False)
def _recorded(encoder: nn.Module, run: Callable[..., MMRLTowerOutput], **kwargs: Any) -> MMRLTowerOutput:
    """Call `run` while the hooks of `encoder` record what `output_hidden_states`, `output_attentions` ask for."""
    return run(**kwargs)
