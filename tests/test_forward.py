"""forward: what goes in, what comes out, the loss, bad input."""

import dataclasses
import inspect
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from conftest import make_clip, scramble
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import get_peft_model
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertModel, CLIPModel, CLIPTextModel, CLIPVisionModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPOutput

from peft_mmrl import MMRLConfig, MMRLOutput
from peft_mmrl.tuner.textbook import textbook_forward, textbook_weights


LABELS = torch.tensor([0, 1, 0, 1])
IDS = torch.tensor([[98, 1, 2, 99, 99], [98, 3, 4, 5, 99], [98, 3, 99, 0, 0]])


@pytest.fixture
def model(clip, tokenizer):
    model = scramble(get_peft_model(clip, MMRLConfig(rep_dim=16)))
    model.set_classes(["cat", "big dog"], tokenizer)
    return model


# --- against the textbook ----------------------------------------------------------------------------------------


def relative(ours, theirs):
    return float((ours - theirs).detach().norm() / theirs.detach().norm().clamp(min=1e-30))


@st.composite
def problems(draw):
    """A random problem: sizes of the CLIP, config, prompts, images."""
    depths = {tower: draw(st.integers(1, 4)) for tower in ("vision", "text")}
    layers = {
        f"{tower}_layers": draw(st.none() | st.sets(st.integers(0, depth - 1), min_size=1).map(list))
        for tower, depth in depths.items()
    }
    plus_plus = draw(st.booleans())
    config = {
        **layers,
        "num_rep_tokens": draw(st.integers(1, 4)),
        "rep_dim": draw(st.integers(1, 9)),
        "alpha": draw(st.sampled_from([0.0, 0.3, 0.7, 1.0])),
        "reg_weight": draw(st.sampled_from([0.5, 4.0])),
        "beta": draw(st.sampled_from([0.0, 0.4, 1.0])),
        "aligner_rank": draw(st.integers(1, 60)) if plus_plus else None,
        "proj_rank": draw(st.integers(1, 60)) if plus_plus else None,
        "label_smoothing": draw(st.sampled_from([0.0, 0.1, 0.9])),
    }
    lengths = draw(st.lists(st.integers(1, 6), min_size=2, max_size=4))
    if draw(st.booleans()):
        config["class_weight"] = [draw(st.sampled_from([0.1, 1.0, 7.0])) for _ in lengths]
    prefix = draw(st.integers(0, 3))
    rows = [[98, *range(1, prefix + 1), *range(10 * i + 10, 10 * i + 10 + n), 99] for i, n in enumerate(lengths)]
    return depths, config, rows, draw(st.integers(1, 3)), draw(st.integers(0, 99)), draw(st.sampled_from([0, 99]))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems())
def test_any_problem_is_the_textbooks(problem):
    depths, config, rows, batch, seed, pad = problem
    clip = make_clip(seed, **{f"{tower}_num_hidden_layers": depth for tower, depth in depths.items()}).double()
    plain = make_clip(seed, **{f"{tower}_num_hidden_layers": depth for tower, depth in depths.items()}).double()
    model = scramble(get_peft_model(clip, MMRLConfig(**config)), seed)
    images = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(seed)).double()
    labels = torch.arange(batch) % len(rows)
    padded = torch.tensor([row + [pad] * (20 - len(row)) for row in rows])

    model.set_classes([str(i) for i in range(len(rows))], lambda texts: {"input_ids": rows}, allow_duplicates=True)
    output = model(pixel_values=images, labels=labels)
    with torch.no_grad():
        explicit = model(padded, images, labels=labels)
    theirs = textbook_forward(plain, model.peft_config["default"], textbook_weights(model), padded, images, labels)
    fields = {"logits": "fused_logits", "image_embeds": "image_features", "text_embeds": "text_features"}
    names = ("class_logits", "rep_logits", "loss", "loss_class", "loss_rep", "loss_image_reg", "loss_text_reg")
    for field, name in {**fields, **{name: name for name in names}}.items():
        assert relative(output[field], theirs[name]) < 1e-9 or float((output[field] - theirs[name]).abs()) < 1e-9, name
        assert relative(explicit[field], output[field]) < 1e-9 or name.endswith("_reg"), name
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    ours = torch.autograd.grad(output.loss, parameters)
    theirs = torch.autograd.grad(theirs["loss"], parameters, allow_unused=True)
    for our, their in zip(ours, theirs, strict=True):
        their = torch.zeros_like(our) if their is None else their
        assert relative(our, their) < 1e-9 or float((our - their).abs().max()) < 1e-12


