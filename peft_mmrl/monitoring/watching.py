"""New pictures beside a reference: evidence that they are of another kind, and which pictures drive it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ..scoring.reference import LIGHT_MEASURES, Reference
from ..scoring.sightings import Sighting
from .martingale import conformal_p_values, simple_jumper


MIN_REFERENCE = 20  # groups of pictures: half of them are neighbours, and ten others say little enough
MIN_STREAM = 15  # pictures: fewer can hardly raise an alarm
MOST_DRIVERS = 12
STATISTICS = ("distance", *LIGHT_MEASURES)
DIRECTIONS = {
    "distance": ("farther from all reference pictures", "nearer to a reference picture"),
    "brightness": ("brighter", "darker"),
    "contrast": ("more contrast", "less contrast"),
    "sharpness": ("sharper", "less sharp"),
}


@dataclass(frozen=True)
class Step:
    """A picture of the stream.

    Args:
        path: its name.
        time: what it was put in order by.
        answer: its likeliest class.
        probability: of that class.
        evidence: against "still of the same kind", with this picture and all before it.
        growth: by which factor this picture multiplied it.
        what: in what it is unusual, where its growth is mostly of that.
    """

    path: str
    time: str
    answer: str
    probability: float
    evidence: float
    growth: float
    what: str


@dataclass(frozen=True)
class Findings:
    """What a stream of T pictures says.

    Args:
        false_alarms: stated rate: the probability that a stream of the same kind ever raises an alarm is no more.
        reference: number of reference pictures.
        steps: the pictures in their order.
        statistics: for each statistic its largest evidence, and its medians in reference and stream.
        answers: for each class its share of the stream's answers, and of the reference's pictures.
        confidence: mean probability of the answers, and what it was on pictures that were not trained on (or None).
    """

    false_alarms: float
    reference: int
    steps: list[Step]
    statistics: dict[str, dict[str, float]]
    answers: dict[str, tuple[float, float]]
    confidence: tuple[float, float | None]

    @property
    def threshold(self) -> float:
        """The evidence that is an alarm."""
        return 1 / self.false_alarms

    @property
    def alarm_at(self) -> int | None:
        """Position of the picture with which the alarm came; None: there was none."""
        return next((at for at, step in enumerate(self.steps) if step.evidence >= self.threshold), None)

    @property
    def drivers(self) -> list[Step]:
        """The pictures that multiplied the evidence most, the first ahead."""
        return sorted((step for step in self.steps if step.growth > 1), key=lambda step: -step.growth)[:MOST_DRIVERS]

    @property
    def words(self) -> str:
        """A sentence or two."""
        count, largest = len(self.steps), max(step.evidence for step in self.steps)
        rate = f"{self.false_alarms:.2%}".replace(".00%", "%")
        if self.alarm_at is None:
            said = (
                f"No alarm: {count} pictures, evidence of at most {largest:.3g} that they are of another kind than "
                f"the {self.reference} reference pictures (alarm at {self.threshold:.3g}; "
                f"at most {rate} false alarms)."
            )
            return said + (f" Fewer than {MIN_STREAM} pictures can hardly raise one." if count < MIN_STREAM else "")
        strongest = max(self.statistics, key=lambda name: self.statistics[name]["evidence"])
        pictures = [step.what for step in self.steps if step.growth > 1 and _is_of(step, strongest)]
        what = Counter(pictures).most_common(1)[0][0] if pictures else strongest
        return (
            f"Alarm: with picture {self.alarm_at + 1} of {count} ({self.steps[self.alarm_at].path}) the evidence "
            f"reached {self.threshold:.3g}: these are not pictures like the {self.reference} reference pictures "
            f"(mostly: {what}; at most {rate} false alarms)."
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "alarm": self.alarm_at is not None,
            "alarm_at": None if self.alarm_at is None else self.steps[self.alarm_at].path,
            "words": self.words,
            "threshold": self.threshold,
            **asdict(self),
            "drivers": [step.path for step in self.drivers],
        }


def _is_of(step: Step, statistic: str) -> bool:
    return step.what in DIRECTIONS[statistic]


def check_enough(reference: Reference, name: str) -> None:
    """Raise a ValueError where there are too few reference pictures.

    Args:
        reference: the pictures.
        name: of where they are from.
    """
    groups = len(reference.groups.unique())
    if groups < MIN_REFERENCE:
        raise ValueError(
            f"{name} has {groups} different pictures, and {MIN_REFERENCE} are needed to tell what is usual: give more "
            "with --reference FOLDER."
        )


def watch(
    reference: Reference,
    stream: Sequence[Sighting],
    times: Sequence[str],
    class_names: Sequence[str],
    *,
    false_alarms: float = 0.01,
    confidence: float | None = None,
    seed: int = 0,
) -> Findings:
    """Test whether pictures are of the kind of the reference.

    Half of the reference, by groups, are neighbours; the other half and the stream are compared with these, so that
    they are exchangeable where they are of one kind. Statistics are the distance to the nearest neighbour in features
    of frozen CLIP, which were fitted on none of the pictures, and brightness, contrast and sharpness, to which such
    features may be blind. The kind within which ranks are taken is the nearest neighbour's class, so that it is no
    matter how often each class comes. The evidence is the mean of their martingales, which is one, too.

    Args:
        reference: N pictures.
        stream: T pictures that can be read, in the order of time.
        times: what they were put in order by (T).
        class_names: the model's, for the stream's labels.
        false_alarms: what they may be at most, above 0 and below 1.
        confidence: mean probability of answers to pictures that were not trained on; None: not known.
        seed: of which half is which, and of what breaks ties.

    Raises:
        ValueError: there are too few reference pictures, or none in the stream.
    """
    check_enough(reference, "the reference")
    if not stream:
        raise ValueError("there is no new picture that can be read.")
    generator = np.random.default_rng(seed)
    groups = reference.groups.numpy()
    shuffled = generator.permutation(np.unique(groups))
    near = torch.from_numpy(np.isin(groups, shuffled[: len(shuffled) // 2]))
    neighbours, labels = reference.features[near], reference.labels[near].numpy()

    def look(features: torch.Tensor, measures: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        similar, place = (features @ neighbours.T).max(dim=1)
        return torch.cat([1 - similar[:, None], measures], dim=1).numpy(), labels[place.numpy()]

    features, measures = (torch.stack([getattr(one, name) for one in stream]) for name in ("feature", "measures"))
    known, known_kinds = look(reference.features[~near], reference.measures[~near])
    new, kinds = look(features, measures)
    columns = zip(known.T, new.T, strict=True)
    ranks = np.stack([conformal_p_values(old, known_kinds, now, kinds, generator) for old, now in columns])
    paths = np.stack([simple_jumper(row) for row in ranks])  # (statistics, T)
    evidence = paths.mean(axis=0)
    gains = np.diff(paths, axis=1, prepend=1.0)
    most = gains.argmax(axis=0)
    steps = [
        Step(
            path=one.path,
            time=time,
            answer=class_names[one.label],
            probability=round(one.probability, 6),
            evidence=float(total),
            growth=float(total / before),
            what=DIRECTIONS[STATISTICS[row]][int(ranks[row, at] > 0.5)],
        )
        for at, (one, time, total, before, row) in enumerate(
            zip(stream, times, evidence, [1.0, *evidence[:-1]], most, strict=True)
        )
    ]
    statistics = {
        name: {"evidence": float(path.max()), "reference": float(np.median(old)), "stream": float(np.median(now))}
        for name, path, old, now in zip(STATISTICS, paths, known.T, new.T, strict=True)
    }
    return Findings(
        false_alarms=false_alarms,
        reference=len(reference),
        steps=steps,
        statistics=statistics,
        answers=_shares(reference, stream, class_names),
        confidence=(float(np.mean([one.probability for one in stream])), confidence),
    )


def _shares(
    reference: Reference, stream: Sequence[Sighting], class_names: Sequence[str]
) -> dict[str, tuple[float, float]]:
    now = Counter(class_names[one.label] for one in stream)
    before = Counter(reference.class_names[label] for label in reference.labels.tolist())
    return {name: (now[name] / len(stream), before[name] / len(reference)) for name in class_names}
