"""Prompts: from text to token ids, and how these are saved."""

from __future__ import annotations

import numbers
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedConfig

from .towers.backbones import context_length, eos_index
from .validation import InvalidTypeError


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
        """Ids of each text from BOS to EOS, of any length. Texts are composed (NFC): not every tokenizer does it."""
        texts = [unicodedata.normalize("NFC", text) for text in texts]
        who = type(self.tokenizer).__name__
        try:
            encoded = self.tokenizer(texts)
            rows = encoded["input_ids"] if hasattr(encoded, "keys") else encoded.input_ids
        except (AttributeError, KeyError) as error:
            raise InvalidTypeError(
                f"`processor` must return `input_ids` for a list of texts; {who} does not."
            ) from error
        masks = encoded.get("attention_mask") if hasattr(encoded, "get") else None
        try:
            rows = [as_ints(row) for row in rows]
            if masks is not None:
                rows = [drop_left_padding(row, as_ints(mask)) for row, mask in zip(rows, masks, strict=True)]
        except (TypeError, ValueError) as error:
            raise InvalidTypeError(
                f"`processor` must return `input_ids` as one row of whole numbers per text; {who} does not."
            ) from error
        if len(rows) != len(texts):
            raise ValueError(f"`processor` returned {len(rows)} rows of `input_ids` for {len(texts)} texts.")
        rows = [self._from_bos_to_eos(row, text) for row, text in zip(rows, texts, strict=True)]
        first = {row[0] for row in rows}
        if len(first) > 1:
            raise ValueError(
                f"`processor` starts texts with different token ids, {sorted(first)}: each must start with BOS."
            )
        return rows

    def _from_bos_to_eos(self, ids: list[int], text: str) -> list[int]:
        bos, eos, vocab_size = (
            self.text_config.bos_token_id,
            self.text_config.eos_token_id,
            self.text_config.vocab_size,
        )
        advice = "Use the base model's own processor."
        if ids and not 0 <= min(ids) <= max(ids) < vocab_size:
            raise ValueError(
                f"`processor` gives {text!r} the token ids {ids}, but the base model's vocabulary has {vocab_size} "
                f"entries. {advice}"
            )
        if eos not in (2, None) and bos in ids:  # configs with EOS 2, or without EOS, may have a wrong BOS too
            ids = ids[ids.index(bos) :]
        trimmed = trim_at_eos(ids, self.text_config)
        if len(trimmed) < 2:
            raise ValueError(
                f"`processor` gives {text!r} the token ids {ids}, without BOS and the EOS id {eos} of the base model. "
                f"{advice}"
            )
        if len(set(ids[len(trimmed) :])) > 1:
            raise ValueError(f"{text!r} holds the end-of-text token itself (id {eos}): remove it from the text.")
        return trimmed


def trim_at_eos(ids: list[int], text_config: PreTrainedConfig) -> list[int]:
    """Cut a row of ids behind the position that `eos_index` finds; a row without EOS keeps one id at most."""
    return ids[: int(eos_index(torch.tensor([ids]), text_config)) + 1] if ids else []


def prompt_ids(names: Sequence[str], templates: Sequence[str], tokenizer: PromptTokenizer) -> list[list[list[int]]]:
    """Token ids of all prompts, [template][class][token].

    Raises:
        ValueError: a prompt longer than the context.
    """
    context = context_length(tokenizer.text_config)
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
    vocab_size, context = text_config.vocab_size, context_length(text_config)
    for row in (row for rows in prompts for row in rows):
        fits = 2 <= len(row) <= context and min(row) >= 0 and max(row) < vocab_size
        if not fits or trim_at_eos(row, text_config) != row:
            raise ValueError(
                f"`class_input_ids` holds the prompt {row}, which does not fit this base model (vocabulary "
                f"{vocab_size}, EOS {text_config.eos_token_id}, context {context}). The adapter was trained on "
                "another CLIP; load it onto that one, or call `set_classes(processor=...)` on a config without "
                "`class_input_ids`."
            )
    return prompts


def as_ints(row: Any) -> list[int]:
    """A row of ids as Python integers, be it a list, an array or a tensor."""
    values = row.tolist() if hasattr(row, "tolist") else list(row)
    if any(not isinstance(value, numbers.Integral) for value in values):
        raise TypeError(f"not a row of whole numbers: {values}")
    return list(map(int, values))


def drop_left_padding(row: list[int], mask: list[int]) -> list[int]:
    """A row of ids without the positions in front that its attention mask leaves out."""
    return row[mask.index(1) :] if 1 in mask else row