# --- output ------------------------------------------------------------------------------------------------------


def test_output_is_a_clip_output_with_our_fields_behind(model, images):
    output = model(pixel_values=images, labels=LABELS)
    assert isinstance(output, CLIPOutput)
    names = [field.name for field in dataclasses.fields(MMRLOutput)]
    assert names[:7] == [field.name for field in dataclasses.fields(CLIPOutput)]
    assert output.logits is output.logits_per_image
    assert torch.equal(output.logits_per_text, output.logits.T)
    assert output.text_model_output is output.vision_model_output is None
    for field in ("image_embeds", "rep_image_embeds", "text_embeds"):
        assert torch.allclose(output[field].norm(dim=-1), torch.ones(len(output[field])))
    assert model(pixel_values=images, return_dict=False)[0].shape == (4, 2)


def test_signature_is_clips_with_labels_behind(model):
    ours = list(inspect.signature(type(model).forward).parameters)
    clips = [name for name in inspect.signature(CLIPModel.forward).parameters if name != "kwargs"]
    assert ours == [*clips, "labels", "num_items_in_batch", "trunk_states", "frozen_image_embeds", "kwargs"]


def test_explicit_prompts_fill_the_tower_outputs(model, images):
    output = model(IDS, images)
    assert output.logits.shape == (4, 3)
    assert output.text_model_output.last_hidden_state.shape == (3, 5 + 5, 32)
    assert output.vision_model_output.last_hidden_state.shape == (4, 17 + 5, 48)


def test_hidden_states_and_attentions_are_of_the_adapted_pass(tokenizer, images):
    clip = make_clip()
    clip.set_attn_implementation("eager")
    model = get_peft_model(clip, MMRLConfig(rep_dim=16))
    model.set_classes(["cat", "big dog"], tokenizer)
    output = model(pixel_values=images, labels=LABELS, output_hidden_states=True, output_attentions=True)
    vision, text = output.vision_model_output, output.text_model_output
    assert [state.shape[1] for state in vision.hidden_states] == [17, 17, 17, 22, 22]  # 4 layers, the last 2 adapted
    assert [state.shape[1] for state in text.hidden_states] == [9, 9, 14, 14]  # 3 layers, the last 2 adapted
    assert [weights.shape[-1] for weights in vision.attentions] == [17, 17, 22, 22]
    assert [weights.shape[-1] for weights in text.attentions] == [9, 14, 14]
    without = model(pixel_values=images, labels=LABELS)
    assert torch.allclose(without.loss, output.loss, atol=1e-5)


def test_get_features_give_what_clip_gives(model, images):
    output = model(IDS, images)
    image, text = model.get_image_features(pixel_values=images), model.get_text_features(input_ids=IDS)
    assert type(image) is type(text) is BaseModelOutputWithPooling
    assert len(model.get_image_features(pixel_values=images, return_dict=False)) == 2
    assert torch.allclose(torch.nn.functional.normalize(image.pooler_output), output.image_embeds, atol=1e-6)
    assert torch.allclose(torch.nn.functional.normalize(text.pooler_output), output.text_embeds, atol=1e-6)
    with model.disable_adapter():
        assert torch.equal(
            model.get_image_features(pixel_values=images).pooler_output,
            make_clip().get_image_features(pixel_values=images).pooler_output,
        )


def test_other_image_sizes_are_interpolated(model):
    images = torch.randn(2, 3, 48, 40)
    assert model(pixel_values=images, interpolate_pos_encoding=True).logits.shape == (2, 2)
    with pytest.raises(ValueError, match="doesn't match model"):
        model(pixel_values=images)


# --- loss --------------------------------------------------------------------------------------------------------


