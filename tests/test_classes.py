"""set_classes: names, prompts, trained and new classes."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import WordTokenizer, make_clip, scramble
from golden import Case
from peft import PeftModel, get_peft_model
from transformers import CLIPModel

from peft_mmrl import MMRLConfig


@pytest.fixture
def model(clip):
    return scramble(get_peft_model(clip, MMRLConfig(rep_dim=16)))


@pytest.fixture
def trained(clip, tokenizer, tmp_path):
    """A loaded adapter that was trained on cat and dog."""
    model = scramble(get_peft_model(clip, MMRLConfig(rep_dim=16)))
    model.set_classes(["cat", "dog"], tokenizer)
    model.save_pretrained(tmp_path)
    return PeftModel.from_pretrained(make_clip(), tmp_path)


def state(model):
    config = model.peft_config["default"]
    return dict(model._bound), config, config.to_dict()


# --- what is trained ---------------------------------------------------------------------------------------------


def test_the_first_call_defines_the_trained_classes(model, tokenizer):
    passed = model.peft_config["default"]
    model.set_classes(["cat", "hot_dog "], tokenizer, template="the {}")
    config = model.peft_config["default"]
    assert (config.classes, config.template) == (["cat", "hot dog"], "the {}")
    assert config.class_input_ids == [["98 4 1 99", "98 4 2 3 99"]]
    assert (passed.classes, passed.template) == (None, "a photo of a {}.")  # the user's object stays as it was
    assert model.classes == ["cat", "hot dog"]


def test_only_seen_classes_become_trained(model, tokenizer):
    model.set_classes(["cat", "dog", "owl"], tokenizer, seen=[True, False, True])
    config = model.peft_config["default"]
    assert config.classes == ["cat", "owl"]
    assert [len(rows) for rows in config.class_input_ids] == [2]


def test_with_none_seen_the_adapter_stays_fresh(model, tokenizer):
    config = model.peft_config["default"]
    model.set_classes(["cat", "dog"], tokenizer, seen="none")
    assert model.peft_config["default"] is config
    assert config.classes is None
    model.set_classes(["owl"], tokenizer)
    assert model.peft_config["default"].classes == ["owl"]


def test_later_calls_only_bind(model, tokenizer):
    model.set_classes(["cat", "dog"], tokenizer)
    saved = model.peft_config["default"].to_dict()
    model.set_classes(["owl", "DOG"], tokenizer, template=["my {}", "your {}"])
    assert model.peft_config["default"].to_dict() == saved
    assert model.classes == ["owl", "DOG"]


def test_classes_none_makes_it_fresh_again(model, tokenizer):
    model.set_classes(["cat", "dog"], tokenizer)
    model.peft_config["default"].classes = None
    model.set_classes(["owl", "bat"], tokenizer)
    assert model.peft_config["default"].classes == ["owl", "bat"]


def test_names_none_means_the_trained_classes(trained, images):
    first = trained(pixel_values=images).logits
    trained.set_classes(["owl", "cat"], trained_tokenizer(trained))
    assert trained(pixel_values=images).logits.shape == (4, 2)
    trained.set_classes()
    assert trained.classes == ["cat", "dog"]
    assert torch.equal(trained(pixel_values=images).logits, first)


def trained_tokenizer(model):
    """A tokenizer that gives the words of "a photo of a cat/dog." the ids that are saved."""
    tokenizer = WordTokenizer()
    tokenizer(["cat", "dog", *(f"a photo of a {name}." for name in ("cat", "dog"))])
    return tokenizer


# --- decision ----------------------------------------------------------------------------------------------------


def test_unseen_class_is_scored_by_class_feature_only(trained, images):
    trained.set_classes(["cat", "axolotl", "dog"], trained_tokenizer(trained))
    output = trained(pixel_values=images)
    fused = 0.7 * output.class_logits + 0.3 * output.rep_logits
    assert torch.equal(output.logits[:, 1], output.class_logits[:, 1])
    assert torch.allclose(output.logits[:, [0, 2]], fused[:, [0, 2]], atol=1e-6)
    assert (output.class_logits - output.rep_logits).abs().min() > 1e-3


@pytest.mark.parametrize("name", ["CAT", " cat ", "_cat_", "Cat"])
def test_a_name_with_the_same_tokens_is_the_trained_class(trained, name):
    trained.set_classes([name, "owl"], trained_tokenizer(trained))
    assert trained._bound["default"].seen == (True, False)


def test_unicode_composition_makes_no_difference():
    case = Case("mmrl-ragged")
    model = get_peft_model(case.clip(), MMRLConfig(rep_dim=8))
    with pytest.raises(ValueError, match="position 1 is the same class as"):
        model.set_classes(["caf\u00e9", "cafe\u0301"], case.tokenizer())


def test_left_padding_without_a_mask_is_cut_at_bos(model, images):
    model.set_classes(["cat", "dog"], lambda texts: {"input_ids": [[0, 0, 98, 1, 99], [0, 0, 98, 2, 99]]})
    assert model.peft_config["default"].class_input_ids == [["98 1 99", "98 2 99"]]


def test_templates_of_any_list_are_saved(model, tokenizer, tmp_path):
    templates = ["a {}", "my {}"]
    model.set_classes(["cat", "dog"], tokenizer, template=(template for template in templates))
    model.save_pretrained(tmp_path)
    assert PeftModel.from_pretrained(make_clip(), tmp_path).peft_config["default"].template == templates
    assert MMRLConfig(template=tuple(templates)).template == templates
    config = MMRLConfig(template=templates)
    templates.clear()
    assert config.template == ["a {}", "my {}"]


def test_a_folder_without_tokenizer_asks_for_the_processor(tmp_path):
    Case("mmrl").clip().save_pretrained(tmp_path)
    model = get_peft_model(CLIPModel.from_pretrained(tmp_path), MMRLConfig(rep_dim=8))
    with pytest.raises(ValueError, match="`processor` must be given: No tokenizer could be loaded"):
        model.set_classes(["cat", "dog"])


def test_saving_a_freshened_adapter_leaves_its_ids_out(model, tokenizer, tmp_path):
    model.set_classes(["cat", "dog"], tokenizer)
    model.peft_config["default"].classes = None
    model.save_pretrained(tmp_path)
    assert '"class_input_ids": null' in (tmp_path / "adapter_config.json").read_text()


@pytest.mark.parametrize(
    ("seen", "flags"),
    [
        ("all", (True, True)),
        ("none", (False, False)),
        ([False, True], (False, True)),
        (np.array([True, False]), (True, False)),
        (torch.tensor([False, True]), (False, True)),
        ([np.bool_(True), np.bool_(False)], (True, False)),
    ],
)
def test_seen_overrides_and_what_is_saved_stays(trained, seen, flags):
    saved = trained.peft_config["default"].to_dict()
    trained.set_classes(["cat", "owl"], trained_tokenizer(trained), seen=seen)
    assert trained.seen == list(flags)
    assert trained.peft_config["default"].to_dict() == saved


def test_training_mode_counts_all_as_trained(trained, images):
    trained.set_classes(["cat", "owl"], trained_tokenizer(trained))
    trained.train()
    output = trained(pixel_values=images)
    assert torch.allclose(output.logits, 0.7 * output.class_logits + 0.3 * output.rep_logits, atol=1e-6)


def test_a_fresh_adapter_scores_by_the_class_feature_in_eval_mode(model, tokenizer, images):
    model.set_classes(["cat", "dog"], tokenizer, seen="none")
    model.eval()
    output = model(pixel_values=images)
    assert torch.equal(output.logits, output.class_logits)
    assert output.rep_logits is not None


@pytest.mark.parametrize("pad", [0, 99])
def test_explicit_prompts_of_trained_classes_are_recognised(trained, images, pad):
    tokenizer = trained_tokenizer(trained)
    rows = tokenizer(["a photo of a cat.", "a photo of a big owl.", "the cat."])["input_ids"]
    longest = max(map(len, rows))
    input_ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    output = trained(input_ids, images, attention_mask=torch.tensor([[1] * longest] * 3))
    fused = 0.7 * output.class_logits + 0.3 * output.rep_logits
    assert torch.allclose(output.logits[:, 0], fused[:, 0], atol=1e-6)
    assert torch.equal(output.logits[:, 1:], output.class_logits[:, 1:])


def test_template_ensembles_are_averaged_as_clip_does(model, tokenizer, images):
    names, templates = ["cat", "dog"], ["a photo of a {}.", "{} {}", "the small {}"]
    singles = []
    for template in templates:
        model.set_classes(names, tokenizer, template=template, seen="none")
        singles.append(model(pixel_values=images).text_embeds)
    model.set_classes(names, tokenizer, template=templates, seen="none")
    output = model(pixel_values=images, labels=torch.tensor([0, 1, 0, 1]))
    mean = torch.stack(singles).mean(dim=0)
    expected = mean / mean.norm(dim=-1, keepdim=True)
    assert torch.allclose(output.text_embeds, expected, atol=1e-6)
    with model.disable_adapter():
        frozen = model(pixel_values=images).text_embeds
    assert torch.allclose(output.loss_text_reg, 1 - (expected * frozen).sum(-1).mean(), atol=1e-6)


def test_training_on_other_classes_warns_once(trained, images, recwarn):
    trained.set_classes(["cat", "owl"], trained_tokenizer(trained))
    trained.train()
    labels = torch.tensor([0, 1, 0, 1])
    for _ in range(2):
        trained(pixel_values=images, labels=labels)
    assert len([w for w in recwarn if "other classes than the trained ones" in str(w.message)]) == 1


def test_a_disabled_adapter_is_not_trained(trained, images, recwarn):
    trained.set_classes(["owl", "bat"], trained_tokenizer(trained))
    trained.train()
    with trained.disable_adapter():
        trained(pixel_values=images, labels=torch.tensor([0, 1, 0, 1]))
    assert not [w for w in recwarn if "trained ones" in str(w.message)]


def test_training_on_the_trained_classes_does_not_warn(model, tokenizer, images, recwarn):
    model.set_classes(["cat", "dog"], tokenizer)
    model(pixel_values=images, labels=torch.tensor([0, 1, 0, 1]))
    model.set_classes(["DOG", "cat"], tokenizer)
    model(pixel_values=images, labels=torch.tensor([0, 1, 0, 1]))
    assert not [w for w in recwarn if "trained ones" in str(w.message)]


# --- processors --------------------------------------------------------------------------------------------------


class Processor:
    """Like a CLIP processor: images come first, a tokenizer is inside."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, images=None, text=None):
        raise AssertionError("the tokenizer inside takes texts")


