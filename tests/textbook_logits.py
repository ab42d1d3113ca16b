"""What the textbook's decision says to pictures, given the numbers that a model has stored."""

import torch
from torch.nn.functional import normalize

from peft_mmrl.tuner.textbook import text_encoder, textbook_decision, textbook_forward, textbook_weights


FITTED = {
    "W": "probe_weight",
    "c": "probe_bias",
    "M": "prototypes",
    "a": "prototype_scale",
    "b": "prototype_shift",
    "w": "prototype_weight",
    "q": "zero_shot_share",
}


def features_by_textbook(plain, model, prompts, images, encode_text=text_encoder):
    """The textbook's features of pictures and classes, averaged over templates.

    `plain` is the base model without adapters, `prompts` padded token ids (C, n) of each template.
    """
    weights, config = textbook_weights(model), model.peft_config["default"]
    with torch.no_grad():
        outputs = [textbook_forward(plain, config, weights, ids, images, encode_text=encode_text) for ids in prompts]
    mean = {
        name: normalize(torch.stack([output[name] for output in outputs]).mean(dim=0), dim=-1)
        for name in ("text_features", "frozen_text_features")
    }
    return {**outputs[0], **mean}


def logits_by_textbook(decision, rows, features, scale, alpha=0.7, zero_shot_weight=0.5):
    """Logits of classes with these rows in a decision (None: new), from `features_by_textbook`."""
    fitted = {symbol: torch.as_tensor(getattr(decision, name), dtype=torch.double) for symbol, name in FITTED.items()}
    f_0, w_0 = features["frozen_image_features"], features["frozen_text_features"]
    adapted = [
        scale * features[name] @ features["text_features"].T for name in ("image_features", "rep_image_features")
    ]
    given = [scale * f_0 @ w_0.T] * 2 if decision.features == "frozen" else adapted
    return textbook_decision(fitted, rows, f_0, w_0, *given, scale, alpha, zero_shot_weight)
