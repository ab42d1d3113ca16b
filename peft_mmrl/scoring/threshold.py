"""When to answer "none of these": a threshold on the largest probability, with the errors that it makes."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers.utils import cached_file

from ..tuner.validation import InvalidTypeError, as_number, check_labels


THRESHOLD_FILE = "threshold.json"


@dataclass(frozen=True)
class Threshold:
    """Pictures whose largest probability is below `threshold` are none of the classes.

    Args:
        threshold: from 0 to 1, for the classes and the model that it was chosen for.
        pictures: number of validation pictures that it was chosen on.
        known_rejected: share of them that would be called none of the classes.
        known_wrong: share of them that would be called another class.
        unknown_accepted: share of pictures of other classes that would be called one of these.
        unknown: which pictures these were: "given", or "own class hidden" (see `choose`).
        score: what the threshold applies to.
    """

    threshold: float
    pictures: int
    known_rejected: float
    known_wrong: float
    unknown_accepted: float
    unknown: str
    score: str = "max_probability"

    @classmethod
    def choose(
        cls,
        probabilities: torch.Tensor,
        labels: torch.Tensor,
        unknown_probabilities: torch.Tensor | None = None,
        max_rejected: float = 0.05,
    ) -> Threshold:
        """Choose the largest threshold that rejects no more than a given share of validation pictures.

        How many pictures of other classes are then accepted is measured on such pictures where they are given. Where
        not, each validation picture is scored once more without its own class, as a picture of a class that the model
        does not know.

        Args:
            probabilities: of N validation pictures over C classes (N, C).
            labels: their classes (N,).
            unknown_probabilities: of M pictures of other classes over the same classes (M, C).
            max_rejected: share of validation pictures that may be rejected.

        Raises:
            ValueError: no validation picture, shapes that do not fit, a share that is none.
        """
        max_rejected = as_number("max_rejected", max_rejected, 0, 1)
        _check("probabilities", probabilities)
        check_labels(labels, *probabilities.shape)
        if unknown_probabilities is not None:
            _check("unknown_probabilities", unknown_probabilities, probabilities.shape[1])
        best, predicted = probabilities.double().max(dim=1)
        allowed = min(math.floor(max_rejected * len(best)), len(best) - 1)
        threshold = best.sort().values[allowed]
        others = unknown_probabilities
        if others is None:
            others = probabilities.double().scatter(1, labels[:, None], 0)
            others = others / others.sum(dim=1, keepdim=True).clamp(min=torch.finfo(torch.double).tiny)
        return cls(
            threshold=threshold.item(),
            pictures=len(best),
            known_rejected=_share(best < threshold),
            known_wrong=_share((best >= threshold) & (predicted != labels)),
            unknown_accepted=_share(others.double().max(dim=1).values >= threshold),
            unknown="own class hidden" if unknown_probabilities is None else "given",
        )

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `threshold.json` beside an adapter."""
        Path(folder, THRESHOLD_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, adapter: str | os.PathLike[str]) -> Threshold:
        """Read the threshold that was saved with an adapter.

        Args:
            adapter: its folder or Hub repository.

        Raises:
            OSError: none was saved with it.
            ValueError: the file does not hold one.
        """
        try:
            path = cached_file(os.fspath(adapter), THRESHOLD_FILE)
        except OSError as error:
            raise FileNotFoundError(
                f"The adapter {adapter} has no {THRESHOLD_FILE}: training writes one where it has validation pictures."
            ) from error
        try:
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no threshold: {error}") from error

    def __str__(self) -> str:
        others = "pictures of other classes" if self.unknown == "given" else "pictures whose own class was hidden"
        return (
            f'threshold for "none of these": {self.threshold:.3f}. It rejects {self.known_rejected:.1%} of '
            f"{self.pictures} validation pictures ({self.known_wrong:.1%} are named wrongly), and lets "
            f"{self.unknown_accepted:.1%} of {others} pass"
        )


def _share(flags: torch.Tensor) -> float:
    return flags.double().mean().item()


def _check(name: str, value: torch.Tensor, num_classes: int | None = None) -> None:
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        raise InvalidTypeError(f"`{name}` must be a tensor of probabilities, got {value!r}.")
    if value.ndim != 2 or not value.numel() or value.shape[1] != (num_classes or value.shape[1]):
        classes = "classes" if num_classes is None else num_classes
        raise ValueError(f"`{name}` must have the shape (pictures, {classes}), got {tuple(value.shape)}.")
