"""Turns checkpoints of the papers' own code (`model.pth.tar-N`) into PEFT adapter folders.

Such a file holds the whole adapted CLIP, an optimizer and a pickled scheduler; layers, alpha, lambda, beta, template
and class names are not in it. The frozen CLIP is left out: the base model is named by an argument. The papers' code
cleans prompts with ftfy and `html.unescape` before its tokenizer, so names with HTML entities, curly quotes or
ligatures have other token ids there; here they have those of transformers' tokenizer.
"""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

import torch
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file

from .checkpoint_file import load_inert
from .tuner.classes import bind_classes
from .tuner.config import MMRLConfig, adapted_layers
from .tuner.layer import Aligner, RepProjection, RepTokens, ResidualRepProjection, SharedResidualAligner
from .tuner.loading import load_prompt_tokenizer
from .tuner.names import clean_names, describe_equal_names
from .tuner.validation import as_number


LEARNER = "representation_learner"
REP_TOKENS = f"{LEARNER}.compound_rep_tokens"
TOWERS = {"vision": "v", "text": "t"}  # the letter of each tower in the checkpoint's names


def convert_checkpoint(
    checkpoint: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    base_model_name_or_path: str,
    classes: list[str],
    template: str | list[str],
    vision_layers: list[int] | None = None,
    text_layers: list[int] | None = None,
    alpha: float = 0.7,
    reg_weight: float = 0.5,
    beta: float | None = None,
) -> None:
    """Write the adapter that a checkpoint of the papers' code holds, MMRL or MMRL++.

    Nothing in the file is executed, and it may have been saved on a GPU. The trained prompts' token ids are made with
    the base model's tokenizer; where that is not at hand, the loaded adapter asks for `set_classes(processor=...)`.

    Args:
        checkpoint: the file, `model.pth.tar-N`.
        output_dir: folder to write; load it with `PeftModel.from_pretrained(clip, output_dir)`.
        base_model_name_or_path: the CLIP that was adapted, as a Hub name or path.
        classes: names of the trained classes, in the order of their labels.
        template: prompt template of the training, such as "a photo of a {}.".
        vision_layers: 0-based adapted layers (the paper counts from 1); None: the last 7 of 12, scaled.
        text_layers: the same for the text encoder.
        alpha: weight of the class feature in training.
        reg_weight: weight of the regularisation terms (lambda) in training.
        beta: MMRL++'s composition weight; required for MMRL++, 1 for MMRL.

    Raises:
        ValueError: not such a checkpoint, or one that the arguments do not fit.
        OSError: the file cannot be read.
    """
    state = read_state_dict(checkpoint)
    is_plus_plus = f"{LEARNER}.srra_r2vproj.weight" in state
    rep_tokens = _take(state, REP_TOKENS, checkpoint)
    weights = {"text_model.mmrl_rep_tokens.weight": rep_tokens}
    for tower in TOWERS:
        weights |= _aligner(state, tower, is_plus_plus, checkpoint)
    projection = {"A": "A", "B": "B"} if is_plus_plus else {"weight": "proj_rep"}
    for leaf, name in projection.items():
        weights[f"vision_model.mmrl_rep_projection.{leaf}"] = _take(state, f"image_encoder.{name}", checkpoint)
    _check_shapes(weights, is_plus_plus, checkpoint)

    if is_plus_plus and beta is None:
        raise ValueError("`beta` must be given: the checkpoint is of MMRL++, whose beta is not in the file.")
    if not is_plus_plus and beta not in (None, 1):
        raise ValueError(f"`beta` must be 1 or left out for a checkpoint of MMRL, got {beta!r}.")
    layers = {"vision": vision_layers, "text": text_layers}
    config = MMRLConfig(
        num_rep_tokens=rep_tokens.shape[0],
        rep_dim=rep_tokens.shape[1],
        vision_layers=vision_layers,
        text_layers=text_layers,
        alpha=alpha,
        reg_weight=reg_weight,
        beta=1.0 if beta is None else as_number("beta", beta, 0, 1),
        aligner_rank=weights["vision_model.mmrl_aligner.A"].shape[2] if is_plus_plus else None,
        proj_rank=weights["vision_model.mmrl_rep_projection.A"].shape[1] if is_plus_plus else None,
        template=template,
        base_model_name_or_path=os.fspath(base_model_name_or_path),
        inference_mode=True,
    )
    for tower, given in layers.items():
        found = len(weights[f"{tower}_model.mmrl_aligner.bias"])
        _check_layers(tower, getattr(config, f"{tower}_layers"), given, found, state)
    config = _with_classes(config, classes)

    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"base_model.model.{name}": tensor.float().contiguous() for name, tensor in weights.items()}
    save_file(tensors, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
    config.save_pretrained(str(folder))


def read_state_dict(checkpoint: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The `state_dict` of a checkpoint, on the CPU, without the `module.` prefix of several-GPU runs.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is not such a checkpoint.
    """
    try:
        content = load_inert(checkpoint)
    except ValueError as error:
        raise ValueError(f"{checkpoint} is not a checkpoint of the papers' code: torch cannot read it.") from error
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise ValueError(f"{checkpoint} is not a checkpoint of the papers' code: it has no `state_dict`.")
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def _take(state: dict[str, torch.Tensor], name: str, checkpoint: str | os.PathLike[str]) -> torch.Tensor:
    if name not in state:
        raise ValueError(f"{checkpoint} is not a checkpoint of MMRL or MMRL++: `{name}` is missing.")
    tensor = state[name]
    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point() or not tensor.ndim:
        raise ValueError(f"{checkpoint}: `{name}` must be a dense tensor of floats.")
    return tensor


def _check_shapes(weights: dict[str, torch.Tensor], is_plus_plus: bool, checkpoint: str | os.PathLike[str]) -> None:
    """Raise where the sizes of the tensors contradict each other."""

    def last(name: str) -> int:
        return weights[name].shape[-1]

    num_tokens, rep_dim = len(weights["text_model.mmrl_rep_tokens.weight"]), last("text_model.mmrl_rep_tokens.weight")
    with torch.device("meta"):
        modules = {"text_model.mmrl_rep_tokens": RepTokens(num_tokens, rep_dim)}
        for tower in TOWERS:
            name = f"{tower}_model.mmrl_aligner"
            sizes = len(weights[f"{name}.bias"]), rep_dim, last(f"{name}.bias")
            modules[name] = SharedResidualAligner(*sizes, last(f"{name}.A")) if is_plus_plus else Aligner(*sizes)
        name, width = "vision_model.mmrl_rep_projection", last("vision_model.mmrl_aligner.bias")
        if is_plus_plus:
            modules[name] = ResidualRepProjection(width, last(f"{name}.B"), last(f"{name}.A"))
        else:
            modules[name] = RepProjection(width, last(f"{name}.weight"))
    for name, module in modules.items():
        for leaf, parameter in module.named_parameters():
            found = tuple(weights[f"{name}.{leaf}"].shape)
            if found != tuple(parameter.shape):
                raise ValueError(
                    f"{checkpoint}: the sizes in it contradict each other: {name}.{leaf} would be {found}, should be "
                    f"{tuple(parameter.shape)}."
                )


def _aligner(
    state: dict[str, torch.Tensor], tower: str, is_plus_plus: bool, checkpoint: str | os.PathLike[str]
) -> dict[str, torch.Tensor]:
    """A tower's aligner, the maps of its L adapted layers stacked."""
    if is_plus_plus:
        shared = f"{LEARNER}.srra_r2{TOWERS[tower]}proj"
        prefix, leaves = f"{shared}.srra", ("A", "B", "bias")
        weights = {f"{tower}_model.mmrl_aligner.weight": _take(state, f"{shared}.weight", checkpoint)}
    else:
        prefix, leaves = f"{REP_TOKENS}_r2{TOWERS[tower]}proj", ("weight", "bias")
        weights = {}
    num_layers = max(1, _count(state, rf"{re.escape(prefix)}\.(\d+)\.bias"))
    for leaf in leaves:
        layers = [_take(state, f"{prefix}.{i}.{leaf}", checkpoint) for i in range(num_layers)]
        if len({layer.shape for layer in layers}) > 1:
            raise ValueError(f"{checkpoint}: the layers of `{prefix}.*.{leaf}` have different sizes.")
        weights[f"{tower}_model.mmrl_aligner.{leaf}"] = torch.stack(layers)
    return weights


def _count(state: dict[str, torch.Tensor], pattern: str) -> int:
    """One more than the largest index that a name of this pattern holds; 0 where there is none."""
    matches = (re.match(pattern, name) for name in state)
    return max((int(match[1]) + 1 for match in matches if match), default=0)


def _check_layers(
    tower: str, layers: list[int] | None, given: list[int] | None, found: int, state: dict[str, torch.Tensor]
) -> None:
    encoder = {"vision": "image_encoder", "text": "text_encoder"}[tower]
    depth = _count(state, rf"{encoder}\.transformer\.resblocks\.(\d+)\.")
    field = f"{tower}_layers"
    if layers is not None or depth:
        layers = adapted_layers(layers, depth or layers[-1] + 1, field)
        if len(layers) != found:
            how = f"`{field}`={given} names" if given is not None else f"`{field}` is left out, which means"
            raise ValueError(f"The checkpoint has {found} adapted {tower} layers, but {how} {len(layers)}: {layers}.")


def _with_classes(config: MMRLConfig, classes: list[str]) -> MMRLConfig:
    """The config with its trained classes, and their token ids where the base model's tokenizer is at hand."""
    base = config.base_model_name_or_path
    try:
        tokenizer = load_prompt_tokenizer(base)
    except OSError:
        tokenizer = None
    # Lists of the field have the same name twice (ImageNet's), so duplicates are accepted.
    if equal := describe_equal_names(clean_names(classes), tokenizer):
        warnings.warn(
            f"Classes with the same name: {equal}. The adapter keeps each, but a name is all that it tells classes "
            "apart by, so their scores are equal; `peft-mmrl predict` and `evaluate` take them for one class.",
            stacklevel=3,
        )
    if tokenizer is None:
        warnings.warn(
            f"No tokenizer and config were found for {base!r}: the adapter is written without token ids, call "
            "`set_classes(processor=...)` after loading it.",
            stacklevel=3,
        )
        config.classes = clean_names(classes)
        return config
    return bind_classes(config, tokenizer.text_config, classes, tokenizer.tokenizer, allow_duplicates=True)[1]
