"""Names pictures without labels: any number of them, over any number of processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from peft import PeftConfig
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import AutoConfig, AutoImageProcessor

from ..auto import AutoPeftModelForZeroShotImageClassification, check_is_mmrl
from ..data.pictures import PictureError
from ..data.preprocessing import ImageProcessor, Preprocessing
from ..tuner.config import MMRLConfig
from ..tuner.loading import load_prompt_tokenizer, locate_base
from ..tuner.names import check_unique, clean_names, distinct_names, name_keys
from ..tuner.peft_model import PeftModelForZeroShotImageClassification
from ..tuner.tokenization import PromptTokenizer
from ..tuner.validation import is_hub_id
from .answers import Answer, SetAnswer
from .confidence import class_sets
from .listing import Listing, share_listing


Result = TypeVar("Result")


def read_config(adapter: str | os.PathLike[str]) -> MMRLConfig:
    """The config of a saved adapter.

    Args:
        adapter: folder or Hub id.

    Raises:
        ValueError: there is none, or it is of another method.
        OSError: neither a folder nor, in its form, the name of a repository.
    """
    if not os.path.isdir(adapter) and not is_hub_id(os.fspath(adapter)):
        raise FileNotFoundError(f"There is no folder {os.fspath(adapter)} with an adapter.")
    config = PeftConfig.from_pretrained(adapter)
    check_is_mmrl(config, adapter)
    locate_base(config, adapter)
    return config


def base_tokenizer(config: MMRLConfig, base_model: str | None = None) -> PromptTokenizer | None:
    """The tokenizer of an adapter's base model, or of `base_model` in its place; None where there is none."""
    name, revision = (config.base_model_name_or_path, config.revision) if base_model is None else (base_model, None)
    try:
        return load_prompt_tokenizer(name, revision)
    except OSError:
        return None


def load_classifier(
    adapter: str | os.PathLike[str], base_model: str | None = None, new_classes: Sequence[str] = ()
) -> tuple[PeftModelForZeroShotImageClassification, ImageProcessor]:
    """Load an adapter, its base model and the image processor.

    Args:
        adapter: folder or Hub id.
        base_model: Hub id or folder, where the one that the adapter names is not reachable.
        new_classes: names that are scored beside the adapter's own; those that are the same class as one of these to
            the base model's tokenizer count as that one. Trained classes of one name (ImageNet's list has two such
            pairs) are bound as one class, since names are all that tells them apart.

    Returns:
        the model in eval mode, and the image processor of the adapter's folder, or else of the base model.

    Raises:
        OSError: adapter, base model or image processor cannot be found.
        ValueError: not an adapter of this kind, one that does not fit the base model, no classes, or new ones that
            are the same.
    """
    config = read_config(adapter)
    if base_model is not None:
        config.base_model_name_or_path, config.revision = base_model, None
    check_base(config)
    model = AutoPeftModelForZeroShotImageClassification.from_pretrained(adapter, config=config, dtype=torch.float32)
    trained = config.classes or []
    if new_classes or len(distinct_names(trained)) < len(trained):
        bind_beside_trained(model, trained, new_classes, base_tokenizer(config))
    if model.classes is None:
        raise ValueError(f"The adapter {adapter} has no classes of its own: name them with --classes.")
    return model.eval(), load_image_processor(adapter, config)


def check_base(config: MMRLConfig) -> None:
    """Raise an OSError where the base model that an adapter's config names cannot be found."""
    name = config.base_model_name_or_path
    try:
        AutoConfig.from_pretrained(name, revision=config.revision)
    except (OSError, ValueError) as error:
        raise OSError(f"The base model {name!r} cannot be loaded: name another place with --base_model.") from error


def load_image_processor(adapter: str | os.PathLike[str], config: MMRLConfig) -> ImageProcessor:
    """The image processor of an adapter's folder, or else that of the base model that its config names.

    Raises:
        OSError: there is none.
    """
    try:
        return AutoImageProcessor.from_pretrained(adapter)
    except OSError:
        return AutoImageProcessor.from_pretrained(config.base_model_name_or_path, revision=config.revision)


