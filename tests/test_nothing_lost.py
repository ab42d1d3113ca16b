"""Nothing that a user has is deleted or lost by a command, whatever is asked for and whenever it ends."""

import argparse
import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, suppress
from importlib import import_module

import pytest
import torch
from conftest import DEMO_CLIP, Case
from peft.utils import load_peft_weights

from peft_mmrl.commands import convert, evaluate, predict, train
from peft_mmrl.commands.arguments import CHECKS
from peft_mmrl.commands.main import COMMANDS
from peft_mmrl.fitting import outcome
from peft_mmrl.fitting import run as fitting_run
from peft_mmrl.reports import writing as report_writing


def start(command, *arguments):
    command.main(command.parse_args(list(map(str, arguments))))


def training(photos, folder, *more):
    return ["--train_dir", photos, "--output_dir", folder, "--base_model", DEMO_CLIP, "--epochs", "1", *more]


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(command, *arguments):
    """What is said at the end; Ctrl-C and SIGTERM have an exit code of their own."""
    with redirect_stderr(io.StringIO()) as said, pytest.raises(SystemExit) as stopped:
        start(command, *arguments)
    assert stopped.value.code not in (0, None)
    return said.getvalue().strip() if stopped.value.code == 130 else str(stopped.value)


@pytest.fixture(scope="module")
def finished(digit_folders, tmp_path_factory):
    """A finished training run."""
    folder = tmp_path_factory.mktemp("finished") / "adapter"
    start(train, *training(digit_folders / "train", folder))
    return folder


@pytest.fixture
def work(finished, digit_folders, tmp_path):
    """A folder with pictures, a table of better names, a base model, and a run with a note of the user's."""
    shutil.copytree(finished, tmp_path / "adapter")
    shutil.copytree(digit_folders / "train", tmp_path / "photos")
    shutil.copytree(DEMO_CLIP, tmp_path / "clip")
    (tmp_path / "names.csv").write_text("one,the digit one\n")
    (tmp_path / "adapter" / "notes.txt").write_text("mine")
    return tmp_path


# --- what is there already ----------------------------------------------------------------------------------------


def test_replacing_a_run_removes_the_files_of_that_run_alone(work):
    card = work / "adapter" / "README.md"
    card.write_text(card.read_text(encoding="utf-8") + "\nAsk Ann about the pictures.\n", encoding="utf-8")
    (work / "adapter" / "report" / "mine.txt").write_text("mine")
    before = load_peft_weights(str(work / "adapter"))
    more = ["--overwrite_output_dir", "--seed", "2", "--folds", "0"]
    start(train, *training(work / "photos", work / "adapter", *more))
    assert sorted(contents(work / "adapter")) == [
        *("README.md", "adapter_config.json", "adapter_model.safetensors", "decision.safetensors"),
        *("notes.txt", "reference.safetensors", "report/mine.txt", "run.json", "trained_on.json"),
    ]
    assert "Ask Ann about the pictures." in card.read_text(encoding="utf-8")
    after = load_peft_weights(str(work / "adapter"))
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--train_dir": "adapter/photos"}, "--train_dir .* lies in --output_dir"),
        ({"--eval_dir": "adapter/photos"}, "--eval_dir .* lies in --output_dir"),
        ({"--class_names": "adapter/names.csv"}, "--class_names .* lies in --output_dir"),
        ({"--base_model": "adapter/clip"}, "--base_model .* lies in --output_dir"),
        ({"--output_dir": "photos/run1"}, "--output_dir .* lies in --train_dir"),
        ({"--output_dir": "."}, "it holds other things"),
    ],
)
def test_training_does_not_write_where_its_inputs_are(changes, message, work):
    shutil.copytree(work / "photos", work / "adapter" / "photos")
    shutil.copytree(work / "clip", work / "adapter" / "clip")
    shutil.copy(work / "names.csv", work / "adapter")
    before = contents(work)
    given = {"--train_dir": "photos", "--output_dir": "adapter", "--base_model": "clip", **changes}
    paths = [part for name, path in given.items() for part in (name, work / path)]
    text = refused(train, *paths, "--overwrite_output_dir")
    assert re.search(message, text), text
    assert contents(work) == before


