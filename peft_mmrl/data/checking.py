"""Finds pictures that cannot be read before a run begins, not in the middle of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import datasets
from accelerate import Accelerator, PartialState
from accelerate.utils import gather_object
from tqdm import tqdm

from ..tuner.validation import as_positive_int
from .pictures import PictureError, read_picture


WINDOW = 64  # pictures in memory at a time, undecoded
BadPicture = tuple[str, str]  # path and reason


def check_pictures(
    dataset: datasets.Dataset,
    on_bad: str = "skip",
    num_workers: int | None = None,
    accelerator: Accelerator | PartialState | None = None,
) -> tuple[datasets.Dataset, list[BadPicture]]:
    """Read every picture once.

    Args:
        dataset: labelled pictures.
        on_bad: "skip" leaves pictures out that cannot be read, "error" raises where there is one.
        num_workers: threads; None: one per processor, shared by the processes of this machine.
        accelerator: shares the work between its processes; each gets all results.

    Returns:
        the pictures that can be read, and path and reason of each that cannot.

    Raises:
        ValueError: a picture cannot be read and `on_bad` is "error", or none can be read.
    """
    if on_bad not in ("skip", "error"):
        raise ValueError(f'`on_bad` must be "skip" or "error", got {on_bad!r}.')
    rank, processes = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    found = _find_bad(dataset, range(rank, len(dataset), processes), num_workers, silent=rank > 0)
    if processes > 1:
        found = sorted(gather_object(found))
    bad = [(dataset[index]["path"], reason) for index, reason in found]
    if bad and (on_bad == "error" or len(bad) == len(dataset)):
        raise ValueError(describe_bad(bad))
    unread = {index for index, _ in found}
    return (
        (dataset.select([index for index in range(len(dataset)) if index not in unread]), bad)
        if bad
        else (dataset, bad)
    )


def describe_bad(bad: Sequence[BadPicture]) -> str:
    """One message that lists pictures that cannot be read, with reasons."""
    count = "1 picture" if len(bad) == 1 else f"{len(bad)} pictures"
    return "\n  ".join([f"{count} cannot be read:", *(f"{path}: {reason}" for path, reason in bad)])


def _find_bad(
    dataset: datasets.Dataset, indices: range, num_workers: int | None, silent: bool
) -> list[tuple[int, str]]:
    on_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # processes, as torchrun counts them
    threads = max(1, (os.cpu_count() or 1) // on_this_machine)
    if num_workers is not None:
        threads = as_positive_int("num_workers", num_workers)
    bad = []
    bar = tqdm(total=len(indices), desc="checking pictures", unit="picture", leave=False, disable=silent)
    with bar, ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(indices), WINDOW):
            window = indices[start : start + WINDOW]
            for index, reason in zip(window, pool.map(_reason, dataset[window]["image"]), strict=True):
                if reason is not None:
                    bad.append((index, reason))
                bar.update()
    return bad


def _reason(image: object) -> str | None:
    """Why a picture cannot be read; None where it can."""
    try:
        read_picture(image)
    except PictureError as error:
        return error.reason
    return None
