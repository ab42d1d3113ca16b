"""The classes that a forward pass scores, and which of them are trained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from typing import Any

import torch
from transformers import PreTrainedConfig

from .config import MMRLConfig
from .names import check_unique, clean_names, match_keys, name_keys
from .prompts import Prompts
from .tokenization import (
    PromptTokenizer,
    as_ints,
    decode_ids,
    drop_left_padding,
    encode_ids,
    prompt_ids,
    trim_at_eos,
)
from .towers.text import TextTower
from .validation import InvalidTypeError, as_list, as_templates


@dataclass(frozen=True)
class BoundClasses:
    """The classes that `set_classes` binds to an adapter, ready for the text tower.

    Args:
        names: C class names.
        prompts: the C class prompts of each template.
        seen: for each class, whether it counts as trained (fused logits) or as new (class logits).
        trained: for each class its position among the trained classes that are saved with the adapter, or None.
        templates: the prompt templates.
    """

    names: tuple[str, ...]
    prompts: tuple[Prompts, ...]
    seen: tuple[bool, ...]
    trained: tuple[int | None, ...]
    templates: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def are_trained(self) -> bool:
        """Whether all of them are saved with the adapter as trained."""
        return None not in self.trained

    def text_inputs(self, tower: TextTower) -> list[dict[str, Any]]:
        """Arguments of the text tower, a dictionary per template."""
        return [tower.prompt_inputs(template) for template in self.prompts]


@dataclass
class ExplicitPrompts:
    """Prompts that are passed to `forward` as `input_ids` (C, n), in the place of bound classes.

    A row counts as trained when its tokens are those of a trained class's prompt in any of the adapter's templates.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    position_ids: torch.Tensor | None
    token_type_ids: torch.Tensor | None
    config: MMRLConfig
    text_config: PreTrainedConfig

    def __len__(self) -> int:
        return len(self.input_ids)

    @cached_property
    def trained(self) -> list[int | None]:
        """For each row the position of the trained class whose prompt it is, or None."""
        rows = [as_ints(row) for row in self.input_ids]
        if self.attention_mask is not None:
            masks = map(as_ints, (self.attention_mask != 0).int())
            rows = [drop_left_padding(row, mask) for row, mask in zip(rows, masks, strict=True)]
        keys = [" ".join(map(str, trim_at_eos(row, self.text_config))) for row in rows]
        by_template = [match_keys(keys, prompts) for prompts in self.config.class_input_ids or []]
        found = [[place for place in places if place is not None] for places in zip(*by_template, strict=True)]
        return [places[0] if places else None for places in found] or [None] * len(keys)

    @property
    def seen(self) -> list[bool]:
        """For each row, whether it is the prompt of a trained class."""
        return [place is not None for place in self.trained]

    @property
    def are_trained(self) -> bool:
        """Whether all rows are prompts of trained classes."""
        return all(self.seen)

    def text_inputs(self, tower: TextTower) -> list[dict[str, Any]]:
        """Arguments of the text tower, or of the plain base model."""
        names = ("input_ids", "attention_mask", "position_ids", "token_type_ids")
        return [{name: getattr(self, name) for name in names if getattr(self, name) is not None}]


def class_weights(config: MMRLConfig, classes: BoundClasses | ExplicitPrompts) -> torch.Tensor | None:
    """Weights (C,) of the classes that are scored, by `class_weight` of a config; 1 where a class was not trained.

    Raises:
        ValueError: there are weights, but no trained classes whose they could be.
    """
    if config.class_weight is None:
        return None
    if config.classes is None:
        raise ValueError(
            "`class_weight` is in the order of the trained classes, and this adapter has none yet: call `set_classes`."
        )
    weights = [1.0 if place is None else config.class_weight[place] for place in classes.trained]
    return torch.tensor(weights, dtype=torch.float64)


