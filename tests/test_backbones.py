"""Every supported model does what the textbook says, and gives back what it was."""

import copy
import warnings
from dataclasses import replace

import pytest
import torch
from architectures import ARCHITECTURES, FAMILIES, TEXT, VISION, Family
from conftest import pictures_of_classes, scramble
from peft import PeftModel, get_peft_model
from PIL import Image
from textbook_logits import FITTED, features_by_textbook, logits_by_textbook
from transformers import (
    BertTokenizer,
    ChineseCLIPImageProcessor,
    ChineseCLIPProcessor,
    CLIPSegConfig,
    CLIPSegModel,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
)

from peft_mmrl import AutoPeftModelForZeroShotImageClassification, MMRLConfig
from peft_mmrl.auto import load_clip
from peft_mmrl.tuner.textbook import textbook_fit, textbook_forward, textbook_weights
from peft_mmrl.tuner.towers.backbones import BACKBONES, Backbone


LABELS = torch.tensor([0, 1, 2, 0])
WORDS = [(10, 11, 12), (10, 11, 30, 31, 32, 33), (10, 40)]  # three prompts of different length
NAMES = ["cat", "big grey old dog", "axolotl"]
METHODS = {
    "mmrl": MMRLConfig(rep_dim=16),
    "mmrl++": MMRLConfig.plus_plus(rep_dim=16, beta=0.6, proj_rank=4),
    "gaps": MMRLConfig(rep_dim=16, vision_layers=[0, 2], text_layers=[0, 2], num_rep_tokens=3),
}


@pytest.fixture(params=ARCHITECTURES)
def family(request):
    return ARCHITECTURES[request.param]


def adapted(family, config=METHODS["mmrl"], dtype=torch.float32):
    """A model with a trained adapter, bound to three classes."""
    model = scramble(get_peft_model(family.model().to(dtype), copy.deepcopy(config)))
    rows = [family.row(*words) for words in WORDS]
    model.set_classes(NAMES, lambda texts: {"input_ids": rows})
    return model


def prompts(family):
    return family.padded([family.row(*words) for words in WORDS])


# --- against the textbook ----------------------------------------------------------------------------------------


def problems():
    for name in FAMILIES:
        for method in METHODS:
            if method != "gaps" or name != "one-layer":
                yield pytest.param(FAMILIES[name], METHODS[method], id=f"{name}-{method}")


@pytest.mark.parametrize(("family", "config"), list(problems()))
def test_logits_losses_and_gradients_are_the_textbooks(family, config, images):
    model, images = adapted(family, config, torch.double), images.double()
    ids, mask = prompts(family)
    theirs = textbook_forward(
        family.model().double(),
        model.peft_config["default"],
        textbook_weights(model),
        ids,
        images,
        LABELS,
        family.encode_text,
    )
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    their_gradients = torch.autograd.grad(theirs["loss"], parameters, allow_unused=True)
    for arguments in ({}, {"input_ids": ids, "attention_mask": mask}):
        output = model(pixel_values=images, labels=LABELS, **arguments)
        assert torch.allclose(output.logits, theirs["fused_logits"], rtol=1e-9, atol=1e-9)
        for name in (
            "class_logits",
            "rep_logits",
            "loss",
            "loss_class",
            "loss_rep",
            "loss_image_reg",
            "loss_text_reg",
        ):
            assert torch.allclose(output[name], theirs[name], rtol=1e-9, atol=1e-9), name
        for our, their in zip(torch.autograd.grad(output.loss, parameters), their_gradients, strict=True):
            their = torch.zeros_like(our) if their is None else their
            assert torch.allclose(our, their, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("family", "config"), list(problems()))
