"""A test of whether a stream goes on as it began, with a stated rate of false alarms: a conformal test martingale.

A number is taken of each picture. As long as all pictures, of the reference and of the stream, might as well have
come in any other order (are exchangeable), the rank of each number among those before it is uniform and independent of
the others (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005, chapter 8). Who bets against that
at fair odds multiplies the stake by 1 / a with a probability of at most a, ever (Ville's inequality).

MAPIE's `OnlineMartingaleTest` is the same idea, and was looked at: it takes its scores of labelled pictures from a
classifier that it fits itself, and there are no labels here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


JUMPS = 0.01  # share of the stake that is spread anew over all bets before each picture
BETS = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])  # slopes of f(p) = 1 + slope (p - 1/2)


def conformal_p_values(
    known: Sequence[float],
    known_kinds: Sequence[int],
    scores: Sequence[float],
    kinds: Sequence[int],
    generator: np.random.Generator,
) -> np.ndarray:
    """For each score of a stream the share of those before it, of the same kind, that are larger.

    Ranks are taken within kinds (Mondrian p-values, section 4.5 of the book), so that it is no matter how often each
    kind comes.

    Args:
        known: N scores of the reference.
        known_kinds: what kind each is of (N).
        scores: of the stream in its order (T).
        kinds: what kind each is of (T).
        generator: breaks ties.

    Returns:
        (T,), uniform and independent where reference and stream are exchangeable.
    """
    before: dict[int, list[float]] = {}
    for score, kind in zip(known, known_kinds, strict=True):
        before.setdefault(kind, []).append(score)
    found = []
    for score, kind in zip(scores, kinds, strict=True):
        earlier = np.array(before.setdefault(kind, []))
        ties = generator.random() * ((earlier == score).sum() + 1)
        found.append(((earlier > score).sum() + ties) / (len(earlier) + 1))
        before[kind].append(score)
    return np.array(found)


def simple_jumper(p_values: np.ndarray) -> np.ndarray:
    """What a stake of 1 becomes (T,): algorithm 1 of Vovk et al., Retrain or not retrain (COPA 2021).

    It bets that the ranks become smaller or larger, and may change its mind. Beyond their slopes of up to 1 there is
    2, the steepest that is fair: streams may be short.

    Args:
        p_values: (T,), from 0 to 1.
    """
    stakes, total = np.full(len(BETS), 1 / len(BETS)), []
    for value in p_values:
        stakes = (1 - JUMPS) * stakes + JUMPS * stakes.mean()
        stakes = stakes * (1 + BETS * (value - 0.5))
        total.append(stakes.sum())
    return np.array(total)
