"""Training of MMRL, MMRL++ and baselines on labelled pictures, with Accelerate."""

from .inputs import augmented, num_views, training_pictures
from .loop import make_accelerator, steps_per_epoch, train
from .methods import METHODS, Classifier, Transfer, fit, mmrl_config
from .presets import paper_settings
from .settings import TrainingSettings


__all__ = [
    "METHODS",
    "Classifier",
    "TrainingSettings",
    "Transfer",
    "augmented",
    "fit",
    "make_accelerator",
    "mmrl_config",
    "num_views",
    "paper_settings",
    "steps_per_epoch",
    "train",
    "training_pictures",
]
