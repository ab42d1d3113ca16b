"""What a classifier says to labelled pictures, beside zero-shot CLIP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import datasets
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from ..data.corruptions import CorruptedView
from ..data.preprocessing import ImageProcessor, Preprocessing, as_preprocessing
from ..data.progress import progress_bar
from ..data.transforms import PictureDataset
from ..metrics.functions import accuracy, per_class
from ..tuner.peft_model import PeftModelForZeroShotImageClassification


@dataclass
class Predictions:
    """Probabilities of N labelled pictures over C classes, of the trained model and of frozen CLIP.

    Args:
        class_names: C names, as prompts say them.
        trained: for each class, whether it was trained.
        paths: what names each picture, the data set's column `path`.
        labels: positions in `class_names` (N,).
        probabilities: of the trained model (N, C), fp32.
        zero_shot: of frozen CLIP with the same prompts (N, C), fp32.
        value_range: what was black and white in grey of more than 8 bits, see `peft_mmrl.Preprocessing`.
        is_trained: whether adapted layers have a say in `probabilities`; False: a decision without training has them.
        untrained: where the decision without training was scored, too, its probabilities (N, C), fp32.
        folds: number of folds where `probabilities` and `untrained` are out of fold, each picture's from a model that
            was fitted on the pictures of the other folds; 0: all are of one model.
    """

    class_names: list[str]
    trained: list[bool]
    paths: list[str]
    labels: torch.Tensor
    probabilities: torch.Tensor
    zero_shot: torch.Tensor
    value_range: tuple[float, float] | None = None
    is_trained: bool = True
    untrained: torch.Tensor | None = None
    folds: int = 0

    @property
    def accuracy(self) -> float:
        """Share of pictures that the trained model recognises."""
        return accuracy(self.probabilities.argmax(dim=1), self.labels)

    @property
    def zero_shot_accuracy(self) -> float:
        """Share of pictures that frozen CLIP recognises."""
        return accuracy(self.zero_shot.argmax(dim=1), self.labels)

    @property
    def mean_recall(self) -> float:
        """Share of a class's pictures that the trained model recognises, on average over the classes with pictures."""
        return self._mean_recall(self.probabilities)

    @property
    def zero_shot_mean_recall(self) -> float:
        """Share of a class's pictures that frozen CLIP recognises, on average over the classes with pictures."""
        return self._mean_recall(self.zero_shot)

    def _mean_recall(self, probabilities: torch.Tensor) -> float:
        return per_class(probabilities.argmax(dim=1), self.labels, len(self.class_names))["macro_recall"]


@torch.no_grad()
def score(
    forward: Callable[[torch.Tensor], torch.Tensor],
    dataset: datasets.Dataset,
    preprocessing: Preprocessing | ImageProcessor | CorruptedView,
    accelerator: Accelerator,
    batch_size: int = 32,
    description: str = "evaluation",
    num_workers: int = 0,
) -> torch.Tensor:
    """What `forward` gives for all pictures, in their order and each once, in every process.

    Args:
        forward: `pixel_values` (B, channels, height, width) on the device -> a tensor (B, ...).
        dataset: N pictures.
        preprocessing: how they are prepared, be it as corrupted ones, or the base model's image processor.
        accelerator: spreads the pictures over its processes.
        batch_size: pictures at a time and process.
        description: for the progress bar.
        num_workers: further processes that read pictures.

    Returns:
        (N, ...), fp32, on the CPU.
    """
    view = preprocessing if isinstance(preprocessing, CorruptedView) else as_preprocessing(preprocessing)
    pictures = PictureDataset(dataset, view)
    loader = accelerator.prepare_data_loader(DataLoader(pictures, batch_size, num_workers=num_workers))
    rows = []
    for batch in progress_bar(
        loader, desc=description, unit="batch", leave=False, shown=accelerator.is_local_main_process
    ):
        with accelerator.autocast():
            found = forward(batch["pixel_values"])
        rows.append(accelerator.gather_for_metrics(found.float()).cpu())
    return torch.cat(rows)


def beside_zero_shot(model: PeftModelForZeroShotImageClassification) -> Callable[[torch.Tensor], torch.Tensor]:
    """A forward pass of B pictures with the adapter and without: logits (B, 2, C) among the bound classes."""

    def logits(pixel_values: torch.Tensor) -> torch.Tensor:
        adapted = model(pixel_values=pixel_values).logits
        with model.disable_adapter():
            return torch.stack([adapted, model(pixel_values=pixel_values).logits], dim=1)

    return logits


def predict(
    model: PeftModelForZeroShotImageClassification,
    dataset: datasets.Dataset,
    image_processor: ImageProcessor,
    accelerator: Accelerator,
    batch_size: int = 32,
    zero_shot: torch.Tensor | None = None,
    num_workers: int = 0,
) -> Predictions:
    """Score labelled pictures among the bound classes, with the adapter and without.

    Args:
        model: its bound classes are those of the data set's labels, in the same order.
        dataset: N labelled pictures.
        image_processor: the base model's.
        accelerator: spreads the pictures over its processes.
        batch_size: pictures at a time and process.
        zero_shot: probabilities of frozen CLIP (N, C), where they are known from before.
        num_workers: further processes that read pictures.
    """

    def adapted(pixel_values: torch.Tensor) -> torch.Tensor:
        return model(pixel_values=pixel_values).logits.unsqueeze(1)

    logits = beside_zero_shot(model) if zero_shot is None else adapted
    preprocessing = Preprocessing.of(model, image_processor)
    was_training = model.training
    model.eval()
    try:
        scores = score(logits, dataset, preprocessing, accelerator, batch_size, num_workers=num_workers)
    finally:
        model.train(was_training)
    probabilities = scores.softmax(dim=-1)
    return Predictions(
        class_names=model.classes,
        trained=model.seen,
        paths=dataset["path"][:],
        labels=torch.tensor(dataset["label"][:]),
        probabilities=probabilities[:, 0],
        zero_shot=probabilities[:, 1] if zero_shot is None else zero_shot,
        value_range=preprocessing.value_range,
        is_trained=model.decision is None or model.decision.features == "adapted",
    )
