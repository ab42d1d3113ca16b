"""MMRL and MMRL++ for CLIP as a PEFT method. Importing this package registers it with PEFT."""

from typing import Any

from .auto import AutoPeftModelForZeroShotImageClassification
from .hub.card import write_card
from .hub.upload import push_model
from .tuner import MMRLConfig, MMRLModel, MMRLOutput, PeftModelForZeroShotImageClassification, register


__version__ = "0.1.0"
__all__ = [
    "AutoPeftModelForZeroShotImageClassification",
    "MMRLConfig",
    "MMRLModel",
    "MMRLOutput",
    "PeftModelForZeroShotImageClassification",
    "convert_checkpoint",
]

register(MMRLConfig, MMRLModel, PeftModelForZeroShotImageClassification)
PeftModelForZeroShotImageClassification.write_card = staticmethod(write_card)
PeftModelForZeroShotImageClassification.push_model = staticmethod(push_model)


def __getattr__(name: str) -> Any:
    """Import the converter when it is asked for: `python -m peft_mmrl.convert` warns where it is imported already."""
    if name == "convert_checkpoint":
        from .convert import convert_checkpoint

        return convert_checkpoint
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
