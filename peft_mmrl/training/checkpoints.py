"""The state of an interrupted run: adapter, optimizer, random numbers and progress, without the base model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from peft import PeftModel

from .run_folder import read_json, write_json, writing


PROGRESS_FILE = "progress.json"


@dataclass
class Progress:
    """Where a run stands.

    Args:
        epoch: epochs that are done.
        step: batches of the current epoch that are done.
        loss_sum: sum of their losses, in this process; in a checkpoint the mean over processes.
        history: a record of each epoch.
        run: what makes the run's result what it is: the checkpoint of another run does not go on with this one.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    run: dict[str, Any] = field(default_factory=dict)

    def add(self, loss: float) -> None:
        """Count a batch."""
        self.step += 1
        self.loss_sum += loss

    def end_epoch(self, record: dict[str, float]) -> None:
        """Count an epoch."""
        self.epoch += 1
        self.step, self.loss_sum = 0, 0.0
        self.history.append(record)


def save_checkpoint(folder: Path, accelerator: Accelerator, progress: Progress) -> None:
    """Write what `load_checkpoint` needs, in the place of the last one; an interruption leaves one of both.

    Raises:
        OSError: it cannot be written; the last one stays.
    """
    new, old = _versions(folder)[1:]
    if accelerator.is_main_process:
        shutil.rmtree(new, ignore_errors=True)
    accelerator.wait_for_everyone()
    loss_sum = torch.tensor(progress.loss_sum, device=accelerator.device)
    progress = replace(progress, loss_sum=accelerator.reduce(loss_sum, "mean").item())
    with writing(new), _adapter_only(accelerator):
        accelerator.save_state(str(new))
    accelerator.wait_for_everyone()  # every process has written its random numbers
    if accelerator.is_main_process:
        write_json(new / PROGRESS_FILE, asdict(progress))
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()


def find_checkpoint(folder: Path) -> Path:
    """The whole checkpoint that is there, also where writing the next one was interrupted.

    Raises:
        OSError: there is none.
    """
    for version in _versions(folder):
        if (version / PROGRESS_FILE).is_file():
            return version
    raise FileNotFoundError(f"{folder} holds no checkpoint of an interrupted run.")


def is_checkpoint(folder: Path) -> bool:
    """Whether there is a whole checkpoint."""
    return any((version / PROGRESS_FILE).is_file() for version in _versions(folder))


def read_progress(folder: Path) -> Progress:
    """How far the run of a checkpoint has come.

    Raises:
        OSError: there is no checkpoint.
        ValueError: it is damaged.
    """
    path = find_checkpoint(folder) / PROGRESS_FILE
    try:
        return Progress(**read_json(path))
    except TypeError as error:
        raise ValueError(f"{path} is no progress of a run: {error}") from error


def load_checkpoint(folder: Path, accelerator: Accelerator) -> Progress:
    """Put adapter, optimizer and random numbers back and return the progress.

    Raises:
        OSError: there is no checkpoint.
    """
    folder = find_checkpoint(folder)
    with _adapter_only(accelerator):
        accelerator.load_state(str(folder))
    return read_progress(folder)


def _versions(folder: Path) -> tuple[Path, Path, Path]:
    """The checkpoint, the next one while it is written, the last one until the next is in its place."""
    return folder, folder.with_name(f"{folder.name}.new"), folder.with_name(f"{folder.name}.old")


@contextmanager
def _adapter_only(accelerator: Accelerator) -> Iterator[None]:
    """Let `save_state` and `load_state` take the adapter in the place of all weights."""

    def save(models: list[Any], weights: list[Any], folder: str) -> None:
        (model,) = models
        weights.clear()
        if accelerator.is_main_process:
            model = accelerator.unwrap_model(model)
            model.save_pretrained(folder, selected_adapters=[model.active_adapter])

    def load(models: list[Any], folder: str) -> None:
        model: PeftModel = accelerator.unwrap_model(models.pop())
        name = model.active_adapter
        place = folder if name == "default" else str(Path(folder, name))  # where PEFT saves it
        model.load_adapter(place, name, is_trainable=True)

    handles = accelerator.register_save_state_pre_hook(save), accelerator.register_load_state_pre_hook(load)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
