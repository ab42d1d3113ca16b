"""What PEFT's common tests check of its own methods, for MMRL and MMRL++.

The docstrings name the test of PEFT's `tests/` that a behaviour comes from, or the page of its documentation. Where
a behaviour is "as in LoRA", LoRA itself on the same CLIP is the yardstick. What test_adapters.py checks is not
repeated.
"""

import copy
import io
import re

import pytest
import torch
from conftest import IDS, VARIANTS, WordTokenizer, make_clip, scramble
from peft import (
    LoraConfig,
    PeftModel,
    PeftType,
    get_base_model_state_dict,
    get_layer_status,
    get_model_status,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    prepare_model_for_kbit_training,
    set_peft_model_state_dict,
)
from peft.utils.hotswap import hotswap_adapter
from safetensors.torch import load_file

from peft_mmrl import MMRLConfig


LORA = LoraConfig(target_modules=["q_proj"])


def adapter_weights(model, prefix="mmrl_"):
    return {name: weight for name, weight in model.named_parameters() if prefix in name}


# --- PEFT's low-level functions ----------------------------------------------------------------------------------


def test_inject_and_state_dicts_of_a_plain_model(config, images):
    """Page "Adapter injection"; test_low_level_api.py::TestLowLevelFunctional."""
    clip = scramble(inject_adapter_in_model(config, make_clip()))
    weights = get_peft_model_state_dict(clip)
    assert not any("default" in name for name in weights)
    assert len(weights) == len(adapter_weights(clip))
    other = inject_adapter_in_model(config, make_clip(), low_cpu_mem_usage=True)
    assert {weight.device.type for weight in adapter_weights(other).values()} == {"meta"}
    result = set_peft_model_state_dict(other, weights, low_cpu_mem_usage=True)
    assert not result.unexpected_keys
    assert torch.equal(other(IDS, images).logits_per_image, clip(IDS, images).logits_per_image)


def test_set_peft_model_state_dict_into_another_adapter(model, config, images):
    """test_low_level_api.py::TestPeftStateDict, with another adapter name."""
    other = get_peft_model(make_clip(), config, adapter_name="shop")
    result = set_peft_model_state_dict(other, get_peft_model_state_dict(model), adapter_name="shop")
    assert not result.unexpected_keys
    other.set_classes(["cat", "big dog"], WordTokenizer())
    assert torch.equal(other.eval()(pixel_values=images).logits, model(pixel_values=images).logits)


def test_base_weights_keep_their_names(model, clip):
    """testing_common.py::_test_get_base_model_state_dict."""
    plain = make_clip().state_dict()
    weights = get_base_model_state_dict(model)
    assert weights.keys() == plain.keys()
    assert all(torch.equal(weights[name], plain[name]) for name in plain)


def test_kbit_preparation(images, config, tokenizer):
    """Page "Quantization": `prepare_model_for_kbit_training` freezes and casts, then the adapter is added."""
    clip = prepare_model_for_kbit_training(make_clip().bfloat16(), use_gradient_checkpointing=True)
    model = get_peft_model(clip, config)
    model.set_classes(["cat", "dog"], tokenizer)
    model(pixel_values=images, labels=torch.tensor([0, 1, 0, 1])).loss.backward()
    assert all((weight.grad is not None) == ("mmrl_" in name) for name, weight in model.named_parameters())


# --- saving and loading ------------------------------------------------------------------------------------------


def test_selected_adapters_alone_are_saved(model, config, tmp_path):
    """testing_common.py::_test_save_pretrained_selected_adapters and ::..._adapter_name_substring."""
    expected = get_peft_model_state_dict(model)
    for name in ("default2", "other_default", "foodefault_bar", "efaul"):
        model.add_adapter(name, config)
    model.save_pretrained(tmp_path, selected_adapters=["default", "efaul"])
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"efaul"}
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], expected[name]) for name in saved)
    with pytest.raises(ValueError, match="`selected_adapters`"):
        model.save_pretrained(tmp_path, selected_adapters=["none"])


