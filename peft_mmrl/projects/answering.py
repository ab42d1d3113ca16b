"""Answers to one picture: by the decision without training, and by the adapter of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ..data import PictureError
from ..explaining.reasons import nearest_pictures
from ..explaining.reasons_page import as_seen
from ..reports.gallery import SIZE
from ..scoring.held_out import Confidence
from ..scoring.sightings import frozen_sight
from ..scoring.unlabelled import bind_beside_trained
from ..tuner.names import distinct_names, name_keys
from ..tuner.peft_model import PeftModelForZeroShotImageClassification
from ..tuner.tokenization import PromptTokenizer
from .instant import Instant
from .picture_answers import (
    Likeness,
    PictureAnswer,
    answer_in_words,
    draw_maps,
    likely_classes,
    ranked,
)
from .project_runs import Run
from .sights import BaseModel
from .since_training import names_now


def answer_at_once(
    base: BaseModel, instant: Instant, picture: Any, coverage: float, with_maps: bool = True
) -> PictureAnswer:
    """What a picture shows, by the decision without training; without classes, or a picture, why there is no answer.

    Args:
        base: the project's base model.
        instant: what is known at once.
        picture, coverage: see `Workbench.answer`.
        with_maps: whether it is drawn what the model looked at.
    """
    if instant.frozen is None:
        return PictureAnswer(" ".join(instant.notes))
    try:
        pixel_values = instant.preprocessing(picture)[None].to(base.accelerator.device)
    except PictureError as error:
        return PictureAnswer(f"This picture cannot be opened: {error.reason}.")
    with base.frozen() as model:
        feature = frozen_sight(model, pixel_values)[0].cpu()
        seen = as_seen(picture, instant.preprocessing, SIZE)
        maps = draw_maps(model, pixel_values, seen) if with_maps else None
    ranks = ranked(instant.names, instant.probabilities(feature)[0])
    likely, words = likely_classes(ranks, instant.confidence, coverage)
    return PictureAnswer(
        words=answer_in_words(likely),
        ranks=ranks,
        likely=likely,
        zero_shot=ranked(instant.names, instant.zero_shot(feature)[0]),
        notes=[words, *_on_the_new(instant, ranks[0][0])],
        nearest=_nearest(instant, feature[0]),
        seen=seen,
        maps=maps,
        by_name=instant.by_name,
    )


def answer_of_run(
    base: BaseModel, instant: Instant, at_once: PictureAnswer, picture: Any, run: str, coverage: float
) -> PictureAnswer:
    """The same picture's answer by a run's adapter, among its classes and those of the project that are new.

    Args:
        base, instant, picture, coverage: as for `answer_at_once`.
        at_once: what that gave.
        run: name of its folder in `adapters/`.
    """
    with base.adapted(run) as (model, preprocessing):
        training, named = Run(base.project, run), {one.name: one.prompt_name for one in instant.classes}
        called = names_now(training, instant.contents, named)
        new = _bind_new(base, model, [name for name in instant.names if name not in called.values()])
        confidence = _confidence_of(training, model)
        pixel_values = preprocessing(picture)[None].to(base.accelerator.device)
        output = model(pixel_values=pixel_values)
        seen = as_seen(picture, preprocessing, SIZE)
        maps = draw_maps(model, pixel_values, seen)
        names = [called.get(name, name) for name in model.classes]
        ranks = ranked(names, output.logits.float().softmax(dim=1)[0].cpu())
        is_trained = model.decision is None or model.decision.features == "adapted"
    likely, sure = likely_classes(ranks, confidence, coverage)
    if confidence is None and new:
        sure = f"{', '.join(new)} came after this training: train again to know how sure it is."
    return replace(
        at_once,
        words=answer_in_words(likely),
        ranks=ranks,
        likely=likely,
        notes=[sure, *(_on_the_new(instant, ranks[0][0]) if ranks[0][0] in new else [])],
        seen=seen,
        maps=maps,
        trained=is_trained,
        by_name=frozenset(new),
    )


def _bind_new(base: BaseModel, model: PeftModelForZeroShotImageClassification, names: list[str]) -> list[str]:
    """Let an adapter answer with classes that it was not trained on, too; returns those."""
    trained = model.active_peft_config.classes or []
    tokenizer = PromptTokenizer(base.processor, model.get_base_model().config.text_config)
    known, names = set(name_keys(trained, tokenizer)), distinct_names(names, tokenizer)
    new = [name for name, key in zip(names, name_keys(names, tokenizer), strict=True) if key not in known]
    if model.classes != [*distinct_names(trained, tokenizer), *new]:
        bind_beside_trained(model, trained, new, tokenizer)
    return new


def _confidence_of(run: Run, model: PeftModelForZeroShotImageClassification) -> Confidence | None:
    """What held-out pictures of a run say on how sure it is; None: nothing, or not of the classes it has now."""
    try:
        confidence = Confidence.load(run.folder)
        confidence.check_fits(model)
    except (OSError, ValueError):
        return None
    return confidence


def _nearest(instant: Instant, feature: torch.Tensor) -> list[Likeness]:
    if instant.reference is None:
        return []
    found = nearest_pictures(feature, instant.reference)
    return [Likeness(one["path"], one["label"], one["cosine"]) for one in found]


def _on_the_new(instant: Instant, name: str) -> list[str]:
    """What to say where the likeliest class has no pictures."""
    if not instant.pictures:
        return ["It is known by the names of the classes alone: with pictures it does better."]
    one = next((one for one in instant.classes if one.prompt_name == name), None)
    return [instant.trust_in_name(one.name)] if one is not None and not one.pictures else []
