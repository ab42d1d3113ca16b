"""Base models whose linear layers bitsandbytes has quantised, on the CPU; `make test-quantised` installs it."""

import pytest
import torch
from conftest import DEMO_CLIP, scramble
from peft import PeftModel, get_peft_model
from transformers import BitsAndBytesConfig, CLIPModel

from peft_mmrl import MMRLConfig


pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: `make test-quantised` fetches it")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
TEMPLATE = "the digit {}."


def quantised_clip(bits):
    quantization = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    return CLIPModel.from_pretrained(DEMO_CLIP, quantization_config=quantization, dtype=torch.float32)


@pytest.mark.parametrize(("bits", "tolerance"), [(8, 0.02), (4, 0.2)])
def test_training_and_scoring_on_quantised_linear_layers(bits, tolerance, demo_images, demo_processor):
    model = scramble(get_peft_model(quantised_clip(bits), MMRLConfig(rep_dim=16)))
    model.set_classes(["zero", "one"], demo_processor, template=TEMPLATE)
    model.train()  # before the first forward: in eval mode bitsandbytes packs 4-bit weights for inference only
    model(pixel_values=demo_images, labels=torch.tensor([0, 1, 1])).loss.backward()
    trained = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert trained == {name for name, _ in model.named_parameters() if "mmrl_" in name}

    plain = get_peft_model(CLIPModel.from_pretrained(DEMO_CLIP), MMRLConfig(rep_dim=16))
    plain.load_state_dict({name: model.state_dict()[name] for name in trained}, strict=False)
    plain.set_classes(["zero", "one"], demo_processor, template=TEMPLATE)
    with torch.no_grad():
        out, expected = (each.eval()(pixel_values=demo_images) for each in (model, plain))
    for name in ("image_embeds", "rep_image_embeds", "text_embeds"):
        cosine = (out[name] * expected[name]).sum(dim=-1)
        assert (1 - cosine).max() < tolerance


@pytest.mark.parametrize("bits", [8, 4])
def test_adapters_move_between_quantised_and_plain_bases(bits, demo_images, demo_processor, tmp_path, recwarn):
    model = scramble(get_peft_model(CLIPModel.from_pretrained(DEMO_CLIP), MMRLConfig(rep_dim=16)))
    model.set_classes(["zero", "one"], demo_processor, template=TEMPLATE)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(quantised_clip(bits), tmp_path)
    assert not any("another base model" in str(warning.message) for warning in recwarn)
    with torch.no_grad():
        decisions = [each.eval()(pixel_values=demo_images).logits.argmax(dim=-1) for each in (model, loaded)]
    assert torch.equal(*decisions)