def test_decisions_are_the_textbooks(family, config):
    """Trained classes alone, in other orders and in part, new ones alone, and both; two templates."""
    words = dict(zip(NAMES, WORDS, strict=True)) | {"newt": (10, 60), "old red fox": (10, 61, 62)}

    def tokenizer(texts):
        rows = [(text.removeprefix("many "), (70,) * text.startswith("many ")) for text in texts]
        return {"input_ids": [family.row(*prefix, *words[name]) for name, prefix in rows]}

    plain = family.model().double()
    model = scramble(get_peft_model(family.model().double(), copy.deepcopy(config))).eval()
    model.set_classes(NAMES, tokenizer, template=["{}", "many {}"])
    labels = torch.arange(12) % 3
    pictures = pictures_of_classes(labels).double()
    decision = model.fit_decision(pictures, labels)
    assert decision.probe_weight.abs().max() > 0.1  # else it would not show
    scale = plain.logit_scale.exp()

    def by_textbook(names):
        prompts = [tokenizer([f"{prefix}{name}" for name in names])["input_ids"] for prefix in ("", "many ")]
        padded = [family.padded(rows)[0] for rows in prompts]
        return features_by_textbook(plain, model, padded, pictures, family.encode_text)

    known = by_textbook(NAMES)
    expected = textbook_fit(known["frozen_image_features"], known["frozen_text_features"], labels, scale)
    for symbol, name in FITTED.items():
        ours = torch.as_tensor(getattr(decision, name)).double()
        torch.testing.assert_close(ours, expected[symbol].double(), rtol=1e-3, atol=1e-4, msg=name)
    prototypes = {"prototype_scale": 1.5, "prototype_shift": -0.3, "prototype_weight": 0.25}  # random CLIPs' weigh 0
    for names in (NAMES, NAMES[::-1], NAMES[1:], NAMES[:1], ["newt"], ["newt", NAMES[2], "old red fox", NAMES[0]]):
        model.set_classes(names, tokenizer)
        known = by_textbook(names)
        rows = [NAMES.index(name) if name in NAMES else None for name in names]
        for features in ("adapted", "frozen"):
            model.decision = replace(decision, features=features, **prototypes)
            with torch.no_grad():
                ours = model(pixel_values=pictures).logits
            theirs = logits_by_textbook(model.decision, rows, known, scale)
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9, msg=f"{features}, {names}")


def test_eager_attention_is_the_textbooks_too(family, images):
    model = adapted(family)
    model.get_base_model().set_attn_implementation("eager")
    ids, _ = prompts(family)
    weights = textbook_weights(model)
    theirs = textbook_forward(
        family.model(), model.peft_config["default"], weights, ids, images, encode_text=family.encode_text
    )
    assert torch.allclose(model(pixel_values=images).logits, theirs["fused_logits"], atol=1e-4)


def test_short_cuts_are_taken_in_the_vision_tower_and_in_causal_text_towers(family):
    clip = adapted(family).get_base_model()
    assert all(map(clip.vision_model.can_split, clip.vision_model.layers))
    assert all(map(clip.text_model.can_split, clip.text_model.layers)) == (
        family.encode_text is FAMILIES["clip"].encode_text
    )
    assert clip.text_model.can_share(clip.text_projection)


# --- training and evaluation -------------------------------------------------------------------------------------


def test_training_mode_has_no_dropout_in_the_frozen_encoders(family, images):
    model = adapted(family)
    expected = model.eval()(pixel_values=images, labels=LABELS).loss
    assert torch.equal(model.train()(pixel_values=images, labels=LABELS).loss, expected)
    ids, mask = prompts(family)
    explicit = model(ids, images, mask, labels=LABELS).loss
    assert torch.allclose(explicit, expected, atol=1e-5)


def test_chunks_of_classes_and_checkpointing_give_the_same_gradients(family, images):
    model = adapted(family, dtype=torch.double).train()

    def gradients():
        model.zero_grad()
        model(pixel_values=images.double(), labels=LABELS).loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.requires_grad]

    expected = gradients()
    assert all(gradient.abs().max() > 0 for gradient in expected)
    model.text_chunk_size = 2
    chunked = gradients()
    model.get_base_model().gradient_checkpointing_enable()
    for gradient, in_chunks, recomputed in zip(expected, chunked, gradients(), strict=True):
        assert torch.allclose(gradient, in_chunks, rtol=1e-9, atol=1e-12)
        assert torch.allclose(gradient, recomputed, rtol=1e-9, atol=1e-12)


