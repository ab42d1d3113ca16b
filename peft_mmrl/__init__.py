"""MMRL and MMRL++ for CLIP as a PEFT method. Importing this package registers it with PEFT."""

from importlib import import_module
from typing import Any

from .auto import AutoPeftModelForZeroShotImageClassification
from .hub.card import write_card
from .hub.upload import push_model
from .tuner import Decision, MMRLConfig, MMRLModel, MMRLOutput, PeftModelForZeroShotImageClassification, register


__version__ = "0.1.0"
__all__ = [
    "AutoPeftModelForZeroShotImageClassification",
    "Decision",
    "FitDecisionCallback",
    "MMRLConfig",
    "MMRLModel",
    "MMRLOutput",
    "PeftModelForZeroShotImageClassification",
    "Preprocessing",
    "convert_checkpoint",
    "fit",
    "read_picture",
]

register(MMRLConfig, MMRLModel, PeftModelForZeroShotImageClassification)
PeftModelForZeroShotImageClassification.write_card = staticmethod(write_card)
PeftModelForZeroShotImageClassification.push_model = staticmethod(push_model)


# Imported when they are asked for: `datasets`, which reading pictures brings along, takes its time.
_LATER = {
    "FitDecisionCallback": ".training.trainer_callback",
    "Preprocessing": ".data",
    "convert_checkpoint": ".conversion",
    "fit": ".fitting",
    "read_picture": ".data",
}


def __getattr__(name: str) -> Any:
    """A public name that is imported when it is asked for."""
    if name in _LATER:
        return getattr(import_module(_LATER[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
