"""Class prompts as the text tower takes them: what all share once, the rest in chunks of like length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class PromptChunk:
    """Some classes' own tokens, behind the prefix that all prompts share.

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
        cache: what the text tower computed from these prompts; it decides what is still valid. Copies start without.
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

    def chunks(self, size: int) -> list[PromptChunk]:
        """Chunks of at most `size` classes, classes of like length together."""
        lengths = torch.tensor(self.lengths) - len(self.prefix)
        chunks = []
        for classes in lengths.argsort(stable=True).split(size):
            own = self.input_ids[classes, len(self.prefix) :][:, : int(lengths[classes].max())]
            chunks.append(PromptChunk(classes, own, lengths[classes] - 1))
        return chunks
