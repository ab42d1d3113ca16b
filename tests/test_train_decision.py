"""`train`: whether it mirrors pictures, the decision that it fits, `--quick`, and the figures that it prints."""

import json
import re

import pytest
import torch
import train
from conftest import DEMO_CLIP, in_two_processes, load_example
from demo_parts.methods import load_clip
from digits import CLASS_NAMES, load_digits
from peft import PeftModel
from peft.utils import load_peft_weights

from peft_mmrl import Preprocessing
from peft_mmrl.data import load_folder
from peft_mmrl.fitting import run as runs
from peft_mmrl.hub.upload import ADAPTER_FILES
from peft_mmrl.training import FrozenFeatures, describe_mirroring, make_accelerator
from peft_mmrl.tuner.decision import DECISION_FILE, Decision
from peft_mmrl.tuner.mirroring import Mirroring


SHORT = ["--epochs", "2", "--learning_rate", "2e-3", "--crop_scale", "0.8"]
RUNG = r"[\w -]+ [\d.]+% \([\d.]+% to [\d.]+%\)"


def run(output_dir, *arguments):
    given = [*arguments, "--base_model", DEMO_CLIP, "--output_dir", output_dir]
    train.main(train.parse_args(list(map(str, given))))


def evaluate(adapter, pictures, output_dir):
    script = load_example("evaluate")
    script.main(script.parse_args([str(adapter), str(pictures), "--output_dir", str(output_dir)]))
    return json.loads((output_dir / "metrics.json").read_text())


def said_of(folder):
    return json.loads((folder / "run.json").read_text())


