"""The training loop, with Accelerate: one process or many, any precision, interrupted or not."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..tuner.validation import as_positive_int
from .checkpoints import Progress, load_checkpoint, save_checkpoint
from .settings import TrainingSettings


TIMED_STEPS = 5


def make_accelerator(settings: TrainingSettings, **kwargs: Any) -> Accelerator:
    """An `Accelerator` that draws the order of pictures from the run's seed, alike for any number of processes.

    Args:
        settings: for gradient accumulation and the seed.
        kwargs: further arguments of `Accelerator`.
    """
    loading = DataLoaderConfiguration(use_seedable_sampler=True, data_seed=settings.seed)
    return Accelerator(
        gradient_accumulation_steps=settings.gradient_accumulation_steps, dataloader_config=loading, **kwargs
    )


class SeededDataset(Dataset):
    """A data set whose random augmentation depends on seed, epoch and picture alone.

    So it is the same for any number of processes and loader workers, and after an interruption.

    Args:
        dataset: reads a picture with torch's random numbers.
        seed: of the run.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset, self.seed, self.epoch = dataset, seed, 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        seed = np.random.SeedSequence((self.seed, self.epoch, index)).generate_state(1, np.uint64)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(seed[0]))
            return self.dataset[index]


def steps_per_epoch(num_pictures: int, settings: TrainingSettings, num_processes: int = 1) -> int:
    """Optimizer steps in an epoch. An incomplete last batch is left out, unless it is the only one."""
    batches = max(1, num_pictures // (settings.batch_size * num_processes))
    return math.ceil(batches / settings.gradient_accumulation_steps)


def train(
    model: torch.nn.Module,
    dataset: Dataset,
    settings: TrainingSettings,
    accelerator: Accelerator,
    *,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    checkpoint_dir: Path | None = None,
    checkpointing_steps: int | None = None,
    num_workers: int = 0,
    resume_from: Path | None = None,
    description: str = "training",
) -> list[dict[str, float]]:
    """Train the weights that require a gradient.

    Args:
        model: returns an output with `loss` for a batch of `dataset`.
        dataset: items are dictionaries, arguments of the model; see [`~peft_mmrl.data.PictureDataset`] and
            [`~peft_mmrl.training.cached_views.CachedViews`].
        settings: hyper-parameters.
        accelerator: from `make_accelerator`.
        on_epoch: called after each epoch with its record, to which it may add.
        checkpoint_dir: folder of the run's last state, written after each epoch; None: it is not kept.
        checkpointing_steps: also write it after so many optimizer steps of an epoch.
        num_workers: further processes that read pictures.
        resume_from: folder of the state to go on from.
        description: for the progress bar.

    Returns:
        a record per epoch: `epoch`, `loss`, `learning_rate` and what `on_epoch` added.

    Raises:
        FloatingPointError: the loss is not finite; the last checkpoint stays.
    """
    dataset, full_batch = SeededDataset(dataset, settings.seed), settings.batch_size * accelerator.num_processes
    drop_last = len(dataset) >= full_batch
    loader = DataLoader(dataset, settings.batch_size, shuffle=True, drop_last=drop_last, num_workers=num_workers)
    if checkpointing_steps is not None:
        as_positive_int("checkpointing_steps", checkpointing_steps)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, settings.learning_rate, weight_decay=settings.weight_decay)
    num_epochs = settings.num_epochs(steps_per_epoch(len(dataset), settings, accelerator.num_processes))
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    progress = Progress() if resume_from is None else load_checkpoint(resume_from, accelerator)

    steps, done = num_epochs * len(loader), progress.epoch * len(loader) + progress.step
    bar = tqdm(desc=description, total=steps, initial=done, unit="step", disable=not accelerator.is_local_main_process)
    with bar:
        for epoch in range(progress.epoch, num_epochs):
            dataset.epoch = epoch
            loader.set_epoch(epoch)
            learning_rate = settings.learning_rate_of(epoch, num_epochs)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            model.train()
            for batch in accelerator.skip_first_batches(loader, progress.step):
                with accelerator.accumulate(model):
                    loss = model(**batch).loss
                    value = loss.item()
                    if not math.isfinite(value):
                        raise FloatingPointError(
                            f"The loss is {value} in step {progress.step + 1} of epoch {epoch + 1}: lower the "
                            "learning rate, or train in another precision."
                        )
                    accelerator.backward(loss)
                    optimizer.step()
                    optimizer.zero_grad()
                progress.add(value)
                bar.set_postfix(loss=f"{value:.3f}", refresh=False)
                bar.update()
                _say_how_long(bar)
                is_due = checkpoint_dir is not None and checkpointing_steps and accelerator.sync_gradients
                if is_due and progress.step // settings.gradient_accumulation_steps % checkpointing_steps == 0:
                    save_checkpoint(checkpoint_dir, accelerator, progress)
            loss = torch.tensor(progress.loss_sum / len(loader), device=accelerator.device)
            record = {"epoch": epoch + 1, "loss": accelerator.reduce(loss, "mean").item()}
            record["learning_rate"] = learning_rate
            if on_epoch is not None:
                on_epoch(record)
            progress.end_epoch(record)
            if checkpoint_dir is not None:
                save_checkpoint(checkpoint_dir, accelerator, progress)
    model.eval()
    accelerator.free_memory()  # another run may follow
    return progress.history


def _say_how_long(bar: tqdm) -> None:
    """After the first steps, a line with the minutes that the run will take."""
    if bar.disable:  # such a bar counts nothing
        return
    steps = bar.n - bar.initial
    if steps == TIMED_STEPS:
        minutes = bar.format_dict["elapsed"] / steps * (bar.total - bar.n) / 60
        bar.write(f"{bar.desc}: {bar.total} steps, about {math.ceil(minutes)} minutes to go", file=sys.stderr)
