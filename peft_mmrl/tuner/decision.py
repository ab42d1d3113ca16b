"""How an adapter decides among trained and new classes that compete: a rule with a few numbers fitted on pictures.

Fused logits of trained classes and class logits of new ones are on different scales. A [`Decision`] puts both on one:
it holds a linear probe and prototypes on features of frozen CLIP, and `decide` makes logits of them and of the
adapter's own. decision_fit.py fits it; `textbook.py` has the rule on a page.

Symbols: f_0 (B, d) features of images and w_0 (C, d) of classes in frozen CLIP, normalised; f_c, f_r, w the same of
the adapter; s = exp(logit_scale); z = s f_0 w_0^T; T the bound classes that were trained.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers.utils import cached_file

from .classes import BoundClasses
from .config import MMRLConfig
from .validation import InvalidTypeError, as_number


DECISION_FILE = "decision.safetensors"
FEATURES = ("adapted", "frozen")
TENSORS = ("probe_weight", "probe_bias", "prototypes")


@dataclass(frozen=True, eq=False)
class Decision:
    """What was fitted on the training pictures of C classes. All in fp32: a s may be 1,000.

    Args:
        probe_weight: W (C, d), linear probe on f_0; rows in the order of the adapter's trained classes.
        probe_bias: c (C,).
        prototypes: M (C, d), mean of f_0 over the pictures of each class, not normalised.
        prototype_scale: a, at least 0; brings prototypes to the scale of text logits.
        prototype_shift: b.
        prototype_weight: w, 0 to 1: how much prototypes say on whether a picture is of a trained class.
        zero_shot_share: q, 0 to 1: how much zero-shot logits say beside fused ones on which trained class it is.
        features: which pass class and representation logits come from: "adapted", or "frozen", with which the
            adapted layers are not run.
        classes: names of the trained classes.
        fitted_for: what it depends on (see `conditions`); under others it means nothing.
    """

    probe_weight: torch.Tensor
    probe_bias: torch.Tensor
    prototypes: torch.Tensor
    prototype_scale: float
    prototype_shift: float
    prototype_weight: float
    zero_shot_share: float = 0.0
    features: str = "adapted"
    classes: tuple[str, ...] | None = None
    fitted_for: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = tuple(getattr(self.probe_weight, "shape", ()))
        if len(shape) != 2 or not min(shape):
            raise ValueError(f"`probe_weight` must have the shape (classes, width), got {shape}.")
        for name, expected in zip(TENSORS, (shape, shape[:1], shape), strict=True):
            object.__setattr__(self, name, _as_finite(name, getattr(self, name), expected))
        check_features(self.features)
        limits = {
            "prototype_scale": (0,),
            "prototype_shift": (-1e30, 1e30),
            "prototype_weight": (0, 1),
            "zero_shot_share": (0, 1),
        }
        for name, bounds in limits.items():
            object.__setattr__(self, name, as_number(name, getattr(self, name), *bounds))
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(self.classes))
        if self.classes is not None and len(self.classes) != shape[0]:
            raise ValueError(f"`classes` has {len(self.classes)} names for {shape[0]} rows of the decision.")

    @property
    def num_classes(self) -> int:
        """Number of classes that it was fitted on (C)."""
        return len(self.probe_weight)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes, in memory and on disk: 2 C d + C numbers of 4 bytes."""
        return sum(getattr(self, name).nbytes for name in TENSORS)

    def to(self, device: torch.device | str) -> Decision:
        """The same on a device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in TENSORS})

    def differs_in(self, conditions: dict[str, Any]) -> list[str]:
        """Names of what it was fitted for and is now another; what is not known on either side does not count."""
        return [
            name
            for name, value in conditions.items()
            if name in self.fitted_for and value is not None and self.fitted_for[name] not in (None, value)
        ]

    def check_fits(self, classes: list[str] | None, width: int) -> None:
        """Raise where it is one of other classes, or of another joint width, than an adapter's."""
        shape, expected = (self.num_classes, self.probe_weight.shape[1]), (len(classes or []), width)
        if shape != expected:
            raise ValueError(
                f"The decision is for {shape[0]} classes and features of width {shape[1]}, but the adapter has "
                f"{expected[0]} trained classes and width {width}. Fit it anew with `fit_decision`."
            )
        if self.classes is not None and list(self.classes) != classes:
            raise ValueError(
                f"The decision is for the classes {list(self.classes)}, but the adapter was trained on {classes}. Fit "
                "it anew with `fit_decision`."
            )

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """Tensors and metadata for a safetensors file."""
        tensors = {name: getattr(self, name).cpu().contiguous() for name in TENSORS}
        settings = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in TENSORS}
        return tensors, {"decision": json.dumps(settings)}

    @classmethod
    def from_state(cls, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None) -> Decision:
        """From what `state` gave.

        Raises:
            ValueError: something is missing, unknown or of another shape.
        """
        try:
            return cls(**tensors, **json.loads((metadata or {})["decision"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"This is no decision: {error}") from error

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `decision.safetensors` beside an adapter."""
        tensors, metadata = self.state()
        save_file(tensors, Path(folder, DECISION_FILE), metadata={"format": "pt", **metadata})

    @classmethod
    def load(cls, adapter: str | os.PathLike[str], **hub_kwargs: Any) -> Decision | None:
        """Read the decision that was saved with an adapter; None where none was.

        Args:
            adapter: its folder or Hub repository.
            hub_kwargs: `subfolder`, `revision`, `token` and the like.

        Raises:
            OSError: the file is damaged or holds something else.
        """
        path = cached_file(
            os.fspath(adapter),
            DECISION_FILE,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            **hub_kwargs,
        )
        if path is None:
            return None
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
            return cls.from_state(load_file(path), metadata)
        except (SafetensorError, ValueError) as error:
            raise OSError(f"{path} cannot be read: {error}") from error


def conditions(
    templates: Sequence[str], base_fingerprint: str | None, image_size: Sequence[int] | None, config: MMRLConfig
) -> dict[str, Any]:
    """What a decision depends on: the prompt templates, whose features are averaged into w_0, the base model, and how
    pictures are prepared."""
    return {
        "template": list(templates),
        "base model": base_fingerprint,
        "image size": None if image_size is None else list(image_size),
        "fit": config.fit or "as the base does",
        "value_range": config.value_range or "as the pictures' type",
    }


def decide(
    decision: Decision,
    rows: Sequence[int],
    frozen_image: torch.Tensor,
    frozen_text: torch.Tensor,
    class_logits: torch.Tensor | None,
    rep_logits: torch.Tensor | None,
    scale: torch.Tensor,
    alpha: float,
    zero_shot_weight: float,
) -> torch.Tensor:
    """Logits (B, n) of bound classes, whose softmax over them gives probabilities; not normalised.

        G_k = o z_k + (1 - o) s f_c w_k                                    every class
        F_k = alpha s f_c w_k + (1 - alpha) s f_r w_k                      k in T: fused, as in the papers
        B_k = q z_k + (1 - q) F_k + W_k f_0 + c_k                          k in T: which of the trained
        E_k = (1 - w) G_k + w (a s f_0 m_k + b)                            k in T: trained or new
        logits_k = log softmax_T(B)_k + logsumexp_T(E) for k in T, else G_k

    Args:
        decision: the fitted numbers.
        rows: the decision's row of each of the n bound classes; -1 for a class that counts as new.
        frozen_image: f_0 (B, d).
        frozen_text: w_0 (n, d) of the bound classes.
        class_logits: s f_c w^T (B, n); taken to be z where `decision.features` is "frozen".
        rep_logits: s f_r w^T (B, n), the same.
        scale: s.
        alpha: weight of the class logits among trained classes.
        zero_shot_weight: o, 0 to 1. With 1 new classes are scored as in frozen CLIP, bit for bit.
    """
    with torch.autocast(frozen_image.device.type, enabled=False):
        zero_shot = scale * frozen_image @ frozen_text.T
        if decision.features == "frozen":
            class_logits = rep_logits = zero_shot
        logits = zero_shot_weight * zero_shot + (1 - zero_shot_weight) * class_logits
        places = [place for place, row in enumerate(rows) if row >= 0]
        if not places:
            return logits
        kept = torch.tensor([rows[place] for place in places], device=decision.probe_weight.device)
        weight, bias, prototypes = (getattr(decision, name)[kept].to(frozen_image) for name in TENSORS)
        trained = torch.tensor(places, device=logits.device)

        fused = alpha * class_logits[:, trained] + (1 - alpha) * rep_logits[:, trained]
        share = decision.zero_shot_share
        which = share * zero_shot[:, trained] + (1 - share) * fused + frozen_image @ weight.T + bias
        text, share = logits[:, trained], decision.prototype_weight
        by_prototype = decision.prototype_scale * scale * frozen_image @ prototypes.T + decision.prototype_shift
        together = (1 - share) * text + share * by_prototype
        decided = which.log_softmax(dim=1) + together.logsumexp(dim=1, keepdim=True)
        return logits.index_copy(1, trained, decided.to(logits.dtype))


def rows_of(classes: BoundClasses) -> list[int]:
    """A decision's row of each bound class; -1 where it counts as new.

    Raises:
        ValueError: a class that counts as trained has no row.
    """
    for position, (seen, place) in enumerate(zip(classes.seen, classes.trained, strict=True)):
        if seen and place is None:
            raise ValueError(
                f"`seen`: the class {classes.names[position]!r} at position {position} counts as trained, but the "
                "decision was not fitted on it. Leave it out of `seen`, or take the decision off "
                "(`model.decision = None`)."
            )
    return [place if seen else -1 for seen, place in zip(classes.seen, classes.trained, strict=True)]


def check_features(features: Any) -> None:
    """Raise where `features` does not name a pass."""
    if features not in FEATURES:
        raise ValueError(f'`features` must be "adapted" or "frozen", got {features!r}.')


def _as_finite(name: str, value: Any, shape: tuple[int, ...]) -> torch.Tensor:
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        raise InvalidTypeError(f"`{name}` must be a tensor of floats, got {value!r}.")
    if tuple(value.shape) != shape:
        raise ValueError(f"`{name}` must have the shape {shape}, got {tuple(value.shape)}.")
    if not value.isfinite().all():
        raise ValueError(f"`{name}` must hold finite numbers, got NaN or infinite ones.")
    return value.detach().float()
