"""Progress bars, for those who see them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def is_watched() -> bool:
    """Whether bars can be seen: standard error is a terminal, and `TQDM_DISABLE` isn't set."""
    return sys.stderr.isatty() and os.environ.get("TQDM_DISABLE", "").lower() in ("", "0", "false")


def progress_bar(iterable: Iterable[Any] | None = None, *, shown: bool = True, **kwargs: Any) -> tqdm:
    """A tqdm bar on standard error where it can be seen, else none: a log would get a line for each of its states.

    Args:
        iterable: what is counted, as for tqdm.
        shown: whether this process is the one that shows it.
        kwargs: further arguments of tqdm.
    """
    return tqdm(iterable, disable=not (shown and is_watched()), **kwargs)
