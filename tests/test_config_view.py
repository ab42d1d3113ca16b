"""The config of an adapted model: the base's, but for what follows from the bound classes."""

import copy
import json
import pickle

import pytest
from conftest import make_clip
from peft import get_peft_model
from transformers import MODEL_MAPPING, CLIPConfig

from peft_mmrl import MMRLConfig


@pytest.fixture
def model(clip, tokenizer):
    model = get_peft_model(clip, MMRLConfig(rep_dim=8))
    model.set_classes(["cat", "dog"], tokenizer)
    return model


def test_it_has_the_bound_classes_and_the_base_does_not(model, clip, tokenizer):
    before = make_clip().config.to_dict()
    assert (model.config.id2label, model.config.label2id) == ({0: "cat", 1: "dog"}, {"cat": 0, "dog": 1})
    assert model.config.num_labels == 2
    assert "logits" not in model.config.keys_to_ignore_at_inference
    model.set_classes(["owl"], tokenizer)
    assert model.config.id2label == {0: "owl"}
    assert clip.config.to_dict() == before


def test_what_is_written_is_written_to_the_base(model, clip, images):
    model.config.return_dict = False
    model.config.note = "mine"
    model.config.update({"other": 1})
    assert (model.config.note, clip.config.note, clip.config.other) == ("mine", "mine", 1)
    assert isinstance(model(pixel_values=images), tuple)
    config = model.config
    config.note = "again"
    assert (config.note, model.config.note) == ("again", "again")


@pytest.mark.parametrize("name", ["id2label", "label2id", "num_labels", "keys_to_ignore_at_inference"])
def test_what_follows_from_the_classes_cannot_be_written(model, name):
    with pytest.raises(ValueError, match=f"`config.{name}` cannot be set"):
        setattr(model.config, name, None)
    assert model.config.id2label == {0: "cat", 1: "dog"}


@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, lambda config: pickle.loads(pickle.dumps(config))])
def test_copies_are_plain_configs_of_their_own(model, clip, twin):
    other = twin(model.config)
    assert type(other) is CLIPConfig
    assert other.id2label == {0: "cat", 1: "dog"}
    other.note = "mine"
    other.id2label = {}
    assert not hasattr(clip.config, "note")
    assert model.config.id2label == {0: "cat", 1: "dog"}


def test_it_is_what_transformers_knows(model, tmp_path):
    assert isinstance(model.config, CLIPConfig)
    assert type(model.config) in MODEL_MAPPING
    model.config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert (saved["model_type"], saved["id2label"]) == ("clip", {"0": "cat", "1": "dog"})
    assert CLIPConfig.from_pretrained(tmp_path).id2label == {0: "cat", 1: "dog"}