def test_config_objects_are_used_and_frozen_for_inference(model, config, tmp_path):
    """testing_common.py::_test_from_pretrained_config_construction."""
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make_clip(), tmp_path, config=config)
    assert loaded.peft_config["default"] is config
    assert config.inference_mode


def test_several_adapters_load_without_missing_keys(model, tmp_path):
    """testing_common.py::_test_load_multiple_adapters and ::_test_load_model_low_cpu_mem_usage."""
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make_clip(), tmp_path, low_cpu_mem_usage=True)
    for name, low_cpu_mem_usage in (("other", True), ("yet-another", False)):
        assert loaded.load_adapter(tmp_path, name, low_cpu_mem_usage=low_cpu_mem_usage).missing_keys == []
    assert {weight.device.type for weight in loaded.parameters()} == {"cpu"}
    first, *others = (get_peft_model_state_dict(loaded, adapter_name=name) for name in loaded.peft_config)
    assert all(torch.equal(weight, other[name]) for other in others for name, weight in first.items())


def test_empty_weights_of_a_new_adapter(config):
    """test_initialization.py::TestLowCpuMemUsage."""
    model = get_peft_model(make_clip(), config, low_cpu_mem_usage=True)
    assert {weight.device.type for weight in adapter_weights(model).values()} == {"meta"}
    assert {weight.device.type for name, weight in model.named_parameters() if "mmrl_" not in name} == {"cpu"}


def test_torch_save(model, images):
    """State dicts load with `weights_only`; whole models as pickles."""
    expected = model(pixel_values=images).logits
    file = io.BytesIO()
    torch.save({"weights": model.state_dict()}, file)
    file.seek(0)
    weights = torch.load(file, weights_only=True)["weights"]
    scramble(model, 7)
    assert not model.load_state_dict(weights).missing_keys
    assert torch.equal(model(pixel_values=images).logits, expected)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(pixel_values=images).logits, expected)


def test_weights_trained_in_eval_mode(model, images, tmp_path):
    """testing_common.py::_test_training and ::_test_inference_safetensors, which never call `train()`."""
    output = model(IDS, images)[0]
    output.sum().backward()
    named = model.named_parameters()
    assert all((weight.grad is not None) == ("mmrl_" in name) for name, weight in named if "projection" not in name)
    with torch.no_grad():
        for weight in adapter_weights(model).values():
            if weight.grad is not None:
                weight -= 0.1 * weight.grad
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make_clip(), tmp_path)
    assert torch.equal(loaded(IDS, images)[0], model(IDS, images)[0])


# --- as in LoRA --------------------------------------------------------------------------------------------------


def both(change):
    """What `change` gives for MMRL and for LoRA."""
    return tuple(
        change(get_peft_model(make_clip(), copy.deepcopy(config)), copy.deepcopy(config))
        for config in (VARIANTS["mmrl++"], LORA)
    )


def trainable(model):
    """Names of the adapters whose weights, all of them, require gradients; no other weight may."""
    prefix = model.base_model.prefix
    flags = {name: set() for name in model.peft_config}
    for name, weight in model.named_parameters():
        owner = next((adapter for adapter in flags if prefix in name and f".{adapter}." in name), None)
        if owner is None:
            assert not weight.requires_grad
        else:
            flags[owner].add(weight.requires_grad)
    assert all(len(flag) == 1 for flag in flags.values())
    return [name for name, flag in flags.items() if flag == {True}]


def test_gradients_are_required_as_in_lora(tmp_path):
    """test_custom_models.py::TestRequiresGrad and ::test_set_requires_grad."""

    def steps(model, config):
        seen = [trainable(model)]
        model.add_adapter("second", config)
        seen.append(trainable(model))
        for change in (
            lambda: model.set_adapter("second"),
            lambda: model.set_requires_grad("default"),
            lambda: model.set_requires_grad("second", requires_grad=False),
            lambda: model.set_requires_grad(["default", "second"]),
            lambda: model.set_adapter("second", inference_mode=True),
            lambda: model.set_adapter("default"),
            lambda: model.add_adapter("third", copy.deepcopy(config)),
            lambda: model.delete_adapter("default"),
        ):
            change()
            seen.append(trainable(model))
        with model.disable_adapter():
            seen.append(trainable(model))
        seen.append(trainable(model))
        return seen

    mmrl, lora = both(steps)
    assert mmrl == lora
    assert mmrl[:3] == [["default"], ["default"], ["second"]]