def test_loss_is_the_weighted_sum_of_its_terms(model, images):
    model.peft_config["default"].alpha = 0.4
    model.peft_config["default"].reg_weight = 3.0
    output = model(pixel_values=images, labels=LABELS)
    assert torch.equal(output.loss_class, cross_entropy(output.class_logits, LABELS))
    assert torch.equal(output.loss_rep, cross_entropy(output.rep_logits, LABELS))
    terms = 0.4 * output.loss_class + 0.6 * output.loss_rep + 3 * (output.loss_image_reg + output.loss_text_reg)
    assert torch.allclose(output.loss, terms)
    assert torch.allclose(output.logits, 0.4 * output.class_logits + 0.6 * output.rep_logits, atol=1e-6)


def test_smoothing_and_class_weights_reach_both_cross_entropies(model, images):
    config = model.peft_config["default"]
    plain = model(pixel_values=images, labels=LABELS)
    config.label_smoothing = 0.2
    smoothed = model(pixel_values=images, labels=LABELS)
    config.class_weight = np.array([3, 0.5], dtype=np.float32)
    weighted = model(pixel_values=images, labels=LABELS)
    weights = torch.tensor([3, 0.5])
    for name in ("class", "rep"):
        logits = plain[f"{name}_logits"]
        assert torch.allclose(smoothed[f"loss_{name}"], cross_entropy(logits, LABELS, label_smoothing=0.2))
        each = cross_entropy(logits, LABELS, weights, label_smoothing=0.2, reduction="none")
        assert torch.allclose(weighted[f"loss_{name}"], each.mean())
    for output in (smoothed, weighted):
        terms = 0.7 * output.loss_class + 0.3 * output.loss_rep + 0.5 * (output.loss_image_reg + output.loss_text_reg)
        assert torch.allclose(output.loss, terms)
        assert torch.equal(output.loss_image_reg, plain.loss_image_reg)
        assert torch.equal(output.logits, plain.logits)
    with model.disable_adapter():  # frozen CLIP has no config
        frozen = model(pixel_values=images, labels=LABELS)
    assert torch.equal(frozen.loss, cross_entropy(frozen.logits, LABELS))


def test_class_weights_belong_to_classes_not_to_positions(model, tokenizer, images):
    model.peft_config["default"].class_weight = [3.0, 0.5]
    model.set_classes(["owl", "Big Dog", "cat"], tokenizer)
    labels = torch.tensor([0, 1, 2, 1])
    output = model(pixel_values=images, labels=labels)
    expected = cross_entropy(output.class_logits, labels, torch.tensor([1, 0.5, 3]), reduction="none").mean()
    assert torch.allclose(output.loss_class, expected)
    prompts = [f"a photo of a {name}." for name in ("owl", "big dog", "cat")]
    rows = tokenizer(prompts)["input_ids"]
    ids = torch.tensor([row + [99] * (9 - len(row)) for row in rows])
    assert torch.allclose(model(ids, images, labels=labels).loss, output.loss, atol=1e-5)


def test_equal_names_have_weights_of_their_own(clip, tokenizer, images):
    model = get_peft_model(clip, MMRLConfig(rep_dim=16, class_weight=[1, 2, 3]))
    model.set_classes(["cat", "dog", "cat"], tokenizer, allow_duplicates=True)
    labels = torch.tensor([0, 1, 2, 2])
    for names in (None, ["cat", "dog", "Cat"]):
        model.set_classes(names, tokenizer, allow_duplicates=True)
        output = model(pixel_values=images, labels=labels)
        expected = cross_entropy(output.class_logits, labels, torch.tensor([1.0, 2, 3]), reduction="none").mean()
        assert torch.allclose(output.loss_class, expected)


def test_class_weights_need_as_many_trained_classes(clip, tokenizer, images):
    model = get_peft_model(clip, MMRLConfig(rep_dim=16, class_weight=[1, 2, 3]))
    with pytest.raises(ValueError, match=r"`class_weight`.*\[1\.0, 2\.0, 3\.0\] for 2 classes"):
        model.set_classes(["cat", "dog"], tokenizer)
    assert model.classes is model.peft_config["default"].classes is None
    model.set_classes(["cat", "dog"], tokenizer, seen="none")
    with pytest.raises(ValueError, match="`class_weight` is in the order of the trained classes.*`set_classes`"):
        model(pixel_values=images, labels=LABELS)
    model.set_classes(["cat", "dog", "owl"], tokenizer)
    model(pixel_values=images, labels=LABELS)
    model.peft_config["default"].class_weight = [1, 2]
    with pytest.raises(ValueError, match=r"`class_weight`.*3 classes"):
        model(pixel_values=images)


