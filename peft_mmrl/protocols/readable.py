"""Whether all pictures of a protocol's runs are there and can be read, found out before the first run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import datasets
from accelerate import Accelerator

from ..data.benchmarks import BenchmarkData
from ..data.checking import BadPicture, describe_bad, examine_pictures
from .runs import Run, sample


def check_pictures_of_runs(
    runs: Sequence[Run],
    targets: Sequence[BenchmarkData],
    on_bad: str,
    split_dir: Path | None,
    accelerator: Accelerator,
) -> dict[str, str]:
    """Read all pictures that runs train on or test, once. Validation pictures are drawn, but nothing uses them.

    Args:
        runs: of a protocol.
        targets: data sets that are tested besides.
        on_bad: "error" raises where a picture is missing or cannot be read; "skip" takes such pictures out of the data
            sets, so that others are drawn in their place.
        split_dir: see `sample`.
        accelerator: shares the work between its processes.

    Returns:
        for each data set of which pictures were taken out how many are used.

    Raises:
        ValueError: a picture is missing or cannot be read, and `on_bad` is "error".
    """
    sources = list({run.data.name: run.data for run in runs}.values())
    every = {data.name: data for data in (*sources, *targets)}
    sizes = {(name, part): len(pictures) for name, data in every.items() for part, pictures in _parts(data).items()}
    bad: list[BadPicture] = []
    for data in every.values():
        data.test, found = _readable(data.test, range(len(data.test)), accelerator)
        bad += [(f"{data.title}, {path}", reason) for path, reason in found]
    for data in sources:
        found = _drop_unreadable_shots(data, [run for run in runs if run.data is data], split_dir, accelerator)
        bad += [(f"{data.title}, {path}", reason) for path, reason in found]
    if bad and accelerator.is_main_process and on_bad == "skip":
        print(describe_bad(bad), file=sys.stderr)
    if bad and on_bad == "error":
        raise ValueError(
            f"{describe_bad(bad)}\nNothing was trained or tested. --on_bad_image skip goes on without them, and marks "
            "the results as not comparable with others."
        )
    return {
        name: ", ".join(
            f"{len(pictures)} of {sizes[name, part]} {part} pictures"
            for part, pictures in _parts(data).items()
            if len(pictures) < sizes[name, part]
        )
        for name, data in every.items()
        if any(len(pictures) < sizes[name, part] for part, pictures in _parts(data).items())
    }


def _parts(data: BenchmarkData) -> dict[str, datasets.Dataset]:
    parts = {"train": data.train, "test": data.test}
    return {part: pictures for part, pictures in parts.items() if pictures is not None}


def _drop_unreadable_shots(
    data: BenchmarkData, runs: Sequence[Run], split_dir: Path | None, accelerator: Accelerator
) -> list[BadPicture]:
    """Take the pictures that cannot be read out of what is drawn from, until all that is drawn can be.

    Raises:
        ValueError: they are not drawn, but those of earlier runs.
    """
    bad: list[BadPicture] = []
    while True:
        drawn = {path for run in runs for path in sample(run, split_dir)["train"]["path"][:]}
        rows = [row for row, path in enumerate(data.train["path"][:]) if path in drawn]
        data.train, found = _readable(data.train, rows, accelerator)
        if not found:
            return bad
        bad += found
        if split_dir is not None:
            raise ValueError(f"{describe_bad(bad)}\nThe runs of --split_dir {split_dir} were trained on them.")


def _readable(
    pictures: datasets.Dataset, rows: Sequence[int], accelerator: Accelerator
) -> tuple[datasets.Dataset, list[BadPicture]]:
    """The pictures without those of some rows that cannot be read, and these."""
    found = examine_pictures(pictures.select(rows), accelerator=accelerator)
    reasons = {row: reason for row, reason in zip(rows, found, strict=True) if isinstance(reason, str)}
    if not reasons:
        return pictures, []
    bad = [(pictures[row]["path"], reason) for row, reason in reasons.items()]
    return pictures.select([row for row in range(len(pictures)) if row not in reasons]), bad
