"""Trainings of a project: in processes of their own, one at a time, seen and stopped from anywhere."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
from conftest import DEMO_CLIP
from filelock import FileLock
from PIL import Image

from peft_mmrl.commands import train
from peft_mmrl.projects import run_command
from peft_mmrl.projects.intake import add_pictures, move_pictures, remove_pictures
from peft_mmrl.projects.project import Project
from peft_mmrl.projects.project_runs import Run, resume, start
from peft_mmrl.projects.project_runs import project_runs as runs_of
from peft_mmrl.projects.run_words import CHANGED, FAILURES, PHASES
from peft_mmrl.projects.under_training import TrainingRecord, lock_of, record_of, running_training
from peft_mmrl.training.under_way import UNDER_WAY_FILE, UNDER_WAY_LOCK, UnderWay, is_held, read_under_way


LONG = 200  # epochs, of which a test never sees the end


@pytest.fixture
def project(digit_folders, tmp_path):
    """Three digits, and a class without pictures, all of them with names that say more."""
    found = Project.create(tmp_path / "work", base_model=DEMO_CLIP)
    for name in ("zero", "one", "two"):
        shutil.copytree(digit_folders / "train" / name, found.pictures / name)
    found.add_class("three?")
    found.set_prompt_name("two", "the digit two")
    return found


def waited(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def pretend(project, name="run-1", **changes):
    """What is left of a training that has ended; its process has the number of this test by now."""
    (project.folder / "logs").mkdir(exist_ok=True)
    given = {"options": ["--x"], "process": os.getpid(), "computer": platform.node(), **changes}
    TrainingRecord(**given).write(record_of(project.folder, name))
    return Run(project, name)


@pytest.fixture
def live(project):
    """A training that is this process."""
    run = pretend(project)
    with FileLock(lock_of(project.folder, run.name)):
        yield run


def said(project, text, name="run-1"):
    (project.folder / "logs" / f"{name}.log").write_text(text, encoding="utf-8")


def test_a_training_is_started_seen_stopped_and_goes_on_and_its_result_is_there(project):
    """The whole way, with two real processes: all that needs one."""
    run = start(project, epochs=LONG, folds=0)
    waited(lambda: run.can_go_on and run.status().seconds_left)
    other = runs_of(Project.open(project.folder))[0]  # another tab
    status = other.status()
    assert other.name == run.name == "run-1" and status.state == "running" and 0 < status.share < 1
    assert status.words == "Learning from your pictures." and status.seconds_left > 0
    with pytest.raises(ValueError, match="A training runs already"):
        start(project)
    with pytest.raises(ValueError, match="A training runs already"):
        resume(run)
    with pytest.raises(ValueError, match="looking at these pictures"):
        remove_pictures(project, ["pictures/zero/0.png"])
    with pytest.raises(ValueError, match="looking at these pictures"):
        project.rename_class("zero", "null")
    other.cancel()
    status = run.wait(60)
    assert status.state == "stopped" and status.words == "You stopped it. It can go on where it was."
    assert not (run.folder / UNDER_WAY_FILE).exists() and run.can_go_on
    assert "interrupted" in status.lines[-1]
    assert resume(run).status().state == "running"
    os.kill(TrainingRecord.read(record_of(project.folder, run.name)).process, signal.SIGKILL)
    status = run.wait(60)
    assert status.state == "failed" and "ended from outside" in status.words and "go on" in status.words
    move_pictures(project, ["pictures/zero/0.png"], "one")
    assert start(project, epochs=1, folds=0).wait(60).state == "done"
    assert [one.name for one in runs_of(project)] == ["run-2", "run-1"]
    description = json.loads((project.adapters / "run-2" / "run.json").read_text())
    assert description["epochs"] == 1 and description["classes"] == ["one", "the digit two", "zero"]


def stopped_at_checkpoint(project, **changes):
    """A training of a project that was stopped; its checkpoint knows the pictures that there are."""
    run = pretend(project, is_cancelled=True)
    paths = [picture.removeprefix("pictures/") for one in project.classes() for picture in one.pictures]
    of = {"base_model": project.settings.base_model, "template": None, "split": {"train": paths}}
    (run.folder / "checkpoint").mkdir(parents=True)
    progress = {"run": of | {"classes": ["one", "the digit two", "zero"]} | changes}
    (run.folder / "checkpoint" / "progress.json").write_text(json.dumps(progress))
    return run


@pytest.mark.parametrize(
    "change",
    [
        lambda project, picture: add_pictures(project, [("n.png", picture)], "zero"),
        lambda project, picture: remove_pictures(project, ["pictures/zero/0.png"]),
        lambda project, picture: move_pictures(project, ["pictures/zero/0.png"], "one"),
        lambda project, picture: project.set_prompt_name("zero", "the digit zero"),
        lambda project, picture: project.rename_class("zero", "null"),
        lambda project, picture: project.set_template("a drawing of a {}."),
        lambda project, picture: (project.folder / "class_names.csv").write_text("ten,10\n"),
    ],
)
def test_a_training_goes_on_only_with_the_pictures_and_classes_that_its_checkpoint_knows(project, tmp_path, change):
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "n.png")
    run = stopped_at_checkpoint(project)
    assert run.can_go_on and run.status().words == "You stopped it. It can go on where it was."
    change(project, tmp_path / "n.png")
    assert not run.can_go_on and run.status().words == f"You stopped it. {CHANGED}"
    with pytest.raises(ValueError):
        resume(run)
    assert (run.folder / "checkpoint" / "progress.json").is_file()


def test_what_a_training_does_not_look_at_keeps_none_from_going_on(project):
    run = stopped_at_checkpoint(project)
    project.add_class("four")
    (project.pictures / "zero" / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    assert run.can_go_on
    shutil.rmtree(run.folder / "checkpoint")
    first = [one.pictures[0].removeprefix("pictures/") for one in project.classes() if one.pictures]
    few = stopped_at_checkpoint(project, shots=1, split={"train": first})
    assert few.can_go_on


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"run": []}', '{"run": {"split": {"train": 3}}}', '{"x": 1}'])
def test_a_checkpoint_that_tells_nothing_is_none(project, text):
    run = stopped_at_checkpoint(project)
    (run.folder / "checkpoint" / "progress.json").write_text(text)
    assert not run.can_go_on and run.status().words == "You stopped it. It can be started again."


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("error: photos must have pictures of at least two classes, got 'cat'.\n", "at least two classes"),
        ("error: The classes 'a' and 'A' are the same to the base model: ...\n", "Two classes have the same name"),
        ("epoch 1\nerror: [Errno 28] No space left on device\n", "The disk is full"),
        ("error: --resume_from_checkpoint: x belongs to another run, with ...\n", CHANGED),
        ("error: something else\n", "It ended with an error: something else"),
        (
            "Traceback (most recent call last):\n  x\ntorch.OutOfMemoryError: CUDA out of memory.\n",
            "too little memory",
        ),
        ("Traceback (most recent call last):\n  x\nKeyError: 3\n", "It ended with an error: KeyError: 3."),
        (
            "error: The loss is nan in step 2 of epoch 3: lower ... To go on, add --resume_from_checkpoint ...",
            "went astray",
        ),
        ("error: odd There is no checkpoint yet: to start again, ...", "error: odd. It can be started again."),
        (
            "usage: peft-mmrl train\npeft-mmrl train: error: unrecognized arguments: --x\n",
            "unrecognized arguments: --x",
        ),
        (
            "error: The base model 'x' can't be loaded: it must ... We couldn't connect to 'https://...'",
            "no connection",
        ),
        (
            "error: The base model 'x' can't be loaded: it must ... Incorrect path: 'x'",
            "neither on this computer nor on the internet",
        ),
        ("error: The class name 'x' at position 1 makes a prompt of 99 tokens in the template ...", "Rename it"),
        ("error: a/b cannot be written: Permission denied.", "see who it belongs to"),
        ("epoch 1: loss 2.1\n", "ended from outside"),
        ("", "ended from outside"),
    ],
)
def test_a_failure_is_said_in_words(project, log, words):
    run = pretend(project)
    said(project, log)
    assert run.status().state == "failed" and words in run.status().words


def test_every_failure_that_is_known_says_what_to_do():
    todo = ("tart", "Wait")
    assert [words for words in FAILURES.values() if not any(word in words for word in todo)] == []


@pytest.mark.parametrize("term", ["CLIP", "base model", "project.json", "Hub", "adapter", "checkpoint", "prompt"])
def test_what_a_training_says_of_itself_needs_no_knowledge_of_the_field(term):
    assert [words for words in (*PHASES.values(), *FAILURES.values()) if term in words] == []


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"base_model": "no/such-model"}, "neither on this computer nor on the internet"),
        ({"base_model": "text"}, "cannot be trained here"),
        ({"names": "long"}, "Rename it"),
    ],
)
def test_what_the_command_itself_says_is_understood(project, tmp_path, change, part, monkeypatch, capsys):
    """So that the messages may change, and this says so."""
    base_model = DEMO_CLIP
    if change.get("base_model") == "text":
        base_model = tmp_path / "text"
        base_model.mkdir()
        (base_model / "config.json").write_text('{"model_type": "bert"}')
    elif "base_model" in change:
        monkeypatch.chdir(tmp_path)
        base_model = tmp_path / "nowhere"
    else:
        (project.pictures / "one").rename(project.pictures / ("very " * 40 + "long"))
    given = ["--train_dir", project.pictures, "--base_model", base_model, "--output_dir", tmp_path / "a", "--quick"]
    with pytest.raises(SystemExit) as error:
        train.main(train.parse_args(list(map(str, given))))
    run = pretend(project)
    said(project, f"{error.value.code}\n")
    assert part in run.status().words


def test_a_process_that_has_gone_does_not_stay_in_the_way(project):
    """Its number may be another's by now: that of this test, say."""
    with FileLock(lock_of(project.folder, pretend(project).name)):
        assert Run(project, "run-1").status().state == "running" and running_training(project.folder) == "run-1"
    assert Run(project, "run-1").status().state == "failed" and running_training(project.folder) is None
    pretend(project, is_cancelled=True)
    assert Run(project, "run-1").status().words == "You stopped it. It can be started again."
    Run(project, "run-1").cancel()  # nothing to stop: this test is not


