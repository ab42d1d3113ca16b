"""The demo: what it writes, and the bars that its run without arguments must reach."""

import json
import subprocess
import sys
from pathlib import Path

import demo
import pytest
import torch
import tune_demo
from demo_parts import methods as demo_methods
from peft import PeftModel
from PIL import Image


ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The demo as `make demo` runs it, with the baselines; its output folder and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "examples/demo.py", "--baselines", "--output_dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return folder, done.stdout


def test_mmrl_gains_on_trained_digits_and_keeps_the_new_ones(run):
    folder, _ = run
    metrics = json.loads((folder / "metrics.json").read_text())
    mmrl, zero_shot = metrics["mmrl"], metrics["zero_shot"]
    assert mmrl["base"] >= zero_shot["base"] + 2
    assert mmrl["h"] >= zero_shot["h"] + 1.5
    assert mmrl["all"] >= zero_shot["all"] + 1
    assert set(metrics["mmrl++"]) == {"base", "new", "h", "all"}


def test_the_saved_adapter_is_a_classifier(run):
    folder, _ = run
    expected = json.loads((folder / "metrics.json").read_text())["mmrl"]["base"]
    clip, processor = demo_methods.load_clip()
    model = PeftModel.from_pretrained(clip, folder / "mmrl")
    assert model.classes == ["zero", "one", "two", "three", "four"]
    test = demo_methods.load_pictures(processor)["test"]
    shown = test.digits < 5
    with torch.no_grad():
        answers = model(pixel_values=test.pixels[shown]).logits.argmax(dim=1)
    assert 100 * (answers == test.digits[shown]).float().mean().item() == pytest.approx(expected, abs=0.01)


def test_it_prints_a_table_and_how_to_load_the_adapter(run):
    folder, printed = run
    for line in ("zero-shot", "mmrl", "mmrl++", "lora", "linear probe"):
        assert any(row.startswith(line) for row in printed.splitlines())
    assert "997 of 997 answers are the same" in printed
    lines = printed.strip().splitlines()[-3:]
    code = "\n".join(line.strip() for line in lines)
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True, capture_output=True)
    with Image.open(folder / "demo.png") as picture:
        assert min(picture.size) > 500


@pytest.fixture
def quick(monkeypatch):
    """Settings that train for one epoch."""
    settings = {name: demo_methods.Settings(each.lr, 1, each.config) for name, each in demo_methods.SETTINGS.items()}
    for module in (demo, demo_methods):
        monkeypatch.setattr(module, "SETTINGS", settings)
    return settings


def test_all_splits_and_seeds(quick, tmp_path, capsys):
    arguments = ["--split", "all", "--seeds", "1", "2", "--shots", "4", "--output_dir", str(tmp_path)]
    demo.main(demo.parse_args(arguments))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics) == ["0-4", "5-9", "even", "odd"]
    assert "±" in capsys.readouterr().out


def test_validation_pictures_are_neither_shots_nor_test_pictures():
    pictures = demo_methods.load_pictures(demo_methods.load_clip()[1])
    task = demo_methods.make_task(pictures, "odd", 16, seed=1)
    assert task.trained == [1, 3, 5, 7, 9]
    assert torch.bincount(task.shots.digits, minlength=10).tolist() == [0, 16] * 5
    assert len(task.validation.digits) == 800 - 160
    assert len(task.test.digits) == 997
    shots, validation = (
        {picture.numpy().tobytes() for picture in part.pixels} for part in (task.shots, task.validation)
    )
    assert not shots & validation


def test_tuning_prints_the_best_candidate(quick, monkeypatch, capsys):
    monkeypatch.setattr(tune_demo, "CANDIDATES", {name: [settings] for name, settings in quick.items()})
    tune_demo.main(tune_demo.parse_args(["--shots", "2", "--methods", *quick]))
    printed = capsys.readouterr().out
    assert all(f"best for {name}" in printed for name in quick)


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
