"""How a model is trained: the numbers of the papers' schedules, and what suits a few dozen pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ..tuner.validation import as_number, as_positive_int, as_whole


@dataclass
class TrainingSettings:
    """Hyper-parameters of a training run. The optimizer is AdamW.

    Args:
        epochs: passes over the pictures. None: as many as give `MIN_STEPS` optimizer steps, within `EPOCHS`.
        batch_size: pictures per forward pass and process.
        learning_rate: after the warm-up, from where it falls along a cosine, epoch by epoch.
        weight_decay: of AdamW.
        warmup_epochs: epochs at `WARMUP_LEARNING_RATE`, where there are more epochs than these.
        gradient_accumulation_steps: forward passes per optimizer step.
        crop_scale: smallest part of a picture's area that a random crop keeps; 1 crops nothing. None: 0.5, and 0.8 of
            pictures that are padded or squeezed, since what matters may be at their ends.
        flip: whether half of the views are mirrored. Not for pictures with letters, digits or a left and a right.
        seed: of initial weights, order of pictures and augmentation.
        config: fields of [`~peft_mmrl.MMRLConfig`] that differ from its defaults.
    """

    epochs: int | None = None
    batch_size: int = 4
    learning_rate: float = 1e-3
    weight_decay: float = 5e-4
    warmup_epochs: int = 1
    gradient_accumulation_steps: int = 1
    crop_scale: float | None = None
    flip: bool = True
    seed: int = 1
    config: dict[str, Any] = field(default_factory=dict)

    MIN_STEPS = 200
    EPOCHS = (5, 50)
    WARMUP_LEARNING_RATE = 1e-5
    CROP_SCALE = {"crop": 0.5, "pad": 0.8, "squeeze": 0.8}

    def __post_init__(self) -> None:
        for name in ("batch_size", "gradient_accumulation_steps"):
            setattr(self, name, as_positive_int(name, getattr(self, name)))
        if self.epochs is not None:
            self.epochs = as_positive_int("epochs", self.epochs)
        self.warmup_epochs = as_whole("warmup_epochs", self.warmup_epochs, 0)
        self.seed = as_whole("seed", self.seed, 0, 2**32 - 1)  # numpy's range
        self.learning_rate = as_number("learning_rate", self.learning_rate, 0)
        self.weight_decay = as_number("weight_decay", self.weight_decay, 0)
        if self.crop_scale is not None:
            self.crop_scale = as_number("crop_scale", self.crop_scale, 0.01, 1)

    def num_epochs(self, steps_per_epoch: int) -> int:
        """Epochs of a run whose epochs have so many optimizer steps."""
        if self.epochs is not None:
            return self.epochs
        low, high = self.EPOCHS
        return min(max(math.ceil(self.MIN_STEPS / steps_per_epoch), low), high)

    def learning_rate_of(self, epoch: int, num_epochs: int) -> float:
        """Learning rate of an epoch, counted from 0: constant while warming up, then along a cosine.

        As CoOp's trainer has it, on which the papers' code is built: the cosine starts after the warm-up, but its
        length is that of all epochs, so that it does not reach zero.
        """
        warmup = self.warmup_epochs if num_epochs > self.warmup_epochs else 0
        if epoch < warmup:
            return min(self.WARMUP_LEARNING_RATE, self.learning_rate)
        return self.learning_rate * (1 + math.cos(math.pi * (epoch - warmup) / num_epochs)) / 2
