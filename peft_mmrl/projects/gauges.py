"""Where more pictures would help most, by what was answered to pictures by models that were fitted without them.

The rule: a class of n pictures is missed by 1 - p, with p the mean probability of its own class that its pictures got,
out of fold; and what is missed shrinks about as 1 / n. So four more pictures of it take away 4 / (n + 4) of what is
missed. Named are the classes that are missed by a tenth or more, and where that is at least half as much as anywhere.

Measured on the demo's digits (2 to 8, 4, 8 or 3 to 12 pictures of each, 20 draws): the recall of classes that are
named rises by 5.3 points with four more pictures of them, that of the others by 2.6; in 18 of the 20 draws by more.
The recall in place of the probability tells less: of four pictures it takes five values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..data.wording import percent


MORE = 4  # pictures
MISSED = 0.1  # share of a class's probability that must be missed before it is said to need more
UNKNOWN = 0.5  # p of a class whose only picture is never held out


@dataclass(frozen=True)
class Gauge:
    """A class.

    Args:
        name: as prompts say it.
        pictures: how many it has.
        asked: how many of them were held out.
        recall: share of these that were recognised; None: none was held out.
        is_most: whether more pictures help most here, of all classes.
        words: what to do.
    """

    name: str
    pictures: int
    asked: int
    recall: float | None
    is_most: bool
    words: str


def gauges(
    labels: torch.Tensor, probabilities: torch.Tensor, class_names: Sequence[str], counts: Sequence[int] | None = None
) -> list[Gauge]:
    """For each class, in their order, whether more pictures would help most there.

    Args:
        labels: of n pictures (n,).
        probabilities: what a model that was fitted without a picture says of it (n, C).
        class_names: C names.
        counts: how many pictures each class has, those included that were never held out; None: there are no such.

    Raises:
        ValueError: shapes that do not fit.
    """
    if probabilities.shape != (len(labels), len(class_names)):
        raise ValueError(
            f"`probabilities` must have the shape {(len(labels), len(class_names))}, got {tuple(probabilities.shape)}."
        )
    asked = labels.bincount(minlength=len(class_names)).tolist()
    counts = asked if counts is None else counts
    right = labels[probabilities.argmax(dim=1) == labels].bincount(minlength=len(class_names)).tolist()
    own = probabilities.gather(1, labels[:, None])[:, 0].double()
    total = torch.zeros(len(class_names), dtype=torch.double).index_add(0, labels, own).tolist()
    missed = [
        1 - (total[place] / asked[place] if asked[place] else UNKNOWN if counts[place] else 0.0)
        for place in range(len(class_names))
    ]
    helps = [share * MORE / (count + MORE) for share, count in zip(missed, counts, strict=True)]
    found = []
    for place, name in enumerate(class_names):
        n = asked[place]
        recall = right[place] / n if n else None
        is_most = missed[place] >= MISSED and helps[place] >= max(helps) / 2
        words = _words(name, counts[place], n, right[place], missed[place], is_most)
        found.append(Gauge(name, counts[place], n, recall, is_most, words))
    return found


def _words(name: str, pictures: int, asked: int, right: int, missed: float, is_most: bool) -> str:
    if not pictures:
        return f"{name} has no pictures: the first ones help most."
    if not asked:
        return f"{name} cannot be checked: that takes a second picture of something else than the first shows."
    known = f"{right} of {asked} pictures of {name} are recognised, {percent(1 - missed)} sure"
    if is_most:
        return f"{known}: more pictures help most here."
    return f"{known}: more pictures would help." if missed >= MISSED else f"{known}: that is good."
