"""What a classifier says to pictures without labels, and how it is written down."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TextIO

from ..data.wording import in_words


NONE_OF_THESE = "none of these"


@dataclass
class Answer:
    """The classes of one picture.

    Args:
        path: the picture.
        ranks: names and probabilities, the likeliest first; empty where the picture cannot be read.
        error: why it cannot be read.
        is_beyond: whether its values are beyond what the adapter was trained on, see `Preprocessing`.
        is_none: whether it is none of these classes; their probabilities are what they would be if it were one.
    """

    path: str
    ranks: list[tuple[str, float]] = field(default_factory=list)
    error: str | None = None
    is_beyond: bool = False
    is_none: bool = False

    def as_row(self, top_k: int) -> dict[str, Any]:
        """`path`, `label`, `probability`, then `label_2`, `probability_2` and so on, and `error`.

        "none of these" is the first label where it is the answer, with the probability of the likeliest class, which
        is the second label then.
        """
        ranks = [(NONE_OF_THESE, self.ranks[0][1]), *self.ranks] if self.is_none else self.ranks
        row: dict[str, Any] = {"path": self.path}
        for rank in range(top_k):
            suffix = f"_{rank + 1}" if rank else ""
            label, probability = ranks[rank] if rank < len(ranks) else (None, None)
            row |= {f"label{suffix}": label, f"probability{suffix}": probability}
        return row | {"error": self.error}

    def as_text(self) -> str:
        """Labels with their probabilities; or what is wrong."""
        if self.error is not None:
            return f"cannot be read: {self.error}"
        if self.is_none:
            likeliest = ", ".join(f"{label} {probability:.1%}" for label, probability in self.ranks)
            return f"{NONE_OF_THESE} (likeliest: {likeliest})"
        return "  ".join(f"{probability:6.1%} {label:20}" for label, probability in self.ranks)


class SetAnswer(Answer):
    """A set of classes, any of which a picture may be: `ranks` are those of the set."""

    def as_row(self, top_k: int) -> dict[str, Any]:
        """`path`; `label`, all names in words, and `probability`, that it is one of them; `labels` and
        `probabilities` as lists, the likeliest first; and `error`."""
        names, probabilities = ([rank[part] for rank in self.ranks] for part in range(2))
        one = {"label": in_words(names), "probability": round(sum(probabilities), 6)} if names else {}
        row = {"path": self.path, "label": None, "probability": None, **one}
        return row | {"labels": names, "probabilities": probabilities, "error": self.error}

    def as_text(self) -> str:
        """The names in words, with the probability that it is one of them; or what is wrong."""
        row = self.as_row(1)
        return super().as_text() if self.error is not None else f"{row['probability']:6.1%} {row['label']:20}"


def write_table(answers: Iterable[Answer], top_k: int, file: TextIO) -> None:
    """Lines for people: the answer, and the path."""
    for answer in answers:
        file.write(f"{answer.as_text()}  {answer.path}\n")


def write_csv(answers: Iterable[Answer], top_k: int, file: TextIO) -> None:
    """A header, and a row per picture; lists have no place in it."""
    writer = csv.DictWriter(file, Answer("").as_row(top_k), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(answer.as_row(top_k) for answer in answers)


def write_json(answers: Iterable[Answer], top_k: int, file: TextIO) -> None:
    """One array with an object per picture."""
    file.write("[")
    for position, answer in enumerate(answers):
        file.write((",\n" if position else "\n") + json.dumps(answer.as_row(top_k), ensure_ascii=False))
    file.write("\n]\n")


def write_json_lines(answers: Iterable[Answer], top_k: int, file: TextIO) -> None:
    """A line with an object per picture."""
    for answer in answers:
        file.write(json.dumps(answer.as_row(top_k), ensure_ascii=False) + "\n")
        file.flush()  # who reads along need not wait


WRITERS = {"table": write_table, "csv": write_csv, "json": write_json, "jsonl": write_json_lines}
