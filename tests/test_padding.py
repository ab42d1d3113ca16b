"""Padding, attention masks and end-of-text ids: what stands behind EOS never matters."""

import pytest
import torch
from conftest import make_clip, scramble
from peft import get_peft_model

from peft_mmrl import MMRLConfig


PROMPTS = [[98, 1, 2, 99], [98, 3, 99]]


@pytest.fixture(params=["mmrl", "mmrl++"])
def config(request):
    return MMRLConfig(rep_dim=16) if request.param == "mmrl" else MMRLConfig.plus_plus(rep_dim=16, beta=0.7)


def padded(pad, length):
    return torch.tensor([row + [pad] * (length - len(row)) for row in PROMPTS])


def alone(model):
    """Text features of each prompt by itself, without padding."""
    return torch.cat([model.get_text_features(torch.tensor([row])).pooler_output for row in PROMPTS])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("eos", [2, 99])
@pytest.mark.parametrize(("pad", "length"), [(99, 4), (0, 4), (99, 24), (0, 24)])
def test_text_features_are_the_same_for_every_padding(config, attention, eos, pad, length):
    """Older configs say `eos_token_id=2` and pool at the largest id."""
    model = scramble(get_peft_model(make_clip(text_eos_token_id=eos), config)).eval()
    model.get_base_model().set_attn_implementation(attention)
    ids = padded(pad, length)
    tokens = (torch.arange(length) < torch.tensor([[len(row)] for row in PROMPTS])).long()
    for mask in (None, tokens, torch.ones_like(ids)):
        assert torch.allclose(model.get_text_features(ids, mask).pooler_output, alone(model), atol=1e-5)


def test_an_added_token_above_eos_moves_nothing(config):
    """With a right `eos_token_id` pooling is at EOS, whatever ids there are."""
    model = scramble(get_peft_model(make_clip(text_vocab_size=102), config)).eval()
    alone, followed = (
        model.get_text_features(torch.tensor([[98, 101, 2, 99, *rest]])).pooler_output for rest in ([], [101, 7])
    )
    assert torch.allclose(alone, followed, atol=1e-6)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("ids", "mask"),
    [
        ([[98, 1, 2, 99], [98, 3, 99, 99]], [[0, 0, 0, 0], [1, 1, 1, 1]]),
        ([[0, 98, 1, 99], [0, 0, 98, 99]], [[0, 1, 1, 1], [0, 0, 1, 1]]),
    ],
    ids=["all masked", "left padding"],
)
def test_unusual_masks(config, attention, ids, mask, images):
    """With the adapter off they do what they do in CLIP; with it on nothing becomes NaN."""
    plain = make_clip()
    plain.set_attn_implementation(attention)
    model = scramble(get_peft_model(make_clip(), config)).eval()
    model.get_base_model().set_attn_implementation(attention)
    inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask), "pixel_values": images}
    with torch.no_grad():
        assert model(**inputs).logits.isfinite().all()
        with model.disable_adapter():
            assert torch.equal(model(**inputs).logits, plain(**inputs).logits_per_image)