def test_class_features_follow_the_weights(family, images):
    model = adapted(family).eval()
    with torch.no_grad():
        before = model(pixel_values=images).logits
        assert torch.equal(model(pixel_values=images).logits, before)
        scramble(model, seed=2)
        after = model(pixel_values=images).logits
    assert torch.allclose(after, model(pixel_values=images).logits, atol=1e-5)
    assert not torch.allclose(after, before, atol=1e-2)


def test_image_states_take_the_place_of_images(family, images):
    model = adapted(family)
    expected = model(pixel_values=images, labels=LABELS).loss
    assert torch.allclose(model(**model.image_states(images), labels=LABELS).loss, expected, atol=1e-5)


def test_hidden_states_and_attentions_are_of_the_adapted_pass(family, images):
    model = adapted(family)
    model.get_base_model().set_attn_implementation("eager")
    output = model(pixel_values=images, output_hidden_states=True, output_attentions=True)
    text, vision = output.text_model_output, output.vision_model_output
    assert [states.shape[1] for states in text.hidden_states] == [8, 8, 13, 13]  # 3 layers, the last 2 adapted
    assert [weights.shape[-1] for weights in text.attentions] == [8, 13, 13]
    assert [states.shape[1] for states in vision.hidden_states] == [17, 17, 17, 22, 22]
    assert torch.allclose(output.logits, model(pixel_values=images).logits, atol=1e-4)


# --- frozen ------------------------------------------------------------------------------------------------------


def test_disabled_and_unloaded_adapters_leave_the_model_bit_for_bit(family, images):
    plain, model = family.model(), adapted(family).eval()
    ids, mask = prompts(family)
    expected = plain(input_ids=ids, pixel_values=images, attention_mask=mask)
    with model.disable_adapter():
        output = model(ids, images, mask)
        bound = model(pixel_values=images)
        image, text = model.get_image_features(images), model.get_text_features(ids, mask)
    assert torch.equal(output.logits, expected.logits_per_image)
    assert torch.allclose(bound.logits, expected.logits_per_image, atol=1e-4)
    assert torch.equal(image.pooler_output, plain.get_image_features(images).pooler_output)
    assert torch.equal(text.pooler_output, plain.get_text_features(ids, attention_mask=mask).pooler_output)

    unloaded = model.unload()
    assert type(unloaded) is type(plain)
    assert str(unloaded) == str(plain)
    assert [part.training for part in unloaded.modules()] == [part.training for part in plain.modules()]
    assert all(
        torch.equal(ours, theirs) for ours, theirs in zip(unloaded.parameters(), plain.parameters(), strict=True)
    )
    again = unloaded(input_ids=ids, pixel_values=images, attention_mask=mask)
    assert torch.equal(again.logits_per_image, expected.logits_per_image)


def test_unloading_in_training_mode_turns_dropout_on_again(family):
    model = adapted(family)
    model.get_base_model().train()
    assert all(part.training for part in model.unload().modules())


def test_unusual_masks_do_as_in_the_base_model(family, images):
    plain, model = family.model(), adapted(family).eval()
    ids, mask = prompts(family)
    for unusual in (torch.zeros_like(mask), mask.flip(1), torch.ones_like(mask), None):
        assert torch.isfinite(model(ids, images, unusual).logits).all()
        with model.disable_adapter():
            ours = model(ids, images, unusual).logits
        theirs = plain(input_ids=ids, pixel_values=images, attention_mask=unusual).logits_per_image
        assert torch.allclose(ours, theirs, rtol=0, atol=0, equal_nan=True)


def test_features_are_what_the_base_model_gives(family, images):
    plain, model = family.model(), adapted(family)
    ids, mask = prompts(family)
    output = model(ids, images, mask)
    image, text = model.get_image_features(images), model.get_text_features(ids, mask)
    assert type(image).__mro__[1] is type(plain.get_image_features(images)).__mro__[1]
    assert torch.allclose(torch.nn.functional.normalize(image.pooler_output), output.image_embeds, atol=1e-6)
    assert torch.allclose(torch.nn.functional.normalize(text.pooler_output), output.text_embeds, atol=1e-6)
    assert len(model.get_text_features(ids, mask, return_dict=False)) == 2


# --- saving and loading ------------------------------------------------------------------------------------------


