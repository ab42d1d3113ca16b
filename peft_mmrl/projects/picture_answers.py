"""What is said to one picture: its likely classes, when it may be none of them, and why."""

from __future__ import annotations

from dataclasses import dataclass, field

import PIL.Image
import torch

from ..data.wording import in_words
from ..explaining.attention import attention_maps
from ..explaining.reasons import named_maps
from ..explaining.reasons_page import heat_over
from ..scoring.answers import NONE_OF_THESE
from ..scoring.held_out import Confidence
from ..tuner.peft_model import PeftModelForZeroShotImageClassification


Ranks = list[tuple[str, float]]


@dataclass(frozen=True)
class Likeness:
    """A labelled picture that a picture is like.

    Args:
        picture: path below the project's folder.
        name: of its class, as prompts say it.
        cosine: of the features in frozen CLIP, at most 1.
    """

    picture: str
    name: str
    cosine: float


@dataclass(frozen=True)
class PictureAnswer:
    """The answer to a picture.

    Args:
        words: the answer: "cat", "cat or fox", "none of these", or why there is none.
        ranks: all classes with their probabilities, the likeliest first; empty where there is no answer.
        likely: names of the classes that it may be, as the coverage asked for has it; empty: "none of these".
        zero_shot: as `ranks`, of CLIP as it is, by the classes' names alone.
        notes: what the answer rests on, and what is not known, a sentence each.
        nearest: labelled pictures that are most like it, the nearest first.
        seen: the picture as the model sees it; None: it cannot be read.
        maps: by token, the same picture under a map of what the token looked at; None: not to be had.
        trained: whether an adapter's layers have answered.
        by_name: names of the classes of which who answers knows no more; their probabilities were never checked.
    """

    words: str
    ranks: Ranks = field(default_factory=list)
    likely: list[str] = field(default_factory=list)
    zero_shot: Ranks = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    nearest: list[Likeness] = field(default_factory=list)
    seen: PIL.Image.Image | None = None
    maps: dict[str, PIL.Image.Image] | None = None
    trained: bool = False
    by_name: frozenset[str] = frozenset()

    @property
    def is_none(self) -> bool:
        """Whether it is none of the classes, as far as the coverage asked for goes."""
        return bool(self.ranks) and not self.likely


def ranked(names: list[str], probabilities: torch.Tensor) -> Ranks:
    """Classes (C) with their probabilities (C,), the likeliest first."""
    shares = zip(names, probabilities.tolist(), strict=True)
    return sorted(shares, key=lambda rank: -rank[1])


def likely_classes(ranks: Ranks, confidence: Confidence | None, coverage: float) -> tuple[list[str], str]:
    """The classes that a picture may be, and a sentence on how far that holds.

    They are those with as much probability as makes the answers to the pictures that were held out hold their class as
    often as is asked for (split conformal prediction); unlike in `predict --coverage` there need not be any: a picture
    that is less like all classes than they are like their own is "none of these". So it holds its class as often for
    pictures of these classes, "none of these" being wrong for them.

    Args:
        ranks: see `ranked`.
        confidence: what held-out pictures say; None: nothing.
        coverage: share of the pictures of these classes whose answer should hold their class.
    """
    best = [name for name, _ in ranks[:1]]
    if confidence is None:
        return best, 'When to answer "none of these" isn\'t known: there are no pictures to check it with yet.'
    aim = confidence.for_coverage(coverage)
    if aim.threshold is None:
        return (
            best,
            f'Too few pictures to know when to answer "none of these": {len(confidence.labels)} could be asked.',
        )
    held = sum(1 - own <= aim.threshold for own in confidence.own)
    words = (
        f"Asked as if they were new, {held} of your own {len(confidence.own)} pictures had their class in the answer."
    )
    return [name for name, share in ranks if 1 - share <= aim.threshold], words


def answer_in_words(likely: list[str]) -> str:
    """`cat`, `cat or fox`, `none of these`."""
    return in_words(likely) if likely else NONE_OF_THESE


def draw_maps(
    model: PeftModelForZeroShotImageClassification,
    pixel_values: torch.Tensor,
    picture: PIL.Image.Image,
) -> dict[str, PIL.Image.Image] | None:
    """What each token of the active pass looked at, over the picture; None where the encoder doesn't tell.

    Args:
        model: the pass as it is set.
        pixel_values: of the picture (1, channels, height, width).
        picture: as the model sees it.
    """
    try:
        maps = attention_maps(model, pixel_values)[0].cpu()
    except ValueError:  # an encoder that is not CLIP's
        return None
    return {name: heat_over(picture, shares) for name, shares in named_maps(maps).items()}
