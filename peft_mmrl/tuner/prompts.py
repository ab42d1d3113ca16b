"""Class prompts as the text tower takes them: what all of them share, and each class's own tokens."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class PromptChunk:
    """Some classes' own tokens: what of their prompts is behind the prefix that all share, or all of them.

    Args:
        classes: indices of the classes (c,).
        input_ids: own tokens (c, m), padded with EOS.
        eos: position of EOS among the own tokens (c,).
    """

    classes: torch.Tensor
    input_ids: torch.Tensor
    eos: torch.Tensor

    def to(self, device: torch.device) -> PromptChunk:
        """The same on a device."""
        return PromptChunk(self.classes.to(device), self.input_ids.to(device), self.eos.to(device))


class Prompts:
    """The prompts of C classes in one template.

    Attributes:
        input_ids: all prompts (C, n), cut at the longest and padded with each row's EOS, which changes nothing.
        prefix: the tokens that all prompts start with (p,), BOS among them; each prompt keeps one token or more.
        cache: what was computed from these prompts, by name, with the key that says what it depends on. Copies of the
            prompts start without.
    """

    def __init__(self, rows: list[list[int]]) -> None:
        self.lengths = [len(row) for row in rows]
        longest = max(self.lengths)
        self.input_ids = torch.tensor([row + row[-1:] * (longest - len(row)) for row in rows])
        shared = (self.input_ids == self.input_ids[0]).all(dim=0).long().cumprod(dim=0).sum()
        self.prefix = self.input_ids[0, : min(int(shared), min(self.lengths) - 1)]
        self.cache: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.lengths)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "cache": {}}

    def chunks(self, size: int, start: int | None = None) -> list[PromptChunk]:
        """Chunks of at most `size` classes, classes of like length together.

        Args:
            size: the largest number of classes in a chunk.
            start: position of the first token that counts as a class's own; None: the one behind the prefix.
        """
        start = len(self.prefix) if start is None else start
        lengths = torch.tensor(self.lengths) - start
        chunks = []
        for classes in lengths.argsort(stable=True).split(size):
            own = self.input_ids[classes, start:][:, : int(lengths[classes].max())]
            chunks.append(PromptChunk(classes, own, lengths[classes] - 1))
        return chunks

    def kept(self, name: str, key: Hashable) -> Any:
        """What was kept under this name with the same key, or None."""
        kept_key, value = self.cache.get(name, (None, None))
        return value if kept_key == key else None

    def keep(self, name: str, key: Hashable, value: Any) -> Any:
        """Keep a value in the place of an earlier one of this name; returns it."""
        self.cache[name] = key, value
        return value
