"""transformers' own adapter methods on a CLIP, and bases in half precision and on a device map.

Most of it follows the page "Load adapters with PEFT" of transformers' documentation.
"""

import json

import pytest
import torch
import transformers.integrations.peft
from conftest import IDS, make_clip, scramble
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import CLIPModel

from peft_mmrl import AutoPeftModelForZeroShotImageClassification, MMRLConfig


@pytest.fixture
def any_peft(monkeypatch):
    """transformers may ask for a newer PEFT in `add_adapter` and others than there is; LoRA has the same trouble."""
    monkeypatch.setattr(transformers.integrations.peft, "MIN_PEFT_VERSION", "0.1.0")


def logits(clip, images):
    with torch.no_grad():
        return clip(IDS, images).logits_per_image


def is_plain(clip):
    return type(clip) is CLIPModel and not any("mmrl_" in name for name, _ in clip.named_parameters())


# --- transformers' adapter methods -------------------------------------------------------------------------------


def test_add_disable_and_enable(any_peft, clip, config, images):
    frozen = logits(clip, images)
    clip.add_adapter(config)
    adapted = logits(scramble(clip), images)
    assert not torch.allclose(adapted, frozen)
    clip.disable_adapters()
    assert torch.equal(logits(clip, images), frozen)
    clip.enable_adapters()
    assert torch.equal(logits(clip, images), adapted)


def test_switch_and_delete(any_peft, clip, config, images):
    frozen = logits(clip, images)
    clip.add_adapter(config)
    first = logits(scramble(clip), images)
    clip.add_adapter(MMRLConfig.plus_plus(rep_dim=8), "second")
    second = logits(scramble(clip, adapter="second"), images)
    assert clip.active_adapters() == ["second"]
    clip.set_adapter("default")
    assert torch.equal(logits(clip, images), first)
    with pytest.raises(ValueError, match="one adapter at a time"):
        clip.set_adapter(["default", "second"])
    clip.set_adapter("second")
    assert torch.equal(logits(clip, images), second)
    clip.set_adapter("default")
    clip.delete_adapter("second")
    assert torch.equal(logits(clip, images), first)
    clip.delete_adapter("default")
    assert torch.equal(logits(clip, images), frozen)


def test_an_added_adapter_is_trained_and_saved(any_peft, clip, config, images, tmp_path):
    clip.add_adapter(config)
    scramble(clip)
    clip(IDS, images[:2], return_loss=True).loss.backward()
    trained = {name for name, parameter in clip.named_parameters() if parameter.grad is not None}
    # CLIP's own loss does not see the representation feature
    assert trained == {name for name, _ in clip.named_parameters() if "mmrl_" in name and "projection" not in name}
    clip.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    expected = logits(clip, images)
    again = make_clip()
    again.load_adapter(str(tmp_path))
    assert torch.equal(logits(again, images), expected)
    wrapped = PeftModel.from_pretrained(make_clip(), tmp_path)
    assert torch.allclose(wrapped(IDS, images).class_logits, expected, atol=1e-5)


def test_a_saved_adapter_loads_into_a_plain_clip(model, images, tmp_path):
    model.save_pretrained(tmp_path)
    clip = make_clip()
    clip.load_adapter(str(tmp_path))
    assert not any(parameter.requires_grad for name, parameter in clip.named_parameters() if "mmrl_" in name)
    assert torch.allclose(logits(clip, images), model(IDS, images).class_logits, atol=1e-5)


