"""What an epoch consists of: its batches and steps, which pictures they hold and how much each batch weighs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .settings import TrainingSettings


@dataclass(frozen=True)
class Epoch:
    """An epoch in numbers. All batches are whole, unless there are fewer pictures than that: then it is one batch.

    Args:
        num_pictures: pictures of the data set.
        batch_size: pictures per forward pass and process.
        num_processes: processes that share the pictures.
        accumulation: forward passes per optimizer step.
    """

    num_pictures: int
    batch_size: int
    num_processes: int = 1
    accumulation: int = 1

    @classmethod
    def of(cls, num_pictures: int, settings: TrainingSettings, num_processes: int) -> Epoch:
        """The epoch of a run."""
        return cls(num_pictures, settings.batch_size, num_processes, settings.gradient_accumulation_steps)

    @property
    def batch(self) -> int:
        """Pictures of a batch, that of all processes together."""
        return min(self.num_pictures, self.batch_size * self.num_processes)

    @property
    def is_whole(self) -> bool:
        """Whether there are enough pictures for a whole batch."""
        return self.batch == self.batch_size * self.num_processes

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        return self.num_pictures // self.batch

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return math.ceil(self.batches / self.accumulation)

    @property
    def left_out(self) -> int:
        """Pictures that are not seen in an epoch, others each time: those of an incomplete last batch."""
        return self.num_pictures % self.batch

    def batches_of_step(self, step: int) -> int:
        """Batches of an optimizer step, counted from 0: the last step of an epoch may have fewer than the others."""
        return min(self.accumulation, self.batches - step * self.accumulation)

    def own_pictures(self, process_index: int) -> int:
        """Pictures that a process gets of a batch; what Accelerate gives it beyond these is repeated ones."""
        return min(max(self.batch - process_index * self.batch_size, 0), self.batch_size)

    def weight(self, process_index: int) -> float:
        """Of a process's mean loss in the mean over processes, so that this is the mean over a batch's pictures."""
        return self.own_pictures(process_index) * self.num_processes / self.batch

    def __str__(self) -> str:
        step = self.batch * self.batches_of_step(0)
        parts = [f"{self.batches_of_step(0)} batches of {self.batch}"] if self.batches_of_step(0) > 1 else []
        parts += [f"shared by {self.num_processes} processes"] if self.num_processes > 1 else []
        text = f"{step} pictures a step" + (f" ({', '.join(parts)})" if parts else "")
        last = self.batch * self.batches_of_step(self.steps - 1)
        text += f", the last of an epoch {last}" if last < step else ""
        if self.left_out:
            text += f"; {self.left_out} of {self.num_pictures} pictures, others each time, are left out of an epoch"
        return text
