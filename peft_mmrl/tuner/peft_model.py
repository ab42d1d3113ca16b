"""The `PeftModel` of our task type: its forward pass."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .bound_model import BoundModel
from .classes import BoundClasses, ExplicitPrompts
from .deciding import DecidingModel
from .features import image_states
from .forward import State, checked_images, checked_prompts, checked_states, score
from .outputs import MMRLOutput
from .validation import refuse_mixed_batch


class PeftModelForZeroShotImageClassification(DecidingModel):
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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._warned_other_loss = False

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
        token_type_ids = kwargs.pop("token_type_ids", None)  # BERT's tokenizers give them
        bound_to = kwargs.pop("bound_to", None)  # a `BoundModel` passes itself
        state = self._state(bound_to)
        with_loss = labels is not None or bool(return_loss)
        if trunk_states is None:
            images = checked_images(clip, pixel_values, interpolate_pos_encoding)
        elif pixel_values is not None:
            raise ValueError("`pixel_values` and `trunk_states` are the same images; pass one.")
        if input_ids is None:
            classes = self._bound_classes(state)
        elif bound_to is not None:
            raise ValueError("`input_ids` and `bound_to` are both the classes to score; pass one.")
        else:
            classes = checked_prompts(clip, state.config, input_ids, attention_mask, position_ids, token_type_ids)
        state = replace(state, decision=self._decision_for(state, classes, pixel_values))
        if trunk_states is not None:
            images = checked_states(clip, state, trunk_states, frozen_image_embeds, with_loss, kwargs)
        output = score(clip, state, images, classes, labels, return_loss, num_items_in_batch, **kwargs)
        if labels is not None and not state.is_frozen:
            self._warn_if_untrained(state, classes)
        self._warn_of_other_loss(state, with_loss, output.logits)
        return output if (clip.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def _state(self, bound_to: BoundModel | None = None) -> State:
        """What the next forward pass runs on. The classes are read first: `set_classes` sets them last."""
        adapter = self.one_active_adapter() if bound_to is None else bound_to.adapter
        bound = self._bound.get(adapter) if bound_to is None else bound_to.bound
        if adapter not in self.peft_config:
            raise ValueError(f"`bound_to` goes with the adapter {adapter!r}, which was deleted.")
        config = self.peft_config[adapter]
        config.check_coefficients()
        is_frozen = self.get_base_model().vision_model.disable_adapters
        return State(adapter, copy.copy(config), bound, is_frozen, self.training)

    def state_for(self, pixel_values: torch.Tensor) -> State:
        """What a forward pass of these images over the bound classes runs on, the decision that it uses included."""
        state = self._state()
        return replace(state, decision=self._decision_for(state, self._bound_classes(state), pixel_values))

    @staticmethod
    def _bound_classes(state: State) -> BoundClasses:
        if state.classes is None:
            fresh = state.config.classes is None
            what = "`set_classes(names, processor)`" if fresh else "`set_classes(processor=...)`"
            raise ValueError(f"No classes are bound to this adapter: call {what} first, or pass `input_ids`.")
        return state.classes

    def _warn_if_untrained(self, state: State, classes: BoundClasses | ExplicitPrompts) -> None:
        """Say once that an adapter is being trained on other classes than those that are saved with it."""
        saved = state.config.classes
        if not state.is_training or state.adapter in self._warned_untrained:
            return
        if saved is not None and classes.are_trained:
            return
        self._warned_untrained.add(state.adapter)
        warnings.warn(
            f"The loss runs over other classes than the trained ones (saved with this adapter: {saved or 'none'}); a "
            "loaded adapter scores them by the class feature alone. To train on new classes set "
            "`model.peft_config[adapter_name].classes = None` and call `set_classes`.",
            stacklevel=3,
        )

    def _warn_of_other_loss(self, state: State, with_loss: bool, logits: torch.Tensor) -> None:
        """Say once that a training step asked for no loss: whatever is minimised, it is not MMRL's."""
        if with_loss or not state.is_training or not logits.requires_grad or self._warned_other_loss:
            return
        self._warned_other_loss = True
        warnings.warn(
            "This training step passed no `labels`, so MMRL's loss (two cross entropies and the regularisation by "
            "`reg_weight`) is not in use. Trainer keeps the labels to itself with `label_smoothing_factor` or "
            "`compute_loss_func`: leave these out and set `label_smoothing` or `class_weight` of `MMRLConfig`. "
            "A `compute_loss` of your own must pass `labels` on and use `outputs.loss`. To predict, call "
            "`model.eval()` first.",
            stacklevel=3,
        )

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
        adapter = self.one_active_adapter()
        checked_images(clip, pixel_values, interpolate_pos_encoding)
        return image_states(clip, adapter, pixel_values.to(clip.device), interpolate_pos_encoding)

    def get_image_features(
        self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = False, **kwargs: Any
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """As `CLIPModel.get_image_features`: class features f_c (B, d), not normalised, in `pooler_output`."""
        refuse_mixed_batch(kwargs)
        clip = self.get_base_model()
        checked_images(clip, pixel_values, interpolate_pos_encoding)
        self.peft_config[self.one_active_adapter()].check_coefficients()
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
        config = self.peft_config[self.one_active_adapter()]
        config.check_coefficients()
        token_type_ids = kwargs.pop("token_type_ids", None)
        prompts = checked_prompts(clip, config, input_ids, attention_mask, position_ids, token_type_ids)
        (inputs,) = prompts.text_inputs(clip.text_model)
        return clip.get_text_features(**inputs, **kwargs)
