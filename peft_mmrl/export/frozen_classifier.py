"""An adapter on its base model as one module, for a fixed list of classes: pixel values in, probabilities out.

Nothing of the text encoder is in it. The tokens T_i are constants, and so is all that is said of the classes: logits,
fused logits and a decision's sums are affine in the images' features, so they are one matrix.

Symbols as in `tuner/decision.py`; B images, n classes, t of them trained, d the width of the joint space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..tuner.decision import rows_of
from ..tuner.features import normalized, text_features
from ..tuner.forward import State
from ..tuner.peft_model import PeftModelForZeroShotImageClassification
from ..tuner.towers.forward_pass import ForwardPass, LayerTokens
from ..tuner.towers.vision import VisionTower


@dataclass(frozen=True)
class Scores:
    """What the classes get from features (B, m d): columns for classes that are scored alone, then for trained ones
    that a decision weighs, "which of the trained" and "trained or new" of each.

    Args:
        weight: (m d, n + t') where t' is the number of classes that are decided between, with two columns each.
        bias: (n + t').
        num_decided: t'.
        order: the bound classes in the order of the answer, those that are decided between at the end.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    num_decided: int
    order: list[int]


class FrozenClassifier(nn.Module):
    """Images (B, 3, height, width) -> probabilities (B, n) of `classes`, as the model in eval mode gives them.

    Args:
        model: with the classes that are bound to it; in fp32. Its vision encoder is shared, not copied.
        image_size: height and width of the images.

    Raises:
        ValueError: no classes are bound, the adapter is disabled, the images do not fit, or weights are not fp32.
    """

    def __init__(self, model: PeftModelForZeroShotImageClassification, image_size: tuple[int, int]) -> None:
        super().__init__()
        clip = model.eval().get_base_model()
        if {weight.dtype for weight in model.parameters()} != {torch.float32}:
            raise ValueError("`model` must be in fp32 to be exported: load its base model with `dtype=torch.float32`.")
        self.example = torch.zeros(2, 3, *image_size, device=clip.device)
        with torch.no_grad():
            model(pixel_values=self.example)  # raises what is wrong with classes or images
            state = model.state_for(self.example)
            self._take_tower(clip.vision_model, state)
            scores = _scores(model, state, self.with_frozen)
        self.visual_projection = clip.visual_projection
        self.classes = [state.classes.names[position] for position in scores.order]
        self.register_buffer("weight", scores.weight)
        self.register_buffer("bias", scores.bias)
        self.num_decided = scores.num_decided
        self.decides_by = None if state.decision is None else state.decision.features
        self.requires_grad_(False).eval()

    def _take_tower(self, tower: VisionTower, state: State) -> None:
        """The encoder in a tower without adapters, and of the one that is exported its tokens and projection."""
        self.tower = type(tower)(tower.base_layer, {}, tower.architecture, None)
        self.with_frozen = state.decision is not None
        if self.with_frozen and state.decision.features == "frozen":
            self.layers, self.beta = [len(tower.layers) - 1], 1.0  # all but the last layer are trunk
            self.register_buffer("tokens", None)
            return
        tokens = tower.tokens(state.adapter, state.config.beta)
        self.layers, self.beta = tokens.layers, tokens.beta
        self.register_buffer("tokens", tokens.values.clone())
        self.rep_projection = tower.mmrl_rep_projection[state.adapter]

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, height, width) -> probabilities (B, n)."""
        inputs = {"pixel_values": pixel_values, "interpolate_pos_encoding": False}
        trunk = self.tower.run_trunk(inputs, self.layers[0])
        scores = torch.cat(self._features(trunk), dim=1) @ self.weight + self.bias
        decided = self.num_decided
        alone, which, together = scores.split([scores.shape[1] - 2 * decided, decided, decided], dim=1)
        if decided:
            trained = which.log_softmax(dim=1) + together.logsumexp(dim=1, keepdim=True)
            alone = torch.cat([alone, trained], dim=1)
        return alone.softmax(dim=1)

    def _features(self, trunk: torch.Tensor) -> list[torch.Tensor]:
        """Of images whose states enter the first adapted layer: f_c, f_r and f_0 (B, d), as far as they are needed."""
        projection = self.visual_projection
        if self.tokens is None:
            return [normalized(projection(self.tower.frozen_pooled(trunk, self.layers[0])))]
        tokens = LayerTokens(self.tokens, self.layers, self.beta)
        vision = self.tower.pooled_with(trunk, tokens, self.with_frozen)
        features = [projection(vision.pooler_output), self.rep_projection(vision.rep_pooler_output, projection)]
        if self.with_frozen:
            features.append(projection(vision.frozen_pooler_output))
        return [normalized(feature) for feature in features]


def _scores(model: PeftModelForZeroShotImageClassification, state: State, with_frozen: bool) -> Scores:
    """The matrix of all scores; summed in double, since a decision's numbers reach thousands."""
    clip, config, classes, decision = model.get_base_model(), state.config, state.classes, state.decision
    only_frozen = decision is not None and decision.features == "frozen"
    forward_pass = ForwardPass(
        state.adapter, config.beta, is_frozen=only_frozen, with_frozen=with_frozen, with_states=False
    )
    text, frozen_text, _ = text_features(clip, classes, forward_pass)
    scale = clip.logit_scale.exp().double()
    # z, class and representation logits are features (f_c, f_r, f_0) times these, each (m d, n)
    if only_frozen:
        by_zero_shot = by_class = by_rep = scale * text.double().T
    else:
        parts = 3 if with_frozen else 2
        by_class, by_rep = (_in_block(scale * text.double().T, block, parts) for block in range(2))
        by_zero_shot = _in_block(scale * frozen_text.double().T, 2, parts) if with_frozen else None
    fused = config.alpha * by_class + (1 - config.alpha) * by_rep
    seen = list(classes.seen) if config.classes is not None else [False] * len(classes)
    if decision is None:
        weight = torch.where(torch.tensor(seen, device=fused.device), fused, by_class)
        return Scores(weight.float(), weight.new_zeros(len(seen)).float(), 0, list(range(len(seen))))

    rows = rows_of(classes)
    trained = [place for place, row in enumerate(rows) if row >= 0]
    new = [place for place, row in enumerate(rows) if row < 0]
    kept = [rows[place] for place in trained]
    own = config.zero_shot_weight * by_zero_shot + (1 - config.zero_shot_weight) * by_class
    block, parts = (0, 1) if only_frozen else (2, 3)
    probe = _in_block(decision.probe_weight[kept].double().T, block, parts)
    prototypes = _in_block(decision.prototypes[kept].double().T, block, parts)
    share, weight = decision.zero_shot_share, decision.prototype_weight
    which = share * by_zero_shot[:, trained] + (1 - share) * fused[:, trained] + probe
    together = (1 - weight) * own[:, trained] + weight * decision.prototype_scale * scale * prototypes
    bias = [
        which.new_zeros(len(new)),
        decision.probe_bias[kept].double(),
        which.new_full((len(trained),), weight * decision.prototype_shift),
    ]
    matrix = torch.cat([own[:, new], which, together], dim=1)
    return Scores(matrix.float(), torch.cat(bias).float(), len(trained), new + trained)


def _in_block(matrix: torch.Tensor, block: int, parts: int) -> torch.Tensor:
    """A matrix (d, n) as that block of one (parts d, n) which is zero otherwise."""
    blocks: Sequence[torch.Tensor] = [torch.zeros_like(matrix)] * parts
    return torch.cat([matrix if place == block else zeros for place, zeros in enumerate(blocks)])