def test_from_pretrained_of_a_folder_gives_the_adapted_clip(model, images, tmp_path):
    make_clip().save_pretrained(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    content = json.loads(file.read_text()) | {"base_model_name_or_path": str(tmp_path / "base")}
    file.write_text(json.dumps(content))
    clip = CLIPModel.from_pretrained(tmp_path / "adapter")
    assert torch.allclose(logits(clip, images), model(IDS, images).class_logits, atol=1e-5)


def test_an_adapter_that_does_not_fit_is_an_error_of_transformers(model, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        make_clip(vision_hidden_size=32).load_adapter(str(tmp_path))


def test_mixed_batches_are_refused_here_too(any_peft, clip, images):
    clip.add_adapter(MMRLConfig(rep_dim=16))
    with pytest.raises(NotImplementedError, match="`adapter_names`"):
        clip(IDS, images, adapter_names=["default"] * len(images))


# --- base models -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_in_half_precision_takes_an_adapter_in_fp32(dtype, model, images, tmp_path):
    model.save_pretrained(tmp_path / "adapter")
    make_clip().save_pretrained(tmp_path / "base")
    clip = CLIPModel.from_pretrained(tmp_path / "base", dtype=dtype)
    half = PeftModel.from_pretrained(clip, tmp_path / "adapter")
    assert {weight.dtype for name, weight in half.named_parameters() if "mmrl_" in name} == {torch.float32}
    assert {weight.dtype for name, weight in half.named_parameters() if "mmrl_" not in name} == {dtype}
    out = half(pixel_values=images)
    assert out.logits.dtype == torch.float32
    assert torch.allclose(out.logits, model(pixel_values=images).logits, atol=0.2)
    assert torch.allclose(half(pixel_values=images.to(dtype)).logits, out.logits, atol=0.2)


@pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}])
def test_a_base_with_a_device_map(device_map, model, images, tmp_path):
    make_clip().save_pretrained(tmp_path / "base")
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapter")
    expected = model(pixel_values=images).logits
    clip = CLIPModel.from_pretrained(tmp_path / "base", device_map=device_map)
    loaded = PeftModel.from_pretrained(clip, tmp_path / "adapter")
    auto = AutoPeftModelForZeroShotImageClassification.from_pretrained(tmp_path / "adapter", device_map=device_map)
    for other in (loaded, auto):
        assert torch.allclose(other(pixel_values=images).logits, expected, atol=1e-5)


def test_offloaded_bases_are_refused(model, tmp_path):
    """PEFT's own offloading moves leaves of a model, MMRL's towers are none."""
    make_clip().save_pretrained(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapter")
    parts = ("text_model", "visual_projection", "text_projection", "logit_scale")
    device_map = {"vision_model": "disk", **dict.fromkeys(parts, "cpu")}
    clip = CLIPModel.from_pretrained(tmp_path / "base", device_map=device_map, offload_folder=tmp_path / "offload")
    for adapt in (
        lambda: PeftModel.from_pretrained(clip, tmp_path / "adapter", offload_folder=tmp_path / "offload"),
        lambda: get_peft_model(clip, MMRLConfig(rep_dim=8)),
        lambda: clip.load_adapter(str(tmp_path / "adapter")),
    ):
        with pytest.raises(ValueError, match="`device_map`=.*load the base model without offloading"):
            adapt()
        assert is_plain(clip)


def test_adapters_of_another_method_in_the_base_are_refused(clip):
    lora = get_peft_model(clip, LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="adapters of another PEFT method"):
        get_peft_model(clip, MMRLConfig(rep_dim=8))
    get_peft_model(lora.merge_and_unload(), MMRLConfig(rep_dim=8))


def test_a_base_that_was_made_in_inference_mode_cannot_be_trained(images, tokenizer, tmp_path):
    with torch.inference_mode():
        clip = make_clip()
        model = scramble(get_peft_model(make_clip(), MMRLConfig(rep_dim=8)))
        model.set_classes(["cat", "dog"], tokenizer)
        model.save_pretrained(tmp_path)
        expected = model.eval()(pixel_values=images).logits
    with pytest.raises(ValueError, match=r"made under `torch.inference_mode\(\)`"):
        get_peft_model(clip, MMRLConfig(rep_dim=8))
    loaded = PeftModel.from_pretrained(clip, tmp_path)  # scores all the same
    assert torch.allclose(loaded(pixel_values=images).logits, expected, atol=1e-5)
