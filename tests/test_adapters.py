"""Several adapters, saving, loading, merging, unloading: what PEFT users do."""

import copy
import json
import pickle

import peft
import pytest
import torch
from conftest import IDS, VARIANTS, WordTokenizer, make_clip, scramble
from golden import Case
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

from peft_mmrl import AutoPeftModelForZeroShotImageClassification, MMRLConfig, PeftModelForZeroShotImageClassification
from peft_mmrl.tuner.layer import LEAVES


def add_second(model, tokenizer):
    """A second adapter of another size, with classes and template of its own."""
    model.add_adapter("second", MMRLConfig(rep_dim=8, num_rep_tokens=2, text_layers=[0, 2]))
    model.set_adapter("second")
    scramble(model, 5, "second")
    model.set_classes(["car", "bus", "van"], tokenizer, template="my {}")
    return model


# --- saving and loading ------------------------------------------------------------------------------------------


def test_loading_restores_the_logits(model, images, tmp_path):
    expected = model(pixel_values=images).logits
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make_clip(), tmp_path)
    assert type(loaded) is PeftModelForZeroShotImageClassification
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert torch.equal(loaded(pixel_values=images).logits, expected)
    assert loaded.classes == ["cat", "big dog"]


def test_the_folder_holds_adapter_weights_and_config_only(model, tmp_path):
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    trained = sum(parameter.numel() for name, parameter in model.named_parameters() if "mmrl_" in name)
    assert all(".mmrl_" in name for name in weights)
    assert sum(weight.numel() for weight in weights.values()) == trained
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert saved["classes"] == ["cat", "big dog"]
    assert saved["template"] == "a photo of a {}."
    assert saved["peft_type"] == "MMRL"
    assert saved["task_type"] == "ZERO_SHOT_IMAGE_CLASSIFICATION"


def test_low_cpu_mem_usage_and_pickled_weights(model, images, tmp_path):
    expected = model(pixel_values=images).logits
    model.save_pretrained(tmp_path, safe_serialization=False)
    loaded = PeftModel.from_pretrained(make_clip(), tmp_path, low_cpu_mem_usage=True)
    assert torch.allclose(loaded(pixel_values=images).logits, expected, atol=1e-6)


def test_a_loaded_adapter_can_be_trained_further(model, images, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make_clip(), tmp_path, is_trainable=True)
    names = {name for name, parameter in loaded.named_parameters() if parameter.requires_grad}
    assert names == {name for name, _ in loaded.named_parameters() if "mmrl_" in name}
    loaded(pixel_values=images, labels=torch.tensor([0, 1, 1, 0])).loss.backward()


def test_the_passed_config_object_is_used_as_it_is(clip, config):
    model = get_peft_model(clip, config)
    assert model.peft_config["default"] is config


def test_auto_class_finds_the_base_model(tmp_path):
    case = Case("mmrl")
    model = scramble(get_peft_model(case.clip(), MMRLConfig(rep_dim=8)))
    model.set_classes(["cat", "dog"])
    model.save_pretrained(tmp_path)
    case.tokenizer().save_pretrained(tmp_path)  # folders that hold a tokenizer too must load
    loaded = AutoPeftModelForZeroShotImageClassification.from_pretrained(tmp_path)
    assert type(loaded) is PeftModelForZeroShotImageClassification
    images = case.golden["pixel_values"]
    assert torch.allclose(loaded(pixel_values=images).logits, model.eval()(pixel_values=images).logits, atol=1e-6)


def test_auto_class_says_when_no_base_model_is_named(model, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="names no base model"):
        AutoPeftModelForZeroShotImageClassification.from_pretrained(tmp_path)


def untouched(clip):
    """Whether a CLIP is as it was made: plain classes, no adapter weights, trainable."""
    return (
        type(clip) is CLIPModel
        and not any("mmrl_" in name for name, _ in clip.named_parameters())
        and all(parameter.requires_grad for parameter in clip.parameters())
        and not hasattr(clip, "peft_config")
    )


