"""The decision without training, fitted to a project's pictures, and what it is worth: as `train --quick` has them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch

from ..data import PictureFacts, Preprocessing, deal_folds
from ..data.copies import Alikeness
from ..scoring.labelled import Predictions
from ..scoring.reference import Reference, seeing
from ..training import FrozenFeatures, TrainingSettings
from .instant import Instant, describe_gaps
from .project import ClassFolder
from .sights import BaseModel, OnProgress, Sights


def fit_instant(
    base: BaseModel,
    classes: list[ClassFolder],
    template: str | None,
    sights: Sights,
    on_progress: OnProgress | None = None,
) -> Instant:
    """Look at pictures that were not seen before, and fit the decision without training to all.

    Args:
        base: the project's base model.
        classes: of the project.
        template: of their prompts; None: the default.
        sights: their pictures.
        on_progress: see `BaseModel.look`.
    """
    names = [one.prompt_name for one in classes]
    preprocessing, notes = _choose_preprocessing(base, sights.facts)
    given = classes, sights.pictures, sights.unreadable, preprocessing
    if not classes:
        return Instant(*given, notes=notes + describe_gaps(classes, [], sights.unreadable, 0))
    try:
        text, scale = base.read_names(names, template, preprocessing)
    except ValueError as error:  # a name that CLIP cannot read
        return Instant(*given, notes=[*notes, str(error)])
    sights = base.look(sights, preprocessing, on_progress)
    return _fit_decision(classes, sights, preprocessing, text, scale, seeing(base.model, preprocessing), notes)


def _choose_preprocessing(base: BaseModel, facts: Sequence[PictureFacts]) -> tuple[Preprocessing, list[str]]:
    """How the pictures are prepared, as `train` chooses it; and a note where these pictures cannot be."""
    processor = base.processor.image_processor
    try:
        return Preprocessing.choose(processor, facts)[0], []
    except ValueError as error:
        return Preprocessing(processor), [str(error)]


def _fit_decision(
    classes: list[ClassFolder],
    sights: Sights,
    preprocessing: Preprocessing,
    text: torch.Tensor,
    scale: float,
    seen_by: dict[str, Any],
    notes: list[str],
) -> Instant:
    """Fit the decision, and ask it for pictures that it was fitted without.

    Args:
        classes: C classes.
        sights: their N pictures, which were looked at.
        preprocessing: how they were prepared.
        text, scale: see `BaseModel.read_names`.
        seen_by: see `scoring.reference.seeing`.
        notes: what is to be said already.
    """
    names, labels = [one.prompt_name for one in classes], sights.labels
    images = sights.features if sights.pictures else text[:0]
    frozen = FrozenFeatures(images, None, text, labels, scale, sights.measures)
    counts = labels.bincount(minlength=len(classes)).tolist()
    given = classes, sights.pictures, sights.unreadable, preprocessing, frozen
    if not sights.pictures:
        return Instant(*given, notes=notes + describe_gaps(classes, counts, sights.unreadable, 0))
    decision = frozen.fit_untrained(features="frozen")
    groups = Alikeness.of(sights.dataset, sights.facts).groups
    fold = torch.tensor(deal_folds(labels.tolist(), groups, None, random.Random(TrainingSettings().seed)))
    held = (fold >= 0).nonzero().flatten()
    predictions = None
    if len(held) and len(classes) > 1:
        predictions = Predictions(
            class_names=names,
            trained=[bool(count) for count in counts],
            paths=[sights.pictures[row] for row in held.tolist()],
            labels=labels[held],
            probabilities=frozen.hold_out(decision, fold)[1][held],
            zero_shot=frozen.zero_shot[held],
            value_range=preprocessing.value_range,
            is_trained=False,
            folds=int(fold.max()) + 1,
        )
    columns = images, sights.measures, labels, torch.tensor(groups)
    reference = Reference(sights.pictures, *columns, names, seen_by)
    notes = notes + describe_gaps(classes, counts, sights.unreadable, len(held))
    digests = [fact.digest for fact in sights.facts]
    return Instant(*given, decision, held, predictions, reference, notes, digests)
