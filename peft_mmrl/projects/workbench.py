"""A project's pictures with its base model: what is known at once, answers to pictures, what to do next.

Nothing here trains. The base model is loaded once, what it sees in a picture is kept by the picture's content, and the
decision without training is fitted anew whenever pictures or classes change, by what `train --quick` uses.
"""

from __future__ import annotations

import csv
import random
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch

from ..data import PictureError, PictureFacts, Preprocessing, deal_folds
from ..data.copies import Alikeness
from ..explaining.reasons import nearest_pictures
from ..explaining.reasons_page import as_seen
from ..reports.gallery import SIZE
from ..scoring.held_out import COVERAGE, Confidence
from ..scoring.labelled import Predictions
from ..scoring.reference import Reference, seeing
from ..scoring.sightings import frozen_sight, margins_of
from ..scoring.unlabelled import bind_beside_trained
from ..training import FrozenFeatures, TrainingSettings
from ..tuner.names import distinct_names, name_keys
from ..tuner.tokenization import PromptTokenizer
from .instant import Held, Instant, describe_gaps
from .picture_answers import (
    Likeness,
    PictureAnswer,
    answer_in_words,
    draw_maps,
    likely_classes,
    ranked,
)
from .project import ClassFolder, Project
from .sights import BaseModel, OnProgress, Sights
from .suggestions import suggest


COLUMN = "probability_"  # of a class in predictions.csv


@dataclass(frozen=True)
class Suggestion:
    """A picture that should be labelled next.

    Args:
        picture: path below the project's folder.
        guess: its likeliest class, by folder.
        probability: of that.
    """

    picture: str
    guess: str
    probability: float