def test_saved_adapters_load_onto_the_model_that_they_name(family, images, tmp_path):
    family.model().save_pretrained(tmp_path / "base")
    base = type(family.model()).from_pretrained(tmp_path / "base")
    model = scramble(get_peft_model(base, MMRLConfig(rep_dim=16)))
    rows = [family.row(*words) for words in WORDS]
    model.set_classes(NAMES, lambda texts: {"input_ids": rows})
    expected = model.eval()(pixel_values=images).logits
    model.save_pretrained(tmp_path / "adapter")

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="This adapter was saved with another base model")
        loaded = PeftModel.from_pretrained(family.model(), tmp_path / "adapter").eval()
    assert torch.equal(loaded(pixel_values=images).logits, expected)
    found = AutoPeftModelForZeroShotImageClassification.from_pretrained(tmp_path / "adapter").eval()
    assert isinstance(found.get_base_model(), type(family.model()))
    assert torch.equal(found(pixel_values=images).logits, expected)
    assert found.classes == NAMES


# --- prompts -----------------------------------------------------------------------------------------------------


def test_prompts_do_not_depend_on_their_padding(family, images):
    model = adapted(family)
    together = model(pixel_values=images).text_embeds
    for index, words in enumerate(WORDS):
        alone = model(torch.tensor([family.row(*words)]), images).text_embeds
        assert torch.allclose(alone[0], together[index], atol=1e-5)


def test_padding_of_a_tokenizer_is_cut(family, images):
    model = adapted(family)
    expected = model(pixel_values=images).logits
    ids, mask = prompts(family)
    model.set_classes(NAMES, lambda texts: {"input_ids": ids, "attention_mask": mask})
    assert model._bound["default"].prompts[0].lengths == [5, 8, 4]
    assert torch.equal(model(pixel_values=images).logits, expected)
    model.set_classes(NAMES, lambda texts: {"input_ids": ids})
    assert torch.equal(model(pixel_values=images).logits, expected)


def test_trained_classes_are_recognised_in_explicit_prompts(family, images):
    model = adapted(family).eval()
    ids, mask = family.padded([family.row(*WORDS[0]), family.row(50, 51)])
    output = model(ids, images, mask)
    assert not torch.allclose(output.logits[:, 0], output.class_logits[:, 0], atol=1e-3)
    assert torch.equal(output.logits[:, 1], output.class_logits[:, 1])


def test_prompts_beyond_the_context_are_named(family):
    model = get_peft_model(family.model(), MMRLConfig(rep_dim=16))
    context = 24 - 2 if family is ARCHITECTURES["altclip"] else 24  # RoBERTa's positions start behind the padding's
    longest = family.row(*[7] * (context - 2))
    model.set_classes(["cat"], lambda texts: {"input_ids": [longest]})
    assert torch.isfinite(model(pixel_values=torch.zeros(1, 3, 32, 32)).logits).all()
    with pytest.raises(ValueError, match=f"'cat' at position 0 makes a prompt of {context + 1} tokens"):
        model.set_classes(["cat"], lambda texts: {"input_ids": [[*longest[:-1], 7, longest[-1]]]})
    with pytest.raises(ValueError, match=f"`input_ids`.*at most {context}"):
        model(torch.zeros(1, context + 1, dtype=torch.long), torch.zeros(1, 3, 32, 32))


def test_metaclip_2_pools_at_eos_where_ids_are_larger(images):
    family = ARCHITECTURES["metaclip2"]  # EOS 2 means the largest id in CLIP, and 2 here
    model, plain = adapted(family), family.model()
    with model.disable_adapter():
        ours = model(pixel_values=images).logits
    ids, _ = prompts(family)
    assert torch.allclose(ours, plain(ids, images).logits_per_image, atol=1e-4)
    assert model.peft_config["default"].class_input_ids[0][0] == "0 10 11 12 2"


