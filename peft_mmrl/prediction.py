"""Names pictures without labels: any number of them, in constant memory, over any number of processes."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TextIO

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from peft import PeftConfig
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import AutoImageProcessor

from .auto import AutoPeftModelForZeroShotImageClassification
from .data.folders import is_picture, walk
from .data.pictures import PictureError, read_picture
from .data.transforms import EvalTransform, ImageProcessor
from .loading import load_tokenizer
from .peft_model import PeftModelForZeroShotImageClassification


NONE_OF_THESE = "none of these"
Row = dict[str, Any]  # path, label, probability, label_2, probability_2, ..., error


def load_classifier(
    adapter: str | os.PathLike[str], base_model: str | None = None, new_classes: Sequence[str] = ()
) -> tuple[PeftModelForZeroShotImageClassification, ImageProcessor]:
    """Load an adapter, its base model and the image processor.

    Args:
        adapter: folder or Hub id.
        base_model: Hub id or folder, where the one that the adapter names is not reachable.
        new_classes: names that are scored beside the adapter's own.

    Returns:
        the model in eval mode, and the image processor of the adapter's folder, or else of the base model.

    Raises:
        OSError: adapter, base model or image processor cannot be found.
        ValueError: not an adapter of this kind, one that does not fit the base model, or no classes.
    """
    config = PeftConfig.from_pretrained(adapter)
    if base_model is not None:
        config.base_model_name_or_path, config.revision = base_model, None
    name, revision = config.base_model_name_or_path, config.revision
    model = AutoPeftModelForZeroShotImageClassification.from_pretrained(adapter, config=config)
    if new_classes:
        model.set_classes([*(model.classes or []), *new_classes], load_tokenizer(name, revision))
    if model.classes is None:
        raise ValueError(f"The adapter {adapter} has no classes of its own: name them with --classes.")
    try:
        image_processor = AutoImageProcessor.from_pretrained(adapter)
    except OSError:
        image_processor = AutoImageProcessor.from_pretrained(name, revision=revision)
    return model.eval(), image_processor


def find_pictures(sources: Iterable[str | os.PathLike[str]]) -> Iterator[str]:
    """Paths of pictures, in order: files as they are given, and in folders all files with a picture's extension."""
    for source in sources:
        if os.path.isdir(source):
            yield from (str(path) for path in walk(source) if is_picture(path))
        else:
            yield os.fspath(source)


@dataclass
class PictureBatch:
    """Pictures of one forward pass.

    Args:
        paths: of N pictures.
        errors: for each, why it cannot be read, or None.
        pixel_values: of those that can (n, 3, height, width).
    """

    paths: list[str]
    errors: list[str | None]
    pixel_values: torch.Tensor


class PictureBatches(IterableDataset):
    """Batches of pictures, every n-th one for each of n processes, read when they are asked for.

    Args:
        sources: files and folders, see `find_pictures`.
        transform: from a PIL picture to `pixel_values`.
        batch_size: pictures of a batch.
        process_index, num_processes: which batches these are.
    """

    def __init__(
        self,
        sources: Sequence[str | os.PathLike[str]],
        transform: EvalTransform,
        batch_size: int,
        process_index: int = 0,
        num_processes: int = 1,
    ) -> None:
        self.sources, self.transform, self.batch_size = sources, transform, batch_size
        self.process_index, self.num_processes = process_index, num_processes

    def __iter__(self) -> Iterator[PictureBatch]:
        worker = get_worker_info()
        index, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        paths = find_pictures(self.sources)
        batches = iter(lambda: list(islice(paths, self.batch_size)), [])
        # the loader takes from its workers in turn, so that batches stay in order
        mine = islice(batches, self.process_index + index * self.num_processes, None, workers * self.num_processes)
        return map(self._read, mine)

    def _read(self, paths: list[str]) -> PictureBatch:
        pixels, errors = [], []
        for path in paths:
            try:
                pixels.append(self.transform(read_picture(path)))
                errors.append(None)
            except PictureError as error:
                errors.append(error.reason)
        return PictureBatch(paths, errors, torch.stack(pixels) if pixels else torch.empty(0))


