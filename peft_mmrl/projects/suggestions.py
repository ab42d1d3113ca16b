"""Which pictures to label next, so that few labels go far."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from .extra import from_extra


AMONG = 3  # times as many uncertain pictures as are wanted of a class, of which the most typical are taken
SAME_COSINE = 0.995  # cosine from which two pictures count as one
MOST_COMPARED = 2000  # pictures, since all are compared with all


def suggest(
    features: Any, labels: Any, candidates: Any, guesses: Any, margins: Any, number: int = 20, seed: int = 0
) -> list[int]:
    """Choose pictures to be labelled, from the first label on, be there any yet or none.

    Each class is to get the same number of pictures, going by what they are taken for: those with the fewest first. Of
    the pictures that are taken for a class the least sure ones are looked at, three times as many as are wanted, and
    of these those are taken that stand for the most others that nothing labelled stands for yet (MaxHerding, Bae et
    al. 2024, in scikit-activeml). `examples/label_curves.py` compares it with random choice.

    Args:
        features: f_0 (N, d), normalised, of the pictures that have labels.
        labels: their classes (N,).
        candidates: f_0 (M, d) of those that have none.
        guesses: their likeliest classes (M,).
        margins: how sure that is (M,): the distance of the two largest probabilities.
        number: how many to choose.
        seed: of what is drawn where there are many.

    Returns:
        positions in `candidates`, at most `number`, none of them nearly equal to another or to a labelled picture; in
        the order in which to label them.

    Raises:
        ValueError: shapes that do not fit.
        ImportError: scikit-activeml is not installed.
    """
    features, candidates = (np.asarray(part, np.float64) for part in (features, candidates))
    labels, guesses = (np.asarray(part, np.int64) for part in (labels, guesses))
    margins = np.asarray(margins, np.float64)
    if len(features) != len(labels) or not len(candidates) == len(guesses) == len(margins):
        lengths = [len(part) for part in (features, labels, candidates, guesses, margins)]
        raise ValueError(f"There must be a row for each picture, got {lengths}.")
    strategy = from_extra("skactiveml.pool").MaxHerding(random_state=seed)
    free = _distinct(candidates, features, np.random.default_rng(seed))
    wanted = _share_out(guesses[free], labels, min(number, len(free)))
    X = np.concatenate([features, candidates[free]])
    y = np.concatenate([labels.astype(np.float64), np.full(len(free), np.nan)])
    chosen = []
    for label, count in wanted.items():
        own = np.flatnonzero(guesses[free] == label)
        own = own[np.argsort(margins[free[own]], kind="stable")][: AMONG * count] + len(features)
        found = strategy.query(X, y, candidates=own, batch_size=count)
        y[found] = label  # what it is taken for: the next ones are to stand for others
        chosen.append([int(free[place - len(features)]) for place in found])
    return [rows.pop(0) for _ in range(max(map(len, chosen), default=0)) for rows in chosen if rows]


def _distinct(candidates: np.ndarray, labelled: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Positions of candidates of which none is nearly equal to one before it or to a labelled picture; some of them
    where there are many."""
    rows = np.arange(len(candidates))
    if len(rows) > MOST_COMPARED:
        rows = np.sort(rng.choice(rows, MOST_COMPARED, replace=False))
    own = candidates[rows]
    is_copy = np.tril(own @ own.T >= SAME_COSINE, -1).any(axis=1)
    if len(labelled):
        is_copy |= (own @ labelled.T >= SAME_COSINE).any(axis=1)
    return rows[~is_copy]


def _share_out(guesses: np.ndarray, labels: np.ndarray, number: int) -> dict[int, int]:
    """How many to choose of those that are taken for each class; those with the fewest labels are first in turn, of
    these the one that most are taken for."""
    left, has = Counter(guesses.tolist()), Counter(labels.tolist())
    wanted: Counter[int] = Counter()
    for _ in range(number):
        free = [label for label in sorted(left) if wanted[label] < left[label]]
        wanted[min(free, key=lambda label: (has[label] + wanted[label], -left[label]))] += 1
    return dict(wanted)
