"""Class names, prompts and the classes that an adapter is bound to.

Two names are the same class when the tokenizer gives them the same ids, so case, blanks and Unicode composition make
no difference.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedConfig

from .config import MMRLConfig
from .prompts import Prompts
from .towers import eos_index
from .validation import InvalidTypeError, as_list, as_templates


@dataclass(frozen=True)
class BoundClasses:
    """The classes that an adapter scores, ready for the text tower.

    Args:
        names: C class names.
        prompts: the C class prompts of each template.
        seen: for each class, whether it was trained (fused logits) or not (class logits).
        are_trained: whether these are exactly the classes that are saved with the adapter.
    """

    names: tuple[str, ...]
    prompts: tuple[Prompts, ...]
    seen: tuple[bool, ...]
    are_trained: bool


class PromptTokenizer:
    """Token ids of texts, by whatever the user calls a processor.

    Args:
        processor: a CLIP processor, a tokenizer or any callable that takes a list of texts and returns `input_ids`
            with BOS and EOS. Padding behind EOS is cut.
        text_config: the base model's text config (EOS id, vocabulary, context length).
    """

    def __init__(self, processor: Callable[..., Any], text_config: PreTrainedConfig) -> None:
        # A CLIP processor takes images first; the tokenizer inside it takes texts.
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.text_config = text_config
        if not callable(self.tokenizer):
            raise InvalidTypeError(
                f"`processor` must be a CLIP processor, a tokenizer or a callable like one, got {processor!r}."
            )

    def __call__(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text from BOS to EOS, of any length."""
        try:
            encoded = self.tokenizer(texts)
            rows = encoded["input_ids"] if hasattr(encoded, "keys") else encoded.input_ids
        except (AttributeError, KeyError) as error:
            raise InvalidTypeError(
                f"`processor` must return `input_ids` for a list of texts; {type(self.tokenizer).__name__} does not."
            ) from error
        masks = encoded.get("attention_mask") if hasattr(encoded, "get") else None
        rows = [_as_ints(row) for row in rows]
        if masks is not None:
            rows = [_drop_left_padding(row, _as_ints(mask)) for row, mask in zip(rows, masks, strict=True)]
        if len(rows) != len(texts):
            raise ValueError(f"`processor` returned {len(rows)} rows of `input_ids` for {len(texts)} texts.")
        return [self._from_bos_to_eos(row, text) for row, text in zip(rows, texts, strict=True)]

    def _from_bos_to_eos(self, ids: list[int], text: str) -> list[int]:
        vocab_size = self.text_config.vocab_size
        if ids and not 0 <= min(ids) <= max(ids) < vocab_size:
            raise ValueError(
                f"`processor` gives {text!r} the token ids {ids}, but the base model's vocabulary has {vocab_size} "
                "entries. Use the base model's own processor."
            )
        ids = trim_at_eos(ids, self.text_config.eos_token_id)
        if len(ids) < 2:
            raise ValueError(
                f"`processor` gives {text!r} the token ids {ids}, without BOS and the EOS id "
                f"{self.text_config.eos_token_id} of the base model. Use the base model's own processor."
            )
        return ids


def trim_at_eos(ids: list[int], eos_token_id: int) -> list[int]:
    """Cut a row behind the EOS token that CLIP pools; a row without one gives an empty list."""
    if not ids:
        return []
    if eos_token_id != 2 and eos_token_id not in ids:
        return []
    return ids[: int(eos_index(torch.tensor([ids]), eos_token_id)) + 1]


def clean_names(names: Any) -> list[str]:
    """Validate class names; underscores become blanks and outer blanks go."""
    cleaned = []
    for position, name in enumerate(as_list("names", names, "class names")):
        if not isinstance(name, str):
            raise InvalidTypeError(f"The class name at position {position} must be a string, got {name!r}.")
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"The class name at position {position} is no valid Unicode: {name!r}.") from error
        cleaned.append(name.replace("_", " ").strip())
    return cleaned


def name_keys(names: Sequence[str], tokenizer: PromptTokenizer) -> list[tuple[int, ...]]:
    """What tells classes apart: the token ids of the bare name.

    Raises:
        ValueError: a name without any token.
    """
    empty = next((position for position, name in enumerate(names) if not name), None)
    keys = [] if empty is not None else [tuple(ids) for ids in tokenizer(list(names))]
    if empty is None:
        empty = next((position for position, key in enumerate(keys) if len(key) <= 2), None)
    if empty is not None:
        raise ValueError(f"The class name at position {empty} is empty: {names[empty]!r} gives no token.")
    return keys


def check_unique(names: Sequence[str], keys: Sequence[tuple[int, ...]]) -> None:
    """Raise a ValueError where two names are the same class."""
    first: dict[tuple[int, ...], int] = {}
    for position, key in enumerate(keys):
        if key in first:
            raise ValueError(
                f"The class name {names[position]!r} at position {position} is the same class as "
                f"{names[first[key]]!r} at position {first[key]}: both have the same tokens. Remove one, or pass "
                "`allow_duplicates=True`."
            )
        first[key] = position


def prompt_ids(names: Sequence[str], templates: Sequence[str], tokenizer: PromptTokenizer) -> list[list[list[int]]]:
    """Token ids of all prompts, [template][class][token].

    Raises:
        ValueError: a prompt longer than the context.
    """
    context = tokenizer.text_config.max_position_embeddings
    prompts = []
    for template in templates:
        rows = tokenizer([template.replace("{}", name) for name in names])
        for position, row in enumerate(rows):
            if len(row) > context:
                raise ValueError(
                    f"The class name {names[position]!r} at position {position} makes a prompt of {len(row)} tokens "
                    f"in the template {template!r}, but the context of this CLIP is {context} tokens. Shorten the "
                    "name or the template."
                )
        prompts.append(rows)
    return prompts


