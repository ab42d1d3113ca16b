"""Training of MMRL, MMRL++ and baselines on labelled pictures, with Accelerate."""

from .classifiers import METHODS, Classifier, Transfer, fit, mmrl_config
from .epochs import Epoch
from .frozen import describe_mirroring, fit_decision, look_at_mirrored
from .inputs import augmented, num_views, training_pictures
from .launching import check_joined, make_accelerator
from .loop import train
from .presets import paper_settings
from .settings import TrainingSettings


__all__ = [
    "METHODS",
    "Classifier",
    "Epoch",
    "TrainingSettings",
    "Transfer",
    "augmented",
    "check_joined",
    "describe_mirroring",
    "fit",
    "fit_decision",
    "look_at_mirrored",
    "make_accelerator",
    "mmrl_config",
    "num_views",
    "paper_settings",
    "train",
    "training_pictures",
]
