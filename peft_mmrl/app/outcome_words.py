"""What a training came to, in sentences and pictures: from the report that lies in its folder."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from ..data.wording import in_words
from ..reports.verdict import lost_classes, verdict
from ..training.run_folder import read_json
from .words import of_ten


METRICS = Path("report") / "metrics.json"
PREDICTIONS = Path("report") / "predictions.csv"
PAGE = Path("report") / "report.html"
MOST_NAMED = 3
HEADS = {
    "helped": "It has learned.",
    "harmed": "It has become worse than it was without your pictures.",
    "mixed": "Some classes are recognised better, and others worse.",
    "unclear": "Whether it is better than without your pictures cannot be said yet.",
}


class Changed(NamedTuple):
    """A picture that is answered otherwise than before.

    Args:
        path: below `pictures`.
        label: what it is.
        before, after: what it was and is called.
    """

    path: str
    label: str
    before: str
    after: str


def outcome_html(folder: Path) -> str:
    """What is gained and lost, and how sure that is; empty where a run has no figures.

    Args:
        folder: of the run.
    """
    metrics = read_json(folder / METRICS)
    if not isinstance(metrics, dict):
        return '<p class="figure">It is ready to be used. There were too few pictures to check how good it is.</p>'
    lines = [f'<p class="figure"><b>{HEADS[verdict(metrics)]}</b> {escape(_accuracy(metrics, ""))}.</p>']
    before = _accuracy(metrics, "zero_shot_")
    lines.append(f"<p>Before, by the names of the classes alone: {escape(before[0].lower() + before[1:])}.</p>")
    lines += [f"<p>{escape(line)}</p>" for line in _changes(metrics)]
    return "".join(lines)


def _accuracy(metrics: dict[str, Any], of: str) -> str:
    share = metrics[f"{of}accuracy"]
    return of_ten(share, metrics.get(f"{of}accuracy_low", share), metrics.get(f"{of}accuracy_high", share))


def _changes(metrics: dict[str, Any]) -> Iterator[str]:
    gained, lost = metrics["gained"], metrics["lost"]
    asked = "All were asked as if they were new: by a copy that had learned without them." if metrics["folds"] else ""
    chance = "A difference this small can be chance." if verdict(metrics) == "unclear" and gained != lost else ""
    are = "is" if gained == 1 else "are"
    changed = f"{gained} {are} now right that had been wrong, and {lost} wrong that were right."
    yield f"Of your {metrics['pictures']} pictures {changed} {chance} {asked}"
    rows = [row for row in metrics["per_class"] if row["pictures"]]
    worst = sorted((row for row in rows if row["recall"] < 1), key=lambda row: row["recall"])[:MOST_NAMED]
    if worst:
        named = [
            f"{row['class']} ({round(row['recall'] * row['pictures'])} of {row['pictures']} right)" for row in worst
        ]
        yield f"Hardest for it: {in_words(named, 'and')}."
    else:
        yield "No class stands out as hard."
    if fallen := lost_classes(metrics):
        named = in_words([row["class"] for row in fallen[:MOST_NAMED]], "and")
        yield f"Much worse than before: {named}. More pictures of them would help."


def changed_pictures(folder: Path, most: int) -> list[Changed]:
    """Pictures that are right now and were not, and the other way round; at most so many.

    Args:
        folder: of the run.
        most: how many.
    """
    try:
        with open(folder / PREDICTIONS, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        found = [Changed(row["path"], row["label"], row["zero_shot_predicted"], row["predicted"]) for row in rows]
    except (OSError, KeyError, csv.Error):
        return []
    return [one for one in found if (one.before == one.label) != (one.after == one.label)][:most]
