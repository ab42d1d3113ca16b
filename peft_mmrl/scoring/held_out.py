"""What pictures said that an adapter was not trained on: kept beside it, for sets of classes and "none of these"."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers.utils import cached_file

from ..data.wording import first_few
from ..tuner.decision import Decision
from ..tuner.peft_model import PeftModelForZeroShotImageClassification
from .confidence import coverage_threshold, pictures_needed, risk_threshold
from .labelled import Predictions


CONFIDENCE_FILE = "confidence.json"
COVERAGE, RISK = 0.9, 0.05  # what is aimed at where nothing else is asked for
RARE = 0.5  # of the pictures of a mean class: of a class with fewer little can be said
IN_TRIALS = "In trials with few pictures 90% came to 88 to 94% on average, 69% at worst"
CAVEAT = (
    "These are aims for pictures like those, over all trained classes together: they promise nothing for a single "
    "class, and nothing for others."
)


@dataclass(frozen=True)
class Aim:
    """What is to be done to reach an aim, and how the N held-out pictures fared with it.

    Args:
        threshold: see `coverage_threshold` and `risk_threshold`; None: there are too few pictures.
        words: sentences that say all of it, but by class.
        good: whether it went well with a picture (N).
    """

    threshold: float | None
    words: str
    good: list[bool]


@dataclass(frozen=True)
class Confidence:
    """The answers of a classifier to N pictures that it was not trained on, and of which classes they are.

    What is derived of them holds for the trained classes among themselves, for pictures as these, and is an aim: it
    promises nothing for a single class, and nothing about other classes.

    Args:
        class_names: of the C trained classes, as prompts say them.
        labels: class of each picture, a position in `class_names` (N).
        predicted: its likeliest class (N).
        own: probability of its own class (N).
        largest: probability of the likeliest class (N).
        folds: number of folds, where each picture was answered by a model that was trained without its fold; 0: all
            were held out from one training.
        unknown: largest probabilities of M pictures of other classes; None: none were given.
        decision: what tells the adapter's decision from others, see `digest_of`.
    """

    class_names: list[str]
    labels: list[int]
    predicted: list[int]
    own: list[float]
    largest: list[float]
    folds: int = 0
    unknown: list[float] | None = None
    decision: str | None = None

    def __post_init__(self) -> None:
        columns = [self.labels, self.predicted, self.own, self.largest]
        if len({len(column) for column in columns}) != 1 or not self.labels:
            raise ValueError(f"there must be a value for each picture, got {[len(column) for column in columns]}")
        if not all(0 <= label < len(self.class_names) for label in [*self.labels, *self.predicted]):
            raise ValueError(f"labels must lie between 0 and {len(self.class_names) - 1}")
        if not all(0 <= value <= 1 for value in [*self.own, *self.largest, *(self.unknown or [])]):
            raise ValueError("probabilities must lie between 0 and 1")

    @classmethod
    def of(
        cls, predictions: Predictions, decision: Decision | None, unknown: torch.Tensor | None = None
    ) -> Confidence:
        """What the answers to held-out pictures say.

        Args:
            predictions: of pictures that were not trained on, among the trained classes.
            decision: that of the adapter beside which it is saved, `model.decision`.
            unknown: largest probabilities (M,) of pictures of other classes, see
                [`~peft_mmrl.scoring.unlabelled.largest_probabilities`].

        Raises:
            ValueError: there are no pictures, or probabilities are none.
        """
        probabilities = predictions.probabilities.double().cpu()
        labels = predictions.labels.cpu()
        largest, predicted = probabilities.max(dim=1)
        return cls(
            class_names=list(predictions.class_names),
            labels=labels.tolist(),
            predicted=predicted.tolist(),
            own=probabilities.gather(1, labels[:, None])[:, 0].tolist(),
            largest=largest.tolist(),
            folds=predictions.folds,
            unknown=None if unknown is None else unknown.tolist(),
            decision=digest_of(decision),
        )

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `confidence.json` beside an adapter."""
        Path(folder, CONFIDENCE_FILE).write_text(json.dumps(asdict(self), ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, adapter: str | os.PathLike[str]) -> Confidence:
        """Read what was saved with an adapter.

        Args:
            adapter: its folder or Hub repository.

        Raises:
            OSError: nothing was saved with it, or the Hub cannot be reached.
            ValueError: the file holds something else.
        """
        path = cached_file(os.fspath(adapter), CONFIDENCE_FILE, _raise_exceptions_for_missing_entries=False)
        if path is None:
            raise FileNotFoundError(
                f"The adapter {adapter} has no {CONFIDENCE_FILE}: train it anew, which writes one where pictures are "
                "held out, or give a probability (--threshold 0.5)."
            )
        try:
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} does not hold what held-out pictures said: {error}") from error

    @property
    def are_right(self) -> list[bool]:
        """Whether the likeliest class is a picture's own (N)."""
        return [guess == label for guess, label in zip(self.predicted, self.labels, strict=True)]

    def for_coverage(self, coverage: float = COVERAGE) -> Aim:
        """Sets of classes that aim at a coverage; `Aim.good`: whether a picture's set holds its class."""
        threshold = coverage_threshold(torch.tensor(self.own, dtype=torch.double), coverage)
        if threshold is None:
            return self._too_few(f"Sets that aim at {_percent(coverage)} need", 1 - coverage)
        held = [right or 1 - p <= threshold for right, p in zip(self.are_right, self.own, strict=True)]
        others = f"every other of at least {1 - threshold:.1%}"
        if threshold < 0.5:  # no two classes have as much
            others = "no other: on these pictures it alone is enough"
        words = (
            f"Sets that aim at {_percent(coverage)} (predict --coverage {coverage:g}) hold the likeliest class, and "
            f"{others}. Of {self._source()} {sum(held)} "
            f"({sum(held) / len(held):.1%}) have their class in the set. {IN_TRIALS}."
        )
        return Aim(threshold, words, held)

    def for_risk(self, risk: float = RISK) -> Aim:
        """When to name a picture at a risk; `Aim.good`: whether it is named, and rightly."""
        largest, are_right = torch.tensor(self.largest, dtype=torch.double), self.are_right
        threshold = risk_threshold(largest, torch.tensor(are_right), risk)
        if threshold is None:
            return self._too_few(f'"None of these" at a risk of {_percent(risk)} needs', risk)
        named = (largest >= threshold).tolist()
        good = [name and right for name, right in zip(named, are_right, strict=True)]
        others = "How many pictures of other classes would be named isn't known (train --unknown_dir)"
        if self.unknown:
            passing = sum(p >= threshold for p in self.unknown)
            others = f"Of {len(self.unknown)} pictures of other classes that were given, {passing} would be named"
        rule = f'"None of these" below {threshold:.1%}' if threshold else "Naming every picture"
        words = (
            f"{rule} (predict --risk {risk:g}) aims at no more than {_percent(risk)} of all pictures named wrongly. "
            f"Of {self._source()} {sum(good)} are named rightly, {sum(named) - sum(good)} wrongly and "
            f"{len(named) - sum(named)} not at all. {others}."
        )
        return Aim(threshold, words, good)

    def _too_few(self, what: str, risk: float) -> Aim:
        needed = f"{what} at least {pictures_needed(risk)} pictures that were not trained on"
        return Aim(None, f"{needed}, and there are {len(self.labels)}.", [])

    def _source(self) -> str:
        if self.folds:
            return f"{len(self.labels)} pictures, each answered by a model trained without it ({self.folds} folds),"
        return f"{len(self.labels)} held-out pictures"

    def by_class(self, flags: Sequence[bool]) -> list[tuple[str, int, int]]:
        """For each class its name, how many of its pictures have a flag, and how many it has."""
        found, pictures = ([0] * len(self.class_names) for _ in range(2))
        for label, flag in zip(self.labels, flags, strict=True):
            found[label] += flag
            pictures[label] += 1
        return list(zip(self.class_names, found, pictures, strict=True))

    def rare(self) -> set[str]:
        """Names of the classes that have far fewer of the pictures than the mean class."""
        limit = RARE * len(self.labels) / len(self.class_names)
        return {name for name, _, pictures in self.by_class(self.are_right) if pictures < limit}

    def by_class_in_words(self, flags: Sequence[bool]) -> str:
        """How many pictures of each class have a flag, the worst first; apart those that have few pictures."""
        rare, rows = self.rare(), sorted(self.by_class(flags), key=lambda row: row[1] / max(row[2], 1))
        usual, few = [], []
        for name, found, pictures in rows:
            (few if name in rare else usual).append(f"{name} {found} of {pictures}")
        return "; with few pictures: ".join(first_few(part) for part in (usual, few) if part)

    def check_fits(self, model: PeftModelForZeroShotImageClassification) -> None:
        """Raise where it says nothing about a model's answers.

        Raises:
            ValueError: other classes are bound than the trained ones, or the adapter decides otherwise now, be it that
                its decision is not used with this base model or these templates.
        """
        if sorted(model.classes) != sorted(self.class_names):
            others = sorted({*model.classes} ^ {*self.class_names})
            raise ValueError(
                "--coverage, and --risk or --threshold without a number, hold for the trained classes among "
                f"themselves, all of them; here it would be with or without {first_few(others)}. Leave out --classes, "
                "or give a probability (--threshold 0.5)."
            )
        if digest_of(model.decision) != self.decision:
            now = "was taken off" if model.decision is None else "is another now"
            raise ValueError(
                f"What {CONFIDENCE_FILE} says is of the decision that it was saved with, which {now}. Train anew, or "
                "give a probability (--threshold 0.5)."
            )
        if differing := model.unused_decision():
            raise ValueError(
                f"What {CONFIDENCE_FILE} says is of the adapter's decision, which is not used here: it was fitted for "
                f"another {', '.join(differing)}. Take that one, or give a probability (--threshold 0.5)."
            )


def digest_of(decision: Decision | None) -> str | None:
    """16 hex digits that tell a decision from others, on any device; None of none."""
    if decision is None:
        return None
    tensors, metadata = decision.state()
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()[:16]


def _percent(share: float) -> str:
    return f"{100 * share:.6g}%"