def test_a_step_of_the_clock_makes_no_training_look_dead(project, live, monkeypatch):
    now, boot = time.time(), psutil.boot_time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    monkeypatch.setattr(psutil, "boot_time", lambda: boot + 3600)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: now + 3600)
    assert live.status().state == "running"
    with pytest.raises(ValueError, match="A training runs already"):
        start(project)


def test_many_may_ask_at_once_and_keep_no_training_from_starting(tmp_path):
    under_way, answers, done = UnderWay(tmp_path / UNDER_WAY_FILE), [], threading.Event()
    (tmp_path / UNDER_WAY_LOCK).touch()

    def ask():
        while not done.is_set():
            answers.append(is_held(tmp_path / UNDER_WAY_LOCK))

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    waited(lambda: len(answers) > 200)
    assert not any(answers)
    under_way.begin("training", 1)
    assert is_held(tmp_path / UNDER_WAY_LOCK)
    under_way.end()
    done.set()
    for asker in askers:
        asker.join()
    assert not (tmp_path / UNDER_WAY_FILE).exists() and not is_held(tmp_path / UNDER_WAY_LOCK)


def test_to_ask_makes_no_lock_where_a_run_has_just_taken_its_own_away(tmp_path, monkeypatch):
    path, acquire = tmp_path / UNDER_WAY_LOCK, FileLock.acquire

    def late(self):
        path.unlink()  # by the run, after somebody saw the file
        return acquire(self)

    path.touch()
    monkeypatch.setattr(FileLock, "acquire", late)
    assert not is_held(path) and not path.exists()