def seen_mask(seen: Any, default: Sequence[bool]) -> list[bool]:
    """Resolve the argument `seen`: None (`default`), "all", "none" or one truth value per class."""
    if seen is None:
        return list(default)
    if isinstance(seen, str):
        if seen not in ("all", "none"):
            raise ValueError(f'`seen` must be "all", "none" or one truth value per class, got {seen!r}.')
        return [seen == "all"] * len(default)
    values = as_list("seen", seen.tolist() if hasattr(seen, "tolist") else seen, "truth values")
    values = [value.item() if hasattr(value, "item") else value for value in values]  # numpy's truth values
    if any(not isinstance(value, bool) for value in values):
        raise InvalidTypeError(f"`seen` must hold True or False for each class, got {seen!r}.")
    if len(values) != len(default):
        raise ValueError(f"`seen` has {len(values)} entries for {len(default)} class names.")
    return values


def trained_classes(config: MMRLConfig, text_config: PreTrainedConfig) -> BoundClasses | None:
    """The classes saved with an adapter, bound without a tokenizer; None where their token ids are not saved."""
    if config.classes is None or config.class_input_ids is None:
        return None
    prompts = decode_ids(config.class_input_ids, text_config)
    return BoundClasses(
        names=tuple(config.classes),
        prompts=tuple(map(Prompts, prompts)),
        seen=(True,) * len(config.classes),
        trained=tuple(range(len(config.classes))),
        templates=tuple(config.templates),
    )


def bind_classes(
    config: MMRLConfig,
    text_config: PreTrainedConfig,
    names: Any,
    processor: Callable[..., Any] | None,
    load_processor: Callable[[], Callable[..., Any]] | None = None,
    template: Any = None,
    seen: Any = None,
    allow_duplicates: bool = False,
) -> tuple[BoundClasses, MMRLConfig]:
    """Work out what `set_classes` asks for, without changing anything.

    Args:
        config: the active adapter's config.
        text_config: the base model's text config.
        names, processor, template, seen, allow_duplicates: the arguments of `set_classes`.
        load_processor: gives the base model's processor where `processor` is None and one is needed.

    Returns:
        the bound classes, and the config to go on with: a copy where there is something new to save, else `config`.
    """
    is_fresh = config.classes is None
    templates = config.templates if template is None else as_templates(template)
    if names is None and is_fresh:
        raise ValueError("`names` must be given: this adapter has no trained classes yet.")
    saved = trained_classes(config, text_config)
    if names is None and processor is None and saved is not None and templates == config.templates:
        return replace(saved, seen=tuple(seen_mask(seen, saved.seen))), config

    tokenizer = PromptTokenizer(load_processor() if processor is None else processor, text_config)
    if names is None:
        names, places = config.classes, list(range(len(config.classes)))
    else:
        given = as_list("names", names, "class names")
        names = clean_names(given)
        keys = name_keys(names, tokenizer)
        if not allow_duplicates:
            check_unique(given, keys)
        places = match_keys(keys, keys if is_fresh else name_keys(config.classes, tokenizer))
    flags = seen_mask(seen, [place is not None for place in places])
    prompts = prompt_ids(names, templates, tokenizer)

    if is_fresh:
        kept = [position for position, flag in enumerate(flags) if flag]
        order = count()
        places = [next(order) if flag else None for flag in flags]
        if kept:
            config.check_class_weight([names[position] for position in kept])
            config = copy.copy(config)
            config.template = (
                config.template if template is None else template if isinstance(template, str) else templates
            )
            config.classes = [names[position] for position in kept]
            config.class_input_ids = encode_ids([[rows[position] for position in kept] for rows in prompts])
    elif config.class_input_ids is None:  # an adapter that was converted where no tokenizer was at hand
        config = copy.copy(config)
        config.class_input_ids = encode_ids(prompt_ids(config.classes, config.templates, tokenizer))
    return BoundClasses(
        tuple(names), tuple(map(Prompts, prompts)), tuple(flags), tuple(places), tuple(templates)
    ), config
