"""Results of runs: mean and spread over seeds, averages over data sets, the papers' numbers beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from statistics import mean, pstdev
from typing import Any

from ..data.benchmarks import BENCHMARKS, VARIANTS
from ..metrics.functions import harmonic_mean
from ..training.presets import PROTOCOLS
from .runs import Run
from .tasks import Results, Scores


SOURCES = ("paper", "rerun")
SCORE_TITLES = {"base": "base", "new": "new", "h": "H", "all": "all", "accuracy": "accuracy"}
METHOD_TITLES = {
    "mmrl": "MMRL",
    "mmrl-decision": "MMRL, decision",
    "mmrl++": "MMRL++",
    "mmrl++-decision": "MMRL++, decision",
    "zero-shot": "zero-shot",
    "untrained": "decision without training",
    "lora": "LoRA",
    "linear-probe": "linear probe",
}


@dataclass(frozen=True)
class Row:
    """What a method reaches on a data set, or on the average of several.

    Args:
        dataset: its name, or what was averaged.
        method: one of `METHOD_TITLES`.
        shots: pictures of each class that were trained on.
        seeds: number of runs.
        mean: of each score, in percent. H is that of mean base and mean new, as the papers report it.
        spread: standard deviation of each score over seeds; empty for an average over data sets.
        paper: what the papers report.
        rerun: what others reached with the papers' code.
    """

    dataset: str
    method: str
    shots: int
    seeds: int
    mean: Scores
    spread: Scores
    paper: Scores
    rerun: Scores


@cache
def published_results() -> dict[str, Any]:
    """Numbers for ViT-B/16 and 16 shots: source ("paper", "rerun") -> protocol -> method -> data set -> scores.

    `sources` says where they were read. Few-shot results are published as curves, without numbers.
    """
    return json.loads(files(__package__).joinpath("paper_results.json").read_text(encoding="utf-8"))


def published_scores(source: str, protocol: str, dataset: str, method: str, shots: int = 16) -> Scores:
    """Published scores in percent; empty where there are none, or none are known here.

    Args:
        source: "paper" is what the papers report, "rerun" what others reached with the papers' code.
        protocol, dataset, method, shots: of a run.

    Raises:
        ValueError: an unknown source or protocol.
    """
    for name, value, known in (("source", source, SOURCES), ("protocol", protocol, PROTOCOLS)):
        if value not in known:
            raise ValueError(f"`{name}` must be one of {', '.join(known)}, got {value!r}.")
    return published_results()[source].get(protocol, {}).get(method, {}).get(dataset, {}) if shots == 16 else {}


def make_rows(runs: Sequence[Run], results: Sequence[Results]) -> list[Row]:
    """Rows of data sets and of averages over them.

    Args:
        runs: runs of one protocol.
        results: the scores of each, by method.
    """
    protocol, groups = runs[0].protocol, {}
    for run, by_method in zip(runs, results, strict=True):
        for method, scores in by_method.items():
            by_dataset = {run.data.name: scores}
            if protocol == "cross-dataset":
                by_dataset = {name: {"accuracy": value} for name, value in scores.items()}
            for name, found in by_dataset.items():
                groups.setdefault((name, method, run.shots), []).append(found)
    rows = [
        Row(
            *key,
            len(found),
            _mean(found),
            _spread(found),
            *(published_scores(source, protocol, *key) for source in SOURCES),
        )
        for key, found in groups.items()
    ]
    sources = {run.data.name for run in runs} if protocol == "cross-dataset" else set()
    return sorted(rows, key=lambda row: (_place(row, sources), row.shots)) + _averages(rows, sources)


def _place(row: Row, sources: set[str]) -> tuple[bool, int]:
    order = list(BENCHMARKS)
    return row.dataset not in sources, order.index(row.dataset) if row.dataset in order else len(order)


def _mean(found: Sequence[Scores]) -> Scores:
    """Mean of each score; H of the means."""
    means = {name: mean(scores[name] for scores in found) for name in found[0]}
    return means | ({"h": harmonic_mean(means["base"], means["new"])} if "h" in means else {})


def _spread(found: Sequence[Scores]) -> Scores:
    return {name: pstdev(scores[name] for scores in found) for name in found[0]}


def _averages(rows: Sequence[Row], sources: set[str]) -> list[Row]:
    """For each method and number of shots: the average of all data sets, or of targets and of ImageNet's variants."""
    averages = []
    for method, shots in dict.fromkeys((row.method, row.shots) for row in rows):
        same = [row for row in rows if (row.method, row.shots) == (method, shots) and row.dataset not in sources]
        kinds = {
            "data sets": [row for row in same if row.dataset not in VARIANTS],
            "variants": [row for row in same if row.dataset in VARIANTS],
        }
        for kind, members in kinds.items():
            if len(members) > 1:
                seeds = min(row.seeds for row in members)
                scores, *published = (
                    _mean(found) if all(found) else {}
                    for found in ([getattr(row, what) for row in members] for what in ("mean", *SOURCES))
                )
                averages.append(Row(f"average of {len(members)} {kind}", method, shots, seeds, scores, {}, *published))
    return averages


def title(dataset: str) -> str:
    """A data set's name as papers write it."""
    return BENCHMARKS[dataset].title if dataset in BENCHMARKS else dataset
