"""The golden numbers of the papers' own code: outputs, every loss term, every gradient, ten training steps."""

import pytest
import torch
from golden import FIELDS, golden_model, gradients, relative_error
from peft import get_peft_model

from peft_mmrl import MMRLConfig
from peft_mmrl.tuner.textbook import textbook_forward


def assert_output(name, ours, golden):
    if name.endswith("_reg"):
        assert abs(float(ours - golden)) < 1e-5, name
    else:
        assert relative_error(ours, golden) < 1e-5, name


def test_prompts_have_the_reference_token_ids(case):
    model = golden_model(case)
    ours = model._bound["default"].prompts[0].input_ids
    golden = case.golden["input_ids"]
    for row, reference in zip(ours, golden, strict=True):
        length = int((reference != 0).sum())
        assert row[:length].tolist() == reference[:length].tolist()


def test_outputs_and_loss_terms(case):
    model = golden_model(case)
    output = model(pixel_values=case.golden["pixel_values"], labels=case.golden["labels"])
    golden = case.group("out")
    for field, name in FIELDS.items():
        assert_output(name, output[field], golden[name])


def test_explicit_input_ids_give_the_same(case):
    model = golden_model(case)
    output = model(case.golden["input_ids"], case.golden["pixel_values"], labels=case.golden["labels"])
    golden = case.group("out")
    for field, name in FIELDS.items():
        assert_output(name, output[field], golden[name])


def test_frozen_features(case):
    model = golden_model(case)
    with model.disable_adapter():
        output = model(pixel_values=case.golden["pixel_values"])
    assert relative_error(output.image_embeds, case.golden["out.frozen_image_features"]) < 1e-5
    assert relative_error(output.text_embeds, case.golden["out.frozen_text_features"]) < 1e-5


def test_gradients_of_every_parameter(case):
    model = golden_model(case)
    model(pixel_values=case.golden["pixel_values"], labels=case.golden["labels"]).loss.backward()
    golden = case.group("grad")
    ours = gradients(model)
    assert ours.keys() == golden.keys()
    for name, gradient in golden.items():
        assert relative_error(ours[name], gradient) < 1e-4, name


def test_ten_training_steps(case):
    model = golden_model(case)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=5e-4)
    losses = []
    for images, labels in zip(case.golden["train_pixel_values"], case.golden["train_labels"], strict=True):
        loss = model(pixel_values=images, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    assert relative_error(torch.stack(losses), case.golden["train.loss"]) < 1e-4
    output = model(pixel_values=case.golden["pixel_values"], labels=case.golden["labels"])
    trained = case.group("trained")
    assert relative_error(output.loss, trained["loss"]) < 1e-4
    assert relative_error(output.logits, trained["fused_logits"]) < 1e-4


def test_textbook_agrees_with_the_reference(case):
    golden = case.group("out")
    params = {name: value.requires_grad_() for name, value in case.group("param").items()}
    output = textbook_forward(
        case.clip().requires_grad_(False),
        MMRLConfig(**case.config_kwargs()),
        params,
        case.golden["input_ids"],
        case.golden["pixel_values"],
        case.golden["labels"],
    )
    for name in golden:
        assert_output(name, output[name], golden[name])
    output["loss"].backward()
    for name, gradient in case.group("grad").items():
        assert relative_error(params[name].grad, gradient) < 1e-4, name


@pytest.mark.parametrize(("config", "count"), [(MMRLConfig(), 4_992_256), (MMRLConfig.plus_plus(), 813_312)])
def test_parameter_counts_of_vit_b_16(config, count):
    from transformers import CLIPConfig, CLIPModel

    with torch.device("meta"):
        clip = CLIPModel(CLIPConfig(vision_config={"patch_size": 16}, projection_dim=512))
        model = get_peft_model(clip, config)
    trainable, total = model.get_nb_trainable_parameters()
    assert trainable == count
    assert total - trainable == 149_620_737