@pytest.mark.parametrize("with_config", [False, True])
def test_another_width_is_named_and_the_base_stays(model, with_config, tmp_path):
    model.save_pretrained(tmp_path)
    other = make_clip(vision_hidden_size=32)
    kwargs = {"config": PeftConfig.from_pretrained(tmp_path)} if with_config else {}
    with pytest.raises(ValueError, match=r"does not fit this base model.*mmrl_aligner.*48.*should be.*32"):
        PeftModel.from_pretrained(other, tmp_path, **kwargs)
    assert untouched(other)


@pytest.mark.parametrize("is_trainable", [False, True])
def test_a_refused_second_model_leaves_the_first(model, images, is_trainable, tmp_path):
    model.save_pretrained(tmp_path)
    clip = make_clip(vision_hidden_size=32)
    first = get_peft_model(clip, MMRLConfig(rep_dim=8))
    first.set_classes(["cat", "dog"], WordTokenizer())
    expected = first(pixel_values=images).logits
    flags = {name: weight.requires_grad for name, weight in first.named_parameters()}
    with pytest.raises(ValueError, match="does not fit this base model"):
        PeftModel.from_pretrained(clip, tmp_path, adapter_name="two", is_trainable=is_trainable)
    assert (list(first.peft_config), first.active_adapters) == (["default"], ["default"])
    assert {name: weight.requires_grad for name, weight in first.named_parameters()} == flags
    assert torch.equal(first(pixel_values=images).logits, expected)


@pytest.mark.parametrize("enable", ["gradient_checkpointing_enable", "enable_input_require_grads", "train"])
def test_a_refused_load_leaves_the_hooks_of_gradient_checkpointing_as_they_were(model, enable, tmp_path):
    model.save_pretrained(tmp_path)
    other = make_clip(vision_hidden_size=32)
    getattr(other, enable)()
    attributes, hooks = set(other.__dict__), [len(module._forward_hooks) for module in other.modules()]
    with pytest.raises(ValueError, match="does not fit this base model"):
        PeftModel.from_pretrained(other, tmp_path)
    assert untouched(other)
    assert set(other.__dict__) == attributes
    assert [len(module._forward_hooks) for module in other.modules()] == hooks


def test_a_live_model_survives_a_refused_load_with_a_key_mapping(model, images, tmp_path):
    model.save_pretrained(tmp_path)
    live = get_peft_model(make_clip(vision_hidden_size=32), MMRLConfig(rep_dim=8))
    live.set_classes(["cat", "dog"], WordTokenizer())
    expected = live(pixel_values=images).logits
    with pytest.raises(ValueError, match="does not fit this base model"):
        live.load_adapter(tmp_path, "default", key_mapping={"nothing": "else"})
    assert torch.equal(live(pixel_values=images).logits, expected)