class Padded(WordTokenizer):
    def __init__(self, left=False, tensors=False):
        super().__init__()
        self.left, self.tensors = left, tensors

    def __call__(self, texts):
        rows, masks = super().__call__(texts)["input_ids"], []
        for row in rows:
            pad = 24 - len(row)
            masks.append([0] * pad + [1] * len(row) if self.left else [1] * len(row) + [0] * pad)
            row[:] = [0] * pad + row if self.left else row + [0] * pad
        encoded = {"input_ids": rows, "attention_mask": masks}
        return {key: torch.tensor(value) for key, value in encoded.items()} if self.tensors else encoded


@pytest.mark.parametrize(
    "processor",
    [
        WordTokenizer(),
        Processor(WordTokenizer()),
        Padded(),
        Padded(left=True),
        Padded(tensors=True),
        lambda texts: WordTokenizer()(texts),
        lambda texts: type("Encoding", (), WordTokenizer()(texts)),
    ],
)
def test_anything_that_tokenises_is_a_processor(model, processor):
    model.set_classes(["cat", "big dog"], processor)
    assert [[row.split()[0], row.split()[-1]] for row in model.peft_config["default"].class_input_ids[0]] == [
        ["98", "99"],
        ["98", "99"],
    ]
    ids = model._bound["default"].prompts[0].input_ids
    assert ids.shape[1] == max(len(row.split()) for row in model.peft_config["default"].class_input_ids[0])


