"""Fitting and using a [`Decision`] with a model: from pictures to features, and which classes it applies to."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.data_loader import DataLoaderStateMixin
from accelerate.utils import broadcast_object_list
from transformers import CLIPModel

from .class_binding import ClassBindingModel
from .classes import BoundClasses, ExplicitPrompts
from .config import MMRLConfig
from .decision import Decision, check_features, conditions, rows_of
from .decision_fit import fit
from .features import compute_features, text_features
from .forward import State
from .towers.forward_pass import ForwardPass
from .validation import InvalidTypeError, as_positive_int, check_labels, check_pixel_values


def fit_on_pictures(
    clip: CLIPModel,
    state: State,
    base_fingerprint: str | None,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    features: str,
) -> Decision:
    """Fit a decision on labelled pictures, on one process or on several, each of which gets the same.

    Args:
        clip: the base model with MMRL's towers.
        state: the adapter that decides, with its trained classes bound in any order.
        base_fingerprint: digest of the base model.
        batches: pictures and labels; where it is a loader that Accelerate spreads over processes, all see all of it.
        features: the pass that class and representation logits come from.
    """
    check_trained(state.config, state.classes)
    is_spread = isinstance(batches, DataLoaderStateMixin) and torch.distributed.is_initialized()
    accelerator = Accelerator() if is_spread else None
    found = []
    with torch.no_grad():
        for pixel_values, labels in labelled_batches(batches):
            check_pixel_values(pixel_values, clip.config.vision_config)
            check_labels(labels, len(pixel_values), len(state.classes))
            images = {"pixel_values": pixel_values.to(clip.device), "interpolate_pos_encoding": False}
            computed = compute_features(clip, images, None, state.classes, _frozen_pass(state))
            pair = computed.image, labels.to(clip.device, torch.long)
            found.append(accelerator.gather_for_metrics(pair) if is_spread else pair)
    if not found:
        raise ValueError("`images` holds no pictures.")
    images, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    decision = fit_on_features(clip, state, base_fingerprint, images, labels, features, pixel_values.shape[2:])
    if is_spread:  # sums in another order may differ in their last bit
        decision = broadcast_object_list([decision.to("cpu")])[0]
    return decision.to(clip.device)


def fit_on_features(
    clip: CLIPModel,
    state: State,
    base_fingerprint: str | None,
    images: torch.Tensor,
    labels: torch.Tensor,
    features: str,
    image_size: Sequence[int] | None = None,
) -> Decision:
    """`fit_on_pictures` where the pictures' features in frozen CLIP are known.

    Args:
        images: f_0 (N, d).
        labels: (N,) positions in the bound classes.
        image_size: height and width of the pictures; None: not known.
    """
    config, classes = state.config, state.classes
    check_trained(config, classes)
    check_labels(labels, len(images), len(classes))
    with torch.no_grad():
        text = text_features(clip, classes, _frozen_pass(state))[0]
    places = torch.tensor(classes.trained, device=clip.device)  # rows are in the order of the trained classes
    weight = config.class_weight
    return fit(
        images.to(text),
        text[places.argsort()],
        places[labels.to(places)],
        clip.logit_scale.exp().detach(),
        class_weight=None if weight is None else torch.tensor(weight),
        features=features,
        classes=config.classes,
        fitted_for=conditions(config.templates, base_fingerprint, image_size, config),
    )


def _frozen_pass(state: State) -> ForwardPass:
    return ForwardPass(state.adapter, state.config.beta, is_frozen=True, with_states=False)


def labelled_batches(batches: Iterable[Any]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Pictures and labels of batches: mappings with `pixel_values` and `labels`, or pairs of tensors."""
    for batch in batches:
        if isinstance(batch, Mapping):
            batch = batch.get("pixel_values"), batch.get("labels")
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise InvalidTypeError(
                "`images` must hold batches with `pixel_values` and `labels`, or pairs of both, got a batch of type "
                f"{type(batch).__name__}."
            )
        yield tuple(batch)


def check_trained(config: MMRLConfig, classes: BoundClasses) -> None:
    """Raise where the bound classes are not an adapter's trained ones, in its own templates."""
    places = [place for place in classes.trained if place is not None]
    if config.classes is None or None in classes.trained or sorted(places) != list(range(len(config.classes))):
        raise ValueError(
            "A decision is fitted on the trained classes, each bound once, in any order: call `set_classes()` first. "
            f"Trained: {config.classes}, bound: {list(classes.names)}."
        )
    if list(classes.templates) != config.templates:
        raise ValueError(
            f"A decision is fitted with the adapter's own `template`, {config.templates}, but the classes are bound "
            f"with {list(classes.templates)}: call `set_classes()` first."
        )


