"""Importing the package registers the method with an unmodified PEFT."""

import copy
import importlib
import pickle
import subprocess
import sys

import peft
import pytest
from peft import PeftConfig, PeftType, TaskType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from transformers.pipelines.base import SUPPORTED_PEFT_TASKS

import peft_mmrl
from peft_mmrl import MMRLConfig, MMRLModel, PeftModelForZeroShotImageClassification
from peft_mmrl.tuner.registration import register


def test_peft_finds_config_tuner_and_model(clip):
    assert PeftType("MMRL") is PeftType.MMRL
    assert TaskType("ZERO_SHOT_IMAGE_CLASSIFICATION") in list(TaskType)
    assert PEFT_TYPE_TO_CONFIG_MAPPING["MMRL"] is MMRLConfig
    model = get_peft_model(clip, MMRLConfig(rep_dim=8))
    assert type(model) is PeftModelForZeroShotImageClassification
    assert isinstance(model.base_model, MMRLModel)


def test_registering_again_and_reloading_change_nothing(clip, tmp_path):
    members = list(PeftType), list(TaskType), copy.deepcopy(SUPPORTED_PEFT_TASKS)
    register(MMRLConfig, MMRLModel, PeftModelForZeroShotImageClassification)
    importlib.reload(peft_mmrl)
    assert (list(PeftType), list(TaskType), SUPPORTED_PEFT_TASKS) == members
    MMRLConfig(rep_dim=8).save_pretrained(tmp_path)
    assert isinstance(PeftConfig.from_pretrained(tmp_path), MMRLConfig)


def test_a_method_of_this_name_in_peft_is_reported(monkeypatch):
    monkeypatch.setitem(PEFT_TYPE_TO_CONFIG_MAPPING, PeftType.MMRL, peft.LoraConfig)
    with pytest.raises(ImportError, match="has a method MMRL of its own"):
        register(MMRLConfig, MMRLModel, PeftModelForZeroShotImageClassification)
    assert PEFT_TYPE_TO_CONFIG_MAPPING[PeftType.MMRL] is peft.LoraConfig


def test_a_pickled_config_loads_in_a_fresh_process(tmp_path):
    (tmp_path / "config.pkl").write_bytes(pickle.dumps(MMRLConfig(rep_dim=8)))
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).rep_dim)"
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "config.pkl")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "8"


def test_peft_alone_does_not_know_the_method(tmp_path):
    """The README says that loading needs the import."""
    MMRLConfig(rep_dim=8).save_pretrained(tmp_path)
    code = "import sys; from peft import PeftConfig; PeftConfig.from_pretrained(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "MMRL" in done.stderr
    code = "import peft_mmrl; " + code
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, check=True)
