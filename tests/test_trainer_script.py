"""examples/train_with_trainer.py on folders of digits."""

import json

import pytest
import torch
import train_with_trainer
from demo_parts.methods import DEMO_CLIP, load_clip
from peft import PeftModel
from safetensors.torch import load_file

from peft_mmrl import PeftModelForZeroShotImageClassification


def run(*arguments):
    base = ["--base_model", str(DEMO_CLIP), "--report_to", "none", "--use_cpu", "--num_train_epochs", "2"]
    train_with_trainer.main(*train_with_trainer.parse_args([*base, *map(str, arguments)]))


def test_it_trains_evaluates_and_saves(digit_folders, tmp_path, capsys):
    folder = tmp_path / "adapter"
    best = ["--eval_strategy", "epoch", "--save_strategy", "epoch", "--load_best_model_at_end"]
    run(
        *("--train_dir", digit_folders / "train", "--eval_dir", digit_folders / "test", "--output_dir", folder),
        *("--template", "a photo of the digit {}.", "--reg_weight", "2", "--learning_rate", "2e-3"),
        *(*best, "--metric_for_best_model", "accuracy"),
    )
    said = capsys.readouterr().out
    assert "18 pictures of 3 classes" in said and "pictures are not mirrored" in said
    assert said.count(f"the adapter with both is in {folder}. To name pictures: peft-mmrl predict {folder}") == 1
    (state,) = list(folder.glob("checkpoint-*/trainer_state.json"))[-1:]
    assert json.loads(state.read_text())["best_metric"] > 0.5
    model = PeftModel.from_pretrained(load_clip()[0], folder)
    assert model.classes == ["one", "two", "zero"]
    assert model.peft_config["default"].reg_weight == 2
    assert model.decision.features == "adapted"


def test_label_smoothing_is_that_of_the_method(digit_folders, tmp_path, recwarn):
    weights = {}
    for reg_weight in ("0", "50"):
        folder = tmp_path / reg_weight
        run(
            *("--train_dir", digit_folders / "train", "--validation_fraction", "0", "--output_dir", folder),
            *("--reg_weight", reg_weight, "--label_smoothing_factor", "0.1"),
        )
        weights[reg_weight] = load_file(folder / "adapter_model.safetensors")
        assert json.loads((folder / "adapter_config.json").read_text())["label_smoothing"] == 0.1
    assert any(not torch.allclose(weights["0"][name], weights["50"][name], atol=1e-4) for name in weights["0"])
    assert not [warning for warning in recwarn if "MMRL's loss" in str(warning.message)]


def test_bad_input_is_refused_before_training(digit_folders, tmp_path):
    with pytest.raises(SystemExit, match="--train_dir, --train_file and --dataset_name"):
        run("--output_dir", tmp_path / "adapter")
    with pytest.raises(SystemExit, match="no class folders"):
        run("--output_dir", tmp_path / "adapter", "--train_dir", digit_folders / "train" / "one")
    train = digit_folders / "train"
    with pytest.raises(SystemExit, match="validation_fraction"):
        run("--output_dir", tmp_path / "a", "--train_dir", train, "--eval_dir", train, "--validation_fraction", "0.2")


def test_without_a_name_it_is_pushed_as_the_output_folder_is_called(digit_folders, tmp_path, monkeypatch):
    pushed = []
    monkeypatch.setattr(train_with_trainer, "check_can_push", lambda name, **kwargs: f"me/{name}")
    monkeypatch.setattr(
        PeftModelForZeroShotImageClassification, "push_to_hub", lambda self, name, **kwargs: pushed.append(name)
    )
    given = ["--train_dir", digit_folders / "train", "--output_dir", tmp_path / "my-adapter"]
    run(*given, "--num_train_epochs", "1", "--push_to_hub")
    assert pushed == ["me/my-adapter"]


def test_no_run_among_the_pictures(digit_folders, tmp_path):
    with pytest.raises(SystemExit, match="--output_dir .*run1 lies in --train_dir"):
        run("--output_dir", digit_folders / "train" / "run1", "--train_dir", digit_folders / "train")
    assert not (digit_folders / "train" / "run1").exists()