def test_two_trainings_do_not_write_into_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("peft_mmrl.training.under_way.LOCK_PATIENCE", 0.2)
    UnderWay(tmp_path / UNDER_WAY_FILE).begin("training", 1)
    first = UnderWay(tmp_path / UNDER_WAY_FILE)
    first.begin("training", 1)
    with pytest.raises(OSError, match="Another run writes into"):
        UnderWay(tmp_path / UNDER_WAY_FILE).begin("training", 1)
    first.end()
    UnderWay(tmp_path / UNDER_WAY_FILE).begin("training", 1)


def test_a_training_on_another_computer_is_seen_and_not_stopped_from_here(project, live):
    pretend(project, computer="elsewhere")
    with pytest.raises(ValueError, match=r"another computer \(elsewhere\)"):
        live.cancel()
    assert not TrainingRecord.read(record_of(project.folder, "run-1")).is_cancelled


def test_a_training_of_a_shell_is_seen_too(project, monkeypatch):
    folder = project.adapters / "mine"
    folder.mkdir()
    (folder / "run.json").write_text('{"kind": "training", "files": []}')
    (run,) = runs_of(project)
    assert run.status().state == "stopped" and "by a command" in run.status().words
    with pytest.raises(ValueError, match="started by a command"):
        resume(run)
    under_way = UnderWay(folder / UNDER_WAY_FILE)
    under_way.begin("training", 1)
    assert run.status().state == "running" and running_training(project.folder) == "mine"
    with pytest.raises(ValueError, match=r"runs already \(mine\)"):
        start(project)
    ended = []
    monkeypatch.setattr(psutil.Process, "terminate", lambda self: ended.append(self.pid))
    run.cancel()
    assert ended == [os.getpid()]
    under_way.end()
    assert run.status().state == "stopped"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"share": "x"}', '{"process": "x", "share": 1, "computer": null}', "null"]
)
def test_damaged_files_of_a_run_are_no_fault_of_the_page(project, text):
    pretend(project)
    record_of(project.folder, "run-1").write_text(text)
    (project.adapters / "run-1").mkdir()
    for name in (UNDER_WAY_FILE, "run.json"):
        (project.adapters / "run-1" / name).write_text(text)
    assert [run.status().state for run in runs_of(project)] == ["stopped"]
    assert running_training(project.folder) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output_dir": "/etc"}, "no option 'output_dir'"),
        ({"epochs": "3; rm"}, "`epochs` must be int"),
        ({"epochs": True}, "`epochs` must be int"),
        ({"balance": "yes"}, "`balance` must be bool"),
        ({"learning_rate": "fast"}, "`learning_rate` must be float"),
    ],
)
def test_options_that_there_are_not_are_refused_before_anything_is_written(project, options, words):
    before = sorted(project.folder.rglob("*"))
    with pytest.raises(ValueError, match=words):
        start(project, **options)
    assert sorted(project.folder.rglob("*")) == before


