"""What a training knows of a project that has changed since: what is said of that, and which of its answers count."""

import csv
import hashlib
import json
import shutil

import pytest
from conftest import DEMO_CLIP

from peft_mmrl.projects.project import Project
from peft_mmrl.projects.project_runs import Run
from peft_mmrl.projects.since_training import Changes, changes_since, names_now
from peft_mmrl.projects.workbench import Workbench


NAMES = ["zero", "one", "two"]


@pytest.fixture
def project(digit_folders, tmp_path):
    found = Project.create(tmp_path / "work", base_model=DEMO_CLIP)
    for name in NAMES:
        shutil.copytree(digit_folders / "train" / name, found.pictures / name)
    return found


def contents(project):
    pictures = [picture for one in project.classes() for picture in one.pictures]
    return {
        picture: hashlib.blake2b((project.folder / picture).read_bytes(), digest_size=16).hexdigest()
        for picture in pictures
    }


def trained(project, digests, share=0.9, **changes):
    """A training that has ended, of the pictures that there are: it gives their own class so much probability."""
    run = Run(project, "run-1")
    (run.folder / "report").mkdir(parents=True)
    classes = {one.name: one.prompt_name for one in project.classes() if one.pictures}
    paths = [picture.removeprefix("pictures/") for picture in digests]
    (run.folder / "adapter_model.safetensors").touch()
    description = {
        "kind": "training",
        "files": ["adapter_model.safetensors"],
        "quick": False,
        "split": {"train": paths},
    }
    (run.folder / "run.json").write_text(json.dumps(description | {"classes": sorted(classes.values())} | changes))
    (run.folder / "trained_on.json").write_text(json.dumps({"files": list(digests.values()), "looks": []}))
    with open(run.folder / "report" / "predictions.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", *(f"probability_{name}" for name in classes.values())])
        for path in paths:
            label, other = classes[path.split("/")[0]], (1 - share) / (len(classes) - 1)
            rows.writerow([path, label, *(share if name == label else other for name in classes.values())])
    return run


def changes(project, run):
    return changes_since(run, contents(project), named(project))


def named(project):
    return {one.name: one.prompt_name for one in project.classes() if one.pictures}


def test_a_class_that_is_called_otherwise_now_is_the_same(project):
    run = trained(project, contents(project))
    assert names_now(run, contents(project), named(project)) == {}
    project.rename_class("zero", "nought")
    project.set_prompt_name("one", "unity")
    assert names_now(run, contents(project), named(project)) == {"zero": "nought", "one": "unity"}
    project.add_class("zero")  # whatever that is, it is not what was learned under this name
    assert names_now(run, contents(project), project.prompt_names()) == {"one": "unity"}


def test_what_was_added_moved_and_taken_out_since_a_training_is_counted(project):
    run = trained(project, contents(project))
    assert changes(project, run) == Changes() and not changes(project, run)
    zero = sorted((project.pictures / "zero").iterdir())
    zero[0].rename(project.pictures / "one" / "another name.png")
    assert changes(project, run) == Changes(moved=1)
    zero[1].rename(project.removed / "x.png")
    assert changes(project, run) == Changes(moved=1, gone=1)
    (project.pictures / "two" / "new.png").write_bytes(b"1")
    (project.pictures / "two" / "new2.png").write_bytes(b"2")
    assert changes(project, run) == Changes(added=2, moved=1, gone=1)
    zero[2].rename(project.pictures / "zero" / "only another name.png")
    shutil.copy(zero[3], project.pictures / "zero" / "a copy.png")
    assert changes(project, run) == Changes(added=3, moved=1, gone=1)
    project.add_class("three")
    assert changes(project, run) == Changes(added=3, moved=1, gone=1)
    (project.pictures / "three" / "new.png").write_bytes(b"3")
    assert changes(project, run) == Changes(added=4, moved=1, gone=1, classes=("three",))


def test_a_class_that_was_renamed_is_no_other_class_but_its_name_is_new(project):
    run = trained(project, contents(project))
    project.rename_class("zero", "null")
    assert changes(project, run) == Changes(classes=("null",))
    project.set_prompt_name("one", "the digit one")
    assert changes(project, run) == Changes(classes=("null", "the digit one"))