def bind_beside_trained(
    model: PeftModelForZeroShotImageClassification,
    trained: Sequence[str],
    new: Sequence[str],
    tokenizer: PromptTokenizer | None,
) -> None:
    """Bind trained classes, each name once, and new ones that are none of them."""
    if tokenizer is None:
        if new:
            raise OSError("New classes need the base model's tokenizer, and it has none.")
        return  # the trained classes stay bound as they were saved
    keys = name_keys(clean_names(new), tokenizer) if new else []
    check_unique(new, keys, "Name one of them otherwise, or leave it out.")
    known = set(name_keys(trained, tokenizer))
    others = [name for name, key in zip(new, keys, strict=True) if key not in known]
    model.set_classes([*distinct_names(trained, tokenizer), *others], tokenizer.tokenizer)


@dataclass
class PictureBatch:
    """Pictures of one forward pass.

    Args:
        paths: of N pictures.
        errors: for each, why it cannot be read, or None.
        beyond: for each, whether its values are beyond what the adapter was trained on.
        pixel_values: of those that can be read (n, 3, height, width).
    """

    paths: list[str]
    errors: list[str | None]
    beyond: list[bool]
    pixel_values: torch.Tensor


class PictureBatches(IterableDataset):
    """Batches of pictures, every n-th one for each of n processes, read when they are asked for.

    Args:
        paths: of the pictures, see `list_pictures`.
        preprocessing: how pictures become `pixel_values`.
        batch_size: pictures of a batch.
        process_index, num_processes: which batches these are.
    """

    def __init__(
        self,
        paths: Sequence[str],
        preprocessing: Preprocessing,
        batch_size: int,
        process_index: int = 0,
        num_processes: int = 1,
    ) -> None:
        self.paths, self.preprocessing, self.batch_size = paths, preprocessing, batch_size
        self.process_index, self.num_processes = process_index, num_processes

    def __iter__(self) -> Iterator[PictureBatch]:
        worker = get_worker_info()
        index, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        # the loader takes from its workers in turn, so that batches stay in order
        first, step = self.process_index + index * self.num_processes, workers * self.num_processes
        for start in range(first * self.batch_size, len(self.paths), step * self.batch_size):
            yield self._read(self.paths[start : start + self.batch_size])

    def _read(self, paths: list[str]) -> PictureBatch:
        pixels, errors, beyond = [], [], []
        for path in paths:
            try:
                picture = self.preprocessing.decode(path)
                pixels.append(self.preprocessing.pixel_values(picture))
                errors.append(None)
                beyond.append(self.preprocessing.is_beyond(picture.info.get("values")))
            except PictureError as error:
                errors.append(error.reason)
                beyond.append(False)
        return PictureBatch(paths, errors, beyond, torch.stack(pixels) if pixels else torch.empty(0))


@torch.no_grad()
def predict_pictures(
    model: PeftModelForZeroShotImageClassification,
    image_processor: ImageProcessor,
    sources: Sequence[str | os.PathLike[str]] | Listing,
    accelerator: Accelerator,
    *,
    batch_size: int = 32,
    top_k: int = 1,
    threshold: float = 0.0,
    set_threshold: float | None = None,
    num_workers: int = 0,
) -> Iterator[Answer]:
    """Name pictures: each once, in their order, and in every process.

    Args:
        model: its bound classes are the answers; on the device, in eval mode.
        image_processor: the base model's.
        sources: files and folders, see `list_pictures`, or what that has found.
        accelerator: spreads the pictures over its processes.
        batch_size: pictures at a time and process.
        top_k: classes that are named for each picture.
        threshold: where the largest probability is smaller, the answer is "none of these", and the classes follow.
        set_threshold: answer with sets of classes of any size, see `class_sets`; None: with the `top_k` likeliest.
        num_workers: processes that read pictures, for each process of the accelerator.
    """
    preprocessing = Preprocessing.of(model, image_processor)

    def answer(batch: PictureBatch) -> list[Answer]:
        return _answer(model, batch, accelerator, top_k, threshold, set_threshold)

    yield from over_pictures(answer, sources, preprocessing, accelerator, batch_size, num_workers)


