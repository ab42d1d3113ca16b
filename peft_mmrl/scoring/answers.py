"""What a classifier says to pictures without labels, and how it is written down."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TextIO


@dataclass
class Answer:
    """The classes of one picture.

    Args:
        path: the picture.
        ranks: names and probabilities, the likeliest first; empty where the picture cannot be read.
        error: why it cannot be read.
        is_beyond: whether its values are beyond what the adapter was trained on, see `Preprocessing`.
    """

    path: str
    ranks: list[tuple[str, float]] = field(default_factory=list)
    error: str | None = None
    is_beyond: bool = False

    def as_row(self, top_k: int) -> dict[str, Any]:
        """`path`, `label`, `probability`, then `label_2`, `probability_2` and so on, and `error`."""
        row: dict[str, Any] = {"path": self.path}
        for rank in range(top_k):
            suffix = f"_{rank + 1}" if rank else ""
            label, probability = self.ranks[rank] if rank < len(self.ranks) else (None, None)
            row |= {f"label{suffix}": label, f"probability{suffix}": probability}
        return row | {"error": self.error}


def write_table(answers: Iterable[Answer], top_k: int, file: TextIO) -> None:
    """Lines for people: labels with their probabilities, and the path; or what is wrong."""
    for answer in answers:
        ranks = [f"{probability:6.1%} {label:20}" for label, probability in answer.ranks]
        file.write("  ".join([*(ranks or [f"cannot be read: {answer.error}"]), answer.path]) + "\n")


def write_csv(answers: Iterable[Answer], top_k: int, file: TextIO) -> None:
    """A header, and a row per picture."""
    writer = csv.DictWriter(file, Answer("").as_row(top_k), lineterminator="\n")
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
