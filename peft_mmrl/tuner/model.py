"""The tuner: finds CLIP's two towers, puts MMRL's in their place and takes them out again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import torch
from peft import PeftConfig, PeftModel
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn
from transformers import CLIPModel

from .config import MMRLConfig
from .fingerprint import fingerprint_of, warn_if_other_base
from .layer import LEAVES
from .towers.backbones import backbone_of
from .towers.base import MMRLTower
from .trainer_labels import name_labels_in_forward, restore_forward
from .validation import InvalidTypeError


# What torch.compile, DataParallel, DDP, FSDP and checkpoint_wrapper put into the names of parameters.
WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


class MMRLModel(BaseTuner):
    """
    Creates an MMRL model (https://huggingface.co/papers/2503.08497, https://huggingface.co/papers/2505.10088) from a
    pretrained CLIP.

    Args:
        model ([`~transformers.CLIPModel`] or another of `BACKBONES`):
            The model to be adapted; its two encoders are wrapped in place.
        config ([`MMRLConfig`]): The configuration of the MMRL model.
        adapter_name (`str`): The name of the adapter, defaults to `"default"`.
        low_cpu_mem_usage (`bool`, `optional`, defaults to `False`):
            Create empty adapter weights on meta device. Useful to speed up the loading process.

    Returns:
        `torch.nn.Module`: The CLIP with MMRL's towers.

    Example:

        ```py
        >>> from transformers import CLIPModel
        >>> from peft import get_peft_model
        >>> from peft_mmrl import MMRLConfig

        >>> clip = CLIPModel.from_pretrained("openai/clip-vit-base-patch16")
        >>> model = get_peft_model(clip, MMRLConfig())
        >>> model.print_trainable_parameters()
        ```

    **Attributes**:
        - **model** ([`~transformers.CLIPModel`]) -- The model to be adapted.
        - **peft_config** (`dict[str, MMRLConfig]`): The configurations of the adapters by name.
    """

    prefix: str = "mmrl_"
    tuner_layer_cls = MMRLTower
    target_module_mapping: dict[str, list[str]] = {}

    def __init__(
        self,
        model: nn.Module,
        peft_config: PeftConfig | dict[str, PeftConfig],
        adapter_name: str,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        config = peft_config[adapter_name] if isinstance(peft_config, dict) else peft_config
        check_adapter(model, adapter_name, config)  # PEFT enters the config into the model before it injects
        super().__init__(model, peft_config, adapter_name, *args, **kwargs)

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Add an adapter that `check_adapter` has passed."""
        warn_if_other_base(model, self.base_fingerprint, self.peft_config[adapter_name])
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        name_labels_in_forward(model)

    @cached_property
    def base_fingerprint(self) -> str | None:
        """Digest of the base model, taken when the first adapter is added: later wrappers may split its weights."""
        return fingerprint_of(self.model)

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict[str, Any]) -> PeftConfig:
        return peft_config  # there are no target modules to fill in: MMRL adapts both towers

    @staticmethod
    def _check_target_module_exists(peft_config: PeftConfig, key: str) -> bool:
        return key in ("text_model", "vision_model")

    def _create_and_replace(
        self,
        peft_config: MMRLConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if not isinstance(target, MMRLTower):
            backbone = backbone_of(parent)
            shared = {"text_tower": parent.text_model} if target_name == "vision_model" else {}
            target = backbone.towers[target_name](target, self.peft_config, backbone, **shared)
            self._replace_module(parent, target_name, target, target.base_layer)
        target.update_layer(adapter_name, peft_config, parent.visual_projection.out_features)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        # PEFT's version copies `weight` and `bias` from layer to layer; a tower has neither, and places its own
        # adapters on the device of the frozen encoder.
        setattr(parent, child_name, new_module)

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        if not isinstance(adapter_name, str) and len(adapter_name) == 1:
            adapter_name = adapter_name[0]
        super().set_adapter(adapter_name, inference_mode=inference_mode)

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: PeftConfig,
        adapter_name: str,
        state_dict: dict[str, torch.Tensor],
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, torch.Tensor]:
        """An adapter's weights, whatever wraps the model that `state_dict` was taken from."""
        return {
            plain_name(name): weight
            for name, weight in state_dict.items()
            if f".{cls.prefix}" in name and f".{adapter_name}." in name
        }

    def _check_merge_allowed(self) -> NoReturn:
        raise NotImplementedError(
            "MMRL cannot be merged: it adds tokens to the sequence, which no change of CLIP's weights can replace. "
            "Keep the adapter (`save_pretrained`) and load it with `PeftModel.from_pretrained`; `unload()` gives "
            "back the plain CLIP."
        )

    def unmerge_adapter(self) -> NoReturn:
        self._check_merge_allowed()

    def unload(self) -> nn.Module:
        """Return the untouched CLIP, without towers, hooks or adapters."""
        model = super().unload()
        restore_forward(model)
        model.train(model.training)  # towers may have kept parts of it in eval mode
        model.disable_input_require_grads()  # hooks that PEFT sets for gradient checkpointing
        model.__dict__.pop("_require_grads_hooks", None)
        return model