def weights_of(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def same_weights(model, before):
    after = model.state_dict()
    return after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


@pytest.fixture
def bad_folder(request, model, tmp_path):
    """An adapter's folder that cannot be loaded."""
    model.save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    if request.param == "missing":
        file.unlink()
    elif request.param == "damaged":
        file.write_bytes(b"no weights")
    else:
        weights = load_file(file)
        weights.popitem()
        save_file(weights, file)
    return tmp_path


@pytest.mark.parametrize("bad_folder", ["missing", "damaged", "incomplete"], indirect=True)
@pytest.mark.parametrize("kwargs", [{}, {"key_mapping": {"a": "b"}}, {"key_mapping": {}}, {"low_cpu_mem_usage": True}])
@pytest.mark.parametrize("adapter_name", ["default", "second", "new"])
def test_a_failed_load_changes_nothing_of_a_live_model(bad_folder, kwargs, adapter_name, images, tokenizer):
    live = get_peft_model(make_clip(), MMRLConfig(rep_dim=8))
    live.set_classes(["cat", "dog"], tokenizer)
    add_second(live, tokenizer)
    expected, before, live_names = live(pixel_values=images).logits, weights_of(live), list(live.peft_config)
    flags = {name: weight.requires_grad for name, weight in live.named_parameters()}
    with pytest.raises((OSError, ValueError), match="cannot be read|does not fit|no .*weights"):
        live.load_adapter(bad_folder, adapter_name, **kwargs)
    assert (list(live.peft_config), live.active_adapters) == (live_names, ["second"])
    assert {name: weight.requires_grad for name, weight in live.named_parameters()} == flags
    assert live.training
    assert same_weights(live, before)
    assert torch.equal(live(pixel_values=images).logits, expected)


@pytest.mark.parametrize("bad_folder", ["missing"], indirect=True)
@pytest.mark.parametrize("kwargs", [{}, {"key_mapping": {}}, {"is_trainable": True, "low_cpu_mem_usage": True}])
def test_a_failed_first_load_leaves_a_fresh_model(bad_folder, kwargs, images, tokenizer):
    live = get_peft_model(make_clip(), MMRLConfig.from_pretrained(bad_folder))
    with pytest.raises(OSError, match="adapter_model.safetensors"):
        live.load_adapter(bad_folder, "default", **kwargs)
    live.set_classes(["cat", "dog"], tokenizer)
    assert live(pixel_values=images).logits.shape == (4, 2)


@pytest.mark.parametrize("adapter_name", ["default", "new"])
def test_a_load_that_fails_late_changes_nothing_of_a_live_model(model, images, adapter_name, tmp_path):
    model.save_pretrained(tmp_path)
    expected, before = model(pixel_values=images).logits, weights_of(model)
    with pytest.raises(Exception, match="nowhere"):
        model.load_adapter(tmp_path, adapter_name, torch_device="nowhere")
    assert (list(model.peft_config), model.active_adapters) == (["default"], ["default"])
    assert same_weights(model, before)
    assert torch.equal(model(pixel_values=images).logits, expected)


@pytest.mark.parametrize("bad_folder", ["missing", "damaged", "incomplete"], indirect=True)
@pytest.mark.parametrize("kwargs", [{}, {"key_mapping": {"a": "b"}}, {"low_cpu_mem_usage": True}])
@pytest.mark.parametrize("loader", [PeftModel, PeftModelForZeroShotImageClassification])
def test_a_failed_from_pretrained_gives_the_base_back(bad_folder, kwargs, loader):
    other = make_clip()
    with pytest.raises((OSError, ValueError), match="cannot be read|does not fit|no .*weights"):
        loader.from_pretrained(other, bad_folder, **kwargs)
    assert untouched(other)


def test_a_from_pretrained_that_fails_late_gives_the_base_back(model, tmp_path):
    model.save_pretrained(tmp_path)
    other = make_clip()
    with pytest.raises(Exception, match="nowhere"):
        PeftModel.from_pretrained(other, tmp_path, torch_device="nowhere")
    assert untouched(other)


@pytest.mark.parametrize("bad_folder", ["missing", "incomplete"], indirect=True)
@pytest.mark.parametrize("adapter_name", ["default", "second", "new"])
@pytest.mark.filterwarnings("ignore:You are trying to modify a model")
def test_a_failed_second_model_takes_out_only_what_it_put_in(bad_folder, adapter_name, images, tokenizer):
    clip = make_clip()
    first = get_peft_model(clip, MMRLConfig(rep_dim=8))
    first.set_classes(["cat", "dog"], tokenizer)
    add_second(first, tokenizer)
    expected, before, configs = first(pixel_values=images).logits, weights_of(first), dict(first.peft_config)
    with pytest.raises((OSError, ValueError), match="no .*weights|does not fit"):
        PeftModel.from_pretrained(clip, bad_folder, adapter_name=adapter_name)
    assert first.active_adapters == ["second"]
    assert first.peft_config.keys() == configs.keys()
    assert all(first.peft_config[name] is configs[name] for name in configs)
    assert same_weights(first, before)
    assert torch.equal(first(pixel_values=images).logits, expected)


def test_a_config_that_was_loaded_with_says_nothing_of_the_next_model(model, images, tokenizer, tmp_path):
    model.save_pretrained(tmp_path)
    config = PeftConfig.from_pretrained(tmp_path)
    PeftModel.from_pretrained(make_clip(), tmp_path, config=config)
    live = get_peft_model(make_clip(), config)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(OSError, match="adapter_model.safetensors"):
        live.load_adapter(tmp_path, "default", key_mapping={"a": "b"})
    live.set_classes(["cat", "dog"], tokenizer)
    assert live(pixel_values=images).logits.shape == (4, 2)


def test_loading_reads_the_weights_once(model, monkeypatch, tmp_path):
    model.save_pretrained(tmp_path)
    read = []
    load = peft.utils.save_and_load.safe_load_file
    monkeypatch.setattr(peft.utils.save_and_load, "safe_load_file", lambda *a, **k: read.append(a) or load(*a, **k))
    PeftModel.from_pretrained(make_clip(), tmp_path)
    assert len(read) == 1


def test_key_mappings_rename_what_is_saved(model, images, tmp_path):
    model.save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({name.replace("text_model", "old_text"): weight for name, weight in load_file(file).items()}, file)
    loaded = PeftModel.from_pretrained(make_clip(), tmp_path, key_mapping={"^old_text": "text_model"})
    assert torch.equal(loaded(pixel_values=images).logits, model(pixel_values=images).logits)
    with pytest.raises(ValueError, match="missing"):
        PeftModel.from_pretrained(make_clip(), tmp_path)


@pytest.mark.parametrize("name", ["default", "new"])
def test_another_width_leaves_a_live_model_alone(model, images, name, tokenizer, tmp_path):
    model.save_pretrained(tmp_path)
    live = get_peft_model(make_clip(vision_hidden_size=32), MMRLConfig.from_pretrained(tmp_path))
    before = {key: value.clone() for key, value in live.state_dict().items()}
    with pytest.raises(ValueError, match="does not fit this base model"):
        live.load_adapter(tmp_path, name)
    assert list(live.peft_config) == ["default"]
    assert all(torch.equal(value, before[key]) for key, value in live.state_dict().items())
    assert live(pixel_values=images).logits.shape == (4, 2)


def test_another_depth_is_named(model, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="does not fit|names layer"):
        PeftModel.from_pretrained(make_clip(vision_num_hidden_layers=2, text_num_hidden_layers=1), tmp_path)


def test_another_vocabulary_is_named_and_nothing_changes(model, tmp_path):
    model.save_pretrained(tmp_path)
    other = make_clip(text_vocab_size=90, text_bos_token_id=88, text_eos_token_id=89)
    with pytest.raises(ValueError, match="`class_input_ids`.*does not fit this base model"):
        PeftModel.from_pretrained(other, tmp_path)
    assert not any("mmrl_" in name for name, _ in other.named_parameters())


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("adapter_model.safetensors", b""),
        ("adapter_model.safetensors", b"no weights"),
        ("adapter_model.bin", b""),
        ("adapter_model.bin", b"hello world"),
    ],
)
def test_damaged_weights_are_an_os_error(model, file, content, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    (tmp_path / file).write_bytes(content)
    other = make_clip()
    with pytest.raises(OSError, match="cannot be read"):
        PeftModel.from_pretrained(other, tmp_path)
    assert untouched(other)
    with pytest.raises(OSError, match="cannot be read"):
        model.load_adapter(tmp_path, "default")


@pytest.mark.parametrize("subfolder", [None, "best"])
def test_a_folder_without_weights_names_the_missing_file(model, subfolder, tmp_path):
    model.save_pretrained(tmp_path / (subfolder or ""))
    (tmp_path / (subfolder or "") / "adapter_model.safetensors").unlink()
    message = rf"no weights in .*{subfolder or tmp_path.name}/?: adapter_model.safetensors is missing"
    kwargs = {} if subfolder is None else {"subfolder": subfolder}
    with pytest.raises(OSError, match=message):
        PeftModel.from_pretrained(make_clip(), tmp_path, **kwargs)
    with pytest.raises(OSError, match=message):
        model.load_adapter(tmp_path, "new", **kwargs)


def test_missing_tensors_are_named(model, tmp_path):
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    name = next(iter(weights))
    del weights[name]
    save_file(weights, tmp_path / "adapter_model.safetensors")
    other = make_clip()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        PeftModel.from_pretrained(other, tmp_path)
    assert untouched(other)


def test_a_second_model_on_one_clip_knows_both_adapters_classes(model, images, tmp_path):
    model.save_pretrained(tmp_path)
    clip = make_clip()
    first = PeftModel.from_pretrained(clip, tmp_path)
    expected = first(pixel_values=images).logits
    second = PeftModel.from_pretrained(clip, tmp_path, adapter_name="two")
    second.set_adapter("default")
    assert torch.allclose(second(pixel_values=images).logits, expected, atol=1e-5)


def test_auto_class_takes_a_config(tmp_path):
    case = Case("mmrl")
    model = get_peft_model(case.clip(), MMRLConfig(rep_dim=8))
    model.save_pretrained(tmp_path)
    config = PeftConfig.from_pretrained(tmp_path)
    config.alpha = 0.2
    loaded = AutoPeftModelForZeroShotImageClassification.from_pretrained(tmp_path, config=config)
    assert loaded.peft_config["default"].alpha == 0.2


def test_in_place_loading_takes_weights_only(model, images, tmp_path):
    model.save_pretrained(tmp_path)
    expected = model(pixel_values=images).logits
    scramble(model, 9)
    model.set_classes(["cat", "big dog"], WordTokenizer(), template="{}")
    assert not torch.allclose(model(pixel_values=images).logits, expected)
    config = model.peft_config["default"]
    model.load_adapter(tmp_path, "default")
    assert model.peft_config["default"] is config
    model.set_classes()
    assert torch.allclose(model(pixel_values=images).logits, expected, atol=1e-6)


# --- several adapters --------------------------------------------------------------------------------------------


def test_classes_and_logits_follow_the_active_adapter(model, images, tokenizer, tmp_path):
    first = model(pixel_values=images).logits
    add_second(model, tokenizer)
    second = model(pixel_values=images).logits
    assert second.shape == (4, 3)
    assert model.config.id2label == {0: "car", 1: "bus", 2: "van"}
    model.set_adapter("default")
    assert torch.equal(model(pixel_values=images).logits, first)
    assert model.classes == ["cat", "big dog"]
    model.set_adapter("second")
    assert torch.equal(model(pixel_values=images).logits, second)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["classes"] == ["cat", "big dog"]
    assert json.loads((tmp_path / "second" / "adapter_config.json").read_text())["classes"] == ["car", "bus", "van"]

    loaded = PeftModel.from_pretrained(make_clip(), tmp_path)
    loaded.load_adapter(tmp_path / "second", "second")
    assert torch.allclose(loaded(pixel_values=images).logits, first, atol=1e-6)
    loaded.set_adapter("second")
    assert torch.allclose(loaded(pixel_values=images).logits, second, atol=1e-6)


def test_an_adapter_without_classes_asks_for_them(model, images):
    model.add_adapter("fresh", MMRLConfig(rep_dim=8))
    model.set_adapter("fresh")
    with pytest.raises(ValueError, match="No classes are bound to this adapter"):
        model(pixel_values=images)


def test_only_the_active_adapter_is_trainable(model, tokenizer):
    add_second(model, tokenizer)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable
    assert all(".second." in name for name in trainable)


def test_deleting_the_active_adapter_goes_on_with_the_other(model, images, tokenizer):
    first = model(pixel_values=images).logits
    add_second(model, tokenizer)
    with pytest.warns(UserWarning, match="Setting active adapter to default"):
        model.delete_adapter("second")
    assert model.active_adapter == "default"
    assert torch.equal(model(pixel_values=images).logits, first)
    with pytest.raises(ValueError, match="second"):
        model.set_adapter("second")


def test_without_any_adapter_it_says_so(model, images, tmp_path):
    model.delete_adapter("default")
    for call in (lambda: model(pixel_values=images), lambda: model.set_classes(["cat"])):
        with pytest.raises(ValueError, match="No adapter is active"):
            call()
    with pytest.raises(ValueError, match="No adapter is active"), model.disable_adapter():
        pass
    with pytest.raises(ValueError, match="No adapter is active"):
        model.save_pretrained(tmp_path)


def test_two_active_adapters_are_refused(model, images, tokenizer):
    add_second(model, tokenizer)
    expected = model(pixel_values=images).logits
    for target in (model, model.base_model):
        with pytest.raises(ValueError, match="one adapter at a time"):
            target.set_adapter(["default", "second"])
    assert torch.equal(model(pixel_values=images).logits, expected)


@pytest.mark.parametrize("name", ["vision_model", "weight", "A", "mmrl_aligner", "base_model", "model", "encoder"])
def test_adapter_names_that_peft_could_not_save_are_refused(name, images):
    clip = make_clip()
    expected = clip(IDS, images).logits_per_image
    with pytest.raises(ValueError, match=f"`adapter_name`='{name}'"):
        get_peft_model(clip, MMRLConfig.plus_plus(), adapter_name=name)
    assert torch.equal(clip(IDS, images).logits_per_image, expected)
    model = get_peft_model(clip, MMRLConfig.plus_plus(rep_dim=8))
    with pytest.raises(ValueError, match=f"`adapter_name`='{name}'"):
        model.add_adapter(name, MMRLConfig.plus_plus(rep_dim=8))
    assert list(model.peft_config) == ["default"]


@pytest.mark.parametrize("name", ["A", "B", "bias", "module", "_orig_mod"])
@pytest.mark.parametrize("config", VARIANTS)
def test_names_of_weights_of_either_kind_and_of_wrappers_are_refused(name, config):
    """An MMRL adapter named "A" would hide the weights A of an MMRL++ adapter beside it."""
    with pytest.raises(ValueError, match=f"`adapter_name`='{name}'"):
        get_peft_model(make_clip(), copy.deepcopy(VARIANTS[config]), adapter_name=name)
    model = get_peft_model(make_clip(), MMRLConfig.plus_plus(rep_dim=8))
    with pytest.raises(ValueError, match=f"`adapter_name`='{name}'"):
        model.add_adapter(name, copy.deepcopy(VARIANTS[config]))


def test_all_names_of_weights_are_known(model):
    leaves = {name.rpartition(".")[2] for name, _ in model.named_parameters() if "mmrl_" in name}
    assert leaves <= set(LEAVES)


@pytest.mark.parametrize("name", ["a.b", "", "keys", "forward", "training"])
def test_adapter_names_that_are_no_module_names_are_refused(name):
    clip = make_clip()
    with pytest.raises(ValueError, match="`adapter_name`"):
        get_peft_model(clip, MMRLConfig(rep_dim=8), adapter_name=name)
    assert untouched(clip)
    model = get_peft_model(clip, MMRLConfig(rep_dim=8))
    with pytest.raises(ValueError, match="`adapter_name`"):
        model.add_adapter(name, MMRLConfig(rep_dim=8))
    assert list(model.peft_config) == ["default"]


@pytest.mark.parametrize("name", ["shop", "ünï-2", "mmrl", "0x", "a b"])
def test_other_adapter_names_save_everything(name, images, tokenizer, tmp_path):
    model = scramble(get_peft_model(make_clip(), MMRLConfig(rep_dim=8), adapter_name=name), adapter=name)
    model.set_classes(["cat", "dog"], tokenizer)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make_clip(), tmp_path / name, adapter_name="other")
    assert torch.allclose(loaded(pixel_values=images).logits, model.eval()(pixel_values=images).logits, atol=1e-6)