def over_pictures(
    ask: Callable[[PictureBatch], list[Result]],
    sources: Sequence[str | os.PathLike[str]] | Listing,
    preprocessing: Preprocessing,
    accelerator: Accelerator,
    batch_size: int = 32,
    num_workers: int = 0,
) -> Iterator[Result]:
    """What `ask` gives for pictures: each once, in their order, and in every process.

    Args:
        ask: a batch -> something for each of its pictures, those that cannot be read included; in several
            processes something that can be pickled.
        sources: files and folders, see `list_pictures`, or what that has found.
        preprocessing: how pictures become `pixel_values`.
        accelerator: spreads the pictures over its processes.
        batch_size: pictures at a time and process.
        num_workers: processes that read pictures, for each process of the accelerator.
    """
    batches = PictureBatches(
        sources if isinstance(sources, Listing) else share_listing(sources, accelerator),
        preprocessing,
        batch_size,
        accelerator.process_index,
        accelerator.num_processes,
    )
    loader = iter(DataLoader(batches, batch_size=None, num_workers=num_workers))
    while True:
        batch = next(loader, None)  # None while other processes have one more
        answers = [] if batch is None else ask(batch)
        rounds = gather_object([answers]) if accelerator.num_processes > 1 else [answers]
        if not any(rounds):
            return
        for answers in rounds:
            yield from answers


def _answer(
    model: PeftModelForZeroShotImageClassification,
    batch: PictureBatch,
    accelerator: Accelerator,
    top_k: int,
    threshold: float,
    set_threshold: float | None,
) -> list[Answer]:
    read = [path for path, error in zip(batch.paths, batch.errors, strict=True) if error is None]
    found: Iterator[Answer] = iter(())
    if read:
        with accelerator.autocast():
            logits = model(pixel_values=batch.pixel_values.to(accelerator.device)).logits
        probabilities = logits.float().softmax(dim=1)
        found = iter(answers_of(read, model.classes, probabilities, top_k, threshold, set_threshold))
    kind = Answer if set_threshold is None else SetAnswer
    rows = zip(batch.paths, batch.errors, batch.beyond, strict=True)
    return [
        kind(path, error=error) if error else replace(next(found), is_beyond=is_beyond)
        for path, error, is_beyond in rows
    ]


def answers_of(
    paths: Sequence[str],
    names: list[str],
    probabilities: torch.Tensor,
    top_k: int = 1,
    threshold: float = 0.0,
    set_threshold: float | None = None,
) -> list[Answer]:
    """The answers to N pictures, from the probabilities of C classes.

    Args:
        paths: of the pictures (N).
        names: of the classes (C).
        probabilities: (N, C).
        top_k, threshold, set_threshold: as for `predict_pictures`.
    """
    ranked = zip(paths, _rank(names, probabilities, top_k, set_threshold), strict=True)
    if set_threshold is not None:
        return [SetAnswer(path, _rounded(ranks)) for path, ranks in ranked]
    return [Answer(path, _rounded(ranks), is_none=ranks[0][1] < threshold) for path, ranks in ranked]


def _rank(
    names: list[str], probabilities: torch.Tensor, top_k: int, set_threshold: float | None
) -> list[list[tuple[str, float]]]:
    """For each picture the `top_k` likeliest classes, or those of its set, with their probabilities."""
    if set_threshold is None:
        sizes = [min(top_k, len(names))] * len(probabilities)
    else:
        sizes = class_sets(probabilities, set_threshold).sum(dim=1).tolist()
    best = probabilities.topk(max(sizes))
    return [
        [(names[index], value) for index, value in zip(indices[:size], values[:size], strict=True)]
        for indices, values, size in zip(best.indices.tolist(), best.values.tolist(), sizes, strict=True)
    ]


def _rounded(ranks: list[tuple[str, float]]) -> list[tuple[str, float]]:
    return [(name, round(value, 6)) for name, value in ranks]


def largest_probabilities(
    model: PeftModelForZeroShotImageClassification,
    image_processor: ImageProcessor,
    sources: Sequence[str | os.PathLike[str]] | Listing,
    accelerator: Accelerator,
    *,
    num_workers: int = 0,
) -> torch.Tensor:
    """Largest probability of each picture that can be read (n,): of pictures of other classes, for
    [`~peft_mmrl.scoring.held_out.Confidence`].

    Args:
        model, image_processor, sources, accelerator, num_workers: as for `predict_pictures`.
    """
    answers = predict_pictures(model, image_processor, sources, accelerator, num_workers=num_workers)
    return torch.tensor([answer.ranks[0][1] for answer in answers if answer.ranks], dtype=torch.double)
