"""Training of MMRL, MMRL++ and baselines on labelled pictures, with Accelerate."""

from .classifiers import BASELINES, METHODS, PAPER_METHODS, Classifier, Transfer, fit_classifier, mmrl_config
from .epochs import Epoch
from .frozen import FrozenFeatures, describe_mirroring
from .inputs import augmented, num_views, training_pictures
from .launching import check_joined, make_accelerator
from .loop import train
from .presets import paper_settings
from .settings import TrainingSettings


__all__ = [
    "BASELINES",
    "METHODS",
    "PAPER_METHODS",
    "Classifier",
    "Epoch",
    "FrozenFeatures",
    "TrainingSettings",
    "Transfer",
    "augmented",
    "check_joined",
    "describe_mirroring",
    "fit_classifier",
    "make_accelerator",
    "mmrl_config",
    "num_views",
    "paper_settings",
    "train",
    "training_pictures",
]
