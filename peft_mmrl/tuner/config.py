"""The configuration of MMRL and MMRL++: what a user chooses, and what is saved with a trained adapter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from peft import PeftConfig, PeftType, TaskType

from .registration import PEFT_TYPE, TASK_TYPE, extend_peft_enums
from .validation import (
    InvalidTypeError,
    as_fit,
    as_layers,
    as_list,
    as_number,
    as_positive_int,
    as_templates,
    as_value_range,
    as_weights,
)


# The config's own fields are members of these enums, so they must exist before the first config is made.
extend_peft_enums()


def refuse_offload(ephemeral_gpu_offload: bool) -> None:
    """Raise a ValueError where PEFT's `ephemeral_gpu_offload` is asked for, which only LoRA has."""
    if ephemeral_gpu_offload:
        raise ValueError("`ephemeral_gpu_offload` is not supported by MMRL, load the adapter without it.")


class _RuntimeConfig:
    """Where `PeftModel.from_pretrained`, and nothing else in PEFT, writes whether it was asked for offloading.

    Args:
        config: the config that it is about to make a model of.
    """

    def __init__(self, config: MMRLConfig) -> None:
        self._config = config

    @property
    def ephemeral_gpu_offload(self) -> bool:
        return False

    @ephemeral_gpu_offload.setter
    def ephemeral_gpu_offload(self, value: bool) -> None:
        refuse_offload(value)
        self._config._weights_follow = True


def weights_follow(config: PeftConfig) -> bool:
    """Whether `PeftModel.from_pretrained` makes a model of this config and loads its weights next."""
    return getattr(config, "__dict__", {}).pop("_weights_follow", False)  # it holds for one model


