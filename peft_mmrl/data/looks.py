"""Which pictures are equal or nearly so: copies under other names, re-encoded ones, frames shifted by a pixel.

A look is a perceptual hash (`imagehash.phash`, of grey, and blind to colour) with the mean colours of a coarse grid,
of nine windows that are two pixels smaller than the picture: the middle one, and those a pixel beside it. Two pictures
are nearly equal where a window of one looks like the middle of the other. So a shift by a pixel costs nothing, and the
limits can be so tight that of 1,000 handwritten digits hardly any is taken for another (`tests/test_looks.py`).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

import imagehash
import numpy as np
import PIL.Image


SIDE = 256  # larger pictures are made smaller first
HASH_SIZE = 12  # bits a side
MAX_BITS = HASH_SIZE - 1  # of 144 that may differ: then at least one of the 12 rows is the same
GRID = 3  # cells a side
MAX_COLOUR = 8  # of 255, by which the mean of a cell may differ
WINDOWS = [(x, y) for y in (1, 0, 2) for x in (1, 0, 2)]  # upper left corners, that of the middle first
LOOK = np.dtype([("rows", np.uint16, HASH_SIZE), ("colours", np.uint8, 3 * GRID * GRID)])
MIDDLE = 4 * LOOK.itemsize // 3  # characters of the middle window in base64
CHUNK = 2**20  # candidates that are compared at a time


def look_of(picture: PIL.Image.Image) -> str:
    """The look of a picture in RGB, as text."""
    if max(picture.size) > SIDE:
        picture = picture.copy()
        picture.thumbnail((SIDE, SIDE))
    if min(picture.size) < 3:
        picture = picture.resize([max(3, length) for length in picture.size])
    width, height = picture.size
    looks = np.zeros(len(WINDOWS), LOOK)
    for look, (left, top) in zip(looks, WINDOWS, strict=True):
        window = picture.crop((left, top, left + width - 2, top + height - 2))
        bits = imagehash.phash(window, HASH_SIZE, highfreq_factor=3).hash
        look["rows"] = bits @ (1 << np.arange(HASH_SIZE))
        look["colours"] = np.asarray(window.resize((GRID, GRID), PIL.Image.Resampling.BOX)).ravel()
    return base64.b64encode(looks.tobytes()).decode()


def middle_of(look: str) -> str:
    """The part of a look that others are compared with."""
    return look[:MIDDLE]


def find_alike(looks: Sequence[str], middles: Sequence[str]) -> np.ndarray:
    """Nearly equal pictures.

    Args:
        looks: of N pictures.
        middles: of M pictures, see `middle_of`.

    Returns:
        positions in `looks` and in `middles` (P, 2).
    """
    windows, others = _decode(looks, len(WINDOWS)), _decode(middles, 1)[:, 0]
    found = np.empty(0, np.int64)
    for window in range(len(WINDOWS)):
        pairs = _compare(np.ascontiguousarray(windows[:, window]), others)
        found = np.unique(np.concatenate([found, *(left * len(others) + right for left, right in pairs)]))
    return np.stack([found // max(1, len(others)), found % max(1, len(others))], axis=1)


def _decode(looks: Sequence[str], windows: int) -> np.ndarray:
    return np.frombuffer(b"".join(map(base64.b64decode, looks)), LOOK).reshape(len(looks), windows)


def _compare(looks: np.ndarray, others: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions of looks (N,) and of others (M,) that are nearly equal, with repetitions.

    Candidates share a row of the hash, and have about the same green in the middle.
    """
    for row in range(HASH_SIZE):
        keys, wanted = _keys(others, row), _keys(looks, row)
        order = np.argsort(keys)
        first = np.searchsorted(keys[order], wanted - MAX_COLOUR, "left")
        counts = np.searchsorted(keys[order], wanted + MAX_COLOUR, "right") - first
        for part in np.split(np.arange(len(looks)), _cuts(counts)):
            left = np.repeat(part, counts[part])
            starts = np.cumsum(counts[part]) - counts[part]
            right = order[np.arange(len(left)) + np.repeat(first[part] - starts, counts[part])]
            alike = _are_alike(looks, left, others, right)
            yield left[alike], right[alike]


def _keys(looks: np.ndarray, row: int) -> np.ndarray:
    """A number for each look, by which those with the same row of the hash lie together, ordered by colour."""
    return looks["rows"][:, row].astype(np.int64) * 1024 + looks["colours"][:, 3 * GRID * GRID // 2]


def _cuts(counts: np.ndarray) -> np.ndarray:
    """Where to cut so that the counts of a part add up to about `CHUNK`."""
    return np.flatnonzero(np.diff(np.cumsum(counts) // CHUNK)) + 1


def _are_alike(looks: np.ndarray, left: np.ndarray, others: np.ndarray, right: np.ndarray) -> np.ndarray:
    bits = np.bitwise_count(looks["rows"][left] ^ others["rows"][right]).sum(axis=1)
    colours = looks["colours"][left].astype(np.int16) - others["colours"][right]
    return (bits <= MAX_BITS) & (np.abs(colours).max(axis=1) <= MAX_COLOUR)
