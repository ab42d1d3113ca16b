"""The best answers to a project's pictures that were given by models which were fitted without them.

Measured on the demo's digits (6 or 12 pictures of each, a tenth of the labels planted wrong, 8 draws): of as many
pictures as were planted, taken from the top of those whose labels are doubted, 94 % were planted by the answers of a
training's folds, and 82 % by those without training; both name 98 % of them, among 11 and 15 pictures on average. (All
classes had pictures, and the training knew them all: with classes that are newer than it, nothing was measured.) So a
training's answers count where there are such, and those without training, which know all that has changed since, for
the others.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ..reports.reading import REPORT, read_predictions
from .instant import Held, Instant
from .project import Project
from .project_runs import Run, newest_training
from .since_training import is_of_all, learned_from


FEWEST = 0.5  # share of the pictures that a training must have answered to be asked at all


def best_held_out(project: Project, instant: Instant) -> Held | None:
    """The answers of the newest training, and of the decision without training for pictures that it does not know.

    A training is asked for a picture where its folds have answered it, and where its content and its class are still
    those of that time. Of classes that it does not know (new ones, those known by name alone, renamed ones) the
    decision without training says how likely they are, and the training shares out the rest. It is not asked at all
    where it was a quick one, where its figures are of other pictures than those that it learned from (`--eval_dir`),
    whose paths say nothing here, or where it knows less than half of the pictures that are held out.

    Args:
        project: whose runs are looked at.
        instant: its pictures now.

    Returns:
        None: no picture can be held out.
    """
    held = instant.held_out
    if held is None:
        return None
    newest = newest_training(project)
    is_asked = newest is not None and not newest.is_quick and is_of_all(newest)
    rows = {} if not is_asked else _rows_of(newest, instant.contents)
    probabilities, taken = held.probabilities.clone(), 0
    for place, (picture, label) in enumerate(zip(held.pictures, held.labels.tolist(), strict=True)):
        said, shares = rows.get(picture, (None, {}))
        known = torch.tensor([shares.get(name, 0.0) for name in held.classes])
        if said == held.classes[label] and known.sum() > 0:
            is_new = torch.tensor([name not in shares for name in held.classes])
            rest = probabilities[place] * is_new
            probabilities[place] = rest + (1 - rest.sum()) * known / known.sum()
            taken += 1
    return replace(held, probabilities=probabilities) if taken >= FEWEST * len(held.pictures) else held


def _rows_of(run: Run, digests: dict[str, str]) -> dict[str, tuple[str, dict[str, float]]]:
    """For each picture that a run has answered, and whose content is the same now, its class and the probabilities.

    Args:
        run: a training.
        digests: content of the project's pictures, by path.
    """
    known = learned_from(run)
    return {
        f"pictures/{row.path}": (row.label, row.shares)
        for row in read_predictions(run.folder / REPORT)
        if known.get(row.path) == digests.get(f"pictures/{row.path}")
    }
