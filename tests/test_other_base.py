"""An adapter that is put on another base model than it was trained on: sizes are an error, anything else a warning."""

import json
import warnings

import pytest
import torch
from conftest import make_clip, scramble
from peft import (
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)

from peft_mmrl import MMRLConfig
from peft_mmrl.tuner.fingerprint import fingerprint_of


@pytest.fixture
def folder(tokenizer, tmp_path):
    model = scramble(get_peft_model(make_clip(), MMRLConfig(rep_dim=16)))
    model.set_classes(["cat", "dog"], tokenizer)
    model.save_pretrained(tmp_path)
    return tmp_path


def fine_tuned():
    clip = make_clip()
    with torch.no_grad():
        clip.text_model.encoder.layers[0].mlp.fc1.weight.mul_(-1)
    return clip


@pytest.mark.parametrize(
    "other",
    [
        lambda: make_clip(seed=1),
        lambda: make_clip(vision_hidden_act="gelu"),
        lambda: make_clip(text_hidden_act="gelu"),
        lambda: make_clip(vision_num_attention_heads=4),
        lambda: make_clip(vision_image_size=64, vision_patch_size=16),
        fine_tuned,
    ],
    ids=["weights", "vision activation", "text activation", "heads", "patches", "one weight"],
)
def test_another_base_of_the_same_sizes_warns(other, folder):
    for load in (
        lambda: PeftModel.from_pretrained(other(), folder),
        lambda: get_peft_model(other(), MMRLConfig(rep_dim=8)).load_adapter(folder, "shop"),
        lambda: other().load_adapter(str(folder)),
    ):
        with pytest.warns(UserWarning, match="saved with another base model"):
            load()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_the_same_base_in_any_type_does_not(dtype, folder):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="This adapter")
        PeftModel.from_pretrained(make_clip().to(dtype), folder).load_adapter(folder, "second")


def test_adapters_in_the_model_do_not_count():
    clip = make_clip()
    expected = fingerprint_of(clip)
    get_peft_model(clip, MMRLConfig(rep_dim=16))
    assert fingerprint_of(clip) == expected


def test_weights_that_cannot_be_seen_have_none():
    with torch.device("meta"):
        assert fingerprint_of(make_clip()) is None


class Opaque(torch.Tensor):
    """A weight as torchao's: it says that it is a float, is made of other tensors, and knows a few operations."""

    @staticmethod
    def __new__(cls, weight):
        return torch.Tensor._make_wrapper_subclass(cls, weight.shape, dtype=weight.dtype)

    def __init__(self, weight):
        self.inner = weight

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.detach.default:
            return cls(args[0].inner)
        raise NotImplementedError(f"Opaque: {function}")

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.nn.functional.linear:
            hidden, weight, *bias = args
            return torch.nn.functional.linear(hidden, weight.inner, *bias)
        return super().__torch_function__(function, types, args, kwargs or {})


def test_a_base_of_opaque_weights_has_none_and_works(images, tokenizer, tmp_path):
    clip = make_clip()
    for module in clip.modules():
        if isinstance(module, torch.nn.Linear) and module not in (clip.visual_projection, clip.text_projection):
            module.weight = torch.nn.Parameter(Opaque(module.weight.detach()), requires_grad=False)
    assert fingerprint_of(clip) is None
    model, plain = (get_peft_model(base, MMRLConfig(rep_dim=16)) for base in (clip, make_clip()))
    set_peft_model_state_dict(plain, get_peft_model_state_dict(scramble(model)))
    losses = []
    for each in (model, plain):
        each.set_classes(["cat", "dog"], tokenizer)
        losses.append(each(pixel_values=images, labels=torch.tensor([0, 1, 0, 1])).loss)
    assert torch.allclose(*losses, atol=1e-5)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_fingerprint"] is None
    with torch.no_grad():
        loaded = PeftModel.from_pretrained(model.unload(), tmp_path)
        assert torch.allclose(loaded(pixel_values=images).logits, plain.eval()(pixel_values=images).logits, atol=1e-5)


def test_saving_leaves_the_users_config_alone(tmp_path):
    config = MMRLConfig(rep_dim=8)
    model = get_peft_model(make_clip(), config)
    model.save_pretrained(tmp_path)
    assert config.base_fingerprint is None
    saved = json.loads((tmp_path / "adapter_config.json").read_text())["base_fingerprint"]
    assert saved == fingerprint_of(make_clip())
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="This adapter")
        get_peft_model(make_clip(seed=1), config)


def test_a_saved_adapter_that_moves_to_another_base_belongs_to_it(folder, tmp_path):
    with pytest.warns(UserWarning, match="saved with another base model"):
        model = PeftModel.from_pretrained(make_clip(seed=1), folder)
    model.save_pretrained(tmp_path / "moved")
    saved = json.loads((tmp_path / "moved" / "adapter_config.json").read_text())
    assert saved["base_fingerprint"] == fingerprint_of(make_clip(seed=1))


@pytest.mark.parametrize(
    ("saved", "name", "warns"),
    [
        ("openai/clip", "laion/clip", True),
        ("openai/clip", "openai/clip", False),
        ("openai/clip", "", False),
        ("openai/clip", "/models/clip", False),
        (None, "laion/clip", False),
    ],
)
def test_without_a_fingerprint_names_are_compared(saved, name, warns):
    """As for adapters that were converted from the papers' checkpoints."""
    clip = make_clip()
    clip.name_or_path = name
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        inject_adapter_in_model(MMRLConfig(rep_dim=8, base_model_name_or_path=saved), clip)
    assert any("saved with another base model (openai/clip)" in str(warning.message) for warning in caught) == warns