class DecidingModel(ClassBindingModel):
    """Adds to each adapter the decision that is fitted for it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._warned_decision: set[tuple[str, ...]] = set()
        # How an image processor prepares the pictures, which pixel values do not tell: set by `Preprocessing.of`.
        self.image_settings: dict[str, Any] | None = None

    def fit_decision(
        self,
        images: torch.Tensor | Iterable[Any],
        labels: torch.Tensor | None = None,
        *,
        features: str = "adapted",
        batch_size: int = 32,
    ) -> Decision:
        """Fit on the training pictures how the active adapter decides where trained and new classes compete.

        From now on `logits` in eval mode are those of the decision: their softmax over the bound classes gives
        probabilities. It is saved with the adapter. It depends on frozen CLIP alone, so it may be fitted before
        training as well as after; it takes one frozen pass over the pictures and a moment.

        Args:
            images: processed pictures without augmentation (N, channels, height, width), or their normalised features
                in frozen CLIP (N, d) where these are known, or an iterable of batches with `pixel_values` and `labels`
                (mappings, or pairs of tensors), such as a loader; one that Accelerate spreads over processes is
                gathered.
            labels: (N,) positions in the bound classes, which must be the trained ones, in any order.
            features: which pass class and representation logits come from: "adapted", or "frozen", with which the
                adapted layers are not run: the decision without training.
            batch_size: pictures at a time, where `images` is a tensor.

        Returns:
            the decision, which is `model.decision` now.

        Raises:
            ValueError: a class without pictures, labels out of range, features that are not finite, bound classes that
                are not the trained ones. Nothing is changed then.
        """
        check_features(features)
        batch_size = as_positive_int("batch_size", batch_size)
        clip, state = self.get_base_model(), self._state()
        if state.classes is None:
            raise ValueError("A decision is fitted on the trained classes: call `set_classes` first.")
        is_known = isinstance(images, torch.Tensor) and images.ndim == 2  # features
        if isinstance(images, torch.Tensor):
            if not is_known:
                check_pixel_values(images, clip.config.vision_config)
            if not isinstance(labels, torch.Tensor) or labels.shape != (len(images),):
                raise ValueError(
                    f"`labels` must be a tensor of one label per image, ({len(images)},), got {labels!r}."
                )
            pairs = zip(images.split(batch_size), labels.split(batch_size), strict=True)
        elif labels is not None:
            raise ValueError("`labels` belong into the batches where `images` is an iterable of batches.")
        else:
            pairs = images
        was_training = self.training
        self.eval()
        try:
            fingerprint = self.base_model.base_fingerprint
            if is_known:
                decision = fit_on_features(clip, state, fingerprint, images, labels, features)
            else:
                decision = fit_on_pictures(clip, state, fingerprint, pairs, features)
        finally:
            self.train(was_training)
        decision = replace(decision, fitted_for=decision.fitted_for | {"image processor": self.image_settings})
        self._decisions[state.adapter] = decision
        self._warned_decision.clear()
        return decision

    @property
    def decision(self) -> Decision | None:
        """How the active adapter decides, see `fit_decision`; None: by fused and class logits, as in the papers."""
        return self._decisions.get(self.one_active_adapter())

    @decision.setter
    def decision(self, value: Decision | None) -> None:
        adapter = self.one_active_adapter()
        if value is not None:
            if not isinstance(value, Decision):
                raise InvalidTypeError(f"`decision` must be a `Decision` or None, got {value!r}.")
            value.check_fits(self.peft_config[adapter].classes, self.get_base_model().config.projection_dim)
        self._set_decision(adapter, value)

    def _decision_for(
        self, state: State, classes: BoundClasses | ExplicitPrompts, pixel_values: torch.Tensor | None
    ) -> Decision | None:
        """The decision that a forward pass uses: in eval mode, over bound classes, under what it was fitted for.

        Where there is none, or another one is needed, it says so once."""
        adapter, config, decision = state.adapter, state.config, self._decisions.get(state.adapter)
        is_plain = state.is_training or state.is_frozen or config.classes is None
        if is_plain:
            return None
        is_bound = isinstance(classes, BoundClasses)
        if decision is None or not is_bound:
            if len(set(classes.seen)) == 2:
                mended = "" if is_bound else ", for classes bound by `set_classes` or `bound_to`, not for `input_ids`"
                self._warn_of_decision(
                    (adapter, "none"),
                    "Trained and new classes compete, but fused logits of the ones and class logits of the others are "
                    "on different scales. A decision, `model.fit_decision(images, labels)` on the training pictures, "
                    f"mends it{mended}.",
                )
            return None
        rows_of(classes)  # raises for a class without one
        size = getattr(pixel_values, "shape", (None, None))[2:] or None
        if differing := self._differing(decision, classes, size, config):
            self._warn_of_decision(
                (adapter, *differing),
                f"The adapter's decision was fitted for another {', '.join(differing)} and is not used. Fit it anew "
                "(`fit_decision`) or take it off (`model.decision = None`).",
            )
            return None
        if decision.probe_weight.device != self.get_base_model().device:
            self._set_decision(adapter, decision)
        return self._decisions[adapter]

    def _differing(
        self, decision: Decision, classes: BoundClasses, size: tuple[int, ...] | None, config: MMRLConfig
    ) -> list[str]:
        now = conditions(classes.templates, self.base_model.base_fingerprint, size, config)
        return decision.differs_in(now | {"image processor": self.image_settings})

    def unused_decision(self) -> list[str]:
        """In what the bound classes, the base model or the image processor differ from those that the active adapter's
        decision was fitted for: it is not used then. Nothing where it is used, or where there is none."""
        adapter = self.one_active_adapter()
        decision, classes = self._decisions.get(adapter), self._bound.get(adapter)
        if decision is None or classes is None:
            return []
        return self._differing(decision, classes, None, self.peft_config[adapter])

    def _warn_of_decision(self, key: tuple[str, ...], message: str) -> None:
        if key not in self._warned_decision:
            self._warned_decision.add(key)
            warnings.warn(message, stacklevel=4)
