"""What frozen CLIP sees in the training pictures: whether they may be mirrored, and how the adapter decides."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import datasets
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list

from ..data import Preprocessing
from ..data.preprocessing import ImageProcessor
from ..scoring.labelled import score
from ..scoring.reference import LIGHT_MEASURES, measure
from ..tuner import decision_fit
from ..tuner.decision import Decision
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

    def decision_without(self, decision: Decision, rows: torch.Tensor, class_weight: list[float] | None) -> Decision:
        """The decision, fitted without some pictures; the same in every process.

        Args:
            decision: the one on all pictures, with its rows in the order of `text`.
            rows: positions of the pictures that are left out.
            class_weight: the adapter's.
        """
        kept = torch.ones(len(self.labels), dtype=torch.bool).index_fill(0, rows, False)
        device = decision.probe_weight.device
        weight = None if class_weight is None else torch.tensor(class_weight)
        settings = {name: getattr(decision, name) for name in ("features", "classes", "fitted_for")}
        given = self.images[kept].to(device), self.text.to(device), self.labels[kept].to(device)
        return _of_main_process(decision_fit.fit(*given, self.scale, class_weight=weight, **settings))

    def decide(self, decision: Decision, rows: torch.Tensor) -> torch.Tensor:
        """Probabilities (n, C) of a decision without training, for the n pictures at some positions."""
        images = self.images[rows]
        weight, bias = decision.probe_weight.cpu(), decision.probe_bias.cpu()
        return (self.scale * images @ self.text.T + images @ weight.T + bias).softmax(dim=1)


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
