"""A classifier taken away as one file, and labels that are not asked for again."""

import shutil
import socket
import subprocess
import sys
import zipfile

import PIL.Image
import pytest
from conftest import DEMO_CLIP

from peft_mmrl.commands import train
from peft_mmrl.commands.main import main
from peft_mmrl.projects.agreed import agree, is_agreed, take_back
from peft_mmrl.projects.intake import merge_classes, move_pictures
from peft_mmrl.projects.project import Project
from peft_mmrl.projects.project_runs import Run
from peft_mmrl.projects.take_away import take_away
from peft_mmrl.scoring.held_out import CONFIDENCE_FILE, Confidence


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


def test_a_program_answers_with_sets_where_enough_pictures_were_held_out(run, tmp_path, monkeypatch):
    from peft_mmrl.projects import take_away as module

    asked = []
    monkeypatch.setattr(module, "_make", lambda command, run, target, *options: asked.append(options))
    path, kept = run.folder / CONFIDENCE_FILE, (run.folder / CONFIDENCE_FILE).read_bytes()
    try:
        for number in (40, 2):
            shares, zeros = [0.9] * number, [0] * number
            Confidence(["a", "b"], zeros, zeros, shares, shares, 2, None, None).save(run.folder)
            take_away(run, "program", tmp_path / "out")
        path.unlink()
        take_away(run, "program", tmp_path / "out")
    finally:
        path.write_bytes(kept)
    assert asked == [("--coverage=0.9",), (), ()]


def test_a_bundle_answers_without_network_where_it_is_unpacked(run, digit_folders, tmp_path, monkeypatch, capsys):
    top = unpacked(take_away(run, "bundle", tmp_path / "out"), tmp_path / "there")
    assert (top / "base" / "model.safetensors").is_file()
    assert not [path for path in top.rglob("*") if path.suffix == ".html"]  # no report with pictures
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, lambda *_: pytest.fail("asked the network"))
    moved = shutil.move(run.project.folder, tmp_path / "elsewhere")  # as on another computer
    try:
        main(["predict", str(top), str(digit_folders / "test")])
    finally:
        shutil.move(moved, run.project.folder)
    said = capsys.readouterr().out
    assert all(path.name in said for path in (digit_folders / "test").glob("*/*.png")) and "%" in said


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


@pytest.fixture
def pets(tmp_path):
    project = Project.open(tmp_path / "project", DEMO_CLIP)
    for name, colour in {"cat": "red", "dog": "blue"}.items():
        project.add_class(name)
        PIL.Image.new("RGB", (8, 8), colour).save(project.pictures / name / "1.png")
    return project


def test_a_label_that_was_found_right_is_not_asked_for_again(pets):
    project, cat, dog = pets, "pictures/cat/1.png", "pictures/dog/1.png"
    assert is_agreed(project, [cat, dog]) == [False, False]
    agree(project, cat)
    assert is_agreed(project, [cat, dog]) == [True, False]
    moved = move_pictures(project, [cat], "dog")[cat]
    assert is_agreed(project, [moved]) == [False]  # it was found right in another class
    with pytest.raises(ValueError, match="is not there any more"):
        agree(project, cat)
    with pytest.raises(ValueError, match="no place in this project"):
        agree(project, "pictures/../project.json")


def test_what_was_found_right_can_be_taken_back(pets):
    for picture in ("pictures/cat/1.png", "pictures/dog/1.png"):
        agree(pets, picture)
    take_back(pets, "pictures/cat/1.png")
    assert is_agreed(pets, ["pictures/cat/1.png", "pictures/dog/1.png"]) == [False, True]
    take_back(pets, "pictures/cat/1.png")  # nobody has said so
    assert is_agreed(pets, ["pictures/dog/1.png"]) == [True]


@pytest.mark.parametrize("name", ["tom cat", "CAT", "Cat", "c:t"])
def test_what_was_found_right_stays_so_under_another_name_of_the_class(pets, name):
    for picture in ("pictures/cat/1.png", "pictures/dog/1.png"):
        agree(pets, picture)
    folder = pets.rename_class("cat", name)
    assert is_agreed(pets, [f"pictures/{folder}/1.png", "pictures/dog/1.png"]) == [True, True]


def test_a_new_class_that_is_called_as_another_one_was_inherits_nothing(pets):
    agree(pets, "pictures/cat/1.png")
    pets.rename_class("cat", "tom")
    pets.add_class("cat")
    moved = move_pictures(pets, ["pictures/tom/1.png"], "cat")["pictures/tom/1.png"]
    assert is_agreed(pets, [moved]) == [False]


def test_what_was_found_right_stays_so_where_two_classes_become_one(pets):
    agree(pets, "pictures/cat/1.png")
    moved = merge_classes(pets, "cat", "dog")["pictures/cat/1.png"]
    assert is_agreed(pets, [moved, "pictures/dog/1.png"]) == [True, False]


@pytest.mark.parametrize("content", ["{}", "[1, null]", "[", "null"])
def test_a_damaged_list_of_agreed_labels_counts_as_none(tmp_path, content):
    project = Project.open(tmp_path / "project", DEMO_CLIP)
    project.add_class("cat")
    PIL.Image.new("RGB", (8, 8)).save(project.pictures / "cat" / "1.png")
    (project.folder / "agreed.json").write_text(content)
    assert is_agreed(project, ["pictures/cat/1.png"]) == [False]
    agree(project, "pictures/cat/1.png")
    assert is_agreed(project, ["pictures/cat/1.png"]) == [True]
