"""Libraries of the extra `app`: imported where they are needed, since other commands do without."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


PACKAGES = {"cleanlab": "cleanlab", "gradio": "gradio", "skactiveml": "scikit-activeml"}


def from_extra(module: str) -> ModuleType:
    """Import a module of one of these libraries.

    Raises:
        ImportError: it is not installed; the message says how to.
    """
    library = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != library:
            raise
        raise ImportError(f'{PACKAGES[library]} is not installed: pip install "peft_mmrl[app]"') from error