@dataclass(frozen=True)
class BaseState:
    """How a base model was before an adapter was put into it.

    Args:
        trainable: names of the parameters that required a gradient.
        active_adapters: MMRL adapters that were active; None: it had no towers.
        has_input_grads: it had transformers' hooks for gradient checkpointing.
        adapter_name: name of the adapter that is put in.
        config: that of an adapter of this name that was there already; None: there was none.
        modules: such an adapter's weights, by the name of the ModuleDict that holds them.
    """

    trainable: frozenset[str]
    active_adapters: list[str] | None
    has_input_grads: bool
    adapter_name: str
    config: MMRLConfig | None
    modules: dict[str, nn.Module]

    @classmethod
    def of(cls, model: nn.Module, adapter_name: str) -> BaseState:
        """The state of `model` before an adapter of this name is put into it."""
        trainable = frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)
        towers = {name: module for name, module in model.named_modules() if isinstance(module, MMRLTower)}
        tower = next(iter(towers.values()), None)
        modules = {
            f"{name}.{what}": getattr(tower, what)[adapter_name]
            for name, tower in towers.items()
            for what in tower.adapter_layer_names
            if adapter_name in getattr(tower, what)
        }
        return cls(
            trainable=trainable,
            active_adapters=None if tower is None else list(tower.active_adapters),
            has_input_grads=bool(getattr(model, "_require_grads_hooks", None)),
            adapter_name=adapter_name,
            config=None if tower is None else tower.configs.get(adapter_name),
            modules=modules,
        )

    def restore(self, tuner: MMRLModel) -> None:
        """Take the adapter, and towers that came with it, out again; an adapter that it replaced comes back."""
        if self.active_adapters is None:
            model = tuner.unload()
            if self.has_input_grads:
                model.enable_input_require_grads()
        else:
            tuner.set_adapter(self.active_adapters)
            if self.config is not None:
                tuner.peft_config[self.adapter_name] = self.config
            elif self.adapter_name in tuner.peft_config:
                tuner.delete_adapter(self.adapter_name)
            for name, module in self.modules.items():
                tuner.model.get_submodule(name)[self.adapter_name] = module
        for name, parameter in tuner.model.named_parameters():
            parameter.requires_grad_(name in self.trainable)


def check_adapter(model: nn.Module, adapter_name: str, config: PeftConfig) -> None:
    """Raise where an adapter cannot be added to `model`, before anything is changed."""
    if isinstance(model, PeftModel | BaseTuner):
        raise ValueError(
            f"`model` is adapted already, it is a {type(model).__name__}. Put further adapters into it with its own "
            "`load_adapter(folder, adapter_name)` or `add_adapter(adapter_name, config)`, or take the base model back "
            "first with `model.unload()`."
        )
    if not isinstance(config, MMRLConfig):
        raise InvalidTypeError(f"MMRL needs an `MMRLConfig`, got {type(config).__name__}.")
    towers = backbone_of(model).towers
    check_base(model, config)
    try:
        nn.ModuleDict({adapter_name: nn.Identity()})
    except (KeyError, TypeError) as error:
        raise ValueError(f"`adapter_name`={adapter_name!r} cannot be the name of a module: {error}.") from error
    names: set[str] = {"base_model", "model", *WRAPPERS, *LEAVES}  # also of adapters of the other kind
    for tower_name, tower_cls in towers.items():
        encoder = frozen_encoder(model, tower_name)
        tower_cls.layers_of(config, encoder)  # raises for layers that the tower does not have
        names |= {tower_name, "base_layer", *tower_cls.adapter_layer_names}
        names |= {part for name, _ in encoder.named_parameters() for part in name.split(".")}
    if adapter_name in names:
        raise ValueError(
            f"`adapter_name`={adapter_name!r} is part of the name of a weight, so PEFT could not tell this adapter's "
            "weights from others when saving. Choose another name."
        )


def check_base(model: nn.Module, config: MMRLConfig) -> None:
    """Raise where a base model is in a state that MMRL cannot work with, or the config asks for a trained part of it.

    Raises:
        ValueError: weights that were moved out of memory, adapters of another method, weights that autograd cannot
            use, `modules_to_save`.
    """
    if getattr(config, "modules_to_save", None):
        raise ValueError(
            f"`modules_to_save`={config.modules_to_save!r} is not supported by MMRL: it scores new classes by CLIP's "
            "own projections, which must stay as they are."
        )
    if hasattr(model, "hf_device_map") and any(weight.is_meta for weight in model.parameters()):
        raise ValueError(
            f"`device_map`={model.hf_device_map!r} moved weights of the base model out of memory. MMRL needs all of "
            "them there: load the base model without offloading."
        )
    if any(isinstance(module, BaseTunerLayer) and not isinstance(module, MMRLTower) for module in model.modules()):
        raise ValueError(
            "The base model has adapters of another PEFT method in it. Merge or unload them first "
            "(`merge_and_unload()`, `unload()`)."
        )
    is_for_training = not config.inference_mode and not torch.is_inference_mode_enabled()
    if is_for_training and any(weight.is_inference() for weight in model.parameters()):
        raise ValueError(
            "The base model was made under `torch.inference_mode()`, so nothing can be trained on it. Make it outside."
        )


def plain_name(name: str) -> str:
    """A parameter's name without what wrappers of a model, or of a part of it, put into it."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def frozen_encoder(model: CLIPModel, tower_name: str) -> nn.Module:
    """transformers' own encoder, whether or not a tower is around it."""
    tower = getattr(model, tower_name)
    return tower.base_layer if isinstance(tower, MMRLTower) else tower


def adapter_shapes(model: CLIPModel, config: MMRLConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of an adapter's weights on `model`, by the names that PEFT saves them under."""
    shapes = {}
    with torch.device("meta"):
        for tower_name, tower_cls in backbone_of(model).towers.items():
            encoder = frozen_encoder(model, tower_name)
            modules = tower_cls.adapter_modules(config, encoder, model.visual_projection.out_features)
            for what, module in modules.items():
                for leaf, parameter in module.named_parameters():
                    shapes[f"base_model.model.{tower_name}.{what}.{leaf}"] = tuple(parameter.shape)
    return shapes
