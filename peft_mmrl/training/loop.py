"""The training loop, with Accelerate: one process or many, any precision, interrupted or not."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset

from ..tuner.validation import as_positive_int
from .checkpoints import Progress, load_checkpoint, save_checkpoint
from .epochs import Epoch
from .settings import TrainingSettings
from .telling import Telling


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
    run: dict[str, Any] | None = None,
    description: str = "training",
    on_share: Callable[[float], None] | None = None,
) -> list[dict[str, float]]:
    """Train the weights that require a gradient.

    A step's gradient is that of the mean loss over the pictures that were seen, each counted once, also where a step
    has fewer batches than others and where there are fewer pictures than a batch over all processes could hold.

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
        run: what makes the result what it is, kept with the state.
        description: for the progress bar.
        on_share: called before the first step and after each with the share of all steps that are done, 0 to 1.

    Returns:
        a record per epoch: `epoch`, `loss`, `learning_rate` and what `on_epoch` added.

    Raises:
        FloatingPointError: the loss is not finite; the last checkpoint stays.
        OSError: the state cannot be written; the last checkpoint stays.
    """
    dataset = SeededDataset(dataset, settings.seed)
    per_epoch = Epoch.of(len(dataset), settings, accelerator.num_processes)
    loader = DataLoader(
        dataset, settings.batch_size, shuffle=True, drop_last=per_epoch.is_whole, num_workers=num_workers
    )
    if checkpointing_steps is not None:
        as_positive_int("checkpointing_steps", checkpointing_steps)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, settings.learning_rate, weight_decay=settings.weight_decay)
    num_epochs = settings.num_epochs(per_epoch.steps)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    progress = Progress() if resume_from is None else load_checkpoint(resume_from, accelerator)
    progress.run = run or {}

    own, weight = (of(accelerator.process_index) for of in (per_epoch.own_pictures, per_epoch.weight))
    done = progress.epoch * per_epoch.steps + progress.step // per_epoch.accumulation
    steps = num_epochs * per_epoch.steps
    with Telling(description, steps, done, accelerator.is_local_main_process, on_share) as telling:
        for epoch in range(progress.epoch, num_epochs):
            dataset.epoch = epoch
            loader.set_epoch(epoch)
            learning_rate = settings.learning_rate_of(epoch, num_epochs)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            model.train()
            for batch in accelerator.skip_first_batches(loader, progress.step):
                step = progress.step // per_epoch.accumulation
                with accelerator.accumulate(model):
                    loss = model(**{name: values[: max(own, 1)] for name, values in batch.items()}).loss
                    value = loss.item()
                    if not math.isfinite(value):
                        raise FloatingPointError(
                            f"The loss is {value} in step {step + 1} of epoch {epoch + 1}: lower the learning rate, "
                            "or train in another precision."
                        )
                    # Accelerate divides by the batches of a whole step and by the processes
                    accelerator.backward(loss * (weight * per_epoch.accumulation / per_epoch.batches_of_step(step)))
                    optimizer.step()
                    optimizer.zero_grad()
                progress.add(value * weight)
                if not accelerator.sync_gradients:
                    continue
                telling.step(value)
                if checkpoint_dir is not None and checkpointing_steps and (step + 1) % checkpointing_steps == 0:
                    save_checkpoint(checkpoint_dir, accelerator, progress)
            loss = torch.tensor(progress.loss_sum / per_epoch.batches, device=accelerator.device)
            record = {"epoch": epoch + 1, "loss": accelerator.reduce(loss, "mean").item()}
            record["learning_rate"] = learning_rate
            if on_epoch is None:
                telling.epoch(epoch + 1, num_epochs, record["loss"])
            else:
                on_epoch(record)
            progress.end_epoch(record)
            if checkpoint_dir is not None:
                save_checkpoint(checkpoint_dir, accelerator, progress)
    model.eval()
    accelerator.free_memory()  # another run may follow
    return progress.history
