"""The processes of a run: one, or all that a launcher has started, on GPUs or on the CPU."""

from __future__ import annotations

import os
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, GradientAccumulationPlugin
from accelerate.utils.environment import get_cpu_distributed_information

from .settings import TrainingSettings


TORCH = ("WORLD_SIZE", "RANK")  # torchrun, `accelerate launch`
MPI = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),
)
SLURM = ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID")  # srun


def make_accelerator(settings: TrainingSettings | None = None, **kwargs: Any) -> Accelerator:
    """The `Accelerator` of a command, which joins all processes that a launcher has started, also on a CPU.

    It draws the order of training pictures from the run's seed, alike for any number of processes.

    Args:
        settings: for gradient accumulation and the seed; None: nothing is trained.
        kwargs: further arguments of `Accelerator`.

    Raises:
        ValueError: a launcher has started several processes, but this one cannot find the others; fp16 on a CPU.
    """
    settings = settings or TrainingSettings()
    kwargs.setdefault("cpu", _needs_cpu())
    if kwargs["cpu"] and _launcher() in MPI and _is_one_machine():
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")  # where processes meet, which mpirun does not say
    accelerator = Accelerator(
        gradient_accumulation_plugin=GradientAccumulationPlugin(settings.gradient_accumulation_steps),
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=settings.seed),
        **kwargs,
    )
    check_joined(accelerator.num_processes)
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("--mixed_precision fp16 needs a GPU, and this runs on the CPU: use bf16 or no.")
    return accelerator


def launched_processes() -> int:
    """How many processes a launcher says that it has started; 1 without one."""
    launcher = _launcher()
    if launcher is None:
        return 1
    size, rank = (int(value) if (value := os.environ.get(name, "")).isdecimal() else 0 for name in launcher)
    return max(size, rank + 1)


def check_joined(num_processes: int) -> None:
    """Refuse to do all of the work in each of several processes.

    Args:
        num_processes: processes that know of each other.

    Raises:
        ValueError: there are more.
    """
    if num_processes < launched_processes():
        names = " and ".join(_launcher() or ())
        raise ValueError(
            f"{launched_processes()} processes were started ({names} say so), but this one does not find the others "
            "and would do all of the work alone. Start them with `accelerate launch` or torchrun; where one process "
            f"is meant, unset {names}."
        )


def _launcher() -> tuple[str, str] | None:
    """The variables, number of processes and rank, of the innermost launcher."""
    return next((names for names in (TORCH, *MPI, SLURM) if any(name in os.environ for name in names)), None)


def _is_one_machine() -> bool:
    found = get_cpu_distributed_information()
    return found.local_world_size == found.world_size


def _needs_cpu() -> bool:
    """Whether Accelerate must be told to join processes on the CPU: there are several, and no GPU that it joins."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return launched_processes() > 1 and (found is None or found.type == "mps")