@pytest.mark.parametrize("is_trainable", [False, True])
def test_loaded_adapters_require_gradients_as_in_lora(is_trainable, tmp_path):
    """test_custom_models.py::test_loading_model_requires_grad_set_correctly and those that follow it."""

    def steps(model, config):
        folder = tmp_path / config.peft_type
        model.save_pretrained(folder)
        loaded = PeftModel.from_pretrained(make_clip(), folder, is_trainable=is_trainable)
        seen = [(trainable(loaded), loaded.training, loaded.peft_config["default"].inference_mode)]
        loaded.load_adapter(folder, "second", is_trainable=is_trainable)
        seen.append(trainable(loaded))
        loaded.set_adapter("second")
        seen.append(trainable(loaded))
        loaded.add_adapter("third", config)
        seen.append(trainable(loaded))
        return seen

    mmrl, lora = both(steps)
    assert mmrl == lora


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_adapter_types_as_in_lora(dtype, autocast, tmp_path):
    """test_custom_models.py::test_adapter_dtype_autocast: `autocast_adapter_dtype` of all four ways to add one."""

    def dtypes(config):
        prefix = {PeftType.LORA: "lora_"}.get(config.peft_type, "mmrl_")
        folder = tmp_path / config.peft_type
        model = get_peft_model(make_clip().to(dtype), config, autocast_adapter_dtype=autocast)
        model.add_adapter("second", config, autocast_adapter_dtype=autocast)
        model.save_pretrained(folder)
        loaded = PeftModel.from_pretrained(make_clip().to(dtype), folder, autocast_adapter_dtype=autocast)
        loaded.load_adapter(folder / "second", "second", autocast_adapter_dtype=autocast)
        return [{weight.dtype for weight in adapter_weights(one, prefix).values()} for one in (model, loaded)]

    mmrl, lora = dtypes(copy.deepcopy(VARIANTS["mmrl"])), dtypes(copy.deepcopy(LORA))
    assert mmrl == lora
    assert mmrl[0] == {torch.float32 if autocast else dtype}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_adapters_in_half_precision(dtype, config, images, tokenizer):
    """test_custom_models.py::test_forward_float16_no_autocast and ::test_forward_bfloat16_no_autocast."""
    model = get_peft_model(make_clip().to(dtype), config, autocast_adapter_dtype=False)
    model.set_classes(["cat", "dog"], tokenizer)
    loss = model(pixel_values=images.to(dtype), labels=torch.tensor([0, 1, 0, 1])).loss
    loss.backward()
    assert loss.isfinite()
    assert all(weight.grad.isfinite().all() for weight in adapter_weights(model).values())


def test_status_as_in_lora():
    """Page "Troubleshooting", check layer and model status; test_tuners_utils.py::TestModelAndLayerStatus."""

    def steps(model, config):
        model.add_adapter("second", config)
        seen = []
        for change in (
            lambda: None,
            lambda: model.set_adapter("second"),
            lambda: model.base_model.disable_adapter_layers(),
            lambda: model.base_model.enable_adapter_layers(),
            lambda: model.set_requires_grad(["default", "second"]),
        ):
            change()
            layers, status = model.get_layer_status(), model.get_model_status()
            assert (get_layer_status(model), get_model_status(model)) == (layers, status)
            ignored = {"name", "module_type"}
            seen.append([{k: v for k, v in vars(layers[0]).items() if k not in ignored}])
            ignored = {"adapter_model_type", "peft_types", "trainable_params", "total_params", "num_adapter_layers"}
            seen.append([{k: v for k, v in vars(status).items() if k not in ignored}])
        return seen

    mmrl, lora = both(steps)
    assert mmrl == lora


