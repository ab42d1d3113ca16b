"""The training tab and the line above all tabs, without a browser: what their buttons do and what they say."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from conftest import DEMO_CLIP

from peft_mmrl.app import desk as desk_module
from peft_mmrl.app import train_tab
from peft_mmrl.app.desk import Desk
from peft_mmrl.app.figure import LOOKING, Figure
from peft_mmrl.app.trainings import NEWEST, chosen_training
from peft_mmrl.projects import run_command
from peft_mmrl.projects.project import Project
from peft_mmrl.projects.project_runs import Run, finished_runs, newest_training, project_runs


gr = pytest.importorskip("gradio")

WAITING = (
    "import sys, time; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire(); time.sleep(60)"
)
METRICS = {
    "pictures": 18, "accuracy": 1.0, "accuracy_low": 0.85, "accuracy_high": 1.0, "macro_recall": 1.0, "folds": 2,
    "zero_shot_accuracy": 0.8, "zero_shot_accuracy_low": 0.6, "zero_shot_accuracy_high": 0.9, "per_class": [],
    "zero_shot_macro_recall": 0.8, "gained": 4, "lost": 0, "difference_p_value": 0.03,
}  # fmt: skip


@pytest.fixture
def project(digit_folders, tmp_path):
    found = Project.create(tmp_path / "work", base_model=DEMO_CLIP)
    for name in ("zero", "one", "two"):
        shutil.copytree(digit_folders / "train" / name, found.pictures / name)
    return found


@pytest.fixture
def parts(project):
    """The line above the tabs and the training tab."""
    desk = Desk(project)
    with gr.Blocks():
        figure = Figure(desk)
        with gr.Tabs():
            yield figure, train_tab.TrainTab(desk, figure)


@pytest.fixture
def tab(parts):
    return parts[1]


@pytest.fixture
def trainings(monkeypatch):
    """Command lines of trainings, in whose place processes run that hold their lock and wait."""
    begun, popen = [], subprocess.Popen

    def start(command, **options):
        begun.append(command)
        return popen([sys.executable, "-c", WAITING, command[4]], **options)

    monkeypatch.setattr(run_command.subprocess, "Popen", start)
    yield begun


def shown(tab, values):
    """What is seen, by the name of the part."""
    names = {id(value): name for name, value in vars(tab).items()}
    assert len(values) == len(tab.outputs)
    return {names[id(part)]: value for part, value in zip(tab.outputs, values, strict=True)}


def visible(tab, values):
    return [name for name in ("start", "cancel", "resume") if shown(tab, values)[name]["visible"]]


def stopped(tab):
    end = time.monotonic() + 30
    while visible(tab, values := tab.show()) == ["cancel"]:
        assert time.monotonic() < end
        time.sleep(0.05)
    return values


def finish(project, name="run-1", **changes):
    """Let a run be one that has ended well."""
    run = Run(project, name)
    (run.folder / "report").mkdir(parents=True, exist_ok=True)
    (run.folder / "adapter_model.safetensors").touch()
    paths = [picture for one in project.classes() for picture in one.pictures]
    digests = dict(zip(*_contents(project), strict=True))
    description = {"kind": "training", "files": ["adapter_model.safetensors"], "classes": ["one", "two", "zero"]}
    description |= {"split": {"train": [path.removeprefix("pictures/") for path in paths]}}
    (run.folder / "run.json").write_text(json.dumps(description | changes))
    (run.folder / "trained_on.json").write_text(json.dumps({"files": [digests[path] for path in paths], "looks": []}))
    (run.folder / "report" / "metrics.json").write_text(json.dumps(METRICS))
    with open(run.folder / "report" / "predictions.csv", "w", newline="") as file:
        csv.writer(file).writerow(["path", "label", "zero_shot_predicted", "predicted"])


def _contents(project):
    from peft_mmrl.projects.workbench import Workbench

    instant = Workbench(project).update()
    return instant.pictures, instant.digests


def test_a_training_is_begun_stopped_goes_on_and_is_begun_anew_by_the_buttons(project, tab, trainings):
    assert (
        visible(tab, tab.show()) == ["start"]
        and "Nothing was trained yet" in shown(tab, tab.show())["progress"]["value"]
    )
    values = tab.begin()
    assert visible(tab, values) == ["cancel"] and shown(tab, values)["clock"].active
    with pytest.raises(ValueError, match="A training runs already"):
        tab.begin()
    tab.stop()
    values = stopped(tab)
    assert visible(tab, values) == ["start"]  # there is nothing to go on from
    assert "You stopped it. It can be started again." in shown(tab, values)["progress"]["value"]
    tab.stop()  # once more: nothing happens
    tab.begin()
    checkpoint = project_runs(project)[0].folder / "checkpoint"
    checkpoint.mkdir(parents=True)
    paths = [picture.removeprefix("pictures/") for one in project.classes() for picture in one.pictures]
    of = {"base_model": project.settings.base_model, "classes": ["one", "two", "zero"], "split": {"train": paths}}
    (checkpoint / "progress.json").write_text(json.dumps({"run": of}))
    tab.stop()
    values = stopped(tab)
    assert visible(tab, values) == ["start", "resume"] and not shown(tab, values)["clock"].active
    values = tab.go_on()
    assert visible(tab, values) == ["cancel"] and "--resume_from_checkpoint=latest" in trainings[-1]
    assert [run.name for run in project_runs(project)] == ["run-2", "run-1"] and len(trainings) == 3
    tab.stop()
    stopped(tab)


def test_a_training_that_runs_is_shown_and_stopped_also_where_another_run_is_newer(project, tab, trainings):
    tab.begin()
    later = time.time() + 60
    finish(project, "mine")  # by a command
    os.utime(project.adapters / "mine" / "run.json", (later, later))
    assert [run.name for run in project_runs(project)] == ["mine", "run-1"]
    values = tab.show()
    assert visible(tab, values) == ["cancel"] and shown(tab, values)["clock"].active
    with pytest.raises(ValueError, match="A training runs already"):
        tab.begin()
    tab.stop()
    assert visible(tab, stopped(tab)) == ["start"] and Run(project, "run-1").status().state == "stopped"


def test_after_a_training_the_newest_is_shown_and_after_a_choice_that_one(project, tab, trainings):
    tab.begin()
    tab.stop()
    stopped(tab)
    finish(project)
    values = shown(tab, tab.show())
    assert values["which"]["value"] == values["newest"] == "run-1" and not values["which"]["visible"]
    assert "Your pictures have helped." in values["outcome"] and "Next: " in values["outcome"]
    assert "The last training, with 18 pictures, took less than a minute." in values["introduction"]
    values = shown(tab, tab.begin())
    assert values["which"]["value"] is None and not values["outcome"]  # so that the newest is shown when it ends
    tab.stop()
    stopped(tab)
    finish(project, "run-2")
    values = shown(tab, tab.show(None))
    assert values["which"]["value"] == values["newest"] == "run-2" and values["which"]["visible"]
    assert shown(tab, tab.show("run-1"))["which"]["value"] == "run-1"


def test_a_quick_run_is_called_the_newest_training_only_where_there_is_no_other(project, parts):
    figure, tab = parts
    finish(project, "quick", quick=True)
    assert "Fitted without training: of 100 new pictures" in figure.begin() and "Trained" not in figure.begin()
    assert newest_training(project).name == shown(tab, tab.show())["newest"] == "quick"
    finish(project, "run-1")
    finish(project, "run-2")
    for number, name in enumerate(("run-1", "run-2", "quick")):
        os.utime(project.adapters / name / "run.json", (number, number))
    assert [run.name for run in project_runs(project)] == ["quick", "run-2", "run-1"]
    runs = finished_runs(project)
    assert [run.name for run in runs] == ["run-2", "run-1", "quick"]
    values = shown(tab, tab.show())
    assert "Trained: of 100 new pictures" in figure.begin()
    assert newest_training(project).name == chosen_training(runs, NEWEST).name == values["newest"] == "run-2"
    assert values["which"]["value"] == "run-2" and chosen_training(runs, "quick").name == "quick"


def test_the_line_above_the_tabs_tells_of_the_training_and_of_what_has_changed_since(project, parts):
    figure, tab = parts
    assert "at once and without training" in figure.show() and "Trained" not in figure.show()
    finish(project)
    assert "Trained: of 100 new pictures like yours it gets about 100 right" in figure.begin()
    said = figure.show()
    assert "Trained: of 100" in said and "At once, without training: of" in said and "since" not in said
    assert tab._changed_since() == ""
    (project.pictures / "zero" / "new.png").write_bytes(b"no picture")  # it cannot be learned from
    assert "since" not in figure.show()
    zero = sorted((project.pictures / "zero").glob("[0-9]*"))
    zero[0].rename(project.pictures / "one" / "moved.png")
    zero[1].rename(project.removed / "x.png")
    words = "1 picture was moved and 1 taken out since the last training: train again to learn from them."
    assert words in figure.show() and words in tab._changed_since()


def test_the_line_says_what_is_fetched_before_pictures_can_be_looked_at(parts, monkeypatch):
    figure = parts[0]
    assert LOOKING in figure.begin()
    monkeypatch.setattr(desk_module, "is_at_hand", lambda name: False)
    assert "is fetched first, once" in figure.begin()


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 99}', '{"version": 1, "base_model": ""}'])
def test_the_line_says_that_the_settings_are_damaged(project, parts, text):
    (project.folder / "project.json").write_text(text)
    for said in (parts[0].begin(), parts[0].show()):
        assert "3 classes, 18 pictures" in said and "project.json" in said


def test_pictures_that_were_moved_since_a_training_are_counted(project, parts, monkeypatch):
    from peft_mmrl.app import train_tab
    from peft_mmrl.app.outcome_words import Changed

    finish(project)
    there = project.classes()[0].pictures[0].removeprefix("pictures/")
    for gone, words in ((0, ""), (1, "1 other was moved"), (2, "2 others were moved")):
        found = [Changed(path, "zero", "one", "zero") for path in [there, *["zero/gone.png"] * gone]]
        monkeypatch.setattr(train_tab, "changed_pictures", lambda *_, found=found: found)
        html = shown(parts[1], parts[1].show())["changed"]
        assert html.count("<img") == 1
        assert ("taken out since" in html) == bool(gone) and words in html
