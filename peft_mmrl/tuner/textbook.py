"""MMRL and MMRL++ as the papers write them, top to bottom, on a plain `CLIPModel`.

This is the definition that the tests hold the product against, and the baseline of the benchmark. It does what the
papers' code does: a second pass through frozen CLIP, and every prompt, however padded, through every layer. Nothing
here is fast, and nothing of the product's towers is used.

It fits every model whose text encoder is CLIP's; `encode_text` takes the place of that.

Symbols: R the representation space (K, d_r); T_i = F_i(R) the tokens of adapted layer i; f_c, f_r class and
representation feature of an image, w text feature of a class; f_0, w_0 the same of frozen CLIP; s = exp(logit_scale).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, normalize, one_hot
from transformers import CLIPModel

from .config import MMRLConfig, adapted_layers
from .towers.backbones import eos_index


def textbook_forward(
    clip: CLIPModel,
    config: MMRLConfig,
    weights: dict[str, torch.Tensor],
    input_ids: torch.Tensor,
    pixel_values: torch.Tensor,
    labels: torch.Tensor | None = None,
    encode_text: Callable[..., torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """Logits, features and loss for B images and C classes.

    Args:
        clip: plain CLIP, frozen.
        config: the adapter's config.
        weights: trained parameters, as `textbook_weights` names them.
        input_ids: class prompts (C, n), padded to any length.
        pixel_values: (B, channels, height, width).
        labels: (B,) class indices; without them no loss.
        encode_text: called as `text_encoder`, in its place.

    Returns:
        `class_logits`, `rep_logits`, `fused_logits` (B, C); `image_features`, `rep_image_features`,
        `frozen_image_features` (B, d) and `text_features`, `frozen_text_features` (C, d), all normalised; `loss` and
        its unweighted terms `loss_class`, `loss_rep`, `loss_image_reg`, `loss_text_reg`.
    """
    beta = config.beta
    encode_text = encode_text or text_encoder
    f_c, tokens = vision_encoder(clip, pixel_values, config, tokens_of(weights, "vision_aligner"), beta)
    w = encode_text(clip, input_ids, config, tokens_of(weights, "text_aligner"), beta)
    with torch.no_grad():
        f_0, _ = vision_encoder(clip, pixel_values, config, None, beta)
        w_0 = encode_text(clip, input_ids, config, None, beta)

    # Representation projection: P_r (MMRL), or P_v + A B (MMRL++).
    p_r = weights.get("rep_projection")
    if p_r is None:
        p_r = clip.visual_projection.weight.T + weights["rep_projection.A"] @ weights["rep_projection.B"]
    f_r = normalize(tokens.mean(dim=1) @ p_r, dim=-1)

    s = clip.logit_scale.exp()
    alpha = config.alpha
    out = {
        "class_logits": s * f_c @ w.T,
        "rep_logits": s * f_r @ w.T,
        "image_features": f_c,
        "rep_image_features": f_r,
        "text_features": w,
        "frozen_image_features": f_0,
        "frozen_text_features": w_0,
    }
    out["fused_logits"] = alpha * out["class_logits"] + (1 - alpha) * out["rep_logits"]
    if labels is not None:
        out["loss_class"] = smoothed_cross_entropy(out["class_logits"], labels, config)
        out["loss_rep"] = smoothed_cross_entropy(out["rep_logits"], labels, config)
        out["loss_image_reg"] = 1 - (f_c * f_0).sum(dim=-1).mean()
        out["loss_text_reg"] = 1 - (w * w_0).sum(dim=-1).mean()
        out["loss"] = (
            alpha * out["loss_class"]
            + (1 - alpha) * out["loss_rep"]
            + config.reg_weight * (out["loss_image_reg"] + out["loss_text_reg"])
        )
    return out


def smoothed_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, config: MMRLConfig) -> torch.Tensor:
    """- mean over images of sum_c v_c q_c log p_c, with q = (1 - e) onehot(y) + e / C.

    In the papers e, the label smoothing, is 0 and v, the classes' weights, are 1.
    """
    num_classes = logits.shape[1]
    q = (1 - config.label_smoothing) * one_hot(labels, num_classes).to(logits) + config.label_smoothing / num_classes
    v = logits.new_tensor(config.class_weight or [1.0] * num_classes)
    return -(v * q * log_softmax(logits, dim=1)).sum(dim=1).mean()


def tokens_of(weights: dict[str, torch.Tensor], aligner: str) -> list[torch.Tensor]:
    """T_i = F_i(R) (K, d_out) of each adapted layer; F_i(x) = W_i x + b_i, or (W + A_i B_i) x + b_i."""
    tokens = []
    while f"{aligner}.{len(tokens)}.bias" in weights:
        prefix = f"{aligner}.{len(tokens)}"
        if f"{prefix}.weight" in weights:
            matrix = weights[f"{prefix}.weight"]
        else:
            matrix = weights[f"{aligner}.shared_weight"] + weights[f"{prefix}.A"] @ weights[f"{prefix}.B"]
        tokens.append(weights["rep_tokens"] @ matrix.T + weights[f"{prefix}.bias"])
    return tokens


def vision_encoder(
    clip: CLIPModel,
    pixel_values: torch.Tensor,
    config: MMRLConfig,
    tokens: list[torch.Tensor] | None,
    beta: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (B, ...) -> normalised class features (B, d) and the K normalised output tokens (B, K, d_v)."""
    tower = clip.vision_model
    layers = adapted_layers(config.vision_layers, len(tower.encoder.layers), "vision_layers")
    hidden = tower.pre_layrnorm(tower.embeddings(pixel_values))
    hidden = run_layers(tower.encoder.layers, hidden, layers, tokens, beta)
    num_tokens = len(tokens[0]) if tokens else 0
    hidden = tower.post_layernorm(hidden)
    return normalize(clip.visual_projection(hidden[:, 0]), dim=-1), hidden[:, 1 : 1 + num_tokens]


