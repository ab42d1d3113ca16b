"""Few-shot sampling as the field does it (CoOp's protocol), so that numbers can be compared."""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence

from ..validation import as_positive_int


def sample_shots(labels: Sequence[Hashable], shots: int, rng: random.Random) -> list[int]:
    """Choose `shots` items of each class, all of a class that has fewer.

    Items are grouped by label, in the order in which labels first appear, and each group is sampled with
    `rng.sample`. A validation split is sampled with the same `rng` afterwards, with `min(shots, 4)`.

    Args:
        labels: the label of every item.
        shots: items per class.
        rng: `random.Random(seed)`.

    Returns:
        indices of the chosen items, class by class.
    """
    shots = as_positive_int("shots", shots)
    groups: dict[Hashable, list[int]] = {}
    for index, label in enumerate(labels):
        groups.setdefault(label, []).append(index)
    return [
        index for group in groups.values() for index in (rng.sample(group, shots) if len(group) >= shots else group)
    ]