@pytest.mark.parametrize("config", [None, {"peft_type": "MMRL"}])
def test_only_configs_can_be_added(clip, config):
    model = get_peft_model(clip, MMRLConfig(rep_dim=8))
    with pytest.raises(TypeError, match="`peft_config`"):
        model.add_adapter("new", config)


def test_other_methods_cannot_be_added(model):
    with pytest.raises(ValueError, match="different peft types"):
        model.add_adapter("lora", LoraConfig(target_modules=["q_proj"]))


# --- state -------------------------------------------------------------------------------------------------------


def test_state_dict_round_trip(model, images, config):
    weights = get_peft_model_state_dict(model)
    other = get_peft_model(make_clip(), copy.deepcopy(VARIANTS["mmrl" if config.proj_rank is None else "mmrl++"]))
    other.set_classes(["cat", "big dog"], WordTokenizer())
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(pixel_values=images).logits, model(pixel_values=images).logits)
    assert weights.keys() == get_peft_model_state_dict(other).keys()


def test_changed_weights_show_at_the_next_call(model, images):
    with torch.no_grad():
        last = model(pixel_values=images).logits
        for change in (
            lambda p: p.data.mul_(1.5),
            lambda p: p.add_(torch.randn_like(p)),
            lambda p: setattr(p, "data", p.data + torch.randn_like(p)),
        ):
            for name, parameter in model.named_parameters():
                if "text_model.mmrl_aligner" in name:
                    change(parameter)
            logits = model(pixel_values=images).logits
            assert not torch.allclose(logits, last)
            last = logits