class Workbench:
    """What the page works with; any of its methods may be called by any thread at any time.

    Args:
        project: whose folder may change meanwhile.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self._loading, self._updating = threading.Lock(), threading.RLock()
        self._base: BaseModel | None = None
        self._instant: Instant | None = None
        self._state: Any = None  # what that was made of

    @property
    def base(self) -> BaseModel:
        """The project's base model, loaded when it is first needed, and when it is another one now.

        Raises:
            OSError: it cannot be loaded.
            ValueError: MMRL does not adapt such a model.
        """
        name = self.project.settings.base_model
        with self._loading:
            if self._base is None or self._base.name != name:
                self._base, self._instant = BaseModel(self.project, name), None
            return self._base

    # --- at once ----------------------------------------------------------------------------------------------------

    @property
    def instant(self) -> Instant:
        """What the last `update` gave; the first time it is called here."""
        with self._updating if self._instant is None else nullcontext():
            return self._instant or self.update()

    def update(self, on_progress: OnProgress | None = None) -> Instant:
        """Look at new pictures, and fit the decision without training to all that there are.

        Args:
            on_progress: called with how many are done of the pictures that were not seen before, and how many these
                are.

        Raises:
            OSError, ValueError: the base model cannot be loaded, or the project not be read.
        """
        with self._updating:
            base, classes, template = self.base, self.project.classes(), self.project.settings.template
            # in the order in which `train` reads them, so that both deal the same folds
            pictures = [sorted(one.pictures, key=lambda picture: picture.split("/")) for one in classes]
            labels = [one.name for one, own in zip(classes, pictures, strict=True) for _ in own]
            sights = Sights.of(self.project, [*chain(*pictures)], labels, [one.name for one in classes])
            state = base, classes, template, [fact.digest for fact in sights.facts], sights.unreadable
            if self._instant is None or self._state != state:
                self._instant = self._fit(base, classes, template, sights, on_progress)
                self._state = state
            return self._instant

    def _fit(
        self,
        base: BaseModel,
        classes: list[ClassFolder],
        template: str | None,
        sights: Sights,
        on_progress: OnProgress | None,
    ) -> Instant:
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

    # --- answers ----------------------------------------------------------------------------------------------------

    def answer(self, picture: Any, adapter: str | None = None, coverage: float = COVERAGE) -> PictureAnswer:
        """What a picture shows.

        Args:
            picture: as for [`~peft_mmrl.read_picture`]: a path, bytes, a PIL image.
            adapter: name of a run's folder in `adapters/`, whose adapter answers; None: the decision without training.
            coverage: share of the pictures of these classes whose answer should hold their class.

        Raises:
            ValueError: a coverage that is none, or an adapter that there is not or that is damaged.
            OSError: base model or adapter cannot be read.
        """
        base = self.base
        instant = self.instant
        if instant.frozen is None:
            return PictureAnswer(" ".join(instant.notes))
        try:
            pixel_values = instant.preprocessing(picture)[None].to(base.accelerator.device)
        except PictureError as error:
            return PictureAnswer(f"This picture cannot be opened: {error.reason}.")
        with base.frozen() as model:
            feature = frozen_sight(model, pixel_values)[0].cpu()
            seen = as_seen(picture, instant.preprocessing, SIZE)
            maps = draw_maps(model, pixel_values, seen) if adapter is None else None
        ranks = ranked(instant.names, instant.probabilities(feature)[0])
        likely, words = likely_classes(ranks, instant.confidence, coverage)
        answer = PictureAnswer(
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
        return answer if adapter is None else self._adapted(answer, instant, picture, adapter, coverage)

    def _adapted(
        self, answer: PictureAnswer, instant: Instant, picture: Any, run: str, coverage: float
    ) -> PictureAnswer:
        """The same picture's answer by a run's adapter, among its classes and those of the project that are new."""
        base = self.base
        with base.adapted(run) as (model, preprocessing):
            trained = model.active_peft_config.classes or []
            tokenizer = PromptTokenizer(base.processor, model.get_base_model().config.text_config)
            known = set(name_keys(trained, tokenizer))
            names = distinct_names(instant.names, tokenizer)
            new = [name for name, key in zip(names, name_keys(names, tokenizer), strict=True) if key not in known]
            if model.classes != [*distinct_names(trained, tokenizer), *new]:
                bind_beside_trained(model, trained, new, tokenizer)
            words = []
            try:
                confidence = Confidence.load(self.project.path(f"adapters/{run}"))
                confidence.check_fits(model)
            except (OSError, ValueError):
                confidence = None
                if new:
                    words = [f"{', '.join(new)} came after this training: train again to know how sure it is."]
            pixel_values = preprocessing(picture)[None].to(base.accelerator.device)
            output = model(pixel_values=pixel_values)
            seen = as_seen(picture, preprocessing, SIZE)
            maps = draw_maps(model, pixel_values, seen)
            ranks = ranked(model.classes, output.logits.float().softmax(dim=1)[0].cpu())
            is_trained = model.decision is None or model.decision.features == "adapted"
        likely, sure = likely_classes(ranks, confidence, coverage)
        notes = words or [sure]
        if ranks[0][0] in new:
            notes += _on_the_new(instant, ranks[0][0])
        return replace(
            answer,
            words=answer_in_words(likely),
            ranks=ranks,
            likely=likely,
            notes=notes,
            seen=seen,
            maps=maps,
            trained=is_trained,
            by_name=frozenset(new),
        )

    # --- what to do next --------------------------------------------------------------------------------------------

    def suggest(self, number: int = 20, on_progress: OnProgress | None = None) -> list[Suggestion]:
        """Which of the pictures without a class to label next, what helps most first.

        Args:
            number: how many.
            on_progress: as for `update`.

        Raises:
            ImportError: scikit-activeml is not installed.
            OSError, ValueError: as for `update`.
        """
        base = self.base
        instant = self.instant
        if instant.frozen is None:
            return []
        pictures = self.project.unlabelled_pictures()
        sights = Sights.of(self.project, pictures, [""] * len(pictures), [""])
        sights = base.look(sights, instant.preprocessing, on_progress)
        if not sights.pictures:
            return []
        probabilities = instant.probabilities(sights.features)
        best = probabilities.max(dim=1)
        known, found = (instant.frozen.images, instant.labels), (best.indices, margins_of(probabilities))
        chosen = suggest(*known, sights.features, *found, number)
        return [
            Suggestion(sights.pictures[row], instant.classes[best.indices[row]].name, best.values[row].item())
            for row in chosen
        ]

    def predictions_of(self, run: str) -> Held | None:
        """The answers of a run to pictures that it was not trained on; None: it has none for all of its classes.

        Pictures that were moved to another class since, or taken out, are left out.

        Args:
            run: name of its folder in `adapters/`.

        Raises:
            ValueError: the name is none.
        """
        path = self.project.path(f"adapters/{run}") / "report" / "predictions.csv"
        if not path.is_file():
            return None
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns = {name.removeprefix(COLUMN): name for name in (rows[0] if rows else []) if name.startswith(COLUMN)}
        if not columns:  # nothing was asked, or there are more classes than it has columns for
            return None
        classes = self.project.classes()
        counts = {one.prompt_name: len(one.pictures) for one in classes}
        class_of = {picture: one.prompt_name for one in classes for picture in one.pictures}
        kept = [row for row in rows if class_of.get(f"pictures/{row['path']}") == row["label"]]
        names = list(columns)
        return Held(
            classes=names,
            pictures=[f"pictures/{row['path']}" for row in kept],
            labels=torch.tensor([names.index(row["label"]) for row in kept], dtype=torch.long),
            probabilities=torch.tensor([[float(row[column]) for column in columns.values()] for row in kept]),
            counts=[counts.get(name, 0) for name in names],
        )


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
    """The decision without training, and what it is worth, as `train --quick` has them."""
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
    return Instant(*given, decision, held, predictions, reference, notes)


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