def text_encoder(
    clip: CLIPModel, input_ids: torch.Tensor, config: MMRLConfig, tokens: list[torch.Tensor] | None, beta: float
) -> torch.Tensor:
    """Prompts (C, n) -> normalised text features (C, d)."""
    tower = clip.text_model
    layers = adapted_layers(config.text_layers, len(tower.encoder.layers), "text_layers")
    hidden = run_layers(tower.encoder.layers, tower.embeddings(input_ids), layers, tokens, beta, causal_mask)
    eos = eos_index(input_ids, tower.config) + (len(tokens[0]) if tokens else 0)
    pooled = tower.final_layer_norm(hidden)[torch.arange(len(input_ids)), eos]
    return normalize(clip.text_projection(pooled), dim=-1)


def run_layers(
    encoder_layers: torch.nn.ModuleList,
    hidden: torch.Tensor,
    layers: list[int],
    tokens: list[torch.Tensor] | None,
    beta: float,
    make_mask: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """All encoder layers; before adapted layer i the tokens T_i are put behind the first token.

    At the first adapted layer they are inserted, later they take the place of the K tokens there; with MMRL++ they
    are beta T_i + (1 - beta) of those. `make_mask` gives what attention adds to its scores, from the states.
    """
    for i, layer in enumerate(encoder_layers):
        if tokens and i in layers:
            t_i = tokens[layers.index(i)].expand(len(hidden), -1, -1)  # (B, K, d)
            k = t_i.shape[1]
            if i == layers[0]:
                hidden = torch.cat([hidden[:, :1], t_i, hidden[:, 1:]], dim=1)
            else:
                t_i = beta * t_i + (1 - beta) * hidden[:, 1 : 1 + k]
                hidden = torch.cat([hidden[:, :1], t_i, hidden[:, 1 + k :]], dim=1)
        hidden = layer(hidden, make_mask(hidden) if make_mask else None)
    return hidden


def causal_mask(hidden: torch.Tensor) -> torch.Tensor:
    """Very negative where a token would see a later one, else 0; (1, 1, n, n)."""
    n = hidden.shape[1]
    mask = torch.full((1, 1, n, n), torch.finfo(hidden.dtype).min, dtype=hidden.dtype, device=hidden.device)
    return mask.triu(diagonal=1)


def textbook_weights(model: PeftModel, adapter: str = "default") -> dict[str, torch.Tensor]:
    """An adapter's parameters under the names of this module, layer by layer; gradients reach the parameters.

    `rep_tokens`; MMRL: `{vision,text}_aligner.{i}.weight`, `.bias`, `rep_projection`; MMRL++:
    `{vision,text}_aligner.shared_weight`, `.{i}.A`, `.{i}.B`, `.{i}.bias`, `rep_projection.A`, `.B`.
    """
    clip = model.get_base_model()
    weights = {"rep_tokens": clip.text_model.mmrl_rep_tokens[adapter].weight}
    for tower_name in ("vision", "text"):
        aligner = getattr(clip, f"{tower_name}_model").mmrl_aligner[adapter]
        for leaf, parameter in aligner.named_parameters():
            if leaf == "weight" and parameter.ndim == 2:
                weights[f"{tower_name}_aligner.shared_weight"] = parameter
                continue
            for i, layer in enumerate(parameter):
                weights[f"{tower_name}_aligner.{i}.{leaf}"] = layer
    for leaf, parameter in clip.vision_model.mmrl_rep_projection[adapter].named_parameters():
        weights["rep_projection" if leaf == "weight" else f"rep_projection.{leaf}"] = parameter
    return weights


# --- the decision: which class, where trained and new ones compete -----------------------------------------------


def textbook_decision(
    fitted: dict[str, Tensor],
    rows: list[int | None],
    f_0: Tensor,
    w_0: Tensor,
    class_logits: Tensor,
    rep_logits: Tensor,
    s: Tensor,
    alpha: float,
    o: float,
) -> Tensor:
    """Logits (B, C) of trained and new classes on one scale; their softmax gives probabilities.

    Without training the features of frozen CLIP take the place of the adapter's: z in both places of the logits.

    Args:
        fitted: what `textbook_fit` gives.
        rows: for each class its row in there; None for a new one.
        f_0, w_0: (B, d) and (C, d), of frozen CLIP.
        class_logits, rep_logits: (B, C).
        s: scale of the logits.
        alpha: weight of the class logits among trained classes.
        o: weight of zero-shot logits against class logits.
    """
    z = s * f_0 @ w_0.T
    g = o * z + (1 - o) * class_logits  # by the text
    trained = [k for k, row in enumerate(rows) if row is not None]
    if not trained:
        return g
    b_of, e_of = {}, {}
    for k in trained:
        fused = alpha * class_logits[:, k] + (1 - alpha) * rep_logits[:, k]
        fused = fitted["q"] * z[:, k] + (1 - fitted["q"]) * fused
        b_of[k] = fused + f_0 @ fitted["W"][rows[k]] + fitted["c"][rows[k]]  # which of the trained classes
        prototype = fitted["a"] * s * f_0 @ fitted["M"][rows[k]] + fitted["b"]
        e_of[k] = (1 - fitted["w"]) * g[:, k] + fitted["w"] * prototype  # whether it is a trained class at all
    all_b = torch.stack([b_of[k] for k in trained]).exp().sum(dim=0)
    all_e = torch.stack([e_of[k] for k in trained]).exp().sum(dim=0)
    logits = g.clone()
    for k in trained:
        logits[:, k] = (b_of[k].exp() / all_b * all_e).log()
    return logits


def textbook_fit(f_0: Tensor, w_0: Tensor, y: Tensor, s: Tensor) -> dict[str, Tensor]:
    """What the decision knows of the trained classes, from N pictures (N, d) with labels y and C classes (C, d).

    Returns:
        W (C, d), c (C,), M (C, d) and the numbers a, b, w, q.
    """
    num_classes, n = len(w_0), y.bincount(minlength=len(w_0))
    z = s * f_0 @ w_0.T
    own = one_hot(y, num_classes).bool()
    m = torch.stack([f_0[y == k].mean(dim=0) for k in range(num_classes)])
    fitted = {"W": 0 * w_0, "c": 0 * w_0[:, 0], "M": m, **{name: torch.zeros(()).to(s) for name in "abw"}}
    fitted["q"] = torch.tensor(1 / max(2, len(y) / num_classes)).to(s)  # few pictures: not by trained features alone
    if num_classes == 1:
        return fitted

    # Probe: logistic regression on f_0, times the k that is best in cross-validation beside z.
    losses = {k: 0.0 for k in (0, 0.5, 1, 2)}
    fold = torch.full_like(y, -1)  # the only picture of a class is never held out
    folds = min(5, int(n[n > 1].min())) if n.max() > 1 else 0
    for k in (n > 1).nonzero().flatten():  # a class's pictures in the order of their zero-shot logit: alike folds
        fold[(y == k).nonzero().flatten()[z[y == k, k].argsort()]] = torch.arange(int(n[k])) % folds
    for i in range(folds):
        out = fold == i
        weight, bias = textbook_probe(f_0[~out], y[~out], num_classes)
        for k in losses:
            losses[k] += cross_entropy(z[out] + k * (f_0[out] @ weight.T + bias), y[out], reduction="sum").item()
    k = min(losses, key=losses.get) if folds else 0.5
    weight, bias = textbook_probe(f_0, y, num_classes)
    fitted |= {"W": k * weight, "c": k * bias}

    # Prototypes: their logits on the scale of z, and how much they are worth, leaving out the picture itself.
    h = s * f_0 @ m.T
    several = n[y] > 1
    for i in several.nonzero().flatten():
        h[i, y[i]] = s * f_0[i] @ (n[y[i]] * m[y[i]] - f_0[i]) / (n[y[i]] - 1)
    h_true, h_wrong = h[own][several].mean(), h[~own].mean()
    if not several.any() or h_true <= h_wrong:
        return fitted
    a = ((z[own].mean() - z[~own].mean()) / (h_true - h_wrong)).clamp(0, 10)
    b = z[own].mean() - a * h_true
    allowed = [g for g in (0, 0.25, 0.5) if g == 0 or (a > 0 and g <= (several.sum() - 4) / 8)]
    scores = {g: ((1 - g) * z + g * (a * h + b)).log_softmax(dim=1)[own][several] for g in allowed}
    best = max(scores.values(), key=lambda score: score.mean())
    error = {g: (best - score).std(correction=0) / len(score) ** 0.5 for g, score in scores.items()}
    w = min(g for g, score in scores.items() if (best - score).mean() <= error[g])
    return fitted | {"a": a, "b": b, "w": torch.tensor(float(w)).to(s)}


def textbook_probe(f: Tensor, y: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """W (C, d) and c (C,) that minimise 10 sum CE(W f + c, y) + |W|^2 / 2, c then centred."""
    weight = f.new_zeros(num_classes, f.shape[1], requires_grad=True)
    bias = f.new_zeros(num_classes, requires_grad=True)
    options = {"max_iter": 5000, "tolerance_grad": 1e-10, "tolerance_change": 0, "line_search_fn": "strong_wolfe"}
    optimizer = torch.optim.LBFGS([weight, bias], **options)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = 10 * cross_entropy(f @ weight.T + bias, y, reduction="sum") + weight.square().sum() / 2
        value.backward()
        return value

    optimizer.step(loss)
    return weight.detach(), bias.detach() - bias.detach().mean()
