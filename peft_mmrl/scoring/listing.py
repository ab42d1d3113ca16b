"""Which pictures an archive holds: listed once, by one process, for all processes and their workers."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from ..data.folders import UNREADABLE, holds_picture, walk


class Listing(Sequence[str]):
    """Paths of N pictures in one piece of memory, which processes pass on and workers share.

    Args:
        paths: of the pictures.
        left_out: what else there is: how many files or folders by reason.
    """

    def __init__(self, paths: Iterable[str] = (), left_out: Counter[str] | None = None) -> None:
        self.text, self.ends = bytearray(), array("q", [0])
        for path in paths:
            self.text += os.fsencode(path)
            self.ends.append(len(self.text))
        self.left_out = Counter() if left_out is None else left_out

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int | slice) -> str | list[str]:
        rows = range(len(self))[index]
        if isinstance(rows, range):
            return [self[row] for row in rows]
        return os.fsdecode(bytes(self.text[self.ends[rows] : self.ends[rows + 1]]))

    def describe_left_out(self) -> list[str]:
        """A line on what was left out, or none."""
        reasons = ", ".join(f"{reason} ({count})" for reason, count in self.left_out.most_common())
        return [f"{self.left_out.total()} files and folders are left out: {reasons}"] if reasons else []


def list_pictures(sources: Iterable[str | os.PathLike[str]]) -> Listing:
    """Look for pictures: files as they are given, and in folders, with all folders below them, what is a picture.

    A file in a folder is a picture by its extension, or else by its content. What cannot be opened is counted, and
    does not end the search.
    """
    left_out: Counter[str] = Counter()
    return Listing(_find(sources, left_out), left_out)


def share_listing(sources: Iterable[str | os.PathLike[str]], accelerator: Accelerator) -> Listing:
    """What `list_pictures` finds in the main process, in all: files that come or go meanwhile make no difference."""
    shared = [list_pictures(sources) if accelerator.is_main_process else None]
    return broadcast_object_list(shared)[0] if accelerator.num_processes > 1 else shared[0]


def _find(sources: Iterable[str | os.PathLike[str]], left_out: Counter[str]) -> Iterator[str]:
    def skip(path: Path, reason: str) -> None:
        left_out[f"folder {path} {reason}" if reason.startswith(UNREADABLE) else reason] += 1

    for source in sources:
        if not os.path.isdir(source):
            yield os.fspath(source)
            continue
        for path in walk(source, skip):
            if holds_picture(path):
                yield str(path)
            else:
                left_out[f"no picture: {path.suffix.lower() or 'without extension'}"] += 1
