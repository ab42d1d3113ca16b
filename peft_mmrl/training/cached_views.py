"""Few-shot training without the frozen half: augmented views of the training images, computed once.

The layers below the first adapted one and the frozen features do not change in training. For a fixed number of
augmented views of each image they are computed once and kept, in memory or in a file; an epoch then runs the adapted
upper layers only.
"""

from __future__ import annotations

import os
from collections.abc import Sized
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.utils.data import Dataset

from ..data.progress import progress_bar
from ..tuner.peft_model import PeftModelForZeroShotImageClassification
from ..tuner.validation import as_positive_int


class ImageDataset(Sized, Protocol):
    """What `CachedViews` takes: item i is a dictionary with `pixel_values` (channels, height, width) and `labels`.

    Augmentation happens when an item is read, so that reading it again gives another view.
    """

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One view of an image."""


class CachedViews(Dataset):
    """Views of a few-shot data set, as arguments of the model's `forward`.

    Item i is one view of image i, drawn with torch's random numbers: `trunk_states` (n, d), `frozen_image_embeds` (d)
    and `labels`; a `DataLoader`'s default collation makes batches of them. With Trainer set
    `remove_unused_columns=False`.

    Args:
        model: the model that is trained; its active adapter says which layers are below. Its base must stay frozen.
        dataset: the images, see [`ImageDataset`].
        views: views of each image.
        path: a file to keep the states in, for more than fit in memory; None: memory.
        dtype: of the kept states: fp32 gives the same numbers as without the cache, bf16 takes half.
        batch_size: images that are computed at a time.

    Example:

        ```py
        >>> views = CachedViews(model, train_dataset, views=8)
        >>> for batch in DataLoader(views, batch_size=4, shuffle=True):
        ...     model(**batch).loss.backward()
        ```
    """

    def __init__(
        self,
        model: PeftModelForZeroShotImageClassification,
        dataset: ImageDataset,
        views: int = 8,
        path: str | os.PathLike[str] | None = None,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 32,
    ) -> None:
        self.views = as_positive_int("views", views)
        self.labels = torch.empty(len(dataset), dtype=torch.long)
        self.states: torch.Tensor | None = None
        order = [index for _ in range(views) for index in range(len(dataset))]  # row v * N + i is view v of image i
        for start in progress_bar(range(0, len(order), batch_size), desc="views", unit="batch", leave=False):
            rows = order[start : start + batch_size]
            items = [dataset[index] for index in rows]
            self.labels[rows] = torch.tensor([int(item["labels"]) for item in items])
            found = model.image_states(torch.stack([item["pixel_values"] for item in items]))
            if self.states is None:
                self.states = self._allocate((len(order), *found["trunk_states"].shape[1:]), dtype, path)
                self.frozen = torch.empty(len(order), found["frozen_image_embeds"].shape[1])
            stop = start + len(rows)
            self.states[start:stop] = found["trunk_states"].to("cpu", dtype)
            self.frozen[start:stop] = found["frozen_image_embeds"].cpu()

    @staticmethod
    def _allocate(shape: tuple[int, ...], dtype: torch.dtype, path: str | os.PathLike[str] | None) -> torch.Tensor:
        if path is None:
            return torch.empty(shape, dtype=dtype)
        size = torch.Size(shape).numel()
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return torch.from_file(os.fspath(path), shared=True, size=size, dtype=dtype).view(shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the views take."""
        return self.states.nbytes + self.frozen.nbytes

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.view(index, int(torch.randint(self.views, ())))

    def view(self, index: int, view: int) -> dict[str, torch.Tensor]:
        """A chosen view of an image."""
        row = view * len(self) + range(len(self))[index]
        return {
            "trunk_states": self.states[row],
            "frozen_image_embeds": self.frozen[row],
            "labels": self.labels[index],
        }