@dataclass
class MMRLConfig(PeftConfig):
    """
    Configuration of [`MMRLModel`]. `MMRLConfig()` is MMRL (https://huggingface.co/papers/2503.08497),
    [`MMRLConfig.plus_plus`] is MMRL++ (https://huggingface.co/papers/2505.10088).

    Symbols in brackets are those of the papers. `alpha`, `beta`, `reg_weight`, `label_smoothing`, `class_weight` and
    `zero_shot_weight` are read at every forward pass and may be changed on a trained adapter.

    Args:
        num_rep_tokens (`int`, defaults to 5):
            Number of representation tokens (K) in the shared representation space R.
        rep_dim (`int`, defaults to 512):
            Width of the representation space (d_r).
        vision_layers (`list[int]`, *optional*):
            0-based indices of the vision encoder's layers that receive representation tokens (the papers' layers
            J..L, counted from 1 there). May have gaps; taken in ascending order. `None`: the last 7 of 12 layers,
            scaled to the tower's depth.
        text_layers (`list[int]`, *optional*):
            The same for the text encoder.
        alpha (`float`, defaults to 0.7):
            Weight of the class feature against the representation feature in loss and fused logits (alpha), 0 to 1.
        reg_weight (`float`, defaults to 0.5):
            Weight of the terms that keep class and text features close to frozen CLIP (lambda), at least 0.
        label_smoothing (`float`, defaults to 0.0):
            Share of the target that both cross entropies spread evenly over all classes, at least 0 and below 1.
        class_weight (`list[float]`, *optional*):
            Positive weight of each trained class, in their order, in both cross entropies; classes that were not
            trained weigh 1. A cross entropy is the mean over pictures of weight x loss, not divided by the batch's
            weights (`torch.nn.CrossEntropyLoss` divides, which undoes most of the weighting in small batches), so
            gradient accumulation stays exact. Weights with a mean of 1 over the training pictures keep the balance
            with `reg_weight`.
        zero_shot_weight (`float`, defaults to 0.5):
            Where a decision is fitted (`fit_decision`): weight of zero-shot logits against class logits of new
            classes, 0 to 1. With 1 new classes are scored as by frozen CLIP.
        aligner_rank (`int`, *optional*):
            MMRL++: rank r of the per-layer residuals of the shared-residual aligner. `None`: one full affine map
            F_i per layer, as in MMRL.
        beta (`float`, defaults to 1.0):
            MMRL++: weight of a layer's own tokens against those that the layer before put out (progressive
            composition, beta), 0 to 1. 1 is MMRL.
        proj_rank (`int`, *optional*):
            MMRL++: rank of the residual on the frozen visual projection that forms the representation projection
            P_r. `None`: a full trained P_r, as in MMRL.
        classes (`list[str]`, *optional*):
            Names of the classes that the adapter was trained on, set by the first `set_classes`.
        template (`str` or `list[str]`, defaults to `"a photo of a {}."`):
            Prompt template(s) of the trained classes; `{}` stands for the class name.
        class_input_ids (`list[list[str]]`, *optional*):
            Per template one blank-separated string of token ids per trained class, so that a loaded adapter
            classifies without a tokenizer. Means nothing without `classes`.
        fit (`str`, *optional*):
            How pictures that are not of the base model's shape became `pixel_values` in training: "crop" (their
            middle), "pad" or "squeeze", see [`~peft_mmrl.Preprocessing`]. `None`: as the base model's image processor
            does it.
        value_range (`list[float]`, *optional*):
            The two values that became black and white in grey pictures of more than 8 bits. `None`: the range of
            their type.
        base_fingerprint (`str`, *optional*):
            Digest of the base model that the adapter was saved with, set by `save_pretrained`. Loading it on another
            base of the same sizes warns.

    Example:

        ```py
        >>> from transformers import CLIPModel
        >>> from peft import get_peft_model
        >>> from peft_mmrl import MMRLConfig

        >>> clip = CLIPModel.from_pretrained("openai/clip-vit-base-patch16")
        >>> model = get_peft_model(clip, MMRLConfig(reg_weight=3.0))
        ```
    """

    num_rep_tokens: int = field(default=5, metadata={"help": "Number of representation tokens (K)."})
    rep_dim: int = field(default=512, metadata={"help": "Width of the representation space (d_r)."})
    vision_layers: list[int] | None = field(
        default=None,
        metadata={"help": "0-based vision layers with representation tokens; None: the last 7 of 12, scaled."},
    )
    text_layers: list[int] | None = field(
        default=None,
        metadata={"help": "0-based text layers with representation tokens; None: the last 7 of 12, scaled."},
    )
    alpha: float = field(default=0.7, metadata={"help": "Weight of the class feature (alpha), 0 to 1."})
    reg_weight: float = field(default=0.5, metadata={"help": "Weight of the regularisation terms (lambda)."})
    label_smoothing: float = field(
        default=0.0, metadata={"help": "Share of the target spread over all classes in both cross entropies."}
    )
    class_weight: list[float] | None = field(
        default=None, metadata={"help": "Weight of each trained class in both cross entropies; None: 1."}
    )
    zero_shot_weight: float = field(
        default=0.5, metadata={"help": "Weight of zero-shot logits of new classes where a decision is fitted, 0 to 1."}
    )
    aligner_rank: int | None = field(
        default=None, metadata={"help": "MMRL++: rank r of the shared-residual aligner; None: full maps (MMRL)."}
    )
    beta: float = field(default=1.0, metadata={"help": "MMRL++: weight of a layer's own tokens (beta), 0 to 1."})
    proj_rank: int | None = field(
        default=None, metadata={"help": "MMRL++: rank of the representation projection; None: full (MMRL)."}
    )
    classes: list[str] | None = field(default=None, metadata={"help": "Names of the trained classes."})
    template: str | list[str] = field(
        default="a photo of a {}.", metadata={"help": "Prompt template(s) of the trained classes."}
    )
    class_input_ids: list[list[str]] | None = field(
        default=None, metadata={"help": "Token ids of the trained prompts, a string per class and template."}
    )
    fit: str | None = field(
        default=None, metadata={"help": "How pictures were made to fit: crop, pad or squeeze; None: as the base does."}
    )
    value_range: list[float] | None = field(
        default=None, metadata={"help": "What is black and white in grey of more than 8 bits; None: its type's range."}
    )
    base_fingerprint: str | None = field(
        default=None, metadata={"help": "Digest of the base model, set when the adapter is saved."}
    )

    # PEFT reads this from every config. It is no field: MMRL always adapts both towers.
    target_modules = None

    @property
    def runtime_config(self) -> _RuntimeConfig:
        """What `PeftModel.from_pretrained` writes into, see there."""
        return _RuntimeConfig(self)

    def __post_init__(self) -> None:
        self.peft_type = PeftType(PEFT_TYPE)
        self.task_type = TaskType(TASK_TYPE)
        super().__post_init__()
        self.num_rep_tokens = as_positive_int("num_rep_tokens", self.num_rep_tokens)
        self.rep_dim = as_positive_int("rep_dim", self.rep_dim)
        for name in ("aligner_rank", "proj_rank"):
            if getattr(self, name) is not None:
                setattr(self, name, as_positive_int(name, getattr(self, name)))
        for name in ("vision_layers", "text_layers"):
            if getattr(self, name) is not None:
                setattr(self, name, as_layers(name, getattr(self, name)))
        self.fit = as_fit(self.fit)
        ends = as_value_range("value_range", self.value_range)
        self.value_range = None if ends is None else list(ends)  # as JSON gives it back
        self._check_trained_classes()
        self.check_coefficients()

    def check_coefficients(self) -> None:
        """Validate what may be changed between forward passes: `alpha`, `beta`, `reg_weight`, `label_smoothing`,
        `class_weight` and `zero_shot_weight`."""
        self.alpha = as_number("alpha", self.alpha, 0, 1)
        self.beta = as_number("beta", self.beta, 0, 1)
        self.reg_weight = as_number("reg_weight", self.reg_weight, 0)
        self.zero_shot_weight = as_number("zero_shot_weight", self.zero_shot_weight, 0, 1)
        self.label_smoothing = as_number("label_smoothing", self.label_smoothing, 0, below=1)
        if self.class_weight is not None:
            self.class_weight = as_weights("class_weight", self.class_weight)
            self.check_class_weight(self.classes)

    def check_class_weight(self, classes: list[str] | None) -> None:
        """Raise where `class_weight` is not one number for each of `classes`."""
        if None not in (self.class_weight, classes) and len(self.class_weight) != len(classes):
            raise ValueError(
                f"`class_weight` must have one number for each trained class, got {self.class_weight!r} for "
                f"{len(classes)} classes."
            )

    def _check_trained_classes(self) -> None:
        templates = as_templates(self.template)
        self.template = self.template if isinstance(self.template, str) else templates
        if self.classes is None:
            self.class_input_ids = None
            return
        self.classes = as_list("classes", self.classes, "class names")
        for position, name in enumerate(self.classes):
            if isinstance(name, str) and not name.strip():
                raise ValueError(f"`classes` must hold names, the class name at position {position} is empty.")
            if not isinstance(name, str):
                raise InvalidTypeError(
                    f"`classes` must hold strings, the class name at position {position} is {name!r}."
                )
        if self.class_input_ids is None:
            return
        rows = self.class_input_ids
        fits = isinstance(rows, list) and all(isinstance(row, list) for row in rows)
        if not fits or [len(row) for row in rows] != [len(self.classes)] * len(templates):
            raise ValueError(
                f"`class_input_ids` must hold {len(templates)} list(s) (one per template) of {len(self.classes)} "
                f"strings (one per class), got {rows!r}."
            )

    def to_dict(self) -> dict[str, Any]:
        """As in PEFT; token ids are left out where `classes` was set to None."""
        content = super().to_dict()
        if self.classes is None:
            content["class_input_ids"] = None
        return content

    @property
    def templates(self) -> list[str]:
        """`template` as a list."""
        return as_templates(self.template)

    @classmethod
    def plus_plus(cls, **overrides: Any) -> MMRLConfig:
        """MMRL++ with its paper's defaults: `aligner_rank=4`, `beta=0.9`, `proj_rank=64`.

        Args:
            overrides: any field of [`MMRLConfig`].
        """
        return cls(**{"aligner_rank": 4, "beta": 0.9, "proj_rank": 64, **overrides})


def adapted_layers(layers: list[int] | None, depth: int, name: str) -> list[int]:
    """Resolve a config's layer list for a tower of `depth` layers; `None` is the last 7 of 12, scaled.

    Args:
        layers: 0-based, ascending indices, or None.
        depth: number of layers of the tower.
        name: the config field, for the error message.

    Raises:
        ValueError: a layer lies beyond the tower's last one.
    """
    if layers is None:
        return list(range(depth - max(1, (7 * depth + 6) // 12), depth))
    if layers[-1] >= depth:
        raise ValueError(
            f"`{name}` names layer {layers[-1]}, but this base model's tower has {depth} layers (0 to {depth - 1})."
        )
    return layers
