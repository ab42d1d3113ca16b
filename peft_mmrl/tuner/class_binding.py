"""The classes that an adapted CLIP scores: binding them, for all calls or for some, and showing them to others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedConfig

from .adapters import MMRLPeftModel
from .bound_model import BoundModel
from .classes import BoundClasses, bind_classes
from .config import MMRLConfig
from .config_view import view_of
from .loading import load_tokenizer
from .outputs import MMRLOutput
from .validation import as_positive_int


class ClassBindingModel(MMRLPeftModel):
    """A CLIP with MMRL adapters that named classes can be bound to."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._warned_untrained: set[str] = set()

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
        adapter = self.one_active_adapter()
        bound, new_config = self._bind(adapter, names, processor, template, seen, allow_duplicates)
        if new_config.classes != self.peft_config[adapter].classes:  # it is trained anew
            self._decisions.pop(adapter, None)
        self.peft_config[adapter] = new_config  # first, see `_state`
        self._bound[adapter] = bound
        self._warned_untrained.discard(adapter)

    def bound_to(
        self,
        names: list[str] | None = None,
        processor: Callable[..., Any] | None = None,
        *,
        template: str | list[str] | None = None,
        seen: Any = None,
        allow_duplicates: bool = False,
    ) -> BoundModel:
        """This model with classes of its own: `model.bound_to(names, processor)(pixel_values=images).logits`.

        Nothing of the model changes, so that threads can score different classes at a time. It goes on with the
        adapter that is active now, and keeps the text features as the model does: make it once for many calls.

        Args:
            names, processor, template, seen, allow_duplicates: as for `set_classes`. On an adapter without trained
                classes this does not define them.

        Raises:
            ValueError, TypeError: as `set_classes`.
        """
        adapter = self.one_active_adapter()
        return BoundModel(self, adapter, self._bind(adapter, names, processor, template, seen, allow_duplicates)[0])

    def _bind(
        self, adapter: str, names: Any, processor: Any, template: Any, seen: Any, allow_duplicates: bool
    ) -> tuple[BoundClasses, MMRLConfig]:
        config = self.peft_config[adapter]
        return bind_classes(
            config,
            self.get_base_model().config.text_config,
            names,
            processor,
            lambda: self._load_tokenizer(config),
            template,
            seen,
            allow_duplicates,
        )

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
        bound = self._bound.get(self.one_active_adapter())
        return None if bound is None else list(bound.names)

    @property
    def seen(self) -> list[bool] | None:
        """For each class that the active adapter is bound to, whether it counts as trained."""
        bound = self._bound.get(self.one_active_adapter())
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
        all outputs but the loss and the decision ignored when predictions are gathered.

        Whatever else is written to it is written to the base's config."""
        ignored = [name for name in MMRLOutput.__dataclass_fields__ if name not in ("loss", "logits")]
        own: dict[str, Any] = {"keys_to_ignore_at_inference": ignored}
        bound = self._bound.get(self.active_adapters[0]) if self.active_adapters else None
        if bound is not None:
            own["id2label"] = dict(enumerate(bound.names))
            own["label2id"] = {name: index for index, name in own["id2label"].items()}
        return view_of(self.get_base_model().config, **own)
