"""The papers' hyper-parameters: per method, protocol and data set.

Read from the configuration of the papers' code (github.com/yunncheng/MMRL: `configs/trainers`, `trainers/config.py`,
`scripts`); data sets are named as in `peft_mmrl.data.benchmarks`. All of it is for ViT-B/16.
"""

from __future__ import annotations

from typing import Any

from .classifiers import METHODS
from .settings import TrainingSettings


PROTOCOLS = ("base-to-new", "few-shot", "cross-dataset")

SCHEDULES: dict[str, dict[str, Any]] = {
    "base-to-new": {"epochs": 10, "batch_size": 4},
    "few-shot": {"epochs": 50, "batch_size": 32},
    "cross-dataset": {"epochs": 1, "batch_size": 32, "warmup_epochs": 0},
}
PLUS_PLUS_FEW_SHOT = {"epochs": 100, "batch_size": 32, "learning_rate": 2e-3}
IMAGENET = {"epochs": 5, "batch_size": 32}  # base-to-new and few-shot, both methods

# lambda where it is chosen per data set (base-to-new and few-shot), and for all others
REG_WEIGHT = {
    "stanford_cars": 7.0,
    "fgvc_aircraft": 6.0,
    "sun397": 6.0,
    "dtd": 6.0,
    "food101": 5.0,
    "flowers102": 4.0,
    "ucf101": 3.0,
    "imagenet": 0.5,
    "caltech101": 0.5,
    "oxford_pets": 0.2,
    "eurosat": 0.01,
}
OTHER_REG_WEIGHT = {"base-to-new": 1.0, "few-shot": 0.5, "cross-dataset": 0.2}

# MMRL++: beta and lambda, likewise
PLUS_PLUS = {
    "imagenet": (0.9, 0.2),
    "fgvc_aircraft": (0.9, 2.0),
    "ucf101": (0.9, 3.0),
    "dtd": (0.9, 7.0),
    "oxford_pets": (0.7, 0.01),
    "stanford_cars": (0.7, 6.0),
    "caltech101": (0.6, 3.0),
    "sun397": (0.5, 3.0),
    "flowers102": (0.4, 7.0),
    "eurosat": (0.2, 0.01),
    "food101": (0.1, 1.0),
}
OTHER_PLUS_PLUS = {"base-to-new": (0.9, 1.0), "few-shot": (0.9, 1.0), "cross-dataset": (0.9, 0.1)}

# MMRL++ trained on ImageNet: beta with which each target is tested
TRANSFER_BETA = {
    "imagenet": 0.9,
    "imagenetv2": 0.9,
    "imagenet_r": 0.9,
    "imagenet_a": 0.8,
    "imagenet_sketch": 0.7,
    "fgvc_aircraft": 0.9,
    "ucf101": 0.9,
    "sun397": 0.7,
    "oxford_pets": 0.6,
    "caltech101": 0.6,
    "dtd": 0.5,
    "flowers102": 0.4,
    "stanford_cars": 0.3,
    "eurosat": 0.3,
    "food101": 0.3,
}


def paper_settings(method: str, protocol: str, dataset: str, seed: int = 1, **changes: Any) -> TrainingSettings:
    """What the papers train a data set with.

    Args:
        method: "mmrl" or "mmrl++". Baselines get MMRL's schedule; LoRA with the learning rate and weight decay of its
            authors' few-shot study of CLIP (CLIP-LoRA, https://arxiv.org/abs/2405.18541).
        protocol: one of `PROTOCOLS`.
        dataset: its name; others than the papers' get what their code has for data sets without settings of their own.
        seed: of the run.
        changes: fields of [`TrainingSettings`] that are to be different.

    Raises:
        ValueError: an unknown method or protocol.
        TypeError: a change that is no setting.
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}, got {method!r}.")
    if protocol not in PROTOCOLS:
        raise ValueError(f"`protocol` must be one of {', '.join(PROTOCOLS)}, got {protocol!r}.")
    settings: dict[str, Any] = dict(SCHEDULES[protocol])
    if protocol != "cross-dataset" and dataset == "imagenet":
        settings |= IMAGENET
    elif protocol == "few-shot" and method == "mmrl++":
        settings |= PLUS_PLUS_FEW_SHOT
    if method == "lora":
        settings |= {"learning_rate": 2e-4, "weight_decay": 1e-2}
    settings |= {"config": _config(method, protocol, dataset), "seed": seed, "crop_scale": 0.5}
    return TrainingSettings(**{**settings, **changes})


def _config(method: str, protocol: str, dataset: str) -> dict[str, Any]:
    known = dataset if protocol != "cross-dataset" else ""
    if method == "mmrl":
        config = {"reg_weight": REG_WEIGHT.get(known, OTHER_REG_WEIGHT[protocol])}
        return config | ({"rep_dim": 2048} if known == "eurosat" else {})
    if method == "mmrl++":
        beta, reg_weight = PLUS_PLUS.get(known, OTHER_PLUS_PLUS[protocol])
        return {"beta": beta, "reg_weight": reg_weight}
    return {}