def test_what_a_training_would_refuse_is_said_before_it_is_started(project, tmp_path, monkeypatch):
    monkeypatch.setattr(run_command.subprocess, "Popen", None)
    (project.pictures / "zero" / "link.png").symlink_to(tmp_path)
    with pytest.raises(ValueError, match=r"'pictures/zero/link.png': a link"):
        start(project)
    (project.pictures / "zero" / "link.png").unlink()
    (project.folder / "class_names.csv").write_text("ten,10\n")
    with pytest.raises(ValueError, match=r"class_names.csv, line 1"):
        start(project)
    for name in ("one", "two"):
        shutil.rmtree(project.pictures / name)
    with pytest.raises(ValueError, match="at least two classes.*one class has pictures"):
        start(project)


def test_links_in_the_place_of_a_run_are_no_runs(project, tmp_path):
    pretend(project)
    (tmp_path / "run.json").write_text('{"kind": "training", "files": []}')
    for name in ("run-1", "other"):
        (project.adapters / name).symlink_to(tmp_path)
    assert runs_of(project) == []


def test_runs_come_the_newest_first_and_those_of_one_time_by_their_number(project):
    for name in ("run-2", "run-10", "run-1", "old"):
        path = project.adapters / name / "run.json"
        path.parent.mkdir()
        path.write_text('{"kind": "training", "files": []}')
        os.utime(path, (1e9, 1e9 - (name == "old")))  # as in a copy of a project
    assert [run.name for run in runs_of(project)] == ["run-10", "run-2", "run-1", "old"]


@pytest.mark.parametrize("name", ["..", "../../x", "a/b", "", "a\0", "/etc"])
def test_no_name_of_a_run_leads_elsewhere(project, name):
    with pytest.raises(ValueError):
        Run(project, name)


def test_the_command_line_says_what_the_command_would(project, monkeypatch):
    started = []

    def popen(command, **kwargs):
        started.append((command, kwargs))
        return subprocess.Popen([sys.executable, "-c", ""])

    monkeypatch.setattr(run_command, "subprocess", _Subprocess(popen))
    project.set_template("-a {}, with 'quotes'")
    run = start(project, folds=3, method="mmrl++", balance=True, epochs=None)
    (command, kwargs) = started[0]
    assert command[1:3] == ["-P", "-c"] and command[5] == "train" and kwargs["start_new_session"]
    args = train.parse_args(command[6:])
    assert args.folds == 3 and args.balance and args.method == "mmrl++" and args.epochs is None
    assert (args.train_dir, args.output_dir) == (project.pictures, run.folder)
    assert args.template == ["-a {}, with 'quotes'"] and args.class_names == project.folder / "class_names.csv"
    run.wait(10)
    (run.folder / "checkpoint.new").mkdir(parents=True)  # what a process leaves that is killed at the wrong moment
    elsewhere = project.folder.rename(project.folder.with_name("elsewhere"))
    resume(Run(Project.open(elsewhere), run.name))
    args = train.parse_args(started[1][0][6:])
    assert args.overwrite_output_dir and args.train_dir == elsewhere / "pictures" and args.folds == 3 and args.balance


class _Subprocess:
    DEVNULL, STDOUT = subprocess.DEVNULL, subprocess.STDOUT

    def __init__(self, popen):
        self.Popen = popen


# --- how far a run is ----------------------------------------------------------------------------------------------


