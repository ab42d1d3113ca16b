"""What PEFT users do with adapters: add, switch, disable, save and load them."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub import CommitInfo
from peft import PeftConfig, PeftModel
from transformers import CLIPModel

from .classes import BoundClasses, trained_classes
from .config import MMRLConfig, refuse_offload, weights_follow
from .decision import DECISION_FILE, Decision
from .loading import check_weights_fit, is_beside, locate_base, name_bundled_base
from .model import BaseState, adapter_shapes, check_adapter, plain_name
from .validation import InvalidTypeError, as_list


class MMRLPeftModel(PeftModel):
    """A CLIP with MMRL adapters, each with the classes that are bound to it; one of them is active.

    Args:
        model ([`~transformers.CLIPModel`]): Base CLIP.
        peft_config ([`MMRLConfig`]): Config of the first adapter.
        adapter_name (`str`, *optional*): The name of the adapter, defaults to `"default"`.
        kwargs: as for [`~peft.PeftModel`].
    """

    # What `save_pretrained` and `push_to_hub` call; `peft_mmrl/__init__.py` sets both. None: PEFT's own.
    write_card: ClassVar[Callable[..., None] | None] = None
    push_model: ClassVar[Callable[..., CommitInfo] | None] = None

    def __init__(
        self, model: CLIPModel, peft_config: PeftConfig, adapter_name: str = "default", **kwargs: Any
    ) -> None:
        is_loading, before = weights_follow(peft_config), BaseState.of(model, adapter_name)
        super().__init__(model, peft_config, adapter_name, **kwargs)
        try:
            bound = {
                name: trained_classes(config, model.config.text_config) for name, config in self.peft_config.items()
            }
        except ValueError:  # they are of another base model
            before.restore(self.base_model)
            raise
        self._bound: dict[str, BoundClasses] = {
            name: classes for name, classes in bound.items() if classes is not None
        }
        self._decisions: dict[str, Decision] = {}
        # Nobody else has the model yet that `from_pretrained` makes: if it fails, the base model goes back as it came.
        self._before_loading: BaseState | None = before if is_loading else None

    def one_active_adapter(self) -> str:
        """Name of the active adapter.

        Raises:
            ValueError: there is none.
        """
        active = [name for name in self.active_adapters if name in self.peft_config]
        if len(active) != 1:
            raise ValueError(
                f"No adapter is active (there are: {list(self.peft_config)}). Add one with `add_adapter` or "
                "`load_adapter` and activate it with `set_adapter`."
            )
        return active[0]

    def _prepare_model_for_gradient_checkpointing(self, model: CLIPModel) -> CLIPModel:
        if getattr(model, "_require_grads_hooks", None):
            return model  # PEFT would set the hooks a second time and lose hold of the first
        return super()._prepare_model_for_gradient_checkpointing(model)

    # --- adapters -------------------------------------------------------------------------------------------------

    def get_base_model(self) -> CLIPModel:
        """The CLIP with MMRL's towers in it."""
        return self.base_model.model  # PEFT's version fails when the last adapter was deleted

    def add_adapter(self, adapter_name: str, peft_config: PeftConfig, *args: Any, **kwargs: Any) -> None:
        """As in PEFT; classes that are saved in the config are bound to the new adapter."""
        if not isinstance(peft_config, PeftConfig):
            raise InvalidTypeError(f"`peft_config` must be an `MMRLConfig`, got {peft_config!r}.")
        if adapter_name in self.peft_config:  # PEFT 0.20 would overwrite it
            raise ValueError(
                f"Adapter with name '{adapter_name}' already exists: pass another `adapter_name`, or remove it with "
                "`delete_adapter`."
            )
        if not isinstance(peft_config, MMRLConfig):
            super().add_adapter(adapter_name, peft_config, *args, **kwargs)  # PEFT refuses it with its own message
            return
        clip = self.get_base_model()
        check_adapter(clip, adapter_name, peft_config)
        bound = trained_classes(peft_config, clip.config.text_config)
        super().add_adapter(adapter_name, peft_config, *args, **kwargs)
        if bound is not None:
            self._bound[adapter_name] = bound

    def delete_adapter(self, adapter_name: str) -> None:
        """As in PEFT; the adapter's bound classes and its decision go with it."""
        super().delete_adapter(adapter_name)
        self._bound.pop(adapter_name, None)
        self._decisions.pop(adapter_name, None)

    def set_adapter(self, adapter_name: str, inference_mode: bool = False) -> None:
        """As in PEFT; the classes bound to the adapter come back with it.

        Raises:
            ValueError: an unknown adapter, or more than one.
        """
        if not isinstance(adapter_name, str):
            names = as_list("adapter_name", adapter_name, "adapter names")
            if len(names) > 1:
                raise ValueError(f"MMRL runs one adapter at a time, got `adapter_name`={names}.")
            adapter_name = names[0]
        super().set_adapter(adapter_name, inference_mode=inference_mode)

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """As in PEFT: frozen CLIP inside the context."""
        self.one_active_adapter()
        with super().disable_adapter():
            yield

    # --- saving and loading ---------------------------------------------------------------------------------------

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        safe_serialization: bool = True,
        selected_adapters: list[str] | None = None,
        save_embedding_layers: str | bool = False,
        **kwargs: Any,
    ) -> None:
        """As in PEFT. Embeddings are never part of an MMRL adapter, so PEFT need not ask the Hub whether they were
        resized: saving works offline. The config says which base model the adapter belongs to."""
        self.one_active_adapter()
        if save_embedding_layers is True:
            raise ValueError("`save_embedding_layers`: an MMRL adapter has no embeddings to save.")
        fingerprint = self.base_model.base_fingerprint
        for name, config in self.peft_config.items():
            if fingerprint is not None and config.base_fingerprint != fingerprint:
                self.peft_config[name] = copy.copy(config)  # the user's own config object stays as it is
                self.peft_config[name].base_fingerprint = fingerprint
        if kwargs.get("is_main_process", True):  # other processes may hold a part only
            kwargs["state_dict"] = self._adapter_weights(kwargs.get("state_dict"), selected_adapters)
        super().save_pretrained(save_directory, safe_serialization, selected_adapters, False, **kwargs)
        if kwargs.get("is_main_process", True):
            for name in self.peft_config if selected_adapters is None else selected_adapters:
                folder = Path(save_directory, "" if name == "default" else name)
                if is_beside(self.peft_config[name].base_model_name_or_path, folder):
                    name_bundled_base(folder)
                if name in self._decisions:
                    self._decisions[name].save(folder)
                else:  # of an adapter that was saved there before
                    (folder / DECISION_FILE).unlink(missing_ok=True)

    def _adapter_weights(
        self, state_dict: dict[str, torch.Tensor] | None, selected_adapters: list[str] | None
    ) -> dict[str, torch.Tensor]:
        """All weights of the adapters that are saved, under the names that PEFT looks for.

        Args:
            state_dict: of this model, of its base model, or of whatever wraps one of them. None: this model's.
            selected_adapters: names of the adapters; None: all.
        """
        prefix = "base_model.model."
        weights = {
            prefix + plain_name(name).removeprefix(prefix): weight
            for name, weight in (self.state_dict() if state_dict is None else state_dict).items()
            if "mmrl_" in name
        }
        names = [plain_name(name) for name, _ in self.named_parameters() if "mmrl_" in name]
        for adapter in self.peft_config if selected_adapters is None else selected_adapters:
            own = [name for name in names if f".{adapter}." in name]
            missing = [name for name in own if name not in weights]
            if missing:
                raise ValueError(
                    f"`state_dict` has {len(own) - len(missing)} of {len(own)} weights of the adapter {adapter!r}: "
                    f"{', '.join(missing)} missing. Pass that of the whole model, or none."
                )
        return weights

    def create_or_update_model_card(self, output_dir: str | os.PathLike[str]) -> None:
        """Write the active adapter's card; `peft_mmrl.hub.card.write_card` takes results and training data too."""
        if self.write_card is None:
            super().create_or_update_model_card(output_dir)
        else:
            self.write_card(output_dir, self)

    def push_to_hub(self, repo_id: str, *, max_shard_size: Any = None, **kwargs: Any) -> CommitInfo:
        """As in PEFT, but with the model card of the adapter, and without the path of a base model on this machine.

        Args:
            repo_id: name of the repository, which is created where there is none.
            max_shard_size: adapters are one file, so it is ignored.
            kwargs: as for [`~peft_mmrl.hub.upload.push_model`].
        """
        if self.push_model is None:
            return super().push_to_hub(repo_id, **kwargs)
        return self.push_model(self, repo_id, **kwargs)

    def load_adapter(self, model_id: str | os.PathLike[str], adapter_name: str, *args: Any, **kwargs: Any) -> Any:
        """As in PEFT; a new adapter's trained classes are bound, in-place loading takes weights and decision only.

        Where it fails, the model has the adapters and weights that it had before.

        Raises:
            ValueError: the adapter's weights do not fit this base model, or its decision not its classes.
            OSError: a file is missing or damaged.
        """
        refuse_offload(kwargs.get("ephemeral_gpu_offload", False))
        before = self._before_loading or BaseState.of(self.get_base_model(), adapter_name)
        self._before_loading = None
        try:
            decision = self._checked_decision(model_id, adapter_name, **kwargs)
            result = super().load_adapter(model_id, adapter_name, *args, **kwargs)
        except BaseException:
            before.restore(self.base_model)
            if before.config is None:
                self._bound.pop(adapter_name, None)
            raise
        locate_base(self.peft_config[adapter_name], model_id, kwargs.get("subfolder"))
        self._set_decision(adapter_name, decision)
        return result

    def _checked_decision(self, model_id: str | os.PathLike[str], adapter_name: str, **kwargs: Any) -> Decision | None:
        """The decision that is saved with an adapter whose weights fit; arguments and errors as for `load_adapter`."""
        decision = None
        if adapter_name in self.peft_config:
            config = self.peft_config[adapter_name]
        else:
            config = PeftConfig.from_pretrained(model_id, **self._split_kwargs(kwargs)[0])
        if isinstance(config, MMRLConfig):  # PEFT refuses others with its own message
            clip = self.get_base_model()
            check_weights_fit(clip, config, adapter_shapes(clip, config), model_id, **kwargs)
            decision = Decision.load(model_id, **self._split_kwargs(kwargs)[0])
            if decision is not None:
                decision.check_fits(config.classes, clip.config.projection_dim)
        return decision

    def _set_decision(self, adapter_name: str, decision: Decision | None) -> None:
        self._decisions.pop(adapter_name, None)
        if decision is not None:
            self._decisions[adapter_name] = decision.to(self.get_base_model().device)
