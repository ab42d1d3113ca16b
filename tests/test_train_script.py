"""examples/train.py and examples/train_with_trainer.py on folders of digits."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import train
import train_with_trainer
from demo_methods import DEMO_CLIP, load_clip
from peft import PeftModel
from peft.utils import load_peft_weights


QUICK = ["--epochs", "2", "--batch_size", "4", "--learning_rate", "2e-3", "--no_flip", "--crop_scale", "0.8"]


def run(*arguments, base_model=DEMO_CLIP):
    train.main(train.parse_args([*map(str, arguments), "--base_model", str(base_model), *QUICK]))


@pytest.fixture(scope="module")
def finished(digit_folders, tmp_path_factory):
    """A run on digits with its own folder of test pictures."""
    folder = tmp_path_factory.mktemp("run") / "adapter"
    template = ["--template", "a photo of the digit {}.", "--template", "the number {}."]
    run("--train_dir", digit_folders / "train", "--eval_dir", digit_folders / "test", "--output_dir", folder, *template)
    return folder


def test_the_adapter_is_a_classifier(finished, digit_folders):
    clip, processor = load_clip()
    model = PeftModel.from_pretrained(clip, finished)
    assert model.classes == ["one", "two", "zero"]
    assert model.peft_config["default"].template == ["a photo of the digit {}.", "the number {}."]
    run_file = json.loads((finished / "run.json").read_text())
    assert run_file["classes"] == model.classes
    split = json.loads((finished / "split.json").read_text())
    assert set(split["train"]) == {f"{path.parent.name}/{path.name}" for path in digit_folders.glob("train/*/*")}