def test_the_processor_is_loaded_from_the_base_models_path(tmp_path):
    case = Case("mmrl")
    model = get_peft_model(case.clip(), MMRLConfig(rep_dim=8))
    model.set_classes(["cat", "polar bear"])
    assert model.classes == ["cat", "polar bear"]


def test_eos_id_two_pools_at_the_largest_id():
    clip = make_clip(text_eos_token_id=2)  # configs from before the id was corrected
    model = get_peft_model(clip, MMRLConfig(rep_dim=8))
    model.set_classes(["cat", "dog"], WordTokenizer())
    assert all(row.endswith(" 99") for row in model.peft_config["default"].class_input_ids[0])


# --- errors ------------------------------------------------------------------------------------------------------


def no_eos(texts):
    return {"input_ids": [[98, 1, 2] for _ in texts]}


def beyond_vocabulary(texts):
    return {"input_ids": [[98, 100, 99] for _ in texts]}


def without_bos(texts):
    return {"input_ids": [[i + 1, 7, 99] for i, _ in enumerate(texts)]}


def floats(texts):
    return {"input_ids": [[98.0, 1.5, 99.0] for _ in texts]}


def flat(texts):
    return {"input_ids": [98, 1, 99]}


def eos_inside(texts):
    return {"input_ids": [[98, 1, 99, 5, 99] for _ in texts]}