def test_a_training_step_without_labels_says_that_the_loss_is_anothers(model, images):
    def messages(**kwargs):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model(pixel_values=images, **kwargs)
        return [str(warning.message) for warning in caught]

    with torch.no_grad():
        assert messages() == []
    assert messages(labels=LABELS) == messages(input_ids=torch.tensor([[98, 1, 99]] * 4), return_loss=True) == []
    model.eval()
    assert messages() == []
    model.train()
    with model.disable_adapter():
        assert messages() == []
    (message,) = messages()
    assert "MMRL's loss" in message
    assert "label_smoothing_factor" in message
    assert messages() == []


def test_eval_mode_gives_the_same_loss(model, images):
    training = model(pixel_values=images, labels=LABELS).loss
    model.eval()
    assert torch.equal(model(pixel_values=images, labels=LABELS).loss, training)


def test_without_regularisation_frozen_clip_is_not_run(model, images, monkeypatch):
    model.peft_config["default"].reg_weight = 0.0
    vision, text = model.get_base_model().vision_model, model.get_base_model().text_model
    monkeypatch.setattr(type(vision), "frozen_pooled", lambda *args: pytest.fail("frozen pass"))
    encode = type(text).encode
    monkeypatch.setattr(
        type(text),
        "encode",
        lambda self, trunk, tokens: pytest.fail("frozen") if tokens is None else encode(self, trunk, tokens),
    )
    output = model(pixel_values=images, labels=LABELS)
    assert output.loss_image_reg is output.loss_text_reg is None
    assert torch.allclose(output.loss, 0.7 * output.loss_class + 0.3 * output.loss_rep)


def test_beta_can_be_changed_on_a_trained_adapter(model, images):
    before = model(pixel_values=images).logits
    model.peft_config["default"].beta = 0.5
    after = model(pixel_values=images).logits
    assert not torch.allclose(after, before)
    model.peft_config["default"].beta = 1.0
    assert torch.equal(model(pixel_values=images).logits, before)


def test_captions_take_clips_contrastive_loss(model, images):
    output = model(IDS, images[:3], return_loss=True)
    for loss, logits in ((output.loss_class, output.class_logits), (output.loss_rep, output.rep_logits)):
        of_images, of_captions = (cross_entropy(rows, torch.arange(3)) for rows in (logits, logits.T))
        assert torch.allclose(loss, (of_images + of_captions) / 2)
    with model.disable_adapter():
        frozen = model(IDS, images[:3], return_loss=True)
    assert torch.allclose(frozen.loss, make_clip()(IDS, images[:3], return_loss=True).loss)
    regs = output.loss_image_reg + output.loss_text_reg
    assert torch.allclose(output.loss, 0.7 * output.loss_class + 0.3 * output.loss_rep + 0.5 * regs)


def test_gradients_reach_every_trained_parameter_and_no_other(model, images):
    model.eval()  # as PEFT's own tests do
    model(pixel_values=images, labels=LABELS).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None and parameter.grad.abs().max() > 0) == ("mmrl_" in name), name


def test_gradients_with_respect_to_pixels(model, images):
    images.requires_grad_()
    model(pixel_values=images).logits.sum().backward()
    assert images.grad.abs().max() > 0


# --- frozen ------------------------------------------------------------------------------------------------------


def test_disabled_adapter_is_clip_bit_for_bit(model, images):
    plain = make_clip()
    expected = plain(IDS, images, return_loss=False)
    with model.disable_adapter():
        output = model(IDS, images)
        captions = model(IDS, images[:3], return_loss=True)
        labelled = model(IDS, images, labels=LABELS)
    for field in ("logits_per_image", "logits_per_text", "image_embeds", "text_embeds"):
        assert torch.equal(output[field], expected[field])
    assert torch.equal(captions.loss, plain(IDS, images[:3], return_loss=True).loss)
    assert torch.equal(labelled.loss, cross_entropy(expected.logits_per_image, LABELS))
    assert output.rep_logits is None