@pytest.mark.parametrize(
    ("adapter", "data", "output", "message"),
    [
        ("adapter", "evaluation/photos", "evaluation", "the data .* lies in --output_dir"),
        ("evaluation/adapter", "photos", "evaluation", "the adapter .* lies in --output_dir"),
        ("adapter", "photos", "photos/evaluation", "--output_dir .* lies in the data"),
    ],
)
def test_evaluation_does_not_write_where_its_inputs_are(adapter, data, output, message, work):
    (work / "evaluation").mkdir()
    (work / "evaluation" / "run.json").write_text('{"kind": "evaluation", "files": ["metrics.json"]}')
    shutil.copytree(work / "photos", work / "evaluation" / "photos")
    shutil.copytree(work / "adapter", work / "evaluation" / "adapter")
    before = contents(work)
    text = refused(evaluate, work / adapter, work / data, "--output_dir", work / output, "--overwrite_output_dir")
    assert re.search(message, text), text
    assert contents(work) == before


def test_a_conversion_replaces_no_adapter(work):
    case, before = Case("mmrl"), contents(work)
    given = [case.folder / "model.pth.tar-5", work / "adapter", "--base_model_name_or_path", case.folder / "clip"]
    given += ["--classes", *case.settings["classes"], "--overwrite_output_dir"]
    assert "holds the training of another script" in refused(convert, *given)
    assert contents(work) == before


# --- arguments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_every_number_of_every_command_has_a_range(name, monkeypatch):
    command = import_module(f"peft_mmrl.commands.{name.replace('-', '_')}")
    seen = []
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda parser, argv=None: seen.append(parser) or parser)
    with suppress(AttributeError):  # of what is checked after parsing
        command.parse_args([])
    numbers = [action.dest for action in seen[0]._actions if action.type in (int, float)]
    assert not [dest for dest in numbers if dest not in CHECKS]


BAD = [
    *(("--cached_views", "-1"), ("--checkpointing_steps", "0"), ("--num_workers", "-1"), ("--batch_size", "0")),
    *(("--epochs", "0"), ("--shots", "0"), ("--seed", "-1"), ("--seed", str(2**32)), ("--learning_rate", "nan")),
    *(("--learning_rate", "inf"), ("--reg_weight", "-1"), ("--alpha", "1.5"), ("--validation_fraction", "-0.1")),
    *(("--gradient_accumulation_steps", "0"), ("--crop_scale", "0")),
]


@pytest.mark.parametrize("bad", BAD, ids=" ".join)
def test_training_checks_its_arguments_before_anything_is_written(bad, work):
    before = contents(work)
    text = refused(train, *training(work / "photos", work / "adapter", "--overwrite_output_dir", *bad))
    assert f"`{bad[0]}` must be" in text
    refused(train, *training(work / "photos", work / "new", *bad))
    assert contents(work) == before and not (work / "new").exists()


@pytest.mark.parametrize("bad", [("--batch_size", "0"), ("--num_workers", "-1")], ids=" ".join)
def test_evaluation_checks_its_arguments_before_anything_is_written(bad, work):
    (work / "evaluation").mkdir()
    (work / "evaluation" / "run.json").write_text('{"kind": "evaluation", "files": ["metrics.json"]}')
    (work / "evaluation" / "metrics.json").write_text("{}")
    before = contents(work)
    given = [work / "adapter", work / "photos", "--output_dir", work / "evaluation", "--overwrite_output_dir", *bad]
    assert f"`{bad[0]}` must be" in refused(evaluate, *given)
    assert contents(work) == before


# --- words --------------------------------------------------------------------------------------------------------


class Terminal(io.TextIOWrapper):
    """Standard output of a terminal that knows no letters beyond ASCII."""

    def __init__(self):
        super().__init__(io.BytesIO(), encoding="ascii")

    def text(self):
        self.flush()
        return self.buffer.getvalue().decode("utf-8")


@pytest.fixture
def cafe(work):
    (work / "photos" / "one").rename(work / "photos" / "café")
    return work / "photos"


