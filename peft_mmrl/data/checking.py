"""Looks at pictures before a run begins: which cannot be read, and what the others are like."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import datasets
from accelerate import Accelerator, PartialState
from accelerate.utils import gather_object
from tqdm import tqdm

from ..tuner.validation import as_positive_int
from .cpus import usable_cpus
from .known import key_of, recall, remember
from .pictures import NO_SUCH_FILE, PictureError, PictureFacts, examine_picture
from .progress import progress_bar


WINDOW = 1024  # pictures that are handed to threads at a time
BadPicture = tuple[str, str]  # path and reason
SHOWN_BAD = 8  # pictures that a message names
ADVICE = {  # what a path holds that is no file, and what to do
    "\\": "have backslashes, which separate folders on Windows alone: write / in their place",
    "://": "are addresses: download the pictures, and list the files",
}


def check_pictures(
    dataset: datasets.Dataset,
    on_bad: str = "skip",
    num_workers: int | None = None,
    accelerator: Accelerator | PartialState | None = None,
) -> tuple[datasets.Dataset, list[BadPicture]]:
    """Find the pictures that cannot be read.

    Args:
        dataset: labelled pictures.
        on_bad: "skip" leaves pictures out that cannot be read, "error" raises where there is one.
        num_workers, accelerator: as for `examine_pictures`.

    Returns:
        the pictures that can be read, and path and reason of each that cannot.

    Raises:
        ValueError: a picture cannot be read and `on_bad` is "error", or none can be read.
    """
    if on_bad not in ("skip", "error"):
        raise ValueError(f'`on_bad` must be "skip" or "error", got {on_bad!r}.')
    found = examine_pictures(dataset, num_workers, accelerator)
    reasons = {index: facts for index, facts in enumerate(found) if isinstance(facts, str)}
    if not reasons:
        return dataset, []
    bad = [(name_of(dataset[index]), reason) for index, reason in reasons.items()]
    if on_bad == "error" or len(bad) == len(dataset):
        raise ValueError(describe_bad(bad))
    return dataset.select([index for index in range(len(dataset)) if index not in reasons]), bad


def name_of(row: Mapping[str, Any]) -> str:
    """How messages name a picture of a labelled data set."""
    return f"line {row['line']}: {row['path']}" if "line" in row else row["path"]


def describe_bad(bad: Sequence[BadPicture]) -> str:
    """One message that says how many pictures cannot be read, and of the first ones why, with what could mend it."""
    count = "1 picture" if len(bad) == 1 else f"{len(bad)} pictures"
    lines = [f"{count} cannot be read:", *(f"{path}: {reason}" for path, reason in bad[:SHOWN_BAD])]
    if len(bad) > SHOWN_BAD:
        reasons = Counter(reason for _, reason in bad[SHOWN_BAD:]).most_common(5)
        more = ", ".join(f"{reason} ({count})" for reason, count in reasons)
        lines.append(f"and {len(bad) - SHOWN_BAD} more: {more}")
    gone = [path for path, reason in bad if reason == NO_SUCH_FILE]
    for sign, advice in ADVICE.items():
        if found := sum(sign in path for path in gone):
            lines.append(f"{found} of these {advice}")
    return "\n  ".join(lines)


def examine_pictures(
    dataset: datasets.Dataset,
    num_workers: int | None = None,
    accelerator: Accelerator | PartialState | None = None,
) -> list[PictureFacts | str]:
    """Decode every picture once, but those that were decoded by an earlier call or run and did not change since.

    Args:
        dataset: N labelled pictures.
        num_workers: threads; None: one per processor that this process may use, shared by the processes of this
            machine.
        accelerator: shares the work between its processes; each gets all results.

    Returns:
        for each picture what it is like, or why it cannot be read.
    """
    rank, processes = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    on_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # processes, as torchrun counts them
    threads = max(1, usable_cpus() // on_this_machine)
    if num_workers is not None:
        threads = as_positive_int("num_workers", num_workers)
    mine = range(rank, len(dataset), processes)
    found: list[tuple[int, PictureFacts | str]] = []
    bar = progress_bar(total=len(mine), desc="checking pictures", unit="picture", leave=False, shown=rank == 0)
    with bar, ThreadPoolExecutor(threads) as pool, ThreadPoolExecutor(1) as large:
        for start in range(0, len(mine), WINDOW):
            found += _examine(dataset, mine[start : start + WINDOW], pool, large, bar)
    if processes > 1:
        found = sorted(gather_object(found), key=lambda row: row[0])
    return [facts for _, facts in found]


def _examine(
    dataset: datasets.Dataset, rows: Sequence[int], pool: Executor, large: Executor, bar: tqdm
) -> list[tuple[int, PictureFacts | str]]:
    keys = list(pool.map(lambda row: key_of(dataset[row]["image"]), rows))
    found: dict[int, PictureFacts | str | None] = dict(zip(rows, recall(keys), strict=True))
    new = [row for row, facts in found.items() if facts is None]
    bar.update(len(rows) - len(new))
    examined = pool.map(lambda row: _facts_or_reason(dataset[row]["image"], large), new)
    for row, facts in zip(new, examined, strict=True):
        found[row] = facts
        bar.update()
    key = dict(zip(rows, keys, strict=True))
    remember({key[row]: found[row] for row in new if key[row] and isinstance(found[row], PictureFacts)})
    return list(found.items())


def _facts_or_reason(image: Any, large: Executor) -> PictureFacts | str:
    try:
        if image is None or (image["bytes"] is None and image["path"] is None):
            return "there is no picture in this row"
        return examine_picture(image, large)
    except PictureError as error:
        return error.reason