def test_disabled_adapter_with_bound_classes_is_zero_shot(model, images):
    ids = model._bound["default"].prompts[0].input_ids
    expected = make_clip()(ids, images).logits_per_image
    with model.disable_adapter():
        output = model(pixel_values=images, labels=LABELS)
    assert torch.allclose(output.logits, expected, atol=1e-5)
    assert torch.allclose(output.loss, cross_entropy(expected, LABELS), atol=1e-5)
    assert output.rep_logits is None


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"labels": torch.tensor([0, 1, 2, 0])}, r"`labels` must lie between 0 and 1 \(2 classes\), got 2"),
        ({"labels": torch.tensor([0, 1, -100, 0])}, "`labels`.*got -100"),
        ({"labels": torch.tensor([0, 1])}, r"`labels` must have the shape \(4,\).*got \(2,\)"),
        ({"labels": torch.zeros(4, 1, dtype=torch.long)}, r"`labels`.*got \(4, 1\)"),
        ({"labels": torch.zeros(4)}, "`labels`.*torch.float32"),
        ({"labels": torch.zeros(4, dtype=torch.bool)}, "`labels`.*torch.bool"),
        ({"labels": [0, 1, 0, 1]}, "`labels` must be a tensor"),
        ({"labels": "cat"}, "`labels`.*'cat'"),
        ({"labels": LABELS, "pixel_values": None}, "`pixel_values` must be given"),
        ({"pixel_values": torch.zeros(3, 32, 32)}, r"`pixel_values`.*\(3, 32, 32\)"),
        ({"pixel_values": torch.zeros(2, 1, 32, 32)}, r"`pixel_values`.*\(2, 1, 32, 32\)"),
        ({"pixel_values": [1]}, "`pixel_values` must be a tensor of numbers, got"),
        ({"input_ids": torch.tensor([[98, 100, 99]])}, "`input_ids` must lie between 0 and 99, got 100"),
        ({"input_ids": torch.zeros(2, 25, dtype=torch.long)}, r"`input_ids`.*at most 24.*\(2, 25\)"),
        ({"input_ids": torch.zeros(2, 4)}, "`input_ids`.*torch.float32"),
        ({"input_ids": IDS, "attention_mask": torch.ones(2, 5)}, "`attention_mask` must have the shape"),
        ({"input_ids": IDS, "attention_mask": [[1]]}, "`attention_mask` must be a tensor"),
        ({"input_ids": IDS, "position_ids": torch.tensor([[0, 1, 2, 3, 24]])}, "`position_ids`.*23, got 24"),
        ({"input_ids": IDS, "position_ids": torch.tensor([[0, 1]])}, "`position_ids` must have the shape"),
        ({"input_ids": IDS, "position_ids": torch.zeros(1, 5)}, "`position_ids`.*torch.float32"),
        ({"input_ids": IDS, "token_type_ids": IDS[:, :2] * 0}, "`token_type_ids` must have the shape"),
        ({"input_ids": IDS, "token_type_ids": IDS * 0 + 1}, "`token_type_ids` must lie between 0 and 0, got 1"),
        ({"input_ids": IDS, "token_type_ids": [[0]]}, "`token_type_ids` must be a tensor of whole numbers"),
        ({"input_ids": IDS[:0]}, "`input_ids` must hold at least one number"),
        ({"pixel_values": torch.zeros(0, 3, 32, 32)}, "`pixel_values`.*at least one image"),
        ({"pixel_values": torch.zeros(2, 3, 4, 4), "interpolate_pos_encoding": True}, "at least 8 pixels"),
        ({"pixel_values": torch.zeros(2, 3, 32, 32, dtype=torch.bool)}, "`pixel_values`.*torch.bool"),
        ({"labels": LABELS, "num_items_in_batch": 0}, "`num_items_in_batch` must be positive, got 0"),
        ({"labels": LABELS, "num_items_in_batch": "4"}, "`num_items_in_batch` must be a number, got '4'"),
        ({"labels": LABELS, "num_items_in_batch": 10**400}, "`num_items_in_batch` must be finite, got 1000"),
        ({"return_loss": True}, "`return_loss` needs `input_ids`"),
        ({"return_loss": True, "input_ids": IDS}, "`return_loss` needs `input_ids` with one caption per image"),
        ({"return_loss": True, "input_ids": IDS, "labels": LABELS}, "`return_loss`.*`labels`"),
    ],
)
def test_bad_input_is_named(model, images, kwargs, message):
    with pytest.raises(ValueError, match=message):
        model(**{"pixel_values": images, **kwargs})


