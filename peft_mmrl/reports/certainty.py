"""What sets of classes and "none of these" come to on held-out pictures, for a report."""

from __future__ import annotations

from typing import Any

from ..scoring.confidence import class_sets
from ..scoring.held_out import Confidence
from ..scoring.labelled import Predictions


def sets_and_naming(predictions: Predictions, confidence: Confidence) -> dict[str, Any]:
    """What happened on N held-out pictures, in all and by class; it promises nothing for others.

    Args:
        predictions: of the N pictures.
        confidence: made of them.

    Returns:
        `words`, sentences on both; `set_threshold` and `naming_threshold`, None where there are too few pictures;
        `set_size`, the mean number of classes in a set, and `single_sets`, how many have one; `per_class`, for each
        class that has pictures how many: `pictures`, in whose set it is (`held`), named `right` or `wrong`, and not
        named (`none`); and whether it has few (`rare`).
    """
    sets, naming = confidence.for_coverage(), confidence.for_risk()
    found: dict[str, Any] = {"words": [sets.words, naming.words]}
    found |= {"set_threshold": sets.threshold, "naming_threshold": naming.threshold}
    flags: dict[str, list[bool]] = {}
    if sets.threshold is not None:
        sizes = class_sets(predictions.probabilities, sets.threshold).sum(dim=1)
        found |= {"set_size": sizes.double().mean().item(), "single_sets": (sizes == 1).sum().item()}
        flags["held"] = sets.good
    if naming.threshold is not None:
        none = [p < naming.threshold for p in confidence.largest]
        wrong = [not (good or unnamed) for good, unnamed in zip(naming.good, none, strict=True)]
        flags |= {"right": naming.good, "wrong": wrong, "none": none}
    rare, counts = confidence.rare(), {name: confidence.by_class(column) for name, column in flags.items()}
    found["per_class"] = [
        {"class": name, "pictures": pictures, "rare": name in rare}
        | {what: rows[label][1] for what, rows in counts.items()}
        for label, (name, _, pictures) in enumerate(confidence.by_class(confidence.are_right))
        if pictures
    ]
    return found
