"""The built wheel, installed into a fresh environment, works in an empty folder without a clone."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import DEMO_CLIP, Case


ROOT = Path(__file__).parents[1]


def run(*command, **kwargs):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **kwargs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "peft_mmrl", source / "peft_mmrl", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    run(*pip, "--wheel-dir", built, source)
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A virtual environment with the wheel, and with the dependencies of this one, but not with its own checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    own, shared = (Path(sysconfig.get_path("purelib", vars={"base": base})) for base in (folder, sys.prefix))
    (own / "dependencies.pth").write_text(f"{shared}\n")  # such a line takes no editable installations along
    return folder / "bin"


@pytest.fixture
def peft_mmrl(environment, tmp_path):
    """Calls a command in an empty folder."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def call(*arguments):
        return run(environment / "peft-mmrl", *arguments, cwd=tmp_path, env=variables)

    return call


def test_it_holds_every_file_of_the_package(wheel):
    package = ROOT / "peft_mmrl"
    files = {path.relative_to(ROOT).as_posix() for path in package.rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    assert files <= set(zipfile.ZipFile(wheel).namelist())


def test_training_naming_and_evaluating(peft_mmrl, digit_folders, tmp_path):
    shutil.copytree(digit_folders / "train", tmp_path / "photos")
    shutil.copytree(digit_folders / "test", tmp_path / "test")
    shutil.copytree(DEMO_CLIP, tmp_path / "clip")
    peft_mmrl("train", "--train_dir", "photos", "--base_model", "clip", "--output_dir", "adapter", "--epochs", "1")
    assert (tmp_path / "adapter" / "report" / "report.html").stat().st_size > 10_000
    rows = [json.loads(line) for line in peft_mmrl("predict", "adapter", "test", "--format", "jsonl").splitlines()]
    assert len(rows) == 15 and {row["label"] for row in rows} <= {"one", "two", "zero"}
    assert "accuracy on 15 pictures" in peft_mmrl("evaluate", "adapter", "test", "--output_dir", "evaluation")
    assert json.loads((tmp_path / "evaluation" / "metrics.json").read_text())["pictures"] == 15


def test_converting(peft_mmrl, tmp_path):
    case = Case("mmrl")
    base = ["--base_model_name_or_path", case.folder / "clip", "--classes", *case.settings["classes"]]
    assert "Wrote the adapter to adapter" in peft_mmrl("convert", case.folder / "model.pth.tar-5", "adapter", *base)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