@pytest.mark.parametrize("labels", [torch.zeros(4), [0, 1, 0, 1], "cat"])
def test_wrong_types_are_type_errors(model, images, labels):
    with pytest.raises(TypeError, match="`labels`"):
        model(pixel_values=images, labels=labels)


@pytest.mark.parametrize("is_frozen", [False, True])
@pytest.mark.parametrize("shared_positions", [False, True])
def test_prompts_with_leading_dimensions_may_bring_everything(model, images, is_frozen, shared_positions):
    position_ids = torch.arange(IDS.shape[1]).flip(0)[None]
    given = {
        "input_ids": IDS,
        "attention_mask": torch.ones_like(IDS),
        "position_ids": position_ids if shared_positions else position_ids.expand_as(IDS),
        "token_type_ids": torch.zeros_like(IDS),
    }
    deep = {name: ids[None] if ids.shape == IDS.shape else ids for name, ids in given.items()}
    with model.disable_adapter() if is_frozen else nullcontext():
        plain, nested = model(pixel_values=images, **given), model(pixel_values=images, **deep)
        features = model.get_text_features(**given).pooler_output
        assert torch.equal(model.get_text_features(**deep).pooler_output, features)
    assert torch.equal(nested.logits, plain.logits)
    assert not torch.allclose(plain.logits, model(IDS, images).logits)


def test_features_check_their_input_too(model, images):
    with pytest.raises(ValueError, match="`input_ids` must lie between 0 and 99, got 100"):
        model.get_text_features(input_ids=torch.tensor([[98, 100, 99]]))
    with pytest.raises(ValueError, match="`pixel_values`"):
        model.get_image_features(pixel_values=images[0])
    model.peft_config["default"].beta = None
    for call in (lambda: model.get_text_features(IDS), lambda: model.get_image_features(images)):
        with pytest.raises(TypeError, match="`beta`"):
            call()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32])
def test_labels_of_any_whole_type(model, images, dtype):
    expected = model(pixel_values=images, labels=LABELS).loss
    assert torch.equal(model(pixel_values=images, labels=LABELS.to(dtype)).loss, expected)


def test_prompts_may_have_leading_dimensions_as_in_clip(model, images):
    assert torch.equal(model(IDS.view(1, 3, 5), images).logits, model(IDS, images).logits)


def test_num_items_in_batch_counts_with_the_adapter_off_too(model, images):
    with model.disable_adapter():
        whole = model(IDS, images, labels=LABELS).loss
        assert torch.allclose(model(IDS, images, labels=LABELS, num_items_in_batch=8).loss, whole / 2)


def test_without_classes_and_prompts_it_says_what_to_do(clip, images):
    model = get_peft_model(clip, MMRLConfig(rep_dim=16))
    with pytest.raises(ValueError, match=r"call `set_classes\(names, processor\)` first, or pass `input_ids`"):
        model(pixel_values=images)


def test_mixed_batches_are_not_implemented(model, images):
    for call in (
        lambda **kwargs: model(pixel_values=images, **kwargs),
        lambda **kwargs: model.get_image_features(images, **kwargs),
        lambda **kwargs: model.get_text_features(IDS, **kwargs),
    ):
        with pytest.raises(NotImplementedError, match="`adapter_names`"):
            call(adapter_names=["default"] * 4)


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_hidden_states_asked_for_by_a_config(model, images, part):
    getattr(model.get_base_model().config, part).output_hidden_states = True
    output = model(pixel_values=images)
    assert output.vision_model_output is not None
    assert output.text_model_output is not None


@pytest.mark.parametrize(
    "base",
    [
        BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)),
        CLIPVisionModel(make_clip().config.vision_config),
        CLIPTextModel(make_clip().config.text_config),
        torch.nn.Linear(2, 2),
    ],
    ids=lambda base: type(base).__name__,
)
def test_unsupported_base_models_are_named(base):
    names = [name for name, _ in base.named_modules()]
    with pytest.raises(ValueError, match=rf"`CLIPModel`.*this base model is a {type(base).__name__}"):
        get_peft_model(base, MMRLConfig())
    assert [name for name, _ in base.named_modules()] == names