def seen_mask(seen: Any, default: Sequence[bool]) -> list[bool]:
    """Resolve the argument `seen`: None (`default`), "all", "none" or one truth value per class."""
    if seen is None:
        return list(default)
    if isinstance(seen, str):
        if seen not in ("all", "none"):
            raise ValueError(f'`seen` must be "all", "none" or one truth value per class, got {seen!r}.')
        return [seen == "all"] * len(default)
    values = seen.tolist() if hasattr(seen, "tolist") else seen
    values = as_list("seen", values, "truth values")
    if any(not isinstance(value, bool) for value in values):
        raise InvalidTypeError(f"`seen` must hold True or False for each class, got {seen!r}.")
    if len(values) != len(default):
        raise ValueError(f"`seen` has {len(values)} entries for {len(default)} class names.")
    return values


def encode_ids(prompts: list[list[list[int]]]) -> list[list[str]]:
    """Token ids as they are saved in the config: a blank-separated string per prompt."""
    return [[" ".join(map(str, row)) for row in rows] for rows in prompts]


def decode_ids(encoded: list[list[str]], text_config: PreTrainedConfig) -> list[list[list[int]]]:
    """Token ids of a config, checked against the base model.

    Raises:
        ValueError: something else than ids, ids beyond the vocabulary, or a prompt without EOS or beyond the context.
    """
    try:
        prompts = [[[int(part) for part in row.split()] for row in rows] for rows in encoded]
    except (AttributeError, ValueError) as error:
        raise ValueError("`class_input_ids` must hold strings of blank-separated token ids.") from error
    vocab_size, context = text_config.vocab_size, text_config.max_position_embeddings
    for row in (row for rows in prompts for row in rows):
        fits = 2 <= len(row) <= context and min(row) >= 0 and max(row) < vocab_size
        if not fits or trim_at_eos(row, text_config.eos_token_id) != row:
            raise ValueError(
                f"`class_input_ids` holds the prompt {row}, which does not fit this base model (vocabulary "
                f"{vocab_size}, EOS {text_config.eos_token_id}, context {context}). The adapter was trained on "
                "another CLIP; load it onto that one, or call `set_classes(processor=...)` on a config without "
                "`class_input_ids`."
            )
    return prompts


def trained_classes(config: MMRLConfig, text_config: PreTrainedConfig) -> BoundClasses | None:
    """The classes saved with an adapter, bound without a tokenizer; None where their token ids are not saved."""
    if config.classes is None or config.class_input_ids is None:
        return None
    prompts = decode_ids(config.class_input_ids, text_config)
    return BoundClasses(
        names=tuple(config.classes),
        prompts=tuple(map(Prompts, prompts)),
        seen=(True,) * len(config.classes),
        are_trained=True,
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

    is_saved = config.class_input_ids is not None and templates == config.templates
    if names is None and processor is None and is_saved:
        bound = trained_classes(config, text_config)
        return replace(bound, seen=tuple(seen_mask(seen, bound.seen))), config

    tokenizer = PromptTokenizer(load_processor() if processor is None else processor, text_config)
    if names is None:
        names, are_known = config.classes, [True] * len(config.classes)
        are_trained = True
    else:
        names = clean_names(names)
        keys = name_keys(names, tokenizer)
        if not allow_duplicates:
            check_unique(names, keys)
        trained = set(keys) if is_fresh else set(name_keys(config.classes, tokenizer))
        are_known = [key in trained for key in keys]
        are_trained = set(keys) == trained
    flags = seen_mask(seen, are_known)
    prompts = prompt_ids(names, templates, tokenizer)

    if is_fresh:
        kept = [position for position, flag in enumerate(flags) if flag]
        are_trained = len(kept) == len(names)
        if kept:
            config = copy.copy(config)
            config.template = config.template if template is None else template
            config.classes = [names[position] for position in kept]
            config.class_input_ids = encode_ids([[rows[position] for position in kept] for rows in prompts])
    elif config.class_input_ids is None:  # an adapter that was converted where no tokenizer was at hand
        config = copy.copy(config)
        config.class_input_ids = encode_ids(prompt_ids(config.classes, config.templates, tokenizer))
    bound = BoundClasses(tuple(names), tuple(map(Prompts, prompts)), tuple(flags), are_trained)
    return bound, config


def rows_seen(
    input_ids: torch.Tensor, attention_mask: torch.Tensor | None, config: MMRLConfig, eos_token_id: int
) -> list[bool]:
    """For each row of explicit `input_ids` (C, n): is it the prompt of a trained class, in any of its templates?"""
    trained = {row for rows in config.class_input_ids or [] for row in rows}
    rows = [_as_ints(row) for row in input_ids]
    if attention_mask is not None:
        rows = [_drop_left_padding(row, _as_ints(mask)) for row, mask in zip(rows, attention_mask, strict=True)]
    return [" ".join(map(str, trim_at_eos(row, eos_token_id))) in trained for row in rows]


def _as_ints(row: Any) -> list[int]:
    return list(map(int, row.tolist() if hasattr(row, "tolist") else row))


def _drop_left_padding(row: list[int], mask: list[int]) -> list[int]:
    return row[mask.index(1) :] if 1 in mask else row
