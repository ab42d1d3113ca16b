"""A model with classes of its own, for one caller among many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .classes import BoundClasses
from .outputs import MMRLOutput


@dataclass(frozen=True, eq=False)
class BoundModel:
    """What `bound_to` gives: called like the model, it scores these classes by this adapter.

    Args:
        model: the model, which stays as it is.
        adapter: name of the adapter that was active.
        bound: the classes.
    """

    model: Callable[..., MMRLOutput | tuple[Any, ...]]
    adapter: str
    bound: BoundClasses

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return list(self.bound.names)

    @property
    def seen(self) -> list[bool]:
        """For each class, whether it counts as trained."""
        return list(self.bound.seen)

    def __call__(self, pixel_values: torch.Tensor | None = None, **kwargs: Any) -> MMRLOutput | tuple[Any, ...]:
        """As the model's `forward`, without `input_ids`."""
        return self.model(pixel_values=pixel_values, bound_to=self, **kwargs)
