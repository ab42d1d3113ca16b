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
from ..training.under_way import UnderWay
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
        decision: the one that is fitted on all pictures; None: the adapters decide as in the papers.
    """

    def __init__(
        self,
        model: PeftModelForZeroShotImageClassification,
        dataset: datasets.Dataset,
        frozen: FrozenFeatures,
        fold: torch.Tensor,
        decision: Decision | None,
    ) -> None:
        self.model, self.dataset, self.frozen, self.fold = model, dataset, frozen, fold
        self.config = model.peft_config[model.active_adapter]
        # Of each fold, fitted without its pictures, and the probabilities (N, C) that these give without training.
        self.decisions: list[Decision] | None = None
        self.untrained: torch.Tensor | None = None
        if decision is not None:
            self.decisions, self.untrained = frozen.hold_out(decision, fold, self.config.class_weight)

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

    def train(
        self,
        pictures: Dataset,
        settings: TrainingSettings,
        image_processor: ImageProcessor,
        accelerator: Accelerator,
        num_workers: int = 0,
        under_way: UnderWay | None = None,
    ) -> torch.Tensor:
        """Probabilities (N, C) of adapters that are trained as the run's own, each without the pictures of a fold.

        Args:
            pictures: what `train` reads of the N pictures, augmented.
            settings: of the run, with its number of epochs.
            image_processor: the base model's.
            accelerator: of the run.
            num_workers: further processes that read pictures.
            under_way: is told how far they are.
        """
        under_way = under_way or UnderWay(None)
        work = [1 - (self.fold == index).double().mean().item() for index in range(len(self))]
        answers = torch.zeros_like(self.frozen.zero_shot)
        for index in range(len(self)):
            rows = self.held_out(index)
            under_way.begin(f"fold {index + 1} of {len(self)}", work[index], sum(work[index + 1 :]))
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
                    on_share=under_way.at,
                )
                if self.decisions is not None:
                    self.model.decision = replace(self.decisions[index], features="adapted")
                answers[rows] = predict(
                    self.model,
                    self.dataset.select(rows.tolist()),
                    image_processor,
                    accelerator,
                    zero_shot=self.frozen.zero_shot[rows],
                    num_workers=num_workers,
                ).probabilities
        return answers

    def predictions(self, trained: torch.Tensor | None = None) -> Predictions:
        """The answers to the pictures that are held out.

        Args:
            trained: probabilities (N, C) from `train`; None: nothing is trained.
        """
        rows = self._rows
        candidates = (trained, self.untrained, self.frozen.zero_shot)
        best = next(probabilities for probabilities in candidates if probabilities is not None)
        return Predictions(
            class_names=self.model.classes,
            trained=self.model.seen,
            paths=self.asked["path"][:],
            labels=self.frozen.labels[rows],
            probabilities=best[rows],
            zero_shot=self.frozen.zero_shot[rows],
            value_range=self.config.value_range,
            is_trained=trained is not None,
            untrained=self.untrained[rows] if trained is not None and self.untrained is not None else None,
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
