"""Few shots of many pictures, of which only those that are used are decoded."""

from __future__ import annotations

import random
from collections import Counter

import datasets
from accelerate import Accelerator, PartialState

from .checking import BadPicture, describe_bad, examine_pictures, name_of
from .copies import given_groups
from .shots import hold_out, sample_shots


def draw_readable_shots(
    dataset: datasets.Dataset,
    shots: int,
    validation_fraction: float,
    seed: int,
    on_bad: str = "skip",
    accelerator: Accelerator | PartialState | None = None,
) -> tuple[list[int], list[int], list[BadPicture]]:
    """Hold pictures out, draw `shots` of each class from the others, and only then look whether they can be read.

    In the place of a picture that cannot be read another one of its class is drawn, until all can be or the class has
    no more; held-out ones are not replaced. What is drawn depends on the seed and the files alone, and with files that
    can all be read it is what `hold_out` and `sample_shots` give.

    Args:
        dataset: labelled pictures.
        shots: pictures of each class to train on.
        validation_fraction: part of each class to hold out, in whole groups where the data set has a column `group`.
        seed: of both.
        on_bad: "skip" replaces pictures that cannot be read, "error" raises where there is one.
        accelerator: shares the work between its processes.

    Returns:
        rows to train on, rows held out, and path and reason of each picture that cannot be read.

    Raises:
        ValueError: a picture cannot be read and `on_bad` is "error", or none can be read.
    """
    labels = dataset["label"][:]
    kept, held = hold_out(labels, validation_fraction, random.Random(seed), given_groups(dataset))
    rng = random.Random(seed)
    drawn = [kept[index] for index in sample_shots([labels[row] for row in kept], shots, rng)]
    spare: dict[int, list[int]] = {label: [] for label in labels}
    for row in sorted(set(kept) - set(drawn)):
        spare[labels[row]].append(row)
    reasons: dict[int, str] = {}
    new = [*drawn, *held]
    while new:
        found = examine_pictures(dataset.select(new), accelerator=accelerator)
        bad = {row: facts for row, facts in zip(new, found, strict=True) if isinstance(facts, str)}
        reasons |= bad
        missing = Counter(labels[row] for row in bad.keys() & set(drawn))
        new = []
        for label, count in sorted(missing.items()):
            picked = rng.sample(spare[label], min(count, len(spare[label])))
            spare[label] = [row for row in spare[label] if row not in picked]
            new += picked
        drawn = [row for row in drawn if row not in bad] + new
        held = [row for row in held if row not in bad]
    lost = set(labels) - {labels[row] for row in drawn}
    drawn += [row for row in held if labels[row] in lost]  # all that there is of these classes
    held = [row for row in held if labels[row] not in lost]
    listed = [(name_of(dataset[row]), reason) for row, reason in sorted(reasons.items())]
    if listed and (on_bad == "error" or not drawn):
        raise ValueError(describe_bad(listed))
    return drawn, held, listed