def second_is_empty(texts):
    return {"input_ids": [[98, 1, 99], [98, 99]]}


def too_few_rows(texts):
    return {"input_ids": [[98, 1, 99]]}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"names": "cat"}, "`names` must be a list"),
        ({"names": []}, "`names`.*empty list"),
        ({"names": {"cat", "dog"}}, "`names` must be a list"),
        ({"names": ["cat", 3]}, "class name at position 1 must be a string, got 3"),
        ({"names": ["cat", ""]}, "class name at position 1 is empty"),
        ({"names": ["cat", " _ "]}, "class name at position 1 is empty"),
        (
            {"names": ["cat", "\x00"], "processor": lambda t: {"input_ids": [[98, 1, 99], [98, 99]]}},
            "position 1 is emp",
        ),
        ({"names": ["cat", "\ud800"]}, "class name at position 1 is no valid Unicode"),
        ({"names": ["cat", "owl", "CAT"]}, "'CAT' at position 2 is the same class as 'cat' at position 0"),
        ({"names": ["cat", "x " * 30]}, "at position 1 makes a prompt of 37 tokens.*a photo of a.*24 tokens"),
        ({"template": "a photo"}, "`template` must have a place {} for the class name, got 'a photo'"),
        ({"template": ["a {}", "b"]}, "`template`.*'b'"),
        ({"template": []}, "`template`"),
        ({"template": 3}, "`template`"),
        ({"seen": [True]}, "`seen` has 1 entries for 2 class names"),
        ({"seen": "some"}, "`seen`.*'some'"),
        ({"seen": [0, 1]}, "`seen` must hold True or False"),
        ({"seen": 5}, "`seen`"),
        ({"processor": no_eos}, "without BOS and the EOS id 99"),
        ({"processor": beyond_vocabulary}, "vocabulary has 100 entries"),
        ({"processor": without_bos}, r"`processor` starts texts with different token ids, \[1, 2\]"),
        ({"processor": floats}, "`processor` must return `input_ids` as one row of whole numbers per text"),
        ({"processor": flat}, "`processor` must return `input_ids` as one row of whole numbers per text"),
        ({"processor": eos_inside}, "holds the end-of-text token itself"),
        ({"processor": too_few_rows}, "1 rows of `input_ids` for 2 texts"),
        ({"processor": lambda texts: texts}, "`processor` must return `input_ids`"),
        ({"processor": 3}, "`processor` must be"),
        ({"processor": None}, "`processor` must be given"),
        ({"names": None}, "`names` must be given: this adapter has no trained classes"),
    ],
)
def test_bad_input_changes_nothing(model, tokenizer, images, kwargs, message):
    model.set_classes(["cow", "pig"], tokenizer, seen="none")
    before, logits = state(model), model(pixel_values=images).logits
    with pytest.raises(ValueError, match=message):
        model.set_classes(**{"names": ["cat", "dog"], "processor": tokenizer, **kwargs})
    after = state(model)
    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1] is before[1]
    assert torch.equal(model(pixel_values=images).logits, logits)


