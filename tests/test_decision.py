"""A model with a decision: fitting, logits, what it depends on, saving and loading."""

import copy
import dataclasses
import warnings

import pytest
import torch
from accelerate import Accelerator
from conftest import in_two_processes, make_clip, pictures_of_classes, scramble
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from textbook_logits import features_by_textbook, logits_by_textbook
from torch.utils.data import DataLoader
from transformers import CLIPImageProcessor

from peft_mmrl import MMRLConfig, Preprocessing
from peft_mmrl.tuner.decision import DECISION_FILE, Decision
from peft_mmrl.tuner.textbook import textbook_fit


NAMES = ["cat", "big dog", "axolotl"]
NEW = ["newt", "old red fox"]
CONFIGS = {
    "mmrl": MMRLConfig(rep_dim=16),
    "mmrl++": MMRLConfig.plus_plus(rep_dim=16),
    "templates": MMRLConfig(rep_dim=16, template=["a photo of a {}.", "many {}"]),
}
BOUND = {
    "trained only": NAMES,
    "other order": [NAMES[2], NAMES[0], NAMES[1]],
    "a part": NAMES[1:],
    "one of them": NAMES[:1],
    "new only": NEW,
    "mixed": [NEW[0], NAMES[2], NEW[1], NAMES[0]],
}
PROTOTYPES = {
    "prototype_scale": 1.5,
    "prototype_shift": -0.3,
    "prototype_weight": 0.25,
    "zero_shot_share": 0.125,
}  # of a random CLIP they weigh 0