@pytest.fixture
def chinese_clip_folder(tmp_path):
    """A Chinese-CLIP with its own kind of processor."""
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"一张狗猫的照片"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocab), encoding="utf-8")
    size = {"height": 32, "width": 32}
    image_processor = ChineseCLIPImageProcessor(size=size, do_center_crop=False)
    ChineseCLIPProcessor(image_processor, BertTokenizer(str(tmp_path / "vocab.txt"))).save_pretrained(tmp_path)
    ARCHITECTURES["chinese-clip"].model().save_pretrained(tmp_path)
    return tmp_path


def test_chinese_class_names(images, chinese_clip_folder):
    clip, processor = load_clip(str(chinese_clip_folder))
    model = get_peft_model(clip, MMRLConfig(rep_dim=16))
    model.set_classes(["猫", "狗"], processor, template="一张{}的照片")
    assert model.peft_config["default"].class_input_ids == [["2 5 6 8 9 10 11 3", "2 5 6 7 9 10 11 3"]]
    assert model(pixel_values=images, labels=LABELS % 2).loss > 0
    with pytest.raises(ValueError, match="'猫' at position 1 is the same class as '猫' at position 0"):
        model.set_classes(["猫", "猫"], processor)


def test_what_a_bert_processor_gives_is_what_forward_takes(chinese_clip_folder):
    clip, processor = load_clip(str(chinese_clip_folder))
    picture = Image.new("RGB", (40, 40), "red")
    inputs = processor(text=["猫", "一张狗"], images=picture, padding=True, return_tensors="pt")
    inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    expected = clip.eval()(**inputs).logits_per_image
    model = get_peft_model(clip, MMRLConfig(rep_dim=16)).eval()
    with model.disable_adapter():
        assert torch.equal(model(**inputs).logits, expected)
    zeros = model(**inputs).logits
    deep = {name: value if name == "pixel_values" else value[:, None] for name, value in inputs.items()}
    assert torch.equal(model(**deep).logits, zeros)
    with pytest.raises(ValueError, match="`token_type_ids` must lie between 0 and 1, got 2"):
        model(**{**inputs, "token_type_ids": inputs["token_type_ids"] + 2})
    inputs["token_type_ids"][:] = 1
    assert not torch.allclose(model(**inputs).logits, zeros, atol=1e-4)
    assert not torch.allclose(zeros, expected, atol=1e-4)


# --- other models ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_cls", "config_cls"),
    [(SiglipModel, SiglipConfig), (Siglip2Model, Siglip2Config), (CLIPSegModel, CLIPSegConfig)],
    ids=lambda cls: cls.__name__,
)
def test_other_models_are_refused_with_the_list_of_those_that_are_not(model_cls, config_cls):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = model_cls(config_cls(text_config={**sizes, "vocab_size": 9}, vision_config=sizes))
    names = [name for name, _ in model.named_modules()]
    supported = "`CLIPModel`, `MetaClip2Model`, `AltCLIPModel`, `ChineseCLIPModel`"
    with pytest.raises(ValueError, match=f"{supported}.*this base model is a {model_cls.__name__}") as error:
        get_peft_model(model, MMRLConfig())
    assert ("It has no class token" in str(error.value)) == (model_cls is not CLIPSegModel)
    assert [name for name, _ in model.named_modules()] == names


def test_a_copy_of_clip_takes_one_line_and_runs_by_whole_layers(images, monkeypatch):
    def make_clipseg(seed):
        torch.manual_seed(seed)
        text = {**TEXT, "bos_token_id": 98, "eos_token_id": 99}
        return CLIPSegModel(CLIPSegConfig(text_config=text, vision_config=VISION, projection_dim=24))

    monkeypatch.setitem(BACKBONES, CLIPSegModel, Backbone())
    family = Family(make_clipseg)
    model, images = adapted(family, dtype=torch.double), images.double()
    tower = model.get_base_model().vision_model
    assert not any(map(tower.can_split, tower.layers))
    ids, _ = prompts(family)
    weights = textbook_weights(model)
    theirs = textbook_forward(family.model().double(), model.peft_config["default"], weights, ids, images, LABELS)
    output = model(pixel_values=images, labels=LABELS)
    assert torch.allclose(output.logits, theirs["fused_logits"], rtol=1e-9, atol=1e-9)
    assert torch.allclose(output.loss, theirs["loss"], rtol=1e-9, atol=1e-9)
