"""How well CLIP and the pictures so far would do, without training, and how sure that is; in plain words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from ..data import Preprocessing
from ..data.wording import first_few
from ..scoring.confidence import accuracy_interval
from ..scoring.held_out import Confidence
from ..scoring.labelled import Predictions
from ..scoring.reference import Reference
from ..scoring.rungs import LEVEL, UNTRAINED, ZERO_SHOT, rungs
from ..training import FrozenFeatures
from ..tuner.decision import Decision
from .gauges import Gauge, gauges
from .mistakes import Mistake, probable_mistakes
from .project import ClassFolder


@dataclass(frozen=True, eq=False)
class Held:
    """Answers to pictures, each by a model that was fitted without it.

    Args:
        classes: C names, as prompts say them.
        pictures: n paths below the project's folder.
        labels: (n,) positions in `classes`.
        probabilities: (n, C).
        counts: how many pictures each class has, those included that are never held out.
    """

    classes: list[str]
    pictures: list[str]
    labels: torch.Tensor
    probabilities: torch.Tensor
    counts: list[int]

    def gauges(self) -> list[Gauge]:
        """For each class whether more pictures would help most there."""
        return gauges(self.labels, self.probabilities, self.classes, self.counts)

    def mistakes(self) -> list[Mistake]:
        """Labels that are probably wrong; positions are those in `pictures`."""
        return probable_mistakes(self.labels, self.probabilities)


@dataclass(frozen=True, eq=False)
class Instant:
    """A project's pictures at one time, and the decision without training that is fitted on them.

    Args:
        classes: all classes, those without pictures too.
        pictures: N paths of labelled pictures that can be read, below the project's folder.
        unreadable: path and reason of each picture that cannot.
        preprocessing: how pictures become `pixel_values`.
        frozen: what frozen CLIP sees in pictures and classes; None: there are no classes, or none that CLIP can read.
        decision: fitted on all pictures; None: there are none, so that zero-shot CLIP decides.
        held: positions (n,) of the pictures that are held out in one of the folds.
        predictions: answers to these, out of fold; None: there are no such.
        reference: the pictures as `nearest_pictures` takes them; None: there are none.
        notes: what is missing, and what to do, in plain words.
        digests: of the contents of the N pictures; empty where they were not looked at.
    """

    classes: list[ClassFolder]
    pictures: list[str]
    unreadable: list[tuple[str, str]]
    preprocessing: Preprocessing
    frozen: FrozenFeatures | None = None
    decision: Decision | None = None
    held: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    predictions: Predictions | None = None
    reference: Reference | None = None
    notes: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Of the C classes, as prompts say them."""
        return [one.prompt_name for one in self.classes]

    @property
    def contents(self) -> dict[str, str]:
        """The content (digest) of each of the N pictures, by its path; empty where they were not looked at."""
        return dict(zip(self.pictures, self.digests, strict=False))

    @property
    def by_name(self) -> frozenset[str]:
        """Of these names those of the classes without a picture that can be read: no more is known of them."""
        counts = Counter(self.labels.tolist())
        return frozenset(name for place, name in enumerate(self.names) if not counts[place])

    @property
    def labels(self) -> torch.Tensor:
        """Of the pictures (N,), positions in `classes`."""
        return torch.empty(0, dtype=torch.long) if self.frozen is None else self.frozen.labels

    @property
    def held_out(self) -> Held | None:
        """The answers out of fold; None: there are none."""
        found = self.predictions
        if found is None:
            return None
        counts = Counter(self.labels.tolist())
        pictures = [self.pictures[row] for row in self.held.tolist()]
        every = [counts[place] for place in range(len(self.classes))]
        return Held(self.names, pictures, found.labels, found.probabilities, every)

    @cached_property
    def rungs(self) -> dict[str, dict[str, Any]]:
        """By "zero-shot" and "without training" `accuracy`, `low` and `high`: shares of pictures that were not known,
        with the 90 % interval. What is not known yet is not there."""
        if self.predictions is not None:
            return {rung["model"]: rung for rung in rungs(self.predictions)}
        if self.frozen is None or not self.pictures or len(self.classes) < 2:
            return {}
        right = int((self.frozen.zero_shot.argmax(dim=1) == self.labels).sum())
        low, high = accuracy_interval(right, len(self.pictures), LEVEL)
        return {
            ZERO_SHOT: {"model": ZERO_SHOT, "accuracy": right / len(self.pictures), "low": low, "high": high},
        }

    @property
    def accuracy(self) -> dict[str, Any] | None:
        """Of the decision without training, see `rungs`."""
        return self.rungs.get(UNTRAINED)

    @property
    def zero_shot_accuracy(self) -> dict[str, Any] | None:
        """Of CLIP as it is, which knows the names alone, see `rungs`."""
        return self.rungs.get(ZERO_SHOT)

    @cached_property
    def confidence(self) -> Confidence | None:
        """For sets of classes and "none of these"; None: no picture is held out."""
        return None if self.predictions is None else Confidence.of(self.predictions, None)

    def folder_of(self, name: str) -> str | None:
        """The folder of a class, by the name that prompts say; None: there is no such class any more."""
        return next((one.name for one in self.classes if one.prompt_name == name), None)

    def probabilities(self, features: torch.Tensor) -> torch.Tensor:
        """Of the classes (n, C) for features f_0 (n, d) of any pictures: the decision's, or without one CLIP's."""
        if self.decision is not None:
            return self.frozen.decide(self.decision, features)
        return self.zero_shot(features)

    def zero_shot(self, features: torch.Tensor) -> torch.Tensor:
        """The same by the classes' names alone."""
        return (self.frozen.scale * features @ self.frozen.text.T).softmax(dim=1)

    @property
    def taken_for(self) -> list[int]:
        """For each of the C classes how many held-out pictures of other classes are taken for it; none are held out:
        zeros."""
        if self.predictions is None:
            return [0] * len(self.classes)
        guesses = self.predictions.probabilities.argmax(dim=1)
        return guesses[guesses != self.predictions.labels].bincount(minlength=len(self.classes)).tolist()

    def trust_in_name(self, name: str) -> str:
        """How far the answers for a class can be trusted that has no pictures: it is scored as by CLIP, by its name.

        Args:
            name: of its folder.

        Raises:
            ValueError: there is no such class.
        """
        places = [place for place, one in enumerate(self.classes) if one.name == name]
        if not places:
            raise ValueError(f"There is no class {name!r}.")
        said = self.classes[places[0]].prompt_name
        words = [f"{said} is recognised by its name alone: nothing was checked for it."]
        if (known := self.zero_shot_accuracy) is not None:
            words.append(
                f"By names alone {known['accuracy']:.0%} of your other pictures are recognised ({known['low']:.0%} to "
                f"{known['high']:.0%}): expect no more, and less where the word is rare."
            )
        if self.predictions is not None:
            taken = self.taken_for[places[0]]
            words.append(
                f"{taken} of {len(self.held)} pictures of other classes are taken for it."
                if taken
                else f"None of your {len(self.held)} pictures of other classes is taken for it."
            )
        words.append("Two or three pictures of it are worth more than any name.")
        return " ".join(words)


