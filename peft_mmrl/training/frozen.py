"""What frozen CLIP sees in the training pictures: whether they may be mirrored, and how the adapter decides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import datasets
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list

from ..data import Preprocessing
from ..data.preprocessing import ImageProcessor
from ..scoring.labelled import score
from ..scoring.reference import LIGHT_MEASURES, measure
from ..tuner import decision_fit
from ..tuner.decision import Decision, decide
from ..tuner.mirroring import MIN_KNOWN, Mirroring, judge_mirroring
from ..tuner.peft_model import PeftModelForZeroShotImageClassification


BATCH_SIZE = 32  # pictures at a time and process


@dataclass
class FrozenFeatures:
    """Normalised features of N labelled pictures and their C classes in frozen CLIP, on the CPU.

    Args:
        images: f_0 (N, d) of the pictures as they are, without augmentation.
        mirrored: of their mirror images (N, d); None: these were not looked at.
        text: w_0 (C, d).
        labels: (N,) positions in the bound classes.
        scale: s, factor of the logits.
        measures: of the pictures (N, 3), see [`~peft_mmrl.scoring.reference.measure`].
    """

    images: torch.Tensor
    mirrored: torch.Tensor | None
    text: torch.Tensor
    labels: torch.Tensor
    scale: float
    measures: torch.Tensor

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        model: PeftModelForZeroShotImageClassification,
        dataset: datasets.Dataset,
        image_processor: ImageProcessor,
        accelerator: Accelerator,
        num_workers: int = 0,
        with_mirrored: bool = True,
    ) -> FrozenFeatures:
        """One pass over the pictures.

        Args:
            model: on its device; its bound classes are those of the labels, in the same order.
            dataset: N labelled pictures.
            image_processor: the base model's.
            accelerator: spreads the pictures over its processes, each of which gets all features.
            num_workers: further processes that read pictures.
            with_mirrored: look at the mirror images, too.
        """
        text: list[torch.Tensor] = []

        def features(pixel_values: torch.Tensor) -> torch.Tensor:
            views = [pixel_values, pixel_values.flip(-1)] if with_mirrored else [pixel_values]
            with model.disable_adapter():
                found = [model(pixel_values=view) for view in views]
            text[:] = [found[0].text_embeds.float().cpu()]
            # (B, views d + 3)
            return torch.cat([*(view.image_embeds for view in found), measure(pixel_values)], dim=1)

        was_training = model.training
        model.eval()
        try:
            preprocessing = Preprocessing.of(model, image_processor)
            found = score(features, dataset, preprocessing, accelerator, BATCH_SIZE, "first look", num_workers)
        finally:
            model.train(was_training)
        width = text[0].shape[1]
        images, mirrored, measures = found.split((width, width * with_mirrored, len(LIGHT_MEASURES)), dim=1)
        scale = model.get_base_model().logit_scale.exp().item()
        labels = torch.tensor(dataset["label"][:])
        return cls(images, mirrored if with_mirrored else None, *text, labels, scale, measures)

    @cached_property
    def zero_shot(self) -> torch.Tensor:
        """Probabilities (N, C) of frozen CLIP."""
        return (self.scale * self.images @ self.text.T).softmax(dim=1)

    def judge_mirroring(self) -> Mirroring | None:
        """As [`~peft_mmrl.tuner.mirroring.judge_mirroring`]."""
        return judge_mirroring(self.images, self.mirrored, self.text, self.labels, self.scale)

    def fit_decision(self, model: PeftModelForZeroShotImageClassification, features: str = "adapted") -> Decision:
        """`model.fit_decision` on these features; the same in every process.

        Raises:
            ValueError: what `fit_decision` refuses.
        """
        model.decision = _of_main_process(model.fit_decision(self.images, self.labels, features=features))
        return model.decision

    @cached_property
    def known(self) -> list[int]:
        """Positions of the classes that have pictures."""
        return self.labels.unique().tolist()

    def fit_untrained(
        self,
        rows: torch.Tensor | None = None,
        class_weight: list[float] | None = None,
        device: torch.device | str = "cpu",
        **settings: Any,
    ) -> Decision:
        """A decision without training and without a model, with a row for each of the `known` classes; the same in
        every process.

        Args:
            rows: positions of the pictures that it is fitted on, of all these classes; None: all pictures.
            class_weight: of all C classes; None: 1.
            device: where it is fitted.
            settings: further fields of [`Decision`].
        """
        rows = torch.arange(len(self.labels)) if rows is None else rows
        known = torch.tensor(self.known)
        weight = None if class_weight is None else torch.tensor(class_weight)[known]
        labels = torch.searchsorted(known, self.labels[rows])
        given = self.images[rows].to(device), self.text[known].to(device), labels.to(device)
        return _of_main_process(decision_fit.fit(*given, self.scale, class_weight=weight, **settings))

    def hold_out(
        self, decision: Decision, fold: torch.Tensor, class_weight: list[float] | None = None
    ) -> tuple[list[Decision], torch.Tensor]:
        """The decision, fitted without each fold, and what it says of that fold's pictures.

        Args:
            decision: the one on all pictures, with its rows in the order of `text`.
            fold: of each picture (N,), from 0 without gaps; -1 for those that are never held out.
            class_weight: the adapter's.

        Returns:
            for each fold its decision, and probabilities (N, C); 0 for pictures that are never held out.
        """
        settings = {name: getattr(decision, name) for name in ("features", "classes", "fitted_for")}
        decisions, answers = [], torch.zeros_like(self.zero_shot)
        for index in range(int(fold.max()) + 1):
            kept, held = ((fold != index).nonzero().flatten(), (fold == index).nonzero().flatten())
            decisions.append(self.fit_untrained(kept, class_weight, decision.probe_weight.device, **settings))
            answers[held] = self.decide(decisions[index], self.images[held])
        return decisions, answers

    def decide(self, decision: Decision, images: torch.Tensor) -> torch.Tensor:
        """Probabilities (n, C) of a decision without training; classes that it has no row for are scored by their
        text, as [`~peft_mmrl.tuner.decision.decide`] scores new ones.

        Args:
            decision: with a row for each of the `known` classes.
            images: f_0 (n, d) of any pictures.
        """
        row_of = {place: row for row, place in enumerate(self.known)}
        rows = [row_of.get(place, -1) for place in range(len(self.text))]
        decision = replace(decision.to("cpu"), features="frozen")
        logits = decide(decision, rows, images, self.text, None, None, self.scale, alpha=1.0, zero_shot_weight=1.0)
        return logits.softmax(dim=1)


def _of_main_process(decision: Decision) -> Decision:
    """The decision of the main process, in all: sums in another order may differ in their last bit."""
    if PartialState().num_processes == 1:
        return decision
    return broadcast_object_list([decision.to("cpu")])[0].to(decision.probe_weight.device)


def describe_mirroring(found: Mirroring | None) -> str:
    """A line on whether pictures are mirrored, and why."""
    if found is None:
        return "pictures are not mirrored: a class has a single one, which says nothing of it"
    if found.is_harmless:
        return f"half of the views are mirrored: their classes are recognised as well (log p {found.gain:+.2f})"
    if found.known < MIN_KNOWN:
        return "pictures are not mirrored: frozen CLIP recognises too little in them to tell"
    return f"pictures are not mirrored: their classes would be recognised less (log p {found.gain:+.2f})"
