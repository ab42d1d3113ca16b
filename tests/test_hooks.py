"""Hooks on any part of a layer see whole calls: once a pass, with all positions."""

import copy

import pytest
import torch
from architectures import ARCHITECTURES
from conftest import WordTokenizer, make_clip, scramble
from peft import get_peft_model
from torch.utils.data import default_collate
from transformers import CLIPSegConfig, CLIPSegModel

from peft_mmrl import MMRLConfig
from peft_mmrl.training.cached_views import CachedViews
from peft_mmrl.tuner.towers.backbones import BACKBONES, Backbone


LABELS = torch.tensor([0, 1, 0, 1])
PARTS = ("", "layer_norm1", "self_attn", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
         "self_attn.out_proj", "layer_norm2", "mlp", "mlp.fc1", "mlp.activation_fn", "mlp.fc2")  # fmt: skip
TOWERS = {"vision_model": [17, 22], "text_model": [10, 15]}  # positions below, and from the first adapted layer on
CONFIGS = {
    "mmrl": MMRLConfig(rep_dim=16, vision_layers=[1, 3], text_layers=[1, 2]),
    "mmrl++": MMRLConfig.plus_plus(rep_dim=16, beta=0.6, vision_layers=[1, 3], text_layers=[1, 2]),
}


@pytest.fixture(params=CONFIGS)
def model(request):
    model = scramble(get_peft_model(make_clip(), copy.deepcopy(CONFIGS[request.param])))
    model.set_classes(["cat", "big old dog"], WordTokenizer())
    return model.eval()


def module_of(model, tower, layer, part):
    return getattr(model.get_base_model(), tower).layers[layer].get_submodule(part)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("layer", [0, 1, -1])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("tower", TOWERS)
def test_forward_hooks_fire_once_with_all_positions(model, images, tower, part, layer, grad):
    expected = model(pixel_values=images).logits
    seen = []
    module = module_of(model, tower, layer, part)
    module.register_forward_hook(lambda module, args, kwargs, output: seen.append(output), with_kwargs=True)
    module.register_forward_pre_hook(lambda module, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    for _ in range(2):
        seen.clear()
        with torch.set_grad_enabled(grad):
            logits = model(pixel_values=images).logits
        (_, output) = seen
        output = output[0] if isinstance(output, tuple) else output
        assert output.shape[:2] == (len(images) if tower == "vision_model" else 2, TOWERS[tower][layer != 0])
        assert torch.allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("register", ["register_full_backward_hook", "register_full_backward_pre_hook"])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("tower", TOWERS)
def test_backward_hooks_fire_once_with_all_positions(model, images, tower, part, register):
    seen = []
    hook = getattr(module_of(model, tower, -1, part), register)
    hook(lambda module, *gradients: seen.append(gradients[-1][0]))
    model(pixel_values=images, labels=LABELS).loss.backward()
    (gradient,) = seen
    assert gradient.shape[1] == TOWERS[tower][1]


@pytest.mark.parametrize("family", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_hooks_on_what_is_computed_once_fire_in_every_pass(family, images):
    """The trunk of the text encoder, which is kept otherwise, of a BERT too."""
    model = scramble(get_peft_model(family.model(), MMRLConfig(rep_dim=16)))
    model.set_classes(["cat", "dog"], lambda texts: {"input_ids": [family.row(10, 11), family.row(12)]})
    model.eval()
    expected = model(pixel_values=images).logits
    calls = []
    next(model.get_base_model().text_model.layers[0].children()).register_forward_hook(lambda *_: calls.append(1))
    for count in (1, 2, 3):
        with torch.no_grad():
            assert torch.allclose(model(pixel_values=images).logits, expected, atol=1e-5)
        assert len(calls) == count


def test_a_hook_that_changes_an_output_changes_the_answer_as_on_whole_layers(model, images):
    module = module_of(model, "vision_model", -1, "layer_norm1")
    with_hook = module.register_forward_hook(lambda module, args, output: output * 1.5)
    out = model(pixel_values=images, labels=LABELS)
    whole = model(pixel_values=images, labels=LABELS, output_hidden_states=True)
    assert torch.allclose(out.loss, whole.loss, atol=1e-5)
    with_hook.remove()
    assert not torch.allclose(model(pixel_values=images, labels=LABELS).loss, out.loss, atol=1e-4)


def test_a_replaced_forward_is_called(model, images):
    module = module_of(model, "vision_model", -1, "")
    calls, forward = [], module.forward
    module.forward = lambda *args, **kwargs: calls.append(1) or forward(*args, **kwargs)
    model(pixel_values=images)
    assert calls == [1]


# --- states in the place of images -------------------------------------------------------------------------------


def hooked(model):
    module_of(model, "vision_model", -1, "mlp.fc2").register_forward_hook(lambda module, args, output: output * 1.5)
    module_of(model, "vision_model", 0, "mlp").register_forward_hook(lambda module, args, output: output * 1.5)


def with_dropout(model):
    for layer in model.get_base_model().vision_model.layers:
        layer.self_attn.dropout = 0.5
    model.train()


@pytest.mark.parametrize("change", [hooked, with_dropout])
def test_states_give_what_images_give(model, images, change):
    change(model)
    expected = model(pixel_values=images, labels=LABELS)
    output = model(**model.image_states(images), labels=LABELS)
    assert torch.allclose(output.logits, expected.logits, atol=1e-5)
    assert torch.allclose(output.loss, expected.loss, atol=1e-5)
    items = [{"pixel_values": image, "labels": label} for image, label in zip(images, LABELS, strict=True)]
    views = CachedViews(model, items, views=1)
    cached = model(**default_collate([views.view(index, 0) for index in range(4)]))
    assert torch.allclose(cached.loss, expected.loss, atol=1e-5)


def test_states_of_a_backbone_with_another_layer_give_what_images_give(images, monkeypatch):
    class Layer(torch.nn.Module):
        """Not CLIP's, though its parts have the same names."""

        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def __getattr__(self, name):
            return super().__getattr__(name) if name == "layer" else getattr(self.layer, name)

        def forward(self, hidden, mask=None, **kwargs):
            return 0.5 * self.layer(hidden, mask, **kwargs)

    monkeypatch.setitem(BACKBONES, CLIPSegModel, Backbone())
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    text = {**small, "vocab_size": 100, "bos_token_id": 98, "eos_token_id": 99}
    vision = {**small, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    clip = CLIPSegModel(CLIPSegConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()
    layers = clip.vision_model.encoder.layers
    layers[-1] = Layer(layers[-1])
    model = scramble(get_peft_model(clip, MMRLConfig(rep_dim=16)))
    model.set_classes(["cat", "dog"], WordTokenizer())
    expected = model(pixel_values=images, labels=LABELS)
    output = model(**model.image_states(images), labels=LABELS)
    assert torch.allclose(output.loss, expected.loss, atol=1e-5)
    whole = model(pixel_values=images, labels=LABELS, output_hidden_states=True)
    assert torch.allclose(whole.loss, expected.loss, atol=1e-5)


@pytest.mark.parametrize("name", ["output_hidden_states", "output_attentions"])
def test_states_cannot_give_what_lies_below_them(model, images, name):
    states = model.image_states(images)
    with pytest.raises(ValueError, match=f"`{name}`.*need `pixel_values`"):
        model(**states, **{name: True})


def test_states_cannot_give_what_the_config_asks_for(model, images):
    states = model.image_states(images)
    model.get_base_model().config.vision_config.output_hidden_states = True
    with pytest.raises(ValueError, match="`output_hidden_states`.*need `pixel_values`"):
        model(**states)
