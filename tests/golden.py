"""The golden numbers of the papers' own code, and this package's model on them; tests/parity/README.md says whence."""

import copy
import json
from pathlib import Path

import torch
from peft import get_peft_model
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPTokenizer

from peft_mmrl import MMRLConfig
from peft_mmrl.tuner.textbook import textbook_weights


PARITY = Path(__file__).parent / "parity"
CASES = ("mmrl", "mmrl-ragged", "mmrlpp")
LOSS_TERMS = ("loss", "loss_class", "loss_rep", "loss_image_reg", "loss_text_reg")
FIELDS = {  # our output field -> golden name
    "class_logits": "class_logits",
    "rep_logits": "rep_logits",
    "logits": "fused_logits",
    "image_embeds": "image_features",
    "text_embeds": "text_features",
    **{name: name for name in LOSS_TERMS},
}


class Case:
    """One case of the golden numbers."""

    def __init__(self, name):
        self.folder = PARITY / name
        self.settings = json.loads((self.folder / "case.json").read_text())
        self.golden = load_file(self.folder / "golden.safetensors")

    def clip(self):
        return CLIPModel.from_pretrained(self.folder / "clip", dtype=torch.float32)

    def tokenizer(self):
        return CLIPTokenizer.from_pretrained(self.folder / "clip")

    def config_kwargs(self):
        names = ("num_rep_tokens", "rep_dim", "vision_layers", "text_layers", "alpha", "reg_weight", "beta")
        return {name: self.settings[name] for name in (*names, "aligner_rank", "proj_rank", "template")}

    def group(self, prefix):
        """Golden tensors whose names start with `prefix.`, without it."""
        return {
            key.removeprefix(f"{prefix}."): value for key, value in self.golden.items() if key.startswith(f"{prefix}.")
        }


def relative_error(found, expected):
    """How far a tensor is from what it should be, in parts of the latter's norm."""
    return float((found - expected).detach().norm() / expected.norm())


def golden_model(case):
    model = get_peft_model(case.clip(), MMRLConfig(**case.config_kwargs()))
    model.set_classes(case.settings["classes"], case.tokenizer())
    load(model, case.group("param"))
    return model


def load(model, params):
    weights = textbook_weights(model)
    assert weights.keys() == params.keys()
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(params[name])


def gradients(model):
    """Gradients of every trained parameter under the golden names."""
    shell = copy.deepcopy(model)
    for (_, ours), (_, theirs) in zip(shell.named_parameters(), model.named_parameters(), strict=True):
        if theirs.requires_grad:
            ours.data = theirs.grad
    return textbook_weights(shell)