def test_a_run_says_how_far_it_is_while_it_runs_and_nothing_when_it_has_ended(digit_folders, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("peft_mmrl.training.under_way.PAUSE", 0)
    write = UnderWay._write

    def watched(self, share):
        write(self, share)
        seen.append(read_under_way(self.path.parent))

    monkeypatch.setattr(UnderWay, "_write", watched)
    folder = tmp_path / "adapter"
    given = ["--train_dir", digit_folders / "train", "--output_dir", folder, "--base_model", DEMO_CLIP]
    train.main(train.parse_args(list(map(str, [*given, "--epochs", 2, "--folds", 2]))))
    phases = list(dict.fromkeys(found["phase"] for found in seen))
    assert phases == ["looking", "training", "fold 1 of 2", "fold 2 of 2", "writing"]
    shares = [found["share"] for found in seen]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == pytest.approx(1)
    of_training = [found["share"] for found in seen if found["phase"] == "training"]
    assert max(of_training) == pytest.approx(0.5)  # two folds take as long as one training on all pictures
    assert all(found["seconds_left"] >= 0 for found in seen if found["seconds_left"] is not None)
    assert seen[len(shares) // 2]["seconds_left"] is not None
    assert {found["process"] for found in seen} == {os.getpid()}
    assert not [*folder.glob("under_way*")]
    assert UNDER_WAY_FILE not in json.loads((folder / "run.json").read_text())["files"]


def test_a_run_that_was_interrupted_says_nothing_more(digit_folders, tmp_path, monkeypatch):
    def stop(self, record):
        raise KeyboardInterrupt

    monkeypatch.setattr("peft_mmrl.training.loop.Telling.step", stop)
    given = ["--train_dir", digit_folders / "train", "--output_dir", tmp_path / "a", "--base_model", DEMO_CLIP]
    with pytest.raises(SystemExit):
        train.main(train.parse_args(list(map(str, [*given, "--folds", 0]))))
    assert (tmp_path / "a" / "run.json").exists() and not (tmp_path / "a" / UNDER_WAY_FILE).exists()


def test_time_left_counts_from_where_a_run_goes_on(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("peft_mmrl.training.under_way.time.monotonic", lambda: now[0])
    under_way = UnderWay(tmp_path / UNDER_WAY_FILE)
    under_way.begin("training", 1, then=1)
    under_way.at(0.5)  # from a checkpoint
    now[0] = 10
    under_way.at(0.75)
    found = read_under_way(tmp_path)
    assert found["share"] == 0.375 and found["seconds_left"] == pytest.approx(10 / 0.25 * 1.25)
    under_way.end()
    under_way.end()
    assert read_under_way(tmp_path) is None


def test_a_file_that_cannot_be_written_ends_no_run(tmp_path):
    under_way = UnderWay(tmp_path / "nowhere" / UNDER_WAY_FILE)
    under_way.begin("training", 1)
    under_way.at(0.5)
    under_way.end()


def test_class_names_may_name_a_class_that_has_no_pictures_yet(project, tmp_path):
    assert '"three?"' not in (project.folder / "class_names.csv").read_text()
    assert "three_,three?" in (project.folder / "class_names.csv").read_text()
    given = ["--train_dir", project.pictures, "--class_names", project.folder / "class_names.csv", "--quick"]
    given += ["--base_model", DEMO_CLIP, "--output_dir", tmp_path / "a"]
    train.main(train.parse_args(list(map(str, given))))
    assert json.loads((tmp_path / "a" / "run.json").read_text())["classes"] == ["one", "the digit two", "zero"]


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({"begun": 1000.0}, 90),
        ({"begun": 1000.0, "is_cancelled": True}, 90),  # too late, which wrote the record anew
        ({"begun": 1000.0, "is_resumed": True}, None),
        ({"begun": 2000.0}, None),  # the clock was set back
        ({"begun": None}, None),
        ({"begun": "long ago"}, None),
    ],
)
def test_how_long_a_training_took_counts_from_its_beginning(project, changes, seconds):
    run = pretend(project, **changes)
    run.folder.mkdir()
    (run.folder / "run.json").write_text('{"files": ["adapter_model.safetensors"]}')
    os.utime(run.folder / "run.json", (1090, 1090))
    assert run.seconds == seconds


def test_new_pictures_may_come_while_a_training_runs(project, live, tmp_path):
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "n.png")
    (name,) = add_pictures(project, [("n.png", tmp_path / "n.png")], None).added
    assert move_pictures(project, [name], "zero") == {name: "pictures/zero/n.png"}