def test_copies_are_independent(model, images):
    expected = model(pixel_values=images).logits
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(pixel_values=images).logits, expected)
        scramble(twin, 7)
        twin.set_classes(["owl"], WordTokenizer())
        assert not torch.allclose(twin(pixel_values=images).class_logits[:, :1], expected[:, :1])
    assert torch.equal(model(pixel_values=images).logits, expected)


def test_layer_and_model_status(model):
    names = {layer.name for layer in model.get_layer_status()}
    assert names == {"model.text_model", "model.vision_model"}
    status = model.get_model_status()
    assert status.enabled is True
    assert status.active_adapters == ["default"]
    with model.disable_adapter():
        assert model.get_model_status().enabled is False


def test_nested_disabling(model, images):
    expected = model(pixel_values=images).logits
    with model.disable_adapter():
        frozen = model(pixel_values=images).logits
        with model.disable_adapter():
            assert torch.equal(model(pixel_values=images).logits, frozen)
        assert torch.equal(model(pixel_values=images).logits, frozen)
    assert torch.equal(model(pixel_values=images).logits, expected)
    assert not torch.allclose(frozen, expected)


# --- wrapped models ----------------------------------------------------------------------------------------------


def compiled_part(model):
    clip = model.get_base_model()
    clip.vision_model = torch.compile(clip.vision_model, backend="eager")
    return model


