"""MMRL and MMRL++ for CLIP as a PEFT method. Importing this package registers it with PEFT."""

from .auto import AutoPeftModelForZeroShotImageClassification
from .config import MMRLConfig
from .model import MMRLModel
from .outputs import MMRLOutput
from .peft_model import PeftModelForZeroShotImageClassification
from .registration import register


__version__ = "0.1.0"
__all__ = [
    "AutoPeftModelForZeroShotImageClassification",
    "MMRLConfig",
    "MMRLModel",
    "MMRLOutput",
    "PeftModelForZeroShotImageClassification",
]

register(MMRLConfig, MMRLModel, PeftModelForZeroShotImageClassification)
