"""Where the class token and the representation tokens look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..tuner.outputs import MMRLOutput
from ..tuner.peft_model import PeftModelForZeroShotImageClassification


LAYERS = 1  # the last adapted one gives the states that the features are made of; more are averaged


def attention_maps(
    model: PeftModelForZeroShotImageClassification, pixel_values: torch.Tensor, layers: int = LAYERS
) -> torch.Tensor:
    """The maps of `answer_and_look` alone."""
    return answer_and_look(model, pixel_values, layers)[1]


@torch.no_grad()
def answer_and_look(
    model: PeftModelForZeroShotImageClassification, pixel_values: torch.Tensor, layers: int = LAYERS
) -> tuple[MMRLOutput, torch.Tensor]:
    """An answer, and the attention of the class token and of each representation token to the patches of pictures.

    It is the softmax of queries times keys, averaged over heads and the last adapted vision layers, and divided by its
    sum over the patches. Queries and keys are taken by hooks, for which the short cuts step aside: the answer is that
    of a pass without them up to rounding. Attention says where a token takes its state from, not why.

    Args:
        model: in eval mode.
        pixel_values: B pictures (B, channels, height, width), on the model's device.
        layers: number of layers.

    Returns:
        the model's output, and maps (B, 1 + K, rows, columns), fp32, each with sum 1: that of the class token, then
        those of the K representation tokens, of which there are none where only frozen CLIP runs.

    Raises:
        ValueError: the vision encoder's layers have no `self_attn` with `q_proj` and `k_proj`.
    """
    tower, config = model.get_base_model().vision_model, model.active_peft_config
    wanted = tower.layers_of(config, tower.base_layer)[-layers:]
    parts = [tower.layers[index].self_attn for index in wanted if hasattr(tower.layers[index], "self_attn")]
    if len(parts) != len(wanted) or not all(hasattr(part, name) for part in parts for name in ("q_proj", "k_proj")):
        raise ValueError(f"attention of {type(tower.base_layer).__name__} cannot be shown: its layers are not CLIP's.")
    with _recorded(parts) as seen:
        output = model(pixel_values=pixel_values)
    size = tower.config.patch_size
    rows, columns = (length // size for length in pixel_values.shape[-2:])
    maps = [_weights(part, *seen[part], rows * columns) for part in parts]
    mean = torch.stack(maps).mean(dim=0)  # (B, 1 + K, patches)
    return output, (mean / mean.sum(dim=-1, keepdim=True)).unflatten(-1, (rows, columns))


@contextmanager
def _recorded(parts: list[nn.Module]) -> Iterator[dict[nn.Module, list[torch.Tensor]]]:
    """Queries and keys (B, n, d) of the first call of each attention: of the adapted pass, where there is one."""
    seen: dict[nn.Module, list[torch.Tensor]] = {part: [] for part in parts}

    def keep(part: nn.Module) -> Any:
        def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            if len(seen[part]) < 2:
                seen[part].append(output)

        return hook

    hooks = [getattr(part, name).register_forward_hook(keep(part)) for part in parts for name in ("q_proj", "k_proj")]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _weights(part: nn.Module, first: torch.Tensor, second: torch.Tensor, patches: int) -> torch.Tensor:
    """Attention of all positions before the patches to the patches (B, 1 + K, patches)."""
    queries, keys = (rows.float().unflatten(-1, (part.num_heads, -1)).transpose(1, 2) for rows in (first, second))
    before = keys.shape[2] - patches
    scores = queries[:, :, :before] @ keys.transpose(-1, -2) * part.scale
    return scores.softmax(dim=-1)[..., before:].mean(dim=1)
