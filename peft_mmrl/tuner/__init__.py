"""MMRL and MMRL++ as a PEFT tuner: all that `get_peft_model` needs. Start with `textbook.py`."""

from .config import MMRLConfig
from .decision import Decision
from .model import MMRLModel
from .outputs import MMRLOutput
from .peft_model import PeftModelForZeroShotImageClassification
from .registration import register


__all__ = ["Decision", "MMRLConfig", "MMRLModel", "MMRLOutput", "PeftModelForZeroShotImageClassification", "register"]
