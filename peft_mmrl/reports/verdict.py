"""What a report says in words: whether training helped, and at whose cost."""

from __future__ import annotations

from typing import Any

from ..data.wording import first_few
from .results import by_change


CHANCE = 0.05
LOST = 0.5  # of what was recognised of a class before


def verdict(metrics: dict[str, Any]) -> str:
    """What may be said of a training, from `results.compute_metrics`.

    Returns:
        "unclear": the difference can be chance; "helped" or "harmed": pictures and classes agree; "mixed": more
        pictures are recognised, but less of the mean class or hardly any more of some class, or the other way round.
    """
    if metrics["difference_p_value"] >= CHANCE:
        return "unclear"
    more_pictures = metrics["gained"] > metrics["lost"]
    mean_class = metrics["macro_recall"] - metrics["zero_shot_macro_recall"]
    if more_pictures:
        return "helped" if mean_class >= 0 and not lost_classes(metrics) else "mixed"
    return "harmed" if mean_class <= 0 else "mixed"


def weakest_class(metrics: dict[str, Any]) -> dict[str, Any]:
    """The class of which the smallest share is recognised after training; of several the one that lost most."""
    rows = [row for row in metrics["per_class"] if row["pictures"]]
    return min(rows, key=lambda row: (row["recall"], -row["zero_shot_recall"]))


def lost_classes(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """The classes of which no more than half of what was recognised before still is, the largest loss first."""
    rows = by_change(metrics["per_class"], len(metrics["per_class"]))[::-1]
    return [row for row in rows if row["zero_shot_recall"] and row["recall"] <= LOST * row["zero_shot_recall"]]


def training_added(metrics: dict[str, Any]) -> str | None:
    """What training added to the decision without it, and how sure that is; None where only one was scored."""
    if "training_p_value" not in metrics:
        return None
    gained, lost, p = (metrics[f"training_{name}"] for name in ("gained", "lost", "p_value"))
    if not gained and not lost:
        return "Training made no difference to what the decision gets without it."
    points = 100 * (gained - lost) / metrics["pictures"]
    change = f"took {-points:.1f} points from" if points < 0 else f"added {points:.1f} points to"
    chance = "can be chance" if p >= CHANCE else "is hardly ever chance"
    shown = f"p = {p:.2f}" if p >= 0.01 else f"p < {0.01 if p >= 0.001 else 0.001}"
    return (
        f"Training {change} what the decision gets without it (pictures gained: {gained}, lost: {lost}). "
        f"That {chance} ({shown})."
    )


def summary(metrics: dict[str, Any]) -> list[str]:
    """Lines on what a trained model gains and loses against frozen CLIP, in all and by class.

    Args:
        metrics: from `results.compute_metrics`.
    """
    folds = f", each answered by a model trained without it ({metrics['folds']} folds)" if metrics["folds"] else ""
    line = f"accuracy on {metrics['pictures']} pictures{folds}: {metrics['accuracy']:.1%}"
    line += f" (zero-shot {metrics['zero_shot_accuracy']:.1%})"
    if verdict(metrics) == "unclear" and (metrics["gained"] or metrics["lost"]):
        line += "; a difference this small can be chance"
    rows = by_change(metrics["per_class"], len(metrics["per_class"]))
    mean = f"mean recall of {len(rows)} classes: {metrics['macro_recall']:.1%}"
    mean += f" (zero-shot {metrics['zero_shot_macro_recall']:.1%}); weakest: {_change(weakest_class(metrics))}"
    lines = [line, *filter(None, [training_added(metrics)]), mean]
    for what, sign, ordered in (("better", 1, rows), ("worse", -1, rows[::-1])):
        changed = [row for row in ordered if sign * (row["recall"] - row["zero_shot_recall"]) > 0]
        lines.append(f"{what}: {first_few(list(map(_change, changed)))}")
    return lines


def _change(row: dict[str, Any]) -> str:
    return f"{row['class']} {row['zero_shot_recall']:.0%} -> {row['recall']:.0%}"
