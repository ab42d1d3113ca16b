"""Tiny models of every supported architecture, and the textbook's text encoder for those with a BERT."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from conftest import TEXT, VISION, make_clip
from torch.nn.functional import normalize
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    MetaClip2Config,
    MetaClip2Model,
)

from peft_mmrl.tuner.config import adapted_layers
from peft_mmrl.tuner.textbook import run_layers, text_encoder


@dataclass(frozen=True)
class Family:
    """An architecture, or a kind of CLIP: how to make one, and the ids that its tokenizer puts around a text."""

    make: Callable
    bos: int = 98
    eos: int = 99
    pad: int = 99
    changes: dict = field(default_factory=dict)
    encode_text: Callable = text_encoder

    def model(self, seed=0):
        """A random model, all of whose weights matter."""
        model = self.make(seed, **self.changes)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name != "logit_scale":
                    parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
            for module in model.modules():
                if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                    module.weight[module.padding_idx] = 0  # as transformers makes it when it loads Chinese-CLIP
        return model.eval()

    def row(self, *words):
        """Token ids of a text, the words by their ids."""
        return [self.bos, *words, self.eos]

    def padded(self, rows):
        """Prompts (C, n), and their attention mask."""
        longest = max(map(len, rows))
        ids = torch.tensor([row + [self.pad] * (longest - len(row)) for row in rows])
        return ids, torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])


def make_metaclip2(seed):
    torch.manual_seed(seed)
    text = {**TEXT, "bos_token_id": 0, "eos_token_id": 2}
    return MetaClip2Model(MetaClip2Config(text_config=text, vision_config=VISION, projection_dim=24))


def make_altclip(seed):
    torch.manual_seed(seed)
    text = {**TEXT, "project_dim": 40, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    return AltCLIPModel(AltCLIPConfig(text_config=text, vision_config=VISION, projection_dim=24))


def make_chinese_clip(seed):
    torch.manual_seed(seed)
    return ChineseCLIPModel(ChineseCLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=24))


def bert_text_encoder(clip, input_ids, config, tokens, beta):
    """`textbook.text_encoder` for a BERT: every token sees all others but padding, and the feature is that of CLS."""
    tower = clip.text_model
    bert = getattr(tower, "roberta", tower)
    bert_layers = getattr(bert.encoder, "layers", None) or bert.encoder.layer
    is_padding = input_ids == tower.config.pad_token_id

    def padding_mask(hidden):
        num_tokens = hidden.shape[1] - input_ids.shape[1]
        hide = torch.cat([is_padding[:, :1], is_padding.new_zeros(len(hidden), num_tokens), is_padding[:, 1:]], dim=1)
        return hide[:, None, None, :].to(hidden.dtype) * torch.finfo(hidden.dtype).min

    layers = adapted_layers(config.text_layers, len(bert_layers), "text_layers")
    hidden = run_layers(bert_layers, bert.embeddings(input_ids), layers, tokens, beta, padding_mask)
    pooled = hidden[:, 0]
    if bert is not tower:
        pooled = tower.transformation(tower.pre_LN(pooled))
    return normalize(clip.text_projection(pooled), dim=-1)


CLIPS = {
    "clip": {},
    "gelu": {"text_hidden_act": "gelu", "vision_hidden_act": "gelu"},  # LAION's
    "wide-heads": {"vision_hidden_size": 40, "vision_num_attention_heads": 1, "vision_patch_size": 16},  # as ViT-H, g
    "narrow-vision": {"vision_hidden_size": 16, "text_hidden_size": 64, "text_num_hidden_layers": 5},
    "one-layer": {"vision_num_hidden_layers": 1, "text_num_hidden_layers": 1},
    "old-eos": {"text_eos_token_id": 2},  # OpenAI's configs: the largest id is EOS
}
FAMILIES = {
    **{name: Family(make_clip, changes=changes) for name, changes in CLIPS.items()},
    "metaclip2": Family(make_metaclip2, bos=0, eos=2, pad=1),
    "altclip": Family(make_altclip, bos=0, eos=2, pad=1, encode_text=bert_text_encoder),
    "chinese-clip": Family(make_chinese_clip, bos=5, eos=6, pad=0, encode_text=bert_text_encoder),
}
ARCHITECTURES = {name: FAMILIES[name] for name in ("clip", "metaclip2", "altclip", "chinese-clip")}