def describe_gaps(
    classes: list[ClassFolder], counts: list[int], unreadable: list[tuple[str, str]], num_held: int
) -> list[str]:
    """What is missing, and what to do.

    Args:
        classes: C classes.
        counts: pictures that can be read of each.
        unreadable: path and reason of each that cannot.
        num_held: how many pictures can be held out.
    """
    notes = []
    if unreadable:
        what = "1 picture cannot be opened and is" if len(unreadable) == 1 else f"{len(unreadable)} pictures cannot be"
        notes.append(f"{what}{'' if len(unreadable) == 1 else ' opened and are'} left out.")
    if not classes:
        return [*notes, "There are no classes yet. Make one for each thing that is to be told apart."]
    if len(classes) == 1:
        return [*notes, f"{classes[0].prompt_name} is the only class: make another, so that there is a choice."]
    names = [one.prompt_name for one in classes]
    empty = [name for name, count in zip(names, counts, strict=True) if not count]
    if len(empty) == len(names):
        return [*notes, "There are no pictures yet: pictures are recognised by the classes' names alone."]
    if empty:
        has = "has no pictures: it is" if len(empty) == 1 else "have no pictures: they are"
        notes.append(f"{first_few(empty)} {has} recognised by name alone.")
    if len(names) - len(empty) == 1:
        only = next(name for name, count in zip(names, counts, strict=True) if count)
        return [*notes, f"{only} is the only class with pictures: nothing can be learned before another one has some."]
    single = [name for name, count in zip(names, counts, strict=True) if count == 1]
    if not num_held:
        return [*notes, "How well it does shows as soon as a class has two different pictures."]
    if single:
        has = "has a single picture" if len(single) == 1 else "have a single picture each"
        notes.append(f"{first_few(single)} {has}: how well that is recognised shows with a second one.")
    return notes
