"""The `PeftModel` of our task type: bound classes, forward pass, loss, loading."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from huggingface_hub import CommitInfo
from peft import PeftConfig, PeftModel
from transformers import CLIPModel, PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .classes import BoundClasses, ExplicitPrompts, bind_classes, class_weights, trained_classes
from .config import MMRLConfig
from .features import compute_features, image_states
from .loading import arguments_of_from_pretrained, check_weights_fit, load_tokenizer, refuse_offload
from .losses import decision_logits, mmrl_loss, similarity_logits
from .model import adapter_shapes, check_adapter
from .outputs import MMRLOutput
from .validation import (
    InvalidTypeError,
    as_list,
    as_positive_int,
    check_input_ids,
    check_num_items,
    check_pixel_values,
    check_states,
    check_targets,
    refuse_mixed_batch,
)


class PeftModelForZeroShotImageClassification(PeftModel):
    """
    A CLIP with MMRL adapters that classifies images among named classes.

    Args:
        model ([`~transformers.CLIPModel`]): Base CLIP.
        peft_config ([`MMRLConfig`]): Config of the first adapter.
        adapter_name (`str`, *optional*): The name of the adapter, defaults to `"default"`.
        kwargs: as for [`~peft.PeftModel`].

    Example:

        ```py
        >>> from transformers import CLIPModel, CLIPProcessor
        >>> from peft import get_peft_model
        >>> from peft_mmrl import MMRLConfig

        >>> clip = CLIPModel.from_pretrained("openai/clip-vit-base-patch16")
        >>> processor = CLIPProcessor.from_pretrained("openai/clip-vit-base-patch16")
        >>> model = get_peft_model(clip, MMRLConfig())
        >>> model.set_classes(["cat", "dog"], processor)
        >>> loss = model(pixel_values=images, labels=labels).loss
        ```
    """

    # What `save_pretrained` and `push_to_hub` call; `peft_mmrl/__init__.py` sets both. None: PEFT's own.
    write_card: ClassVar[Callable[..., None] | None] = None
    push_model: ClassVar[Callable[..., CommitInfo] | None] = None

    def __init__(
        self, model: CLIPModel, peft_config: PeftConfig, adapter_name: str = "default", **kwargs: Any
    ) -> None:
        check_adapter(model, adapter_name, peft_config)
        configs = {**getattr(model, "peft_config", {}), adapter_name: peft_config}
        bound = {name: trained_classes(config, model.config.text_config) for name, config in configs.items()}
        loading = arguments_of_from_pretrained()
        if loading is not None:
            refuse_offload(loading)
            check_weights_fit(model, peft_config, adapter_shapes(model, peft_config), **loading)
        super().__init__(model, peft_config, adapter_name, **kwargs)
        self._bound = {name: classes for name, classes in bound.items() if classes is not None}
        self._warned_untrained: set[str] = set()
        self._warned_other_loss = False

    # --- classes --------------------------------------------------------------------------------------------------

    def set_classes(
        self,
        names: list[str] | None = None,
        processor: Callable[..., Any] | None = None,
        *,
        template: str | list[str] | None = None,
        seen: Any = None,
        allow_duplicates: bool = False,
    ) -> None:
        """Bind the active adapter to the classes that it scores from now on.

        On an adapter without trained classes the first call defines them; they are saved with the adapter. Later
        calls, and calls on a loaded adapter, only bind: a class whose name was trained is scored by fused logits,
        any other by the class feature alone.

        Args:
            names: class names; underscores become blanks. None: the trained classes.
            processor: a CLIP processor, a tokenizer, or a callable like one (a list of texts in, `input_ids` with
                BOS and EOS out). None: loaded from the base model's name or path.
            template: a prompt template with a place `{}` for the name, or several, whose features are averaged.
                None: the adapter's own.
            seen: which classes count as trained: "all", "none" or one truth value per class. None: all on an adapter
                without trained classes, else those whose names were trained.
            allow_duplicates: accept names that are the same class to the tokenizer.

        Raises:
            ValueError: duplicate or empty names, a template without `{}`, a mask of the wrong length, a prompt
                beyond the context. Nothing is changed then.
            TypeError: a bare string for names, or another wrong type.
        """
        adapter = self._one_active_adapter()
        config = self.peft_config[adapter]
        bound, new_config = bind_classes(
            config,
            self.get_base_model().config.text_config,
            names,
            processor,
            lambda: self._load_tokenizer(config),
            template,
            seen,
            allow_duplicates,
        )
        self.peft_config[adapter] = new_config
        self._bound[adapter] = bound
        self._warned_untrained.discard(adapter)

    def _load_tokenizer(self, config: MMRLConfig) -> Callable[..., Any]:
        name = config.base_model_name_or_path or self.get_base_model().name_or_path
        if not name:
            raise ValueError("`processor` must be given: the base model has no name or path to load one from.")
        try:
            return load_tokenizer(name, config.revision)
        except OSError as error:
            raise ValueError(f"`processor` must be given: {error}") from error

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes that the active adapter is bound to."""
        bound = self._bound.get(self._one_active_adapter())
        return None if bound is None else list(bound.names)

    @property
    def seen(self) -> list[bool] | None:
        """For each class that the active adapter is bound to, whether it counts as trained."""
        bound = self._bound.get(self._one_active_adapter())
        return None if bound is None else list(bound.seen)

    @property
    def text_chunk_size(self) -> int:
        """Number of class prompts that are encoded at a time, 1024 unless set.

        With more classes the backward pass computes each chunk again, so that memory does not grow with classes x
        layers. Results do not depend on it.
        """
        return self.get_base_model().text_model.chunk_size

    @text_chunk_size.setter
    def text_chunk_size(self, value: int) -> None:
        self.get_base_model().text_model.chunk_size = as_positive_int("text_chunk_size", value)

    @property
    def config(self) -> PreTrainedConfig:
        """The base model's config as Trainer and pipelines should see it: with the bound classes as labels, and with
        all outputs but the loss and the decision ignored when predictions are gathered. The base's stays as it is."""
        config = copy.copy(self.get_base_model().config)
        config.keys_to_ignore_at_inference = [
            name for name in MMRLOutput.__dataclass_fields__ if name not in ("loss", "logits")
        ]
        bound = self._bound.get(self.active_adapters[0]) if self.active_adapters else None
        if bound is not None:
            config.id2label = dict(enumerate(bound.names))
            config.label2id = {name: index for index, name in config.id2label.items()}
        return config

    # --- forward --------------------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        return_loss: bool | None = None,
        interpolate_pos_encoding: bool = False,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        *,
        trunk_states: torch.Tensor | None = None,
        frozen_image_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> MMRLOutput | tuple[Any, ...]:
        """Score B images among the bound classes, or among explicit prompts; C classes or prompts.

        Args:
            input_ids (`torch.Tensor` of shape `(C, n)`, *optional*): class prompts, or with `return_loss` one caption
                per image. Left out, the classes bound by `set_classes` are scored.
            pixel_values (`torch.Tensor` of shape `(B, channels, height, width)`): processed images.
            attention_mask (`torch.Tensor` of shape `(C, n)`, *optional*): 1 for tokens, 0 for padding.
            position_ids (`torch.Tensor` of shape `(C, n)`, *optional*): positions of the prompts' tokens.
            return_loss (`bool`, *optional*): CLIP's contrastive loss in place of both cross entropies.
            interpolate_pos_encoding (`bool`, *optional*): for images of another size than the model's.
            labels (`torch.Tensor` of shape `(B,)`, *optional*): class indices, for the loss.
            num_items_in_batch (`int`, *optional*): images over which the loss is averaged, where they are spread over
                several calls (Trainer's gradient accumulation); with `class_weight` too, images count, not weights.
            trunk_states (`torch.Tensor` of shape `(B, patches + 1, d_v)`, *optional*): what `image_states` gives for
                images, in the place of `pixel_values`.
            frozen_image_embeds (`torch.Tensor` of shape `(B, d)`, *optional*): the same for the loss.
            kwargs: as for `CLIPModel.forward`.

        Returns:
            [`MMRLOutput`]; a tuple with `return_dict=False`.
        """
        refuse_mixed_batch(kwargs)
        clip = self.get_base_model()
        return_dict = kwargs.pop("return_dict", None)
        return_dict = clip.config.return_dict if return_dict is None else return_dict
        adapter = self._one_active_adapter()
        config = self.peft_config[adapter]
        config.check_coefficients()
        is_frozen = clip.vision_model.running_adapter is None
        with_loss = labels is not None or bool(return_loss)
        with_frozen = with_loss and config.reg_weight > 0 and not is_frozen
        if trunk_states is None:
            check_pixel_values(pixel_values, clip.config.vision_config)
            images = {"pixel_values": pixel_values, "interpolate_pos_encoding": interpolate_pos_encoding}
        else:
            images = {"trunk_states": trunk_states, "frozen_image_embeds": frozen_image_embeds}
            check_states(clip, pixel_values, **images, with_frozen=with_frozen, is_frozen=is_frozen)
        num_images = len(pixel_values if trunk_states is None else trunk_states)
        token_type_ids = kwargs.pop("token_type_ids", None)  # BERT's tokenizers give them
        classes = self._classes_to_score(input_ids, attention_mask, position_ids, token_type_ids)
        check_targets(labels, return_loss, num_images, len(classes), has_captions=input_ids is not None)
        labels = None if labels is None else labels.to(clip.device, torch.long)
        weights = None if labels is None or is_frozen else class_weights(config, classes)

        features, outputs = compute_features(clip, images, classes, with_frozen=with_frozen, **kwargs)
        class_logits, rep_logits = similarity_logits(features, clip.logit_scale.exp())
        if is_frozen and input_ids is not None:
            class_logits = outputs["logits_per_image"]  # CLIP's own, bit for bit
        if self.training:
            seen = [True] * len(classes)
        else:  # an adapter without trained classes has a representation projection that is still random
            seen = classes.seen if config.classes is not None else [False] * len(classes)
        logits = decision_logits(
            class_logits, rep_logits, torch.tensor(seen, device=class_logits.device), config.alpha
        )

        losses = {}
        if with_loss:
            coefficients = config.alpha, config.reg_weight, config.label_smoothing
            losses = mmrl_loss(class_logits, rep_logits, labels, features, *coefficients, weights)
            if labels is not None and num_items_in_batch is not None:
                check_num_items(num_items_in_batch)
                losses["loss"] = losses["loss"] * len(labels) / num_items_in_batch
        if labels is not None and not is_frozen:
            self._warn_if_untrained(adapter, classes)
        if not with_loss and self.training and logits.requires_grad:
            self._warn_of_other_loss()
        output = MMRLOutput(
            logits_per_image=logits,
            logits_per_text=logits.T,
            text_embeds=features.text,
            image_embeds=features.image,
            text_model_output=outputs.get("text_model_output"),
            vision_model_output=outputs.get("vision_model_output"),
            logits=logits,
            class_logits=class_logits,
            rep_logits=rep_logits,
            rep_image_embeds=features.rep,
            **losses,
        )
        return output if return_dict else output.to_tuple()

    @torch.no_grad()
    def image_states(
        self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = False
    ) -> dict[str, torch.Tensor]:
        """What a training step needs of images that training does not change, as arguments of `forward`.

        Args:
            pixel_values (`torch.Tensor` of shape `(B, channels, height, width)`): processed images.
            interpolate_pos_encoding (`bool`, *optional*): for images of another size than the model's.

        Returns:
            `trunk_states` (B, patches + 1, d_v), which enter the active adapter's first adapted layer, and
            `frozen_image_embeds` (B, d), normalised features in frozen CLIP.
        """
        clip = self.get_base_model()
        self._one_active_adapter()
        check_pixel_values(pixel_values, clip.config.vision_config)
        return image_states(clip, pixel_values.to(clip.device), interpolate_pos_encoding)

    def get_image_features(
        self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = False, **kwargs: Any
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """As `CLIPModel.get_image_features`: class features f_c (B, d), not normalised, in `pooler_output`."""
        refuse_mixed_batch(kwargs)
        clip = self.get_base_model()
        check_pixel_values(pixel_values, clip.config.vision_config)
        self.peft_config[self._one_active_adapter()].check_coefficients()
        return clip.get_image_features(pixel_values, interpolate_pos_encoding, **kwargs)

    def get_text_features(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """As `CLIPModel.get_text_features`: text features w (C, d), not normalised, in `pooler_output`."""
        refuse_mixed_batch(kwargs)
        clip = self.get_base_model()
        check_input_ids(input_ids, attention_mask, position_ids, clip.config.text_config)
        self.peft_config[self._one_active_adapter()].check_coefficients()
        return clip.get_text_features(input_ids, attention_mask=attention_mask, position_ids=position_ids, **kwargs)

    def _classes_to_score(
        self,
        input_ids: Any,
        attention_mask: Any,
        position_ids: torch.Tensor | None,
        token_type_ids: torch.Tensor | None,
    ) -> BoundClasses | ExplicitPrompts:
        """The bound classes, or the explicit prompts of this call."""
        adapter = self._one_active_adapter()
        config, text_config = self.peft_config[adapter], self.get_base_model().config.text_config
        if input_ids is not None:
            check_input_ids(input_ids, attention_mask, position_ids, text_config)
            input_ids = input_ids.reshape(-1, input_ids.shape[-1])  # as CLIPModel does it
            if attention_mask is not None:
                attention_mask = attention_mask.reshape(input_ids.shape)
            return ExplicitPrompts(input_ids, attention_mask, position_ids, token_type_ids, config, text_config)
        if adapter not in self._bound:
            what = "`set_classes(names, processor)`" if config.classes is None else "`set_classes(processor=...)`"
            raise ValueError(f"No classes are bound to this adapter: call {what} first, or pass `input_ids`.")
        return self._bound[adapter]

    def _warn_if_untrained(self, adapter: str, classes: BoundClasses | ExplicitPrompts) -> None:
        """Say once that an adapter is being trained on other classes than those that are saved with it."""
        saved = self.peft_config[adapter].classes
        if not self.training or adapter in self._warned_untrained or (saved is not None and classes.are_trained):
            return
        self._warned_untrained.add(adapter)
        warnings.warn(
            f"The loss runs over other classes than the trained ones (saved with this adapter: {saved or 'none'}); a "
            "loaded adapter scores them by the class feature alone. To train on new classes set "
            "`model.peft_config[adapter_name].classes = None` and call `set_classes`.",
            stacklevel=3,
        )

    def _warn_of_other_loss(self) -> None:
        """Say once that a training step asked for no loss: whatever is minimised, it is not MMRL's."""
        if not self._warned_other_loss:
            self._warned_other_loss = True
            warnings.warn(
                "This training step passed no `labels`, so MMRL's loss (two cross entropies and the regularisation by "
                "`reg_weight`) is not in use. Trainer keeps the labels to itself with `label_smoothing_factor` or "
                "`compute_loss_func`: leave these out and set `label_smoothing` or `class_weight` of `MMRLConfig`. "
                "A `compute_loss` of your own must pass `labels` on and use `outputs.loss`. To predict, call "
                "`model.eval()` first.",
                stacklevel=3,
            )

    def _one_active_adapter(self) -> str:
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
        if isinstance(peft_config, MMRLConfig):
            check_adapter(self.get_base_model(), adapter_name, peft_config)
            bound = trained_classes(peft_config, self.get_base_model().config.text_config)
        else:
            bound = None  # PEFT refuses it with its own message
        super().add_adapter(adapter_name, peft_config, *args, **kwargs)
        if bound is not None:
            self._bound[adapter_name] = bound

    def delete_adapter(self, adapter_name: str) -> None:
        """As in PEFT; the adapter's bound classes go with it."""
        super().delete_adapter(adapter_name)
        self._bound.pop(adapter_name, None)

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
        self._one_active_adapter()
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
        self._one_active_adapter()
        if save_embedding_layers is True:
            raise ValueError("`save_embedding_layers`: an MMRL adapter has no embeddings to save.")
        fingerprint = self.base_model.base_fingerprint
        for name, config in self.peft_config.items():
            if fingerprint is not None and config.base_fingerprint != fingerprint:
                self.peft_config[name] = copy.copy(config)  # the user's own config object stays as it is
                self.peft_config[name].base_fingerprint = fingerprint
        super().save_pretrained(save_directory, safe_serialization, selected_adapters, False, **kwargs)

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
        """As in PEFT; a new adapter's trained classes are bound, in-place loading takes weights only.

        Raises:
            ValueError: the adapter's weights do not fit this base model.
            OSError: the file with the weights is damaged.
        """
        refuse_offload(kwargs)
        if adapter_name in self.peft_config:
            config = self.peft_config[adapter_name]
        else:
            config = PeftConfig.from_pretrained(model_id, **self._split_kwargs(kwargs)[0])
        if isinstance(config, MMRLConfig):  # PEFT refuses others with its own message
            clip = self.get_base_model()
            check_weights_fit(clip, config, adapter_shapes(clip, config), model_id, **kwargs)
        return super().load_adapter(model_id, adapter_name, *args, **kwargs)