WRAPPERS = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "compiled base": lambda model: torch.compile(model.get_base_model(), backend="eager"),
    "DataParallel": torch.nn.DataParallel,
    "both": lambda model: torch.nn.DataParallel(torch.compile(model, backend="eager")),
    "base": lambda model: model.get_base_model(),
    "compiled in place": lambda model: model.compile(backend="eager") or model,
    "base compiled in place": lambda model: model.get_base_model().compile(backend="eager") or model,
    "compiled part": compiled_part,
}


@pytest.mark.parametrize("passed", [True, False], ids=["state_dict", "none"])
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_all_weights_are_saved_whatever_wraps_the_model(model, images, wrap, passed, tokenizer, tmp_path):
    expected = model(pixel_values=images).logits
    add_second(model, tokenizer)
    second = model(pixel_values=images).logits
    wrapped = wrap(model)
    model.save_pretrained(tmp_path, state_dict=wrapped.state_dict() if passed else None)
    for folder, logits in ((tmp_path, expected), (tmp_path / "second", second)):
        loaded = PeftModel.from_pretrained(make_clip(), folder)
        assert torch.allclose(loaded(pixel_values=images).logits, logits, atol=1e-5)


def test_a_state_dict_that_lacks_weights_writes_nothing(model, tokenizer, tmp_path):
    add_second(model, tokenizer)
    weights = model.state_dict()
    del weights["base_model.model.text_model.mmrl_aligner.second.bias"]
    with pytest.raises(
        ValueError, match=r"`state_dict` has \d of \d+ weights of the adapter 'second': .*aligner.*bias"
    ):
        model.save_pretrained(tmp_path / "new", state_dict=weights)
    with pytest.raises(ValueError, match="`state_dict` has 0 of"):
        model.save_pretrained(tmp_path / "new", state_dict={})
    assert not (tmp_path / "new").exists()
    model.save_pretrained(tmp_path / "new", state_dict=weights, selected_adapters=["default"])
    assert (tmp_path / "new" / "adapter_model.safetensors").exists()