@torch.no_grad()
def predict_pictures(
    model: PeftModelForZeroShotImageClassification,
    image_processor: ImageProcessor,
    sources: Sequence[str | os.PathLike[str]],
    accelerator: Accelerator,
    *,
    batch_size: int = 32,
    top_k: int = 1,
    threshold: float = 0.0,
    num_workers: int = 0,
) -> Iterator[Row]:
    """Name pictures; each once, in order, and in every process.

    Args:
        model: its bound classes are the answers; on the device, in eval mode.
        image_processor: the base model's.
        sources: files and folders, see `find_pictures`.
        accelerator: spreads the pictures over its processes.
        batch_size: pictures at a time and process.
        top_k: classes that are named for each picture, the likeliest first.
        threshold: a picture whose largest probability is smaller gets the label "none of these".
        num_workers: processes that read pictures, for each process of the accelerator.
    """
    batches = PictureBatches(
        sources, EvalTransform(image_processor), batch_size, accelerator.process_index, accelerator.num_processes
    )
    loader = iter(DataLoader(batches, batch_size=None, num_workers=num_workers))
    while True:
        batch = next(loader, None)  # None where other processes have more
        rows = [] if batch is None else _name(model, batch, accelerator, top_k, threshold)
        rounds = gather_object([rows]) if accelerator.num_processes > 1 else [rows]
        if not any(rounds):
            return
        for rows in rounds:
            yield from rows


def _name(
    model: PeftModelForZeroShotImageClassification,
    batch: PictureBatch,
    accelerator: Accelerator,
    top_k: int,
    threshold: float,
) -> list[Row]:
    answers = iter(())
    if len(batch.pixel_values):
        with accelerator.autocast():
            logits = model(pixel_values=batch.pixel_values.to(accelerator.device)).logits
        best = logits.float().softmax(dim=1).topk(min(top_k, logits.shape[1]))
        answers = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    rows = []
    for path, error in zip(batch.paths, batch.errors, strict=True):
        row: Row = dict.fromkeys(columns(top_k)) | {"path": path, "error": error}
        for rank, (probability, index) in enumerate(zip(*next(answers), strict=True) if error is None else ()):
            label, name = columns(top_k)[1 + 2 * rank : 3 + 2 * rank]
            row[label], row[name] = model.classes[index], round(probability, 6)
        if error is None and row["probability"] < threshold:
            row["label"] = NONE_OF_THESE
        rows.append(row)
    return rows


def columns(top_k: int) -> list[str]:
    """Names of a row's values."""
    ranks = ["", *(f"_{rank}" for rank in range(2, top_k + 1))]
    return ["path", *(f"{what}{rank}" for rank in ranks for what in ("label", "probability")), "error"]


def write_table(rows: Iterable[Row], top_k: int, file: TextIO) -> None:
    """Lines for people: probability, label and path."""
    for row in rows:
        ranks = [columns(top_k)[start : start + 2] for start in range(1, 1 + 2 * top_k, 2)]
        named = [f"{row[value]:7.1%}  {row[label]:20}" for label, value in ranks if row[label] is not None]
        file.write("  ".join([*named, row["path"]] if not row["error"] else [row["path"], row["error"]]) + "\n")


def write_csv(rows: Iterable[Row], top_k: int, file: TextIO) -> None:
    """A header and a row per picture."""
    writer = csv.DictWriter(file, columns(top_k), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def write_json(rows: Iterable[Row], top_k: int, file: TextIO) -> None:
    """One array with an object per picture."""
    separator = "[\n"
    for row in rows:
        file.write(separator + json.dumps(row))
        separator = ",\n"
    file.write("[]\n" if separator == "[\n" else "\n]\n")


def write_json_lines(rows: Iterable[Row], top_k: int, file: TextIO) -> None:
    """An object per line."""
    for row in rows:
        file.write(json.dumps(row) + "\n")


WRITERS = {"table": write_table, "csv": write_csv, "json": write_json, "jsonl": write_json_lines}
