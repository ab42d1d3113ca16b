"""Training of MMRL, MMRL++ and baselines on labelled pictures, with Accelerate."""

from .loop import make_accelerator, steps_per_epoch, train
from .settings import TrainingSettings


__all__ = ["TrainingSettings", "make_accelerator", "steps_per_epoch", "train"]
