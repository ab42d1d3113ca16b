"""What a run is about to do, in numbers."""

from __future__ import annotations

import math
import random

import torch
from accelerate import Accelerator

from ..data import TrainingData, deal_folds
from ..data.wording import counted
from ..training import Epoch, num_views
from ..tuner.peft_model import PeftModelForZeroShotImageClassification
from .options import FitOptions


REASONABLE = 30 * 60  # seconds for folds


class Plan:
    """What a run is about to do; `str` gives a line that says it.

    Args:
        model: the model that is trained, on its device.
        data: its pictures.
        options: of the run.
        accelerator: says how many processes share the pictures.
    """

    def __init__(
        self,
        model: PeftModelForZeroShotImageClassification,
        data: TrainingData,
        options: FitOptions,
        accelerator: Accelerator,
    ) -> None:
        self.data, self.options = data, options
        self.epoch = Epoch.of(len(data.train), options.settings, accelerator.num_processes)
        self.epochs = options.settings.num_epochs(self.epoch.steps)
        size = len(data.train), self.epochs, accelerator.num_processes
        self.views = num_views(options.cached_views, model, *size)
        self.parameters, _ = model.get_nb_trainable_parameters()
        self.folds = self._deal(options.folds)

    def _deal(self, number: int | None) -> torch.Tensor:
        """The fold of each picture, or -1 for those that are never held out (N,)."""
        if number == 0 or self.data.validation is not None:
            return torch.full((len(self.data.train),), -1)
        rng = random.Random(self.options.settings.seed)
        return torch.tensor(deal_folds(self.data.train["label"][:], self.data.groups, number, rng))

    @property
    def num_folds(self) -> int:
        """Number of folds; 0: no figures are taken from folds."""
        return int(self.folds.max()) + 1

    def limit_folds(self, training: float) -> bool:
        """Take fewer folds where they would take too long and nobody asked for them; whether that was so.

        Args:
            training: seconds that the training of all pictures took.
        """
        if self.options.folds is not None or self.num_folds <= 2 or self.seconds(training) <= REASONABLE:
            return False
        self.folds = self._deal(2)
        return True

    def seconds(self, training: float) -> float:
        """Seconds that the folds take."""
        return self.trainings * training

    @property
    def trainings(self) -> float:
        """How many trainings on all pictures the folds are: each lacks its own pictures alone."""
        return self.num_folds - (self.folds >= 0).double().mean().item()

    @property
    def never_asked(self) -> list[str]:
        """Classes of which no picture is ever held out: with a single one, or a single group."""
        labels = self.data.train["label"][:]
        asked = {label for label, fold in zip(labels, self.folds.tolist(), strict=True) if fold >= 0}
        return [self.data.class_names[label] for label in sorted(set(labels) - asked)]

    def describe_folds(self, training: float | None) -> str:
        """A line before the folds begin.

        Args:
            training: seconds that the training of all pictures took; None: not known.
        """
        line = f"figures from {self.num_folds} folds: trained {self.num_folds} times more, without the pictures asked"
        if training is None:
            return line
        minutes = math.ceil(self.seconds(training) / 60)
        return f"{line}; about {counted(minutes, 'minute')}"

    def __str__(self) -> str:
        counts = self.data.pictures_per_class().values()
        each = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
        parts = [f"{len(self.data.train)} pictures of {len(counts)} classes ({each} each)"]
        if self.data.validation is not None:
            parts.append(f"{len(self.data.validation)} more to validate with")
        if self.options.quick:
            return "; ".join([*parts, "no training: the decision alone"])
        steps = self.epoch.steps
        parts += [f"{self.epochs} epochs x {steps} steps = {self.epochs * steps} steps", str(self.epoch)]
        parts.append(f"{self.parameters:,} trained parameters")
        if self.views:
            parts.append(f"{self.views} views of each picture, computed once")
        if self.num_folds:
            parts.append(f"then {self.num_folds} folds, {self.trainings:.2g} times as long (--folds 0: no figures)")
        return "; ".join(parts)
