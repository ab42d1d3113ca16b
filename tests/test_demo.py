"""The demo: what it writes, and the bars that its run without arguments must reach."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import demo
import pytest
import torch
import tune_demo
from demo_parts import methods as demo_methods
from digits import CLASS_NAMES
from peft import PeftModel
from PIL import Image

from peft_mmrl.scoring.labelled import predict
from peft_mmrl.training import TrainingSettings, make_accelerator


ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The demo as `make demo` runs it; its output folder and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "examples/demo.py", "--output_dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return folder, done.stdout


@pytest.fixture(scope="module")
def metrics(run):
    return json.loads((run[0] / "metrics.json").read_text())


@pytest.mark.parametrize("method", ["mmrl", "mmrl++"])
def test_mmrl_gains_on_trained_digits_and_among_all_and_keeps_the_new_ones(metrics, method):
    gains = {name: metrics[method][name] - metrics["zero_shot"][name] for name in ("base", "new", "h", "all")}
    assert gains["base"] >= 5
    assert gains["new"] >= -1
    assert gains["h"] >= 2
    assert gains["all"] >= 2


def test_mmrl_gains_over_all_splits_and_loses_in_none():
    gains = []
    for split in demo_methods.DIGIT_SPLITS:
        task = demo_methods.make_task(split, 16, seed=1)
        zero_shot, mmrl = (
            demo_methods.score(classifiers[name].logits(task.test, CLASS_NAMES), task.test["label"][:], task.trained)
            for name, classifiers in (
                ("zero_shot", demo_methods.fit("zero-shot", task, seed=1)),
                ("mmrl", demo_methods.fit("mmrl", task, seed=1)),
            )
        )
        gains.append({name: mmrl[name] - zero_shot[name] for name in mmrl})
    mean = {name: sum(gain[name] for gain in gains) / len(gains) for name in gains[0]}
    assert mean["base"] >= 9
    assert mean["new"] >= -1
    assert mean["all"] >= 4.5
    assert all(gain[name] >= 0 for gain in gains for name in ("base", "all"))


def test_a_decision_gains_before_any_training(metrics):
    untrained, zero_shot = metrics["untrained"], metrics["zero_shot"]
    assert untrained["base"] >= zero_shot["base"] + 3
    assert untrained["new"] == zero_shot["new"]
    assert untrained["all"] >= zero_shot["all"] + 1


def test_every_method_is_measured_alike(metrics):
    names = ["zero_shot", "untrained", "mmrl", "mmrl++", "lora", "linear_probe", "mmrl_papers", "mmrl++_papers"]
    assert list(metrics) == names
    assert all(list(scores) == ["base", "new", "h", "all"] for scores in metrics.values())


def test_the_saved_adapter_decides_as_the_demo_did(run, metrics):
    folder, _ = run
    clip, processor = demo_methods.load_clip()
    model = PeftModel.from_pretrained(clip, folder / "mmrl")
    assert model.classes == ["zero", "one", "two", "three", "four"]
    assert model.decision.features == "adapted"
    model.set_classes(CLASS_NAMES, processor)
    test = demo_methods.make_task("0-4", 16, seed=1).test
    accelerator = make_accelerator(TrainingSettings(), cpu=True)
    found = predict(model, test, processor.image_processor, accelerator)
    assert 100 * found.accuracy == pytest.approx(metrics["mmrl"]["all"], abs=0.01)
    assert 100 * found.zero_shot_accuracy == pytest.approx(metrics["zero_shot"]["all"], abs=0.01)


def test_it_prints_a_table_and_how_to_load_the_adapter(run):
    folder, printed = run
    for line in demo_methods.TITLES.values():
        assert any(row.startswith(line) for row in printed.splitlines())
    assert "997 of 997 answers are the same" in printed
    lines = printed.strip().splitlines()[-3:]
    code = "\n".join(line.strip() for line in lines)
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True, capture_output=True)
    with Image.open(folder / "demo.png") as picture:
        assert min(picture.size) > 500


@pytest.fixture
def quick(monkeypatch):
    """One epoch of training, few pictures to answer."""

    def make_small_task(*args, **kwargs):
        task = demo_methods.make_task(*args, **kwargs)
        shown = {name: getattr(task, name).select(range(40)) for name in ("validation", "test")}
        return replace(task, **shown)

    monkeypatch.setitem(demo_methods.SHARED, "epochs", 1)
    for module in (demo, tune_demo):
        monkeypatch.setattr(module, "make_task", make_small_task)


def test_all_splits_and_seeds(quick, tmp_path, capsys):
    arguments = ["--split", "all", "--seeds", "1", "2", "--shots", "4", "--output_dir", str(tmp_path)]
    demo.main(demo.parse_args(arguments))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics) == ["0-4", "5-9", "even", "odd"]
    printed = capsys.readouterr().out
    assert "±" in printed
    row = printed.split("mean of the splits")[1].splitlines()[2].split()
    assert float(row[1]) == pytest.approx(sum(split["zero_shot"]["base"] for split in metrics.values()) / 4, abs=0.06)


def test_validation_pictures_are_neither_shots_nor_test_pictures():
    task = demo_methods.make_task("odd", 16, seed=1)
    assert task.trained == [1, 3, 5, 7, 9]
    assert task.names == ["one", "three", "five", "seven", "nine"]
    assert torch.bincount(torch.tensor(task.shots["label"][:])).tolist() == [16] * 5
    assert len(task.validation) == 800 - 160
    assert len(task.test) == 997
    shots, validation, test = (set(part["path"][:]) for part in (task.shots, task.validation, task.test))
    assert not shots & validation
    assert not (shots | validation) & test


def test_tuning_prints_the_best_candidate(quick, monkeypatch, capsys):
    found = {name: [demo_methods.SETTINGS[name]] for name in tune_demo.CANDIDATES}
    monkeypatch.setattr(tune_demo, "CANDIDATES", found)
    tune_demo.main(tune_demo.parse_args(["--shots", "2"]))
    printed = capsys.readouterr().out
    assert all(f"best for {name}: {settings}" in printed for name, (settings,) in found.items())


def test_scores_of_known_logits():
    digits = torch.arange(10)
    perfect = torch.eye(10)
    assert demo_methods.score(perfect, digits, [0, 1, 2, 3, 4]) == {"base": 100, "new": 100, "h": 100, "all": 100}
    half = perfect.clone()
    half[:5] = 0
    half[:5, 9] = 1  # trained digits are taken for a nine, among themselves for a zero
    assert demo_methods.score(half, digits, [0, 1, 2, 3, 4]) == pytest.approx(
        {"base": 20, "new": 100, "h": 100 / 3, "all": 50}
    )