@pytest.mark.parametrize("kwargs", [{"names": "cat"}, {"names": [3]}, {"template": 3}, {"seen": 5}, {"processor": 3}])
def test_wrong_types_are_type_errors(model, tokenizer, kwargs):
    with pytest.raises(TypeError):
        model.set_classes(**{"names": ["cat", "dog"], "processor": tokenizer, **kwargs})


def test_duplicates_can_be_allowed(model, tokenizer, images, tmp_path):
    model.set_classes(["cat", "dog", "Cat"], tokenizer, allow_duplicates=True)
    model.eval()
    logits = model(pixel_values=images).logits
    assert torch.equal(logits[:, 0], logits[:, 2])
    model.save_pretrained(tmp_path)
    assert PeftModel.from_pretrained(make_clip(), tmp_path).classes == ["cat", "dog", "Cat"]


def test_a_prompt_may_fill_the_context_to_the_last_token(model, tokenizer, images):
    """Representation tokens have no position, so they take nothing from the context."""
    fits = "x " * 17  # with "a photo of a" and ".", BOS and EOS: 24
    model.set_classes(["cat", fits], tokenizer, seen="none")
    assert model(pixel_values=images).logits.isfinite().all()
    with pytest.raises(ValueError, match="25 tokens"):
        model.set_classes(["cat", fits + "x"], tokenizer)


def test_prompts_of_an_ensemble_are_all_checked(model, tokenizer):
    with pytest.raises(ValueError, match="25 tokens in the template 'one two three four five six {}'"):
        model.set_classes(["x " * 17], tokenizer, template=["{}", "one two three four five six {}"])


def test_id2label_follows_the_bound_classes_and_the_base_stays(model, tokenizer):
    base_config = model.get_base_model().config.to_dict()
    model.set_classes(["cat", "dog"], tokenizer)
    assert model.config.id2label == {0: "cat", 1: "dog"}
    assert model.config.label2id == {"cat": 0, "dog": 1}
    assert model.get_base_model().config.to_dict() == base_config


def test_the_config_view_keeps_one_array_for_trainer(model):
    output = type(model(torch.tensor([[98, 1, 99]]), torch.zeros(1, 3, 32, 32)))
    fields = {field.name for field in dataclasses.fields(output)}
    assert set(model.config.keys_to_ignore_at_inference) == fields - {"loss", "logits"}


def test_the_real_tokenizer_splits_like_openais():
    case = Case("mmrl-ragged")
    model = get_peft_model(case.clip(), MMRLConfig(rep_dim=8))
    model.set_classes(case.settings["classes"], case.tokenizer(), template=case.settings["template"])
    golden = case.golden["input_ids"]
    for row, reference in zip(model.peft_config["default"].class_input_ids[0], golden, strict=True):
        assert list(map(int, row.split())) == [int(i) for i in reference if i != 0]
