"""For transformers' Trainer: a decision at the end of training."""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, default_data_collator

from ..tuner.decision import check_features
from ..tuner.peft_model import PeftModelForZeroShotImageClassification
from ..tuner.validation import InvalidTypeError


class FitDecisionCallback(TrainerCallback):
    """Calls the model's `fit_decision` when Trainer has trained, and has loaded the best model where it was asked to.

    `trainer.save_model()` after `trainer.train()` then saves the decision with the adapter. Evaluations in between
    decide without one. With several processes each sees a part of the pictures, and all get the same decision.

    Args:
        pictures: the training pictures without augmentation: a data set of `pixel_values` and `labels` (or `label`),
            or a loader of batches of them.
        features: see `fit_decision`.

    Example:

        ```py
        >>> from peft_mmrl import FitDecisionCallback

        >>> trainer = Trainer(model, args, train_dataset=augmented, callbacks=[FitDecisionCallback(plain)])
        >>> trainer.train()
        >>> trainer.save_model()
        ```
    """

    def __init__(self, pictures: Dataset | DataLoader, *, features: str = "adapted") -> None:
        check_features(features)
        self.pictures, self.features = pictures, features

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Refuse other models before they are trained."""
        if not isinstance(model, PeftModelForZeroShotImageClassification):
            raise InvalidTypeError(
                f"`FitDecisionCallback` is for a CLIP with an MMRL adapter, got a {type(model).__name__}."
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Fit the decision of the active adapter."""
        loader = self.pictures
        if not isinstance(loader, DataLoader):
            loader = DataLoader(
                loader,
                args.per_device_eval_batch_size,
                num_workers=args.dataloader_num_workers,
                collate_fn=default_data_collator,
            )
        model.fit_decision(Accelerator().prepare_data_loader(loader), features=self.features)
