"""MMRLConfig: defaults, presets, validation, JSON."""

import json
import math
from fractions import Fraction

import pytest
from conftest import make_clip
from peft import PeftConfig, TaskType, get_peft_model

from peft_mmrl import MMRLConfig


def test_defaults_are_the_papers():
    config = MMRLConfig()
    assert (config.num_rep_tokens, config.rep_dim, config.alpha, config.reg_weight) == (5, 512, 0.7, 0.5)
    assert (config.aligner_rank, config.beta, config.proj_rank) == (None, 1.0, None)
    assert (config.vision_layers, config.text_layers, config.classes, config.class_input_ids) == (None,) * 4
    assert config.template == "a photo of a {}."


def test_plus_plus_is_the_successor_papers_with_overrides():
    config = MMRLConfig.plus_plus(beta=0.5, rep_dim=64)
    assert (config.aligner_rank, config.beta, config.proj_rank, config.rep_dim) == (4, 0.5, 64, 64)


def test_every_field_has_a_help_text():
    own = MMRLConfig.__annotations__
    assert all(MMRLConfig.__dataclass_fields__[name].metadata["help"] for name in own)
    assert all(f"{name} (`" in MMRLConfig.__doc__ for name in own)


@pytest.mark.parametrize("task_type", [None, "FEATURE_EXTRACTION", "SEQ_CLS", "nonsense"])
def test_task_type_is_its_own_whatever_is_passed(task_type):
    assert MMRLConfig(task_type=task_type).task_type is TaskType("ZERO_SHOT_IMAGE_CLASSIFICATION")


@pytest.mark.parametrize(
    ("field", "value"),
    [(name, value) for name in ("num_rep_tokens", "rep_dim") for value in (0, -1, 2.5, "5", True, None)]
    + [(name, value) for name in ("aligner_rank", "proj_rank") for value in (0, -1, 2.5, "5", True)]
    + [(name, value) for name in ("alpha", "beta") for value in (-0.1, 1.1, math.nan, math.inf, "0.5", None, True)]
    + [("reg_weight", value) for value in (-0.1, math.nan, math.inf, "0.5", None)]
    + [("label_smoothing", value) for value in (-0.1, 1, 1.5, math.nan, "0.1", None, True)]
    + [("class_weight", value) for value in ([], [0], [-1.0], [math.nan], [math.inf], ["1"], "1", 2, [None], {1: 2.0})]
    + [
        (name, value)
        for name in ("vision_layers", "text_layers")
        for value in ([], [-1], [1, 1], [0.5], ["1"], "1", 3, [True], {1: 2}, {1, 2})
    ]
    + [("template", value) for value in ("a photo", [], ["a {}", "b"], 3, None, [None])]
    + [("classes", value) for value in ("cat", [], [1], 5)],
)
def test_bad_values_name_field_and_value(field, value):
    with pytest.raises(ValueError, match=f"`{field}`") as error:
        MMRLConfig(**{field: value})
    shown = value[-1] if isinstance(value, list) and len(value) == 1 else value
    assert repr(shown) in str(error.value) or "empty" in str(error.value) or repr(value[-1]) in str(error.value)


@pytest.mark.parametrize(
    "value", [10**400, -(10**400), Fraction(10**400), 10**5000], ids=["+", "-", "fraction", "long"]
)
@pytest.mark.parametrize("field", ["alpha", "beta", "reg_weight", "label_smoothing", "class_weight", "value_range"])
def test_numbers_beyond_floats_are_named(field, value):
    given = {"class_weight": [1, value], "value_range": [0, value]}.get(field, value)
    with pytest.raises(ValueError, match=f"`{field}"):
        MMRLConfig(**{field: given})


@pytest.mark.parametrize(("field", "value"), [("rep_dim", "5"), ("alpha", "0.7"), ("classes", "cat"), ("beta", None)])
def test_wrong_types_are_type_errors_too(field, value):
    with pytest.raises(TypeError, match=f"`{field}`"):
        MMRLConfig(**{field: value})


def test_class_input_ids_must_match_classes_and_templates():
    with pytest.raises(ValueError, match="`class_input_ids`"):
        MMRLConfig(classes=["cat", "dog"], class_input_ids=[["1 2"]])
    with pytest.raises(ValueError, match="`class_input_ids`"):
        MMRLConfig(classes=["cat"], template=["a {}", "the {}"], class_input_ids=[["1 2"]])
    assert MMRLConfig(class_input_ids=[["1 2"]]).class_input_ids is None  # means nothing without classes


def test_layers_are_taken_in_ascending_order():
    assert MMRLConfig(vision_layers=[3, 1], text_layers=(2, 0)).vision_layers == [1, 3]
    assert MMRLConfig(text_layers=range(2)).text_layers == [0, 1]


def test_json_round_trip(tmp_path):
    config = MMRLConfig.plus_plus(
        vision_layers=[0, 2],
        classes=["no", "1.0", "a: b"],
        template=["a {}", "b {}"],
        reg_weight=3,
        label_smoothing=0.1,
        class_weight=(1, 2.5, 1),
    )
    config.save_pretrained(tmp_path)
    for cls in (PeftConfig, MMRLConfig):
        again = cls.from_pretrained(tmp_path)
        assert isinstance(again, MMRLConfig)
        assert again.to_dict() == config.to_dict()


def test_unknown_and_missing_keys_as_in_peft(tmp_path):
    MMRLConfig(rep_dim=16).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    saved = json.loads(path.read_text())
    del saved["alpha"]
    path.write_text(json.dumps({**saved, "from_the_future": 1}))
    with pytest.warns(UserWarning, match="from_the_future"):
        config = PeftConfig.from_pretrained(tmp_path)
    assert (config.rep_dim, config.alpha) == (16, 0.7)


@pytest.mark.parametrize(
    ("depth", "adapted"), [(1, [0]), (2, [1]), (4, [2, 3]), (6, [2, 3, 4, 5]), (12, list(range(5, 12)))]
)
def test_default_layers_are_the_last_seven_of_twelve_scaled(depth, adapted):
    clip = make_clip(vision_num_hidden_layers=depth, text_num_hidden_layers=24)
    model = get_peft_model(clip, MMRLConfig(rep_dim=4))
    tower, text = clip.vision_model, clip.text_model
    assert tower.layers_of(model.peft_config["default"], tower.base_layer) == adapted
    assert text.layers_of(model.peft_config["default"], text.base_layer) == list(range(10, 24))
    assert model.peft_config["default"].vision_layers is None


@pytest.mark.parametrize(("field", "depth"), [("vision_layers", 4), ("text_layers", 3)])
def test_layers_beyond_the_tower_leave_the_model_alone(field, depth, clip):
    with pytest.raises(ValueError, match=f"`{field}` names layer {depth}.*{depth} layers"):
        get_peft_model(clip, MMRLConfig(**{field: [0, depth]}))
    assert not any("mmrl_" in name for name, _ in clip.named_parameters())


def test_changed_weights_are_checked_at_the_next_call(clip, images, tokenizer):
    model = get_peft_model(clip, MMRLConfig(rep_dim=8))
    model.set_classes(["cat", "dog"], tokenizer)
    model.peft_config["default"].alpha = 1.5
    with pytest.raises(ValueError, match=r"`alpha` must be a number from 0 to 1, got 1\.5"):
        model(pixel_values=images)