def pictures(number=12, seed=7):
    return torch.randn(number, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


LABELS = torch.arange(12) % 3


@pytest.fixture
def model(clip, tokenizer):
    return make_model(clip, tokenizer)


def make_model(clip, tokenizer, config="mmrl", names=NAMES):
    model = scramble(get_peft_model(clip, copy.deepcopy(CONFIGS[config])))
    model.set_classes(names, tokenizer)
    return model.eval()


def logits(model, images=None, **kwargs):
    with torch.no_grad():
        return model(pixel_values=pictures(5, 8) if images is None else images, **kwargs).logits


# --- against the textbook ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("features", ["adapted", "frozen"])
def test_logits_are_the_textbooks(config, features, tokenizer):
    clip, plain = make_clip().double(), make_clip().double()
    model = make_model(clip, tokenizer, config)
    known_pictures = pictures_of_classes(LABELS).double()
    fitted = model.fit_decision(known_pictures, LABELS, features=features)
    assert fitted.probe_weight.abs().max() > 0.1  # else it would not show
    shown, s = pictures(5, 8).double(), plain.logit_scale.exp()

    def by_textbook(names, images):
        texts = [
            [template.replace("{}", name) for name in names] for template in model.peft_config["default"].templates
        ]
        rows = [tokenizer(prompts)["input_ids"] for prompts in texts]
        padded = [torch.tensor([row + [99] * (20 - len(row)) for row in template]) for template in rows]
        return features_by_textbook(plain, model, padded, images)

    known = by_textbook(NAMES, known_pictures)
    expected = textbook_fit(known["frozen_image_features"], known["frozen_text_features"], LABELS, s)
    torch.testing.assert_close(fitted.probe_weight.double(), expected["W"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(fitted.prototypes.double(), expected["M"], rtol=1e-5, atol=1e-6)
    model.decision = fitted = dataclasses.replace(fitted, **PROTOTYPES)
    for bound, names in BOUND.items():
        model.set_classes(names, tokenizer)
        rows = [NAMES.index(name) if name in NAMES else None for name in names]
        theirs = logits_by_textbook(fitted, rows, by_textbook(names, shown), s)
        torch.testing.assert_close(logits(model, shown), theirs, rtol=1e-9, atol=1e-9, msg=bound)


# --- fitting -----------------------------------------------------------------------------------------------------


def same(ours, theirs, tolerance=1e-5):
    return all(
        torch.allclose(torch.as_tensor(getattr(ours, name)), torch.as_tensor(getattr(theirs, name)), atol=tolerance)
        for name in ("probe_weight", "probe_bias", "prototypes", "prototype_scale", "prototype_shift")
    )


def test_tensors_and_batches_are_fitted_alike(model):
    whole = model.fit_decision(pictures(), LABELS)
    assert same(model.fit_decision(pictures(), LABELS, batch_size=5), whole)
    batches = [{"pixel_values": pictures()[i : i + 4], "labels": LABELS[i : i + 4]} for i in range(0, 12, 4)]
    assert same(model.fit_decision(batches), whole)
    assert same(model.fit_decision((batch["pixel_values"], batch["labels"]) for batch in batches), whole)


@torch.no_grad()
def test_features_in_frozen_clip_take_the_place_of_pictures(model, tokenizer):
    with model.disable_adapter():
        features = model(pixel_values=pictures()).image_embeds
    whole = model.fit_decision(pictures(), LABELS)
    assert same(model.fit_decision(features, LABELS), whole)
    model.set_classes(NAMES[::-1], tokenizer)
    assert same(model.fit_decision(features, len(NAMES) - 1 - LABELS), whole)
    for wrong, message in ((features * torch.nan, "finite"), (features[:, 1:], "width"), (features[1:], "one label")):
        with pytest.raises(ValueError, match=message):
            model.fit_decision(wrong, LABELS)


def test_weights_and_mode_play_no_part(model):
    before = model.fit_decision(pictures(), LABELS)
    scramble(model, seed=9).train()
    assert same(model.fit_decision(pictures(), LABELS), before, 0)
    assert model.training


def test_order_of_the_bound_classes_plays_no_part(model, tokenizer):
    before = model.fit_decision(pictures(), LABELS)
    model.set_classes(BOUND["other order"], tokenizer)
    places = torch.tensor([1, 2, 0])  # of cat, big dog, axolotl
    assert same(model.fit_decision(pictures(), places[LABELS]), before)


def test_fitting_leaves_the_weights_trainable_and_the_tokens_as_they_were(model):
    wanted = {name: weight.requires_grad for name, weight in model.named_parameters()}
    model.fit_decision(pictures(), LABELS)
    assert {name: weight.requires_grad for name, weight in model.named_parameters()} == wanted
    assert not any(tower.disable_adapters for tower in (model.get_base_model().vision_model,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((pictures(), LABELS[:-1]), "`labels` must be a tensor of one label per image"),
        ((pictures(), None), "`labels` must be a tensor of one label per image"),
        ((pictures(), LABELS + 1), "`labels` must lie between 0 and 2"),
        ((pictures(), LABELS - 1), "`labels` must lie between 0 and 2"),
        ((pictures(), LABELS % 2), r"no pictures of the class\(es\) at position \[2\]"),
        ((pictures() * float("nan"), LABELS), "must hold finite numbers"),
        ((pictures()[0], LABELS), "`pixel_values` must have the shape"),
        (([],), "`images` holds no pictures"),
        (([pictures()],), "`images` must hold batches"),
        (([(pictures(), LABELS)], LABELS), "`labels` belong into the batches"),
        (([(pictures()[:6], LABELS[:6]), (pictures()[6:, :, 8:], LABELS[6:])],), "Input image size"),
    ],
)
def test_bad_pictures_change_nothing(model, arguments, message):
    before = model.fit_decision(pictures(), LABELS)
    with pytest.raises(ValueError, match=message):
        model.fit_decision(*arguments)
    assert model.decision is before


def test_bad_settings_are_refused(model):
    with pytest.raises(ValueError, match='`features` must be "adapted" or "frozen"'):
        model.fit_decision(pictures(), LABELS, features="both")
    with pytest.raises(ValueError, match="`batch_size` must be"):
        model.fit_decision(pictures(), LABELS, batch_size=0)
    assert model.decision is None


@pytest.mark.parametrize("names", [NAMES[:2], [*NAMES, "newt"], NEW], ids=["a part", "one more", "others"])
def test_other_classes_than_the_trained_ones_are_refused(model, tokenizer, names):
    model.set_classes(names, tokenizer)
    with pytest.raises(ValueError, match="fitted on the trained classes"):
        model.fit_decision(pictures(), torch.arange(12) % len(names))


def test_another_template_is_refused(model, tokenizer):
    model.set_classes(NAMES, tokenizer, template="many {}")
    with pytest.raises(ValueError, match="fitted with the adapter's own `template`"):
        model.fit_decision(pictures(), LABELS)


def test_an_adapter_without_classes_asks_for_them(clip):
    with pytest.raises(ValueError, match="set_classes"):
        get_peft_model(clip, MMRLConfig(rep_dim=16)).fit_decision(pictures(), LABELS)


# --- where it is used --------------------------------------------------------------------------------------------


def test_without_a_decision_everything_is_as_before(model):
    before = logits(model)
    model.fit_decision(pictures(), LABELS)
    assert not torch.equal(logits(model), before)
    model.decision = None
    assert model.decision is None and torch.equal(logits(model), before)


def test_training_mode_explicit_prompts_and_the_disabled_adapter_decide_without(model, tokenizer):
    ids = torch.tensor(
        [row + [99] * (9 - len(row)) for row in tokenizer([f"a photo of a {n}." for n in NAMES])["input_ids"]]
    )

    def others():
        found = [logits(model, input_ids=ids)]
        with model.disable_adapter():
            found.append(logits(model))
        model.train()
        found.append(logits(model, labels=torch.zeros(5, dtype=torch.long)))
        model.eval()
        return found

    before = others()
    model.fit_decision(pictures(), LABELS)
    assert all(map(torch.equal, others(), before))


@pytest.mark.parametrize("features", ["adapted", "frozen"])
@pytest.mark.parametrize("reg_weight", [0.5, 0.0])
def test_class_and_rep_logits_features_and_losses_stay(model, reg_weight, features):
    model.peft_config["default"].reg_weight = reg_weight
    arguments = {"pixel_values": pictures(5, 8), "labels": torch.tensor([0, 1, 2, 0, 1])}
    before = model(**arguments)
    model.fit_decision(pictures(), LABELS, features=features)
    after = model(**arguments)
    assert list(after) == list(before)
    for name in set(after) - {"logits", "logits_per_image", "logits_per_text"}:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=0, msg=name)
    assert torch.equal(after.logits_per_text, after.logits.T)


def test_frozen_features_run_no_adapted_layer(model):
    model.fit_decision(pictures(), LABELS, features="frozen")
    before = logits(model)
    output = model(pixel_values=pictures(5, 8))
    assert output.rep_logits is None
    scramble(model, seed=9)
    assert torch.equal(logits(model), before)


def test_softmax_over_the_bound_classes_gives_probabilities_that_sum_to_one(model, tokenizer):
    model.fit_decision(pictures(), LABELS)
    model.set_classes([*NAMES, *NEW], tokenizer)
    found = logits(model).softmax(dim=1)
    assert found.isfinite().all()
    torch.testing.assert_close(found.sum(dim=1), torch.ones(5))


def test_zero_shot_weight_may_be_changed(model, tokenizer):
    model.fit_decision(pictures(), LABELS)
    model.set_classes([NEW[0], *NAMES, NEW[1]], tokenizer)
    with model.disable_adapter():
        zero_shot = logits(model)
    assert not torch.allclose(logits(model)[:, [0, 4]], zero_shot[:, [0, 4]])
    model.peft_config["default"].zero_shot_weight = 1.0
    torch.testing.assert_close(logits(model)[:, [0, 4]], zero_shot[:, [0, 4]])
    model.peft_config["default"].zero_shot_weight = 1.5
    with pytest.raises(ValueError, match="`zero_shot_weight` must be a number from 0 to 1"):
        logits(model)


def test_precomputed_states_decide_as_the_pictures_do(model):
    for features in ("adapted", "frozen"):
        model.fit_decision(pictures(), LABELS, features=features)
        with torch.no_grad():
            by_states = model(**model.image_states(pictures(5, 8))).logits
        torch.testing.assert_close(by_states, logits(model), rtol=1e-4, atol=1e-4)


def test_a_seen_class_without_a_row_is_refused(model, tokenizer):
    model.fit_decision(pictures(), LABELS)
    model.set_classes([*NAMES, "newt"], tokenizer, seen="all")
    with pytest.raises(ValueError, match="'newt' at position 3 counts as trained"):
        logits(model)
    model.decision = None
    logits(model)


def test_a_trained_class_that_counts_as_new_has_none(model, tokenizer):
    model.fit_decision(pictures(), LABELS)
    model.peft_config["default"].zero_shot_weight = 1.0
    model.set_classes(NAMES, tokenizer, seen="none")
    with model.disable_adapter():
        zero_shot = logits(model)
    torch.testing.assert_close(logits(model), zero_shot)


def test_trained_and_new_classes_without_a_decision_warn_once(model, tokenizer):
    model.set_classes([*NAMES, "newt"], tokenizer)
    with pytest.warns(UserWarning, match="fit_decision"):
        logits(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logits(model)
        model.set_classes(NAMES, tokenizer)
        model.fit_decision(pictures(), LABELS)
        model.set_classes([*NAMES, "newt"], tokenizer)
        logits(model)


def test_under_other_conditions_it_is_not_used(model, tokenizer):
    model.fit_decision(pictures(), LABELS)
    decision, model.decision = model.decision, None
    larger = torch.randn(2, 3, 40, 40)
    changes = {
        "image size": {"images": larger, "interpolate_pos_encoding": True},
        "template": {"template": "many {}"},
        "fit": {"fit": "pad"},
        "base model": {"base": "another"},
    }
    for what, change in changes.items():
        config = copy.deepcopy(model.peft_config["default"])
        kept, model.peft_config["default"] = model.peft_config["default"], config
        config.fit = change.get("fit")
        model.set_classes(NAMES, tokenizer, template=change.get("template"))
        arguments = {name: change[name] for name in ("images", "interpolate_pos_encoding") if name in change}
        without = logits(model, **arguments)
        model.decision = dataclasses.replace(
            decision, fitted_for={**decision.fitted_for, **({"base model": "another"} if "base" in change else {})}
        )
        with pytest.warns(UserWarning, match=f"fitted for another {what}"):
            assert torch.equal(logits(model, **arguments), without)
        model.decision, model.peft_config["default"] = None, kept


def prepared_with(mean):
    return CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32, image_mean=[mean] * 3)


def test_under_another_image_processor_it_is_not_used(model, tmp_path):
    without = logits(model)
    Preprocessing.of(model, prepared_with(0.5))
    model.fit_decision(pictures(), LABELS)
    decided = logits(model)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make_clip(), tmp_path).eval()
    assert torch.equal(logits(loaded), decided)  # not known how the pictures were prepared
    Preprocessing.of(loaded, prepared_with(0.5))
    assert torch.equal(logits(loaded), decided)
    Preprocessing.of(loaded, prepared_with(0.4))
    with pytest.warns(UserWarning, match="fitted for another image processor and is not used"):
        assert torch.equal(logits(loaded), without)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logits(loaded)  # said once
        loaded.fit_decision(pictures(), LABELS)
        assert torch.equal(logits(loaded), decided)


def test_training_on_other_classes_drops_it(model, tokenizer):
    model.fit_decision(pictures(), LABELS)
    model.peft_config["default"].classes = None
    logits(model)  # fresh: by the class feature alone
    model.set_classes([*NEW, "dodo"], tokenizer)
    assert model.decision is None
    model.fit_decision(pictures(), LABELS)
    model.set_classes(NAMES, tokenizer)
    assert model.decision is not None


@pytest.mark.parametrize("features", ["adapted", "frozen"])
def test_recorded_states_and_compilation_decide_alike(model, tokenizer, features):
    model.fit_decision(pictures(), LABELS, features=features)
    model.set_classes(BOUND["mixed"], tokenizer)
    expected = logits(model)
    torch.testing.assert_close(logits(model, output_hidden_states=True), expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager")(pixel_values=pictures(5, 8)).logits
    torch.testing.assert_close(compiled, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("features", "calls"), [("adapted", [1, 1, 2, 2]), ("frozen", [1, 1, 1, 1])])
def test_it_shares_the_trunk_and_keeps_text_features(model, features, calls, monkeypatch):
    """Two of four vision layers are adapted; of the text encoder nothing runs a second time."""
    model.fit_decision(pictures(), LABELS, features=features)
    logits(model)
    vision, text = model.get_base_model().vision_model, model.get_base_model().text_model
    monkeypatch.setattr(type(text), "encode", lambda *arguments: pytest.fail("the text encoder runs again"))
    ran = [0] * 4
    for index, layer in enumerate(vision.layers):
        layer.mlp.register_forward_hook(lambda *_, index=index: ran.__setitem__(index, ran[index] + 1))
    logits(model)
    assert ran == calls


def test_bound_to_decides_by_it(model, tokenizer):
    model.fit_decision(pictures(), LABELS)
    with torch.no_grad():
        found = model.bound_to(BOUND["mixed"], tokenizer)(pixel_values=pictures(5, 8)).logits
    model.set_classes(BOUND["mixed"], tokenizer)
    assert torch.equal(found, logits(model))


# --- adapters, saving, loading -----------------------------------------------------------------------------------


def test_each_adapter_has_its_own(model, tokenizer):
    first = model.fit_decision(pictures(), LABELS)
    model.add_adapter("other", MMRLConfig(rep_dim=16))
    model.set_adapter("other")
    assert model.decision is None
    model.set_classes(NEW, tokenizer)
    second = model.fit_decision(pictures(), LABELS % 2)
    model.set_adapter("default")
    assert model.decision is first
    model.delete_adapter("other")
    model.add_adapter("other", MMRLConfig(rep_dim=16))
    model.set_adapter("other")
    assert model.decision is None and second is not first


def test_unloading_gives_back_the_plain_model(model, clip):
    model.fit_decision(pictures(), LABELS)
    assert model.unload() is clip and not any("decision" in name for name in clip.state_dict())


def test_it_is_no_part_of_the_weights_and_stays_fp32(model):
    names = set(model.state_dict())
    model.fit_decision(pictures(), LABELS)
    assert set(model.state_dict()) == names
    model.half()
    assert model.decision.probe_weight.dtype == torch.float32 and not model.decision.probe_weight.requires_grad


def test_a_base_in_half_precision_fits_and_saves_fp32(tokenizer, tmp_path):
    model = make_model(make_clip(), tokenizer).to(torch.bfloat16)
    decision = model.fit_decision(pictures().bfloat16(), LABELS)
    model.save_pretrained(tmp_path)
    assert {tensor.dtype for tensor in load_file(tmp_path / DECISION_FILE).values()} == {torch.float32}
    assert same(Decision.load(tmp_path), decision, 0)


def test_every_adapter_that_is_saved_has_its_own_file(model, tokenizer, tmp_path):
    first = model.fit_decision(pictures(), LABELS)
    model.add_adapter("other", MMRLConfig(rep_dim=16))
    model.set_adapter("other")
    model.set_classes(NEW, tokenizer)
    second = model.fit_decision(pictures(), LABELS % 2)
    model.save_pretrained(tmp_path / "all")
    model.save_pretrained(tmp_path / "one", selected_adapters=["other"])
    assert same(Decision.load(tmp_path / "all"), first, 0)
    assert same(Decision.load(tmp_path / "all" / "other"), second, 0)
    assert not (tmp_path / "one" / DECISION_FILE).exists()
    assert same(PeftModel.from_pretrained(make_clip(), tmp_path / "one" / "other").decision, second, 0)


def test_loading_in_place_that_fails_leaves_it(model, tmp_path):
    model.save_pretrained(tmp_path)
    decision = model.fit_decision(pictures(), LABELS)
    expected = logits(model)
    (tmp_path / DECISION_FILE).write_bytes(b"damaged")
    with pytest.raises(OSError, match=DECISION_FILE):
        model.load_adapter(tmp_path, "default")
    assert model.decision is decision and torch.equal(logits(model), expected)


def test_disabling_and_deleting_leave_the_others(model, tokenizer, tmp_path):
    model.fit_decision(pictures(), LABELS)
    expected = logits(model)
    model.add_adapter("other", MMRLConfig(rep_dim=16))
    with model.disable_adapter():
        zero_shot = logits(model)
    model.delete_adapter("other")
    assert torch.equal(logits(model), expected) and not torch.allclose(zero_shot, expected, atol=1e-3)


@pytest.mark.parametrize("features", ["adapted", "frozen"])
def test_it_is_saved_and_loaded_with_the_adapter(model, tokenizer, tmp_path, features):
    model.fit_decision(pictures(), LABELS, features=features)
    expected = logits(model)
    model.save_pretrained(tmp_path)
    assert (tmp_path / DECISION_FILE).exists()
    again = PeftModel.from_pretrained(make_clip(), tmp_path).eval()
    assert again.decision.features == features
    assert torch.equal(logits(again), expected)
    again.load_adapter(tmp_path, "second")
    again.set_adapter("second")
    assert torch.equal(logits(again), expected)


def test_saving_without_one_removes_the_file_of_before(model, tmp_path):
    model.fit_decision(pictures(), LABELS)
    model.save_pretrained(tmp_path)
    model.decision = None
    model.save_pretrained(tmp_path)
    assert not (tmp_path / DECISION_FILE).exists()
    assert PeftModel.from_pretrained(make_clip(), tmp_path).decision is None


def test_loading_in_place_takes_the_folders(model, tmp_path):
    model.save_pretrained(tmp_path / "without")
    decision = model.fit_decision(pictures(), LABELS)
    model.save_pretrained(tmp_path / "with")
    model.load_adapter(tmp_path / "without", "default")
    assert model.decision is None
    model.load_adapter(tmp_path / "with", "default")
    assert same(model.decision, decision, 0)


def test_one_of_other_classes_is_refused_on_loading(model, tmp_path):
    decision = model.fit_decision(pictures(), LABELS)
    model.save_pretrained(tmp_path)
    dataclasses.replace(decision, classes=["cat", "dog", "fox"]).save(tmp_path)
    with pytest.raises(ValueError, match="The decision is for the classes"):
        PeftModel.from_pretrained(make_clip(), tmp_path)
    with pytest.raises(ValueError, match="The decision is for the classes"):
        model.load_adapter(tmp_path, "other")
    assert list(model.peft_config) == ["default"] and model.decision is decision


@pytest.mark.parametrize("content", [b"", b"no safetensors"])
def test_a_damaged_file_is_refused_on_loading(model, tmp_path, content):
    model.save_pretrained(tmp_path)
    (tmp_path / DECISION_FILE).write_bytes(content)
    with pytest.raises(OSError, match=DECISION_FILE):
        PeftModel.from_pretrained(make_clip(), tmp_path)


def test_one_that_does_not_fit_cannot_be_set(model):
    decision = model.fit_decision(pictures(), LABELS)
    wrong = Decision(torch.zeros(2, 24), torch.zeros(2), torch.zeros(2, 24), 0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="for 2 classes and features of width 24"):
        model.decision = wrong
    with pytest.raises(TypeError, match="`decision` must be a `Decision` or None"):
        model.decision = "rule"
    assert model.decision is decision


def test_another_base_warns_and_decides_without(model, tmp_path):
    model.fit_decision(pictures(), LABELS)
    model.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="another base model"):
        other = PeftModel.from_pretrained(make_clip(seed=5), tmp_path).eval()
    with pytest.warns(UserWarning, match="fitted for another base model"):
        found = logits(other)
    other.decision = None
    assert torch.equal(logits(other), found)


# --- several processes -------------------------------------------------------------------------------------------


def fit_in_each_process(folder):
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    model = make_model(make_clip(), _Words())
    data = [
        {"pixel_values": picture, "labels": label} for picture, label in zip(pictures(11), LABELS[:11], strict=True)
    ]
    loader = accelerator.prepare_data_loader(DataLoader(data, batch_size=2))
    decision = model.fit_decision(loader)
    torch.save(decision.state()[0], folder / f"{accelerator.process_index}.pt")


class _Words:
    """Ids without a state that a process could have in another order."""

    def __call__(self, texts):
        words = ["a", "photo", "of", ".", *" ".join(NAMES).split()]
        return {"input_ids": [[98, *(words.index(w) + 1 for w in t.replace(".", " .").split()), 99] for t in texts]}


def test_two_processes_fit_what_one_does_each_picture_once(tmp_path):
    in_two_processes(fit_in_each_process, tmp_path)
    alone = make_model(make_clip(), _Words()).fit_decision(pictures(11), LABELS[:11]).state()[0]
    for index in range(2):
        for name, value in torch.load(tmp_path / f"{index}.pt").items():
            torch.testing.assert_close(value, alone[name], rtol=1e-3, atol=1e-4)
