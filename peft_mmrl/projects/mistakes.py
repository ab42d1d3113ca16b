"""Labels that are probably wrong, by answers that were given to pictures without knowing their labels (cleanlab).

Measured on the demo's digits, 5 seeds, with a tenth of the labels of 8, 16 or 30 pictures of each class planted wrong,
by the decision without training, out of fold: of the planted ones 93 to 96 % are named (of 4 pictures of each class
85 %), and about half of those that are named are planted (45 to 53 %; of 4 pictures a third). Of as many as were
planted, taken from the top, 79 to 83 % are (65 %). The others are pictures that look like another class: worth a look.

Classes known by name alone have no labels, so cleanlab knows nothing of them. Named as well is what looks most like
one of them, and hardly like its own class. Of 4 pictures of a tenth digit that were put among 4, 8 or 16 pictures of
each of the others (10 draws each) 58 to 65 % are named without that rule, and 88 to 95 % with it; of those that it
adds 56 % are planted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .extra import from_extra


HARDLY = 0.05  # probability of its own class below which a picture may be of a class that has none


@dataclass(frozen=True)
class Mistake:
    """A label that is probably wrong.

    Args:
        position: of the picture.
        suggested: the class that it looks like.
        score: probability of the class that it is labelled with: the smaller, the more of it is doubt.
    """

    position: int
    suggested: int
    score: float


def probable_mistakes(labels: Any, probabilities: Any) -> list[Mistake]:
    """Pictures whose labels should be looked at, the likeliest mistakes first.

    How many are named is cleanlab's estimate of how many labels are wrong (confident learning, Northcutt et al. 2021);
    they are those with the least probability of their own label, which found more planted mistakes here than the other
    filters. So are pictures that look most like a class which no picture is labelled with, and hardly like their own.

    Args:
        labels: of N pictures (N,).
        probabilities: what a model that was fitted without a picture says of it (N, C).

    Raises:
        ValueError: shapes that do not fit, values that are no probabilities.
        ImportError: cleanlab is not installed.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(f"There must be a label and a row per picture, got {labels.shape}, {probabilities.shape}.")
    if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3) or (probabilities < 0).any():
        raise ValueError("`probabilities` must add up to 1 for each picture.")
    if not ((labels >= 0) & (labels < probabilities.shape[1])).all():
        raise ValueError(f"`labels` must lie between 0 and {probabilities.shape[1] - 1}.")
    known, among = np.unique(labels, return_inverse=True)
    if len(known) < 2:
        return []
    shares = probabilities[:, known]  # cleanlab takes no classes without labels
    shares = (shares + 1e-9) / (shares + 1e-9).sum(axis=1, keepdims=True)
    options = {"filter_by": "low_self_confidence", "return_indices_ranked_by": "self_confidence", "n_jobs": 1}
    found = from_extra("cleanlab.filter").find_label_issues(among, shares, **options)
    own = probabilities[np.arange(len(labels)), labels]
    others = np.where(np.eye(probabilities.shape[1], dtype=bool)[labels], -1, probabilities)
    named = np.isin(np.arange(len(labels)), found) & (others.max(axis=1) > own)  # else nothing else is likelier
    named |= ~np.isin(others.argmax(axis=1), known) & (own < HARDLY)
    rows = np.flatnonzero(named)
    return [
        Mistake(int(row), int(others[row].argmax()), float(own[row]))
        for row in rows[np.argsort(own[rows], kind="stable")]
    ]
