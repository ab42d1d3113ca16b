"""A project's pictures with its base model: what is known at once, answers to pictures, what to do next.

Nothing here trains. The base model is loaded once, what it sees in a picture is kept by the picture's content, and the
decision without training is fitted anew whenever pictures or classes change, by what `train --quick` uses.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ..scoring.held_out import COVERAGE
from ..scoring.sightings import margins_of
from .answering import answer_at_once, answer_of_run
from .best_held_out import best_held_out
from .fit_instant import fit_instant
from .instant import Held, Instant
from .picture_answers import PictureAnswer
from .project import Project
from .sights import BaseModel, OnProgress, Sights
from .suggestions import suggest


RETRY_AFTER = 30.0  # seconds before a base model is asked for again: the Hub is waited for as long
NO_CONNECTION = "couldn't connect"  # says transformers
NOT_FETCHED = (
    "The model that recognises pictures, {}, is not on this computer yet, and there is no connection to fetch it. "
    "Connect this computer to the internet for the first time: later it is not needed."
)


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
        self._refused: tuple[str, float, Exception] | None = None  # name, when, and why a base model was not loaded
        self._known: tuple[tuple, Instant] | None = None  # what was made last, after what it was made of

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
                self._base = self._load(name)
            return self._base

    def _load(self, name: str) -> BaseModel:
        """A base model; where that has just failed, the same error at once."""
        if self._refused is not None:
            refused, when, error = self._refused
            if refused == name and time.monotonic() < when + RETRY_AFTER:
                raise error
        try:
            return BaseModel(self.project, name)
        except (OSError, ValueError) as error:
            if NO_CONNECTION in str(error):
                error = OSError(NOT_FETCHED.format(name))
            self._refused = name, time.monotonic(), error
            raise error from None

    # --- at once ----------------------------------------------------------------------------------------------------

    @property
    def instant(self) -> Instant:
        """What the last `update` gave; the first time, and with another base model, it is called here."""
        known = self._known
        if known is None or known[0][0] is not self._base:
            return self.update()
        return known[1]

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
            if self._known is None or self._known[0] != state:
                self._known = state, fit_instant(base, classes, template, sights, on_progress)
            return self._known[1]

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
        base, instant = self.base, self.instant
        answer = answer_at_once(base, instant, picture, coverage, with_maps=adapter is None)
        if adapter is None or not answer.ranks:
            return answer
        return answer_of_run(base, instant, answer, picture, adapter, coverage)

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

    def held_out(self, instant: Instant | None = None) -> Held | None:
        """Answers to the pictures, each by a model that was fitted without it, see `best_held_out`.

        Args:
            instant: whose pictures and classes these are, for those who read both; None: what is known now.

        Returns:
            None: there are none.
        """
        return best_held_out(self.project, self.instant if instant is None else instant)
