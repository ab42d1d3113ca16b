"""A classifier taken away as one file, and labels that are not asked for again."""

import subprocess
import sys
import zipfile

import PIL.Image
import pytest
from conftest import DEMO_CLIP

from peft_mmrl.commands import train
from peft_mmrl.projects.agreed import agree, is_agreed
from peft_mmrl.projects.intake import move_pictures
from peft_mmrl.projects.project import Project
from peft_mmrl.projects.project_runs import Run
from peft_mmrl.projects.take_away import take_away


@pytest.fixture(scope="module")
def run(digit_folders, tmp_path_factory):
    project = Project.open(tmp_path_factory.mktemp("work") / "digits", DEMO_CLIP)
    folder = project.adapters / "run-1"
    arguments = ["--train_dir", digit_folders / "train", "--output_dir", folder, "--base_model", DEMO_CLIP, "--quick"]
    train.main(train.parse_args([*map(str, arguments)]))
    (folder / "checkpoint-1").mkdir()
    (folder / "checkpoint-1" / "optimizer.bin").write_text("large")
    (folder / "link.txt").symlink_to("/etc/hostname")
    return Run(project, "run-1")


def unpacked(path, folder):
    with zipfile.ZipFile(path) as file:
        file.extractall(folder)
    (top,) = folder.iterdir()
    return top


def test_an_adapter_is_taken_away_as_it_is(run, tmp_path):
    path = take_away(run, "adapter", tmp_path / "out")
    assert path.name == "digits-run-1-adapter.zip"
    top = unpacked(path, tmp_path / "there")
    assert (top / "decision.safetensors").read_bytes() == (run.folder / "decision.safetensors").read_bytes()
    assert (top / "report" / "report.html").is_file()
    names = {path.name for path in top.rglob("*")}
    assert not names & {"reference.safetensors", "trained_on.json", "run.json", "why.html", "why.jsonl"}
    assert not (top / "checkpoint-1").exists() and not (top / "link.txt").exists()
    assert take_away(run, "adapter", tmp_path / "out") == path  # again, over the old one
    assert [one.name for one in (tmp_path / "out").iterdir()] == [path.name]


def test_a_program_names_pictures_where_it_is_unpacked(run, digit_folders, tmp_path):
    pytest.importorskip("onnxruntime")
    top = unpacked(take_away(run, "program", tmp_path / "out"), tmp_path / "there")
    asked = [sys.executable, "classify.py", digit_folders / "test"]
    done = subprocess.run(asked, cwd=top, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) > 1


def test_what_cannot_be_taken_away_is_said(run, tmp_path):
    with pytest.raises(ValueError, match="`kind` must be one of adapter, program, bundle"):
        take_away(run, "../evil", tmp_path)
    with pytest.raises(ValueError, match="before a training has ended"):
        take_away(Run(run.project, "run-2"), "adapter", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_command_says_is_passed_on(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules["peft_mmrl.projects.take_away"].KINDS, "program", "no-such-command")
    with pytest.raises(ValueError, match="invalid choice"):
        take_away(run, "program", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_label_that_was_found_right_is_not_asked_for_again(tmp_path):
    project = Project.open(tmp_path / "project", DEMO_CLIP)
    for name, colour in {"cat": "red", "dog": "blue"}.items():
        project.add_class(name)
        PIL.Image.new("RGB", (8, 8), colour).save(project.pictures / name / "1.png")
    cat, dog = "pictures/cat/1.png", "pictures/dog/1.png"
    assert is_agreed(project, [cat, dog]) == [False, False]
    agree(project, cat)
    assert is_agreed(project, [cat, dog]) == [True, False]
    moved = move_pictures(project, [cat], "dog")[cat]
    assert is_agreed(project, [moved]) == [False]  # it was found right in another class
    with pytest.raises(ValueError, match="is not there any more"):
        agree(project, cat)
    with pytest.raises(ValueError, match="no place in this project"):
        agree(project, "pictures/../project.json")


@pytest.mark.parametrize("content", ["{}", "[1, null]", "[", "null"])
def test_a_damaged_list_of_agreed_labels_counts_as_none(tmp_path, content):
    project = Project.open(tmp_path / "project", DEMO_CLIP)
    project.add_class("cat")
    PIL.Image.new("RGB", (8, 8)).save(project.pictures / "cat" / "1.png")
    (project.folder / "agreed.json").write_text(content)
    assert is_agreed(project, ["pictures/cat/1.png"]) == [False]
    agree(project, "pictures/cat/1.png")
    assert is_agreed(project, ["pictures/cat/1.png"]) == [True]
