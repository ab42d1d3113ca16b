"""What a training came to, in sentences and pictures: from the report that lies in its folder."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from ..data.wording import first_few, in_words
from ..projects.since_training import Changes
from ..reports.reading import REPORT, read_metrics, read_predictions
from ..reports.verdict import CHANCE, lost_classes, verdict
from .words import LABEL_AT_ONCE, note, of_hundred, pictures


MOST_NAMED = 3
HEADS = {
    "helped": "Your pictures have helped.",
    "harmed": "It has become worse than it was without your pictures.",
    "mixed": "Some classes are recognised better, and others worse.",
    "unclear": "Whether it is better than without your pictures cannot be said yet.",
}
AS_BEFORE = "It does as well as without your pictures."
NO_FIGURES = "There were too few pictures to check how good it is"
GOOD = 0.9  # share of pictures that are recognised, from which on it can be used as it is
USE = "<b>Try</b> it on new pictures, or <b>Take away</b> what was learned."


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
    metrics = read_metrics(folder / REPORT)
    if metrics is None:
        ready = f'<p class="figure">It is ready to be used. {NO_FIGURES}.</p>'
        return f"{ready}<p>Next: {USE} With two pictures or more of each class the next training can be checked.</p>"
    head = AS_BEFORE if _is_as_before(metrics) else HEADS[verdict(metrics)]
    before = [f"by the names of the classes alone: {lower(_accuracy(metrics, 'zero_shot_'))}"]
    if "untrained_accuracy" in metrics:
        before.append(f"with your pictures, but without training: {lower(_accuracy(metrics, 'untrained_'))}")
    lines = [f'<p class="figure"><b>{head}</b> {escape(_accuracy(metrics, ""))}.</p>']
    said = [*_changes(metrics), f"Before, {'; '.join(before)}.", *_training_alone(metrics)]
    lines += [f"<p>{escape(line)}</p>" for line in said]
    return "".join([*lines, f"<p>Next: {_next_step(metrics)}</p>"])


def trained_words(folder: Path, is_quick: bool = False) -> str:
    """What a training came to in a line.

    Args:
        folder: of the run.
        is_quick: whether it was fitted without training.
    """
    done = "Fitted without training" if is_quick else "Trained"
    metrics = read_metrics(folder / REPORT)
    return f"{done}. {NO_FIGURES}." if metrics is None else f"{done}: {lower(_accuracy(metrics, ''))}."


def changes_html(changes: Changes | None) -> str:
    """What has changed since a training, and that it should be done again; empty where nothing has.

    Args:
        changes: None: that is not known.
    """
    if not changes:
        return ""
    counts = {"added": changes.added, "moved": changes.moved, "taken out": changes.gone}
    said = [(count, what) for what, count in counts.items() if count]
    if not said:
        words = f"The last training does not know {first_few(changes.classes)}: train again to teach it that."
    else:
        (count, what), *others = said
        first = f"{pictures(count)} {'was' if count == 1 else 'were'} {what}"
        do = "learn from" if changes.added or changes.moved else "do without"
        it = "it" if count == 1 and not others else "them"
        parts = in_words([first, *(f"{count} {what}" for count, what in others)], "and")
        words = f"{parts} since the last training: train again to {do} {it}."
    return note(escape(words), "since")


def lower(words: str) -> str:
    """A sentence as it stands inside another one."""
    return words[:1].lower() + words[1:]


def _accuracy(metrics: dict[str, Any], of: str) -> str:
    share = metrics[f"{of}accuracy"]
    return of_hundred(share, metrics.get(f"{of}accuracy_low", share), metrics.get(f"{of}accuracy_high", share))


def _is_as_before(metrics: dict[str, Any]) -> bool:
    return not metrics["gained"] and not metrics["lost"]


def _changes(metrics: dict[str, Any]) -> Iterator[str]:
    asked = "All were asked as if they were new: by a copy that had learned without them." if metrics["folds"] else ""
    yield f"{_changed_counts(metrics)} {asked}"
    if worst := _worst(metrics):
        named = [
            f"{row['class']} ({round(row['recall'] * row['pictures'])} of {row['pictures']} right)" for row in worst
        ]
        yield f"Hardest for it: {in_words(named, 'and')}."
    else:
        yield "No class stands out as hard."
    if fallen := lost_classes(metrics):
        named = in_words([row["class"] for row in fallen[:MOST_NAMED]], "and")
        yield f"Much worse than before: {named}."


def _training_alone(metrics: dict[str, Any]) -> Iterator[str]:
    """What training has done that the pictures alone do not do at once; nothing where that was not scored."""
    gained, lost, p = (metrics.get(f"training_{name}") for name in ("gained", "lost", "p_value"))
    if p is None:
        return
    if not gained and not lost:
        yield "So far the training itself makes no difference: your pictures do as much at once, without it."
        return
    against = f"Against your pictures at once, without training, {_turned(gained, lost)}"
    if p >= CHANCE:
        yield f"{against}: that can be chance."
    elif lost > gained:
        yield f"{against}: without training it is better. Choose “{LABEL_AT_ONCE}” in Try."
    else:
        yield f"{against}: that is hardly ever chance."


def _changed_counts(metrics: dict[str, Any]) -> str:
    gained, lost, number = metrics["gained"], metrics["lost"], metrics["pictures"]
    if _is_as_before(metrics):
        right = round(metrics["accuracy"] * number)
        if right == number:
            return f"All {number} are answered as before, and rightly."
        return f"The same {right} of your {number} pictures are right as before."
    chance = " A difference this small can be chance." if verdict(metrics) == "unclear" and gained != lost else ""
    return f"Of your {number} pictures {_turned(gained, lost, ' now')}.{chance}"


def _turned(gained: int, lost: int, when: str = "") -> str:
    are = "is" if gained == 1 else "are"
    return f"{gained} {are}{when} right that had been wrong, and {lost} wrong that were right"


def _worst(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the classes that are missed most."""
    rows = [row for row in metrics["per_class"] if row["pictures"] and row["recall"] < 1]
    return sorted(rows, key=lambda row: row["recall"])[:MOST_NAMED]


def _next_step(metrics: dict[str, Any]) -> str:
    """What to do now, as HTML."""
    rows = lost_classes(metrics)[:MOST_NAMED] or _worst(metrics)
    more = f"add pictures of {escape(in_words([row['class'] for row in rows], 'and'))}"
    if verdict(metrics) in ("harmed", "mixed"):
        return f"look into <b>Improve</b> for pictures in a wrong class, {more}, and train again."
    if metrics["accuracy"] >= GOOD or not rows:
        return USE
    return f"{more}, look into <b>Improve</b>, and train again. {USE}"


def changed_pictures(folder: Path, most: int) -> list[Changed]:
    """Pictures that are right now and were not, and the other way round; at most so many.

    Args:
        folder: of the run.
        most: how many.
    """
    rows = read_predictions(folder / REPORT)
    found = [Changed(row.path, row.label, row.before, row.after) for row in rows if row.before and row.after]
    return [one for one in found if (one.before == one.label) != (one.after == one.label)][:most]
