"""Answers to training pictures by models that were fitted without them: every picture is held out in one fold."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import datasets
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import Dataset, Subset

from ..data.preprocessing import ImageProcessor
from ..scoring.labelled import Predictions, predict
from ..training import FrozenFeatures, TrainingSettings, train
from ..tuner.decision import Decision
from ..tuner.peft_model import PeftModelForZeroShotImageClassification


ADAPTER = "fold"


class Folds:
    """The folds of a run.

    Args:
        model: with the adapter that all pictures train, active; its bound classes are those of the labels.
        dataset: N labelled pictures.
        frozen: what frozen CLIP sees in them.
        fold: of each picture (N,), from 0 without gaps; -1 for those that are never held out.
    """

    def __init__(
        self,
        model: PeftModelForZeroShotImageClassification,
        dataset: datasets.Dataset,
        frozen: FrozenFeatures,
        fold: torch.Tensor,
    ) -> None:
        self.model, self.dataset, self.frozen, self.fold = model, dataset, frozen, fold
        self.config = model.peft_config[model.active_adapter]

    def __len__(self) -> int:
        return int(self.fold.max()) + 1

    def held_out(self, index: int) -> torch.Tensor:
        """Positions of a fold's pictures."""
        return (self.fold == index).nonzero().flatten()

    @property
    def asked(self) -> datasets.Dataset:
        """The pictures that are held out in one of the folds."""
        return self.dataset.select(self._rows.tolist())

    @property
    def _rows(self) -> torch.Tensor:
        return (self.fold >= 0).nonzero().flatten()

    def fit_decisions(self, decision: Decision) -> list[Decision]:
        """For each fold the decision that is fitted without its pictures; `decision` is that on all of them."""
        weight = self.config.class_weight
        return [self.frozen.decision_without(decision, self.held_out(index), weight) for index in range(len(self))]

    def untrained(self, decisions: list[Decision]) -> torch.Tensor:
        """Probabilities (N, C) of the decisions without training, each picture's by the one of its fold."""
        answers = torch.zeros_like(self.frozen.zero_shot)
        for index, decision in enumerate(decisions):
            rows = self.held_out(index)
            answers[rows] = self.frozen.decide(decision, rows)
        return answers

    def trained(
        self,
        pictures: Dataset,
        decisions: list[Decision] | None,
        settings: TrainingSettings,
        image_processor: ImageProcessor,
        accelerator: Accelerator,
        num_workers: int = 0,
    ) -> torch.Tensor:
        """Probabilities (N, C) of adapters that are trained as the run's own, each without the pictures of a fold.

        Args:
            pictures: what `train` reads of the N pictures, augmented.
            decisions: from `fit_decisions`; None: the adapters decide as in the papers.
            settings: of the run, with its number of epochs.
            image_processor: the base model's.
            accelerator: of the run.
            num_workers: further processes that read pictures.
        """
        answers = torch.zeros_like(self.frozen.zero_shot)
        for index in range(len(self)):
            rows = self.held_out(index)
            others = Subset(pictures, (self.fold != index).nonzero().flatten().tolist())
            with _FreshAdapter(self.model, settings.seed):
                train(
                    self.model,
                    others,
                    settings,
                    accelerator,
                    on_epoch=lambda record: None,
                    num_workers=num_workers,
                    description=f"fold {index + 1} of {len(self)}",
                )
                if decisions is not None:
                    self.model.decision = replace(decisions[index], features="adapted")
                answers[rows] = predict(
                    self.model,
                    self.dataset.select(rows.tolist()),
                    image_processor,
                    accelerator,
                    zero_shot=self.frozen.zero_shot[rows],
                    num_workers=num_workers,
                ).probabilities
        return answers

    def predictions(self, probabilities: torch.Tensor | None, untrained: torch.Tensor | None) -> Predictions:
        """The answers to the pictures that are held out.

        Args:
            probabilities: from `trained`; None: nothing was trained.
            untrained: from `untrained`; None: there is no decision.
        """
        rows = self._rows
        is_trained = probabilities is not None
        preferred = probabilities if is_trained else untrained
        return Predictions(
            class_names=self.model.classes,
            trained=self.model.seen,
            paths=self.asked["path"][:],
            labels=self.frozen.labels[rows],
            probabilities=(self.frozen.zero_shot if preferred is None else preferred)[rows],
            zero_shot=self.frozen.zero_shot[rows],
            value_range=self.config.value_range,
            is_trained=is_trained,
            untrained=untrained[rows] if is_trained and untrained is not None else None,
            folds=len(self),
        )


class _FreshAdapter:
    """An untrained adapter of the same config, active for a while.

    Args:
        model: with an active adapter.
        seed: of the initial weights.
    """

    def __init__(self, model: PeftModelForZeroShotImageClassification, seed: int) -> None:
        self.model, self.seed = model, seed

    def __enter__(self) -> None:
        self.before = self.model.active_adapter
        set_seed(self.seed)
        self.model.add_adapter(ADAPTER, copy.deepcopy(self.model.peft_config[self.before]))
        self.model.set_adapter(ADAPTER)
        self.model.set_classes()

    def __exit__(self, *error: Any) -> None:
        self.model.set_adapter(self.before)
        self.model.delete_adapter(ADAPTER)
        self.model.set_classes()
