"""What one forward pass carries through a tower: which adapter runs, and its tokens.

Shapes: B rows, n tokens, K representation tokens, L adapted layers, d the tower's width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ForwardPass:
    """What one forward pass runs. It is read once: another thread may activate something else meanwhile.

    Args:
        adapter: name of the active adapter.
        beta: weight of a layer's own tokens.
        is_frozen: the adapter is disabled: the frozen encoder runs.
        with_frozen: the frozen encoder's features are wanted beside the adapted ones.
        with_states: the last layer's states of all positions are wanted, not only what is pooled.
    """

    adapter: str
    beta: float
    is_frozen: bool = False
    with_frozen: bool = False
    with_states: bool = True


@dataclass(frozen=True)
class LayerTokens:
    """An adapter's tokens T_i in one tower.

    Args:
        values: T_i of all adapted layers (L, K, d).
        layers: 0-based indices of the adapted layers, ascending.
        beta: weight of a layer's own tokens.
    """

    values: torch.Tensor
    layers: list[int]
    beta: float

    @property
    def first(self) -> int:
        """Index of the first adapted layer."""
        return self.layers[0]

    @property
    def count(self) -> int:
        """Number of representation tokens K."""
        return self.values.shape[1]

    def enter(self, hidden: torch.Tensor, index: int) -> torch.Tensor:
        """States (B, n, d) as layer `index` takes them: with its tokens, where it is an adapted one.

        The first adapted layer's tokens are inserted behind the first position. A later one's take the place of the K
        tokens of `hidden`; with MMRL++'s progressive composition they become beta T_i + (1 - beta) (the K tokens that
        the layer before put out).
        """
        if index not in self.layers:
            return hidden
        own = self.values[self.layers.index(index)].to(hidden.dtype).expand(hidden.shape[0], -1, -1)  # (B, K, d)
        if index == self.first:
            return insert_tokens(hidden, own)
        end = 1 + self.count
        if self.beta != 1:
            own = self.beta * own + (1 - self.beta) * hidden[:, 1:end]
        return torch.cat([hidden[:, :1], own, hidden[:, end:]], dim=1)


def insert_tokens(hidden: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Put tokens (B, K, ...) behind the first position of (B, n, ...); (B, n + K, ...)."""
    return torch.cat([hidden[:, :1], own, hidden[:, 1:]], dim=1)
