"""MMRL and MMRL++ as a PEFT tuner: all that `get_peft_model` needs. Start with `textbook.py`."""

from .config import MMRLConfig
from .model import MMRLModel
from .outputs import MMRLOutput
from .peft_model import PeftModelForZeroShotImageClassification
from .registration import register


__all__ = ["MMRLConfig", "MMRLModel", "MMRLOutput", "PeftModelForZeroShotImageClassification", "register"]
