"""Measures of classification: plain functions in `functions`, and `evaluate` modules of them that need no network.

    metric = peft_mmrl.metrics.load("top_k_accuracy")
    metric.compute(predictions=probabilities, references=labels, k=5)

`evaluate.load` takes the folder of a module, `peft_mmrl.metrics.path("top_k_accuracy")`.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import evaluate

MODULES = {
    "base_to_new": "BaseToNew",
    "expected_calibration_error": "ExpectedCalibrationError",
    "per_class": "PerClass",
    "top_k_accuracy": "TopKAccuracy",
}

__all__ = ["MODULES", "load", "path"]


def path(name: str) -> str:
    """The folder of a module, for `evaluate.load`.

    Raises:
        ValueError: there is no such module.
    """
    if name not in MODULES:
        raise ValueError(f"`name` must be one of {', '.join(MODULES)}, got {name!r}.")
    return str(Path(__file__).parent / name)


def load(name: str, **kwargs: Any) -> evaluate.Metric:
    """Load a module of this package without copying it into a cache; predictions are kept in memory.

    Args:
        name: one of `MODULES`.
        kwargs: of `evaluate.Metric`; with `num_process` predictions go through files in `cache_dir`, which all
            processes must share.

    Raises:
        ValueError: there is no such module.
    """
    path(name)
    module = importlib.import_module(f"{__name__}.{name}.{name}")
    if kwargs.get("num_process", 1) == 1:
        kwargs = {"keep_in_memory": True, "cache_dir": tempfile.gettempdir()} | kwargs
    return getattr(module, MODULES[name])(**kwargs)