def test_other_processes_need_no_weights_to_save(model, tmp_path):
    model.save_pretrained(tmp_path, state_dict={}, is_main_process=False)
    assert not any(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("part", ["model", "tuner"])
def test_an_adapted_model_is_told_how_to_take_another_adapter(model, images, part, tmp_path):
    expected = model(pixel_values=images).logits
    model.save_pretrained(tmp_path)
    adapted = model if part == "model" else model.base_model
    for adapt in (
        lambda: PeftModel.from_pretrained(adapted, tmp_path),
        lambda: PeftModel.from_pretrained(adapted, tmp_path, adapter_name="second"),
        lambda: get_peft_model(adapted, MMRLConfig(rep_dim=8)),
    ):
        with pytest.raises(
            ValueError, match=r"adapted already.*`load_adapter\(folder, adapter_name\)`.*`model.unload\(\)`"
        ):
            adapt()
    assert list(model.peft_config) == ["default"]
    assert torch.equal(model(pixel_values=images).logits, expected)


# --- merging and unloading ---------------------------------------------------------------------------------------


def test_merging_is_refused_and_the_model_goes_on(model, images):
    expected = model(pixel_values=images).logits
    for merge in (model.merge_and_unload, model.merge_adapter, model.unmerge_adapter):
        with pytest.raises(NotImplementedError, match=r"cannot be merged.*save_pretrained.*unload\(\)"):
            merge()
    assert torch.equal(model(pixel_values=images).logits, expected)


def test_unload_gives_the_untouched_clip(model, images):
    plain = make_clip()
    clip = model.unload()
    assert type(clip) is CLIPModel
    assert [name for name, _ in clip.named_modules()] == [name for name, _ in plain.named_modules()]
    assert torch.equal(clip(IDS, images).logits_per_image, plain(IDS, images).logits_per_image)
    assert clip.__dict__.keys() == plain.__dict__.keys()
    assert not any(module._forward_hooks for module in clip.modules())
    again = get_peft_model(clip, MMRLConfig(rep_dim=8))
    assert again.get_nb_trainable_parameters()[0] > 0


@pytest.mark.parametrize("before", [True, False])
def test_gradient_checkpointing_leaves_no_hook_after_unload(images, tokenizer, before):
    clip = make_clip()
    if before:
        clip.gradient_checkpointing_enable()
    model = get_peft_model(clip, MMRLConfig(rep_dim=8))
    if not before:
        model.get_base_model().gradient_checkpointing_enable()
    model.set_classes(["cat", "dog"], tokenizer)
    model(pixel_values=images, labels=torch.tensor([0, 1, 0, 1])).loss.backward()
    assert not any(module._forward_hooks for module in model.unload().modules())


def test_ephemeral_offload_is_refused(model, tmp_path):
    model.save_pretrained(tmp_path)
    other = make_clip()
    with pytest.raises(ValueError, match="`ephemeral_gpu_offload` is not supported"):
        PeftModel.from_pretrained(other, tmp_path, ephemeral_gpu_offload=True)
    assert untouched(other)


def test_wrapping_twice_warns(model):
    with pytest.warns(UserWarning, match="second time"):
        get_peft_model(model.get_base_model(), MMRLConfig(rep_dim=8))


def test_configs_of_peft_load_the_same_class(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert PeftConfig.from_pretrained(tmp_path).to_dict() == MMRLConfig.from_pretrained(tmp_path).to_dict()