def test_status_of_an_injected_clip(config):
    """test_tuners_utils.py::test_model_with_injected_layers."""
    clip = inject_adapter_in_model(config, make_clip())
    status = get_model_status(clip)
    assert (status.active_adapters, status.available_adapters, status.enabled) == (["default"], ["default"], True)
    assert status.num_adapter_layers == 2
    assert [layer.name for layer in get_layer_status(clip)] == ["text_model", "vision_model"]


def test_trainable_parameters_are_printed(model, capsys):
    """Page "Quicktour"."""
    trained = sum(weight.numel() for weight in adapter_weights(model).values())
    total = sum(weight.numel() for weight in model.parameters())
    model.print_trainable_parameters()
    printed = capsys.readouterr().out
    assert [int(number.replace(",", "")) for number in re.findall(r"params: ([\d,]+)", printed)] == [trained, total]


def test_disabling_restores_what_was_before(model, config, images):
    """test_custom_models.py::test_disable_adapters_exiting_context_restores_previous_state, with two adapters."""
    model.add_adapter("second", config)
    model.base_model.disable_adapter_layers()
    frozen = model(IDS, images).logits
    with model.disable_adapter():
        pass
    assert model.get_model_status().enabled is False
    assert torch.equal(model(IDS, images).logits, frozen)
    model.base_model.enable_adapter_layers()
    model.set_adapter("second")
    with model.disable_adapter(), model.disable_adapter():
        assert torch.equal(model(IDS, images).logits, frozen)
        model.set_adapter("default")
    assert model.active_adapter == "default"
    assert model.get_model_status().enabled is True


# --- deleting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_active", [False, True])
def test_deleting_leaves_nothing_behind(is_active, model, images, config):
    """testing_common.py::_test_delete_adapter and ::_test_delete_inactive_adapter, the last adapter too."""
    expected = make_clip()(IDS, images).logits_per_image
    names = model.state_dict().keys()
    model.add_adapter("second", config)
    if is_active:
        model.set_adapter("second")
    model.delete_adapter("second")
    assert model.active_adapters == ["default"]
    assert model.state_dict().keys() == names
    model.delete_adapter("default")
    assert (model.active_adapters, list(model.peft_config)) == ([], [])
    assert not adapter_weights(model)
    assert torch.equal(model.base_model(IDS, images).logits_per_image, expected)
    model.add_adapter("new", config)
    model.set_adapter("new")
    model(IDS, images).logits.sum().backward()


@pytest.mark.parametrize("method", ["set_adapter", "delete_adapter"])
def test_unknown_adapters_are_named(method, model):
    """testing_common.py::_test_delete_unknown_adapter_raises."""
    with pytest.raises(ValueError, match="Adapter nobody"):
        getattr(model, method)("nobody")
    with pytest.raises(ValueError, match="already exists"):
        model.add_adapter("default", MMRLConfig(rep_dim=8))
    assert model.active_adapters == ["default"]


# --- what MMRL does not have -------------------------------------------------------------------------------------


def test_modules_to_save_are_refused(clip, config):
    """MMRL has no such field. PEFT reads the attribute where somebody sets it all the same."""
    with pytest.raises(TypeError, match="modules_to_save"):
        MMRLConfig(modules_to_save=["visual_projection"])
    config.modules_to_save = ["visual_projection"]
    names = clip.state_dict().keys()
    with pytest.raises(ValueError, match="`modules_to_save`=.*not supported"):
        get_peft_model(clip, config)
    assert clip.state_dict().keys() == names


def test_functions_of_other_methods_say_so(model, config, tmp_path):
    """Pages "Mixed adapter types" and "Hotswapping": PEFT's own errors."""
    with pytest.raises(ValueError, match="MMRL.*not compatible"):
        get_peft_model(make_clip(), config, mixed=True)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="MMRL"):
        hotswap_adapter(model, str(tmp_path), "default")