def load(folder):
    return PeftModel.from_pretrained(load_clip()[0], folder).eval()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Folders of digits: `train` with 4 pictures of each of zero to four, `test` with 8 of each of all ten."""
    root = tmp_path_factory.mktemp("photos")
    for split, digits, count in (("train", range(5), 4), ("test", range(10), 8)):
        part = load_digits()[split]
        for digit in digits:
            folder = root / split / CLASS_NAMES[digit]
            folder.mkdir(parents=True)
            rows = [row for row, label in enumerate(part["label"]) if label == digit][:count]
            for row in rows:
                part[row]["image"].save(folder / f"{row}.png")
    return root


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    """The default run, but for the number of epochs."""
    folder = tmp_path_factory.mktemp("runs") / "adapter"
    run(folder, "--train_dir", photos / "train", "--folds", "0", "--epochs", "8")
    return folder


def test_by_default_it_does_not_mirror_digits_and_saves_a_decision(photos, trained, tmp_path):
    said = said_of(trained)
    assert (said["flip"], said["decision"], said["quick"]) == (False, True, False)
    assert DECISION_FILE in said["files"] and DECISION_FILE in ADAPTER_FILES
    decision = load(trained).decision
    assert (decision.features, list(decision.classes)) == ("adapted", sorted(CLASS_NAMES[:5]))
    metrics = evaluate(trained, photos / "test", tmp_path / "evaluation")
    assert metrics["accuracy"] > metrics["zero_shot_accuracy"]
    assert "untrained_accuracy" not in metrics and metrics["accuracy_low"] < metrics["accuracy"]


def test_the_decision_is_that_of_the_plain_training_pictures(photos, trained):
    model = load(trained)
    processor = load_clip()[1]
    preprocess = Preprocessing.of(model, processor)
    paths = sorted(photos.glob("train/*/*.png"))
    labels = torch.tensor([model.classes.index(path.parent.name) for path in paths])
    saved, fitted = model.decision, model.fit_decision(torch.stack([preprocess(path) for path in paths]), labels)
    assert torch.allclose(saved.probe_weight, fitted.probe_weight, atol=1e-4)
    assert torch.allclose(saved.prototypes, fitted.prototypes, atol=1e-6)
    assert saved.prototype_weight == fitted.prototype_weight


def test_without_a_decision_weights_and_logits_are_the_same_bit_for_bit(photos, tmp_path):
    source = ["--train_dir", photos / "train", "--folds", "0", *SHORT, "--no_flip"]
    run(tmp_path / "with", *source)
    run(tmp_path / "without", *source, "--no_decision")
    assert not (tmp_path / "without" / DECISION_FILE).exists()
    with_decision, without = load(tmp_path / "with"), load(tmp_path / "without")
    weights = [load_peft_weights(str(tmp_path / name)) for name in ("with", "without")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        decided, plain = (model(pixel_values=images).logits for model in (with_decision, without))
        with_decision.decision = None
        assert torch.equal(with_decision(pixel_values=images).logits, plain)
    assert not torch.equal(decided, plain)


def test_three_accuracies_with_intervals_are_printed_and_stand_in_report_and_card(photos, tmp_path, capsys):
    folder = tmp_path / "adapter"
    run(folder, "--train_dir", photos / "train", "--validation_fraction", "0.25", *SHORT)
    said = capsys.readouterr().out
    lines = re.findall(rf"accuracy with its 90% interval: ({RUNG}(?:, {RUNG})*)\n", said)
    assert [line.count("(") for line in lines] == [2, 3]  # before training and after it
    assert said.index(lines[0]) < said.index("epoch 1: ") < said.index(lines[1])
    assert lines[1].startswith(lines[0])
    assert "pictures are not mirrored: " in said and "--flip overrules" in said
    metrics = json.loads((folder / "report" / "metrics.json").read_text())
    for name in ("zero_shot_accuracy", "untrained_accuracy", "accuracy"):
        assert metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"]
    assert f"accuracy {metrics['accuracy']:.1%}" in said.partition("epoch 2: ")[2]  # what is scored is what is saved
    card, page = ((folder / name).read_text() for name in ("README.md", "report/report.html"))
    assert f"Accuracy with its 90% interval: {lines[1]}." in card
    assert "`decision.safetensors`" in card
    assert "without training <b" in page


def test_quick_saves_the_decision_alone_and_all_commands_take_it(photos, tmp_path, capsys):
    folder = tmp_path / "quick"
    run(folder, "--quick", "--train_dir", photos / "train", "--validation_fraction", "0.25")
    said = capsys.readouterr().out
    assert "epoch" not in said and "no training: the decision alone" in said
    assert said_of(folder)["quick"] and load(folder).decision.features == "frozen"
    assert ", trained " not in said and ", without training " in said
    assert "| epochs | `0` |" in (folder / "README.md").read_text()
    metrics = evaluate(folder, photos / "test", tmp_path / "evaluation")
    assert metrics["accuracy"] > metrics["zero_shot_accuracy"]
    assert metrics["untrained_accuracy"] == metrics["accuracy"]
    predict = load_example("predict")
    picture = next(photos.glob("test/three/*"))
    predict.main(predict.parse_args([str(folder), str(picture), "--threshold"]))
    assert picture.name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--no_decision"], "`quick` fits the decision alone: without a decision nothing is left"),
        (["--preset", "few-shot"], "`quick` fits the decision alone"),
        (["--resume_from_checkpoint", "latest"], "`quick` does not train"),
    ],
)
def test_quick_with_nothing_to_do_is_refused(arguments, message, photos, tmp_path):
    with pytest.raises(SystemExit, match=message):
        run(tmp_path / "quick", "--quick", "--train_dir", photos / "train", *arguments)
    assert not (tmp_path / "quick").exists()


@pytest.mark.parametrize(
    ("arguments", "flip", "decision"),
    [
        (["--flip"], True, True),
        (["--preset", "base-to-new"], True, False),
        (["--preset", "base-to-new", "--decision", "--no_flip"], False, True),
    ],
)
def test_what_is_given_and_the_papers_settings_win(arguments, flip, decision, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(FrozenFeatures, "judge_mirroring", None)  # nobody asks
    run(tmp_path / "run", "--train_dir", photos / "train", *arguments, "--epochs", "1", "--folds", "0")
    said = said_of(tmp_path / "run")
    assert (said["flip"], said["decision"]) == (flip, decision)
    assert (tmp_path / "run" / DECISION_FILE).exists() == decision


def test_where_mirror_images_are_harmless_views_are_mirrored(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(FrozenFeatures, "judge_mirroring", lambda self: Mirroring(gain=0.1, known=1.0))
    source = ["--train_dir", photos / "train", "--folds", "0", *SHORT]
    run(tmp_path / "run", *source)
    assert said_of(tmp_path / "run")["flip"]
    assert "half of the views are mirrored" in (said := capsys.readouterr().out) and "--no_flip overrules" in said
    run(tmp_path / "flip", *source, "--flip")
    weights = [load_peft_weights(str(tmp_path / name)) for name in ("run", "flip")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_run_that_goes_on_mirrors_as_it_did(photos, tmp_path, monkeypatch):
    source = ["--train_dir", photos / "train", "--folds", "0", *SHORT]

    def stop(record):
        raise KeyboardInterrupt

    monkeypatch.setattr(FrozenFeatures, "judge_mirroring", lambda self: Mirroring(gain=0.1, known=1.0))
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(runs, "epoch_line", stop)
        run(tmp_path / "run", *source, "--checkpointing_steps", "2")
    monkeypatch.setattr(FrozenFeatures, "judge_mirroring", None)  # nobody asks again
    run(tmp_path / "run", *source, "--checkpointing_steps", "2", "--resume_from_checkpoint", "latest")
    assert said_of(tmp_path / "run")["flip"]
    assert load(tmp_path / "run").decision.features == "adapted"


def test_where_no_decision_can_be_fitted_training_goes_on_without(photos, tmp_path, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise ValueError("`images` holds no pictures.")

    monkeypatch.setattr(FrozenFeatures, "fit_decision", refuse)
    source = ["--train_dir", photos / "train", "--epochs", "1", "--validation_fraction", "0.25"]
    run(tmp_path / "run", *source)
    assert "no decision is fitted: `images` holds no pictures.\n" in capsys.readouterr().out
    assert (tmp_path / "run" / "adapter_model.safetensors").exists()
    with pytest.raises(SystemExit, match="no decision can be fitted: `images` holds"):
        run(tmp_path / "quick", *source, "--quick")
    assert not (tmp_path / "quick" / "adapter_config.json").exists()


def test_one_picture_of_each_class_is_enough(photos, tmp_path, capsys):
    arguments = ["--shots", "1", "--folds", "0", "--epochs", "1"]
    run(tmp_path / "run", "--train_dir", photos / "train", *arguments)
    assert "pictures are not mirrored: a class has a single one" in capsys.readouterr().out
    assert (tmp_path / "run" / DECISION_FILE).exists()


def test_the_line_on_mirroring_says_why():
    assert "half of the views are mirrored" in describe_mirroring(Mirroring(gain=-0.2, known=1.0))
    assert "(log p -2.50)" in describe_mirroring(Mirroring(gain=-2.5, known=1.0))
    assert "too little" in describe_mirroring(Mirroring(gain=-0.1, known=0.1))


def decide_in_each_process(photos, folder):
    torch.set_num_threads(1)
    accelerator = make_accelerator(cpu=True)
    model = load(folder / "one")
    frozen = FrozenFeatures.of(model, load_folder(photos / "train")[0], load_clip()[1], accelerator)
    found, decision = frozen.judge_mirroring(), frozen.fit_decision(model, features="frozen")
    state = {**decision.state()[0], "mirroring": torch.tensor([found.gain, found.known])}
    torch.save((accelerator.num_processes, state), folder / f"{accelerator.process_index}.pt")


def test_two_processes_decide_as_one(photos, tmp_path):
    run(tmp_path / "one", "--quick", "--train_dir", photos / "train", "--folds", "0")
    in_two_processes(decide_in_each_process, photos, tmp_path)
    (count, first), (_, second) = (torch.load(tmp_path / f"{index}.pt") for index in range(2))
    assert count == 2
    assert all(torch.equal(first[name], second[name]) for name in first)
    one = Decision.load(tmp_path / "one").state()[0]
    assert all(torch.allclose(one[name], first[name], atol=1e-3) for name in one)