@pytest.mark.parametrize("name", ["run.json", "trained_on.json"])
@pytest.mark.parametrize("text", [None, "{", "[]", "{}", '{"files": ["a"], "split": {"train": ["b", "c"]}}'])
def test_where_a_run_does_not_tell_nothing_is_said(project, name, text):
    run = trained(project, contents(project))
    (run.folder / name).unlink()
    if text is not None:
        (run.folder / name).write_text(text)
    assert changes(project, run) is None


@pytest.mark.parametrize("more", [{"shots": 2}, {"split": {"train": [], "validation": []}}])
def test_of_a_run_on_a_part_of_the_pictures_nothing_is_said(project, more):
    assert changes(project, trained(project, contents(project), **more)) is None


def test_of_a_run_on_pictures_of_another_place_nothing_is_said(project):
    run = trained(project, {f"pictures/zero/{number}.png": str(number) for number in range(9)})
    assert changes(project, run) is None


def own_shares(held):
    return held.probabilities.gather(1, held.labels[:, None])[:, 0].tolist()


def test_a_training_answers_for_the_pictures_that_it_knows_as_they_are(project):
    workbench = Workbench(project)
    before = workbench.update().held_out
    trained(project, contents(project), share=0.9)
    held = workbench.held_out()
    assert held.pictures == before.pictures and own_shares(held) == pytest.approx([0.9] * len(held.pictures))
    zero = sorted((project.pictures / "zero").iterdir())
    zero[0].rename(project.pictures / "one" / "moved.png")
    zero[2].write_bytes(zero[1].read_bytes())  # other content under the same name
    workbench.update()
    held, without = workbench.held_out(), workbench.instant.held_out
    others = {"pictures/one/moved.png", f"pictures/zero/{zero[2].name}"}
    for picture, own, plain in zip(held.pictures, own_shares(held), own_shares(without), strict=True):
        assert own == pytest.approx(plain if picture in others else 0.9, abs=1e-4)


def test_of_classes_that_a_training_does_not_know_the_decision_without_it_says_how_likely_they_are(project):
    workbench = Workbench(project)
    trained(project, contents(project), share=0.9)
    project.add_class("three")
    workbench.update()
    held, without = workbench.held_out(), workbench.instant.held_out
    place = held.classes.index("three")
    assert held.probabilities[:, place].tolist() == pytest.approx(without.probabilities[:, place].tolist())
    rest = 1 - held.probabilities[:, place]
    assert own_shares(held) == pytest.approx((0.9 * rest).tolist(), abs=1e-4)
    assert held.probabilities.sum(dim=1).tolist() == pytest.approx([1.0] * len(held.pictures), abs=1e-4)


@pytest.mark.parametrize("more", [{"validation": ["zero/0.png"]}, {"train": None}])
def test_a_training_whose_figures_are_of_other_pictures_is_not_asked(project, more):
    """Those of `--eval_dir` may have the same paths, below another folder."""
    workbench = Workbench(project)
    workbench.update()
    paths = [picture.removeprefix("pictures/") for picture in contents(project)]
    trained(project, contents(project), share=0.01, split={"train": paths} | more)
    assert workbench.held_out().probabilities.equal(workbench.instant.held_out.probabilities)


def test_a_training_that_knows_too_little_is_not_asked(project):
    workbench = Workbench(project)
    few = dict(list(contents(project).items())[:3])
    run = trained(project, few)
    workbench.update()
    assert workbench.held_out().probabilities.equal(workbench.instant.held_out.probabilities)
    shutil.rmtree(run.folder)
    run = trained(project, contents(project), quick=True)
    assert workbench.held_out().probabilities.equal(workbench.instant.held_out.probabilities)
    shutil.rmtree(run.folder)
    run = trained(project, contents(project))
    assert not workbench.held_out().probabilities.equal(workbench.instant.held_out.probabilities)
    for text in ("path,label\n\0", "path,label,probability_zero\nzero/0.png,zero\n", "path,label\n1,2,3\n"):
        (run.folder / "report" / "predictions.csv").write_text(text)
        assert workbench.held_out().probabilities.equal(workbench.instant.held_out.probabilities)