def test_class_names_that_the_terminal_cannot_show_lose_nothing(cafe, work, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    start(train, *training(cafe, work / "new"))
    assert "18 pictures of 3" in terminal.text() and "epoch 1" in terminal.text()
    config = json.loads((work / "new" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["classes"] == ["café", "two", "zero"]
    for name in ("report/report.html", "report/predictions.csv", "README.md"):
        assert "café" in (work / "new" / name).read_text(encoding="utf-8")
    for form in ("jsonl", "json", "csv"):
        answers = Terminal()
        monkeypatch.setattr(sys, "stdout", answers)
        start(predict, work / "new", cafe / "café", "--format", form)
        assert f"{os.sep}café{os.sep}" in answers.text()
        if form == "jsonl":
            assert len([json.loads(line) for line in answers.text().splitlines()]) == 6


class Closed(io.TextIOWrapper):
    """A stream into which nothing can be written any more."""

    def __init__(self):
        super().__init__(io.BytesIO(), encoding="utf-8")

    def write(self, text):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_words_that_nobody_reads_end_no_training(work, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Closed())
    monkeypatch.setattr(sys, "stderr", Closed())
    start(train, *training(work / "photos", work / "new"))
    assert (work / "new" / "adapter_model.safetensors").exists()
    assert (work / "new" / "report" / "report.html").exists()


def test_a_closed_pipe_ends_prediction_quietly(work):
    command = [sys.executable, "-m", "peft_mmrl", "predict", work / "adapter", work / "photos", "--format", "jsonl"]
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    read, write = os.pipe()
    process = subprocess.Popen(
        list(map(str, command)), stdout=write, stderr=subprocess.PIPE, text=True, env=environment
    )
    os.close(write)
    os.close(read)  # `head` has gone
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 141
    assert "Traceback" not in said and "Broken" not in said and "Exception" not in said


# --- interruptions, full disks ------------------------------------------------------------------------------------


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupted(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)


@pytest.mark.parametrize(
    ("where", "what", "happens", "message"),
    [
        (outcome, "write_report", full_disk, r"adapter/report cannot be written: No space left on device\."),
        (outcome, "write_card", full_disk, r"adapter/README\.md cannot be written: No space left on device\."),
        (report_writing, "_write_rows", interrupted, "interrupted"),
        (outcome, "write_card", interrupted, "interrupted"),
    ],
)
def test_a_run_that_ends_while_saving_leaves_the_old_one(where, what, happens, message, work, monkeypatch):
    given = training(work / "photos", work / "adapter", "--seed", "2", "--num_workers", "0")
    before = contents(work / "adapter")
    with monkeypatch.context() as patch:
        patch.setattr(where, what, happens)
        text = refused(train, *given, "--overwrite_output_dir")
    assert re.search(message, text), text
    assert text.endswith("To go on, add --resume_from_checkpoint latest to the same arguments.")
    after = contents(work / "adapter")
    assert {name: content for name, content in after.items() if not name.startswith("checkpoint/")} == before
    start(train, *given, "--resume_from_checkpoint", "latest")
    start(train, *training(work / "photos", work / "whole", "--seed", "2"))
    resumed, whole = (load_peft_weights(str(work / name)) for name in ("adapter", "whole"))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert (work / "adapter" / "notes.txt").exists() and not (work / "adapter" / "checkpoint").exists()


def test_before_the_first_checkpoint_the_way_on_is_to_repeat_the_command(work, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(fitting_run, "training_pictures", interrupted)
        text = refused(train, *training(work / "photos", work / "new"))
    assert text.endswith("There is no checkpoint yet: to start again, repeat the command.")
    start(train, *training(work / "photos", work / "new"))
    text = refused(train, *training(work / "photos", work / "new"))
    assert "holds a run already: replace it" in text and "resume" not in text


def test_a_checkpoint_of_another_run_is_not_taken_for_this_one(work, monkeypatch):
    """Two runs one after the other in one folder, both interrupted, the second before its first checkpoint."""
    first = training(work / "photos", work / "new", "--epochs", "2")
    with monkeypatch.context() as patch:
        patch.setattr(outcome, "write_card", full_disk)
        refused(train, *first)
    second = [*first, "--learning_rate", "0.01"]
    with monkeypatch.context() as patch:
        patch.setattr(fitting_run, "training_pictures", interrupted)
        refused(train, *second, "--overwrite_output_dir")
    assert "belongs to another run" in refused(train, *second, "--resume_from_checkpoint", "latest")
    start(train, *first, "--resume_from_checkpoint", "latest")


def test_sigterm_ends_a_training_with_a_line_and_a_checkpoint(work):
    command = [sys.executable, "-m", "peft_mmrl", "train", *training(work / "photos", work / "new", "--epochs", "500")]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if (work / "new" / "checkpoint" / "progress.json").exists():
            break
        time.sleep(0.2)
    process.terminate()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "interrupted. To go on, add --resume_from_checkpoint latest" in said and "Traceback" not in said


def test_an_evaluation_that_ends_while_saving_leaves_the_old_one(work, monkeypatch):
    given = [work / "adapter", work / "photos", "--output_dir", work / "evaluation"]
    start(evaluate, *given)
    before = contents(work / "evaluation")
    assert "holds a run already: replace it" in refused(evaluate, *given)
    monkeypatch.setattr(report_writing, "_write_rows", full_disk)
    text = refused(evaluate, *given, "--overwrite_output_dir")
    assert "evaluation cannot be written: No space left on device" in text and "repeat the command" in text
    assert contents(work / "evaluation") == before
