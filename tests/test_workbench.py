"""The workbench of a project: what is known at once, and answers from the first pictures on."""

import csv
import re
import shutil
import sqlite3
import threading
import time

import huggingface_hub
import PIL.Image
import pytest
import torch
from conftest import DEMO_CLIP

import peft_mmrl
from peft_mmrl.auto import is_at_hand
from peft_mmrl.projects import sights as sights_of
from peft_mmrl.projects.fit_instant import fit_instant
from peft_mmrl.projects.project import Project
from peft_mmrl.projects.project_settings import ProjectSettings
from peft_mmrl.projects.workbench import Workbench
from peft_mmrl.scoring.rungs import describe_rungs


@pytest.fixture
def project(tmp_path):
    return Project.create(tmp_path / "project", DEMO_CLIP)


@pytest.fixture
def workbench(project):
    return Workbench(project)


def put(project, name, pictures, first=0):
    """Save pictures into a class, which is made where it is missing."""
    folder = project.pictures / name
    folder.mkdir(exist_ok=True)
    for number, picture in enumerate(pictures, start=first):
        picture.save(folder / f"{number}.png")


def fill(project, digits, count=6):
    for name, pictures in digits.items():
        put(project, name, pictures[:count])


def test_a_model_that_cannot_be_fetched_is_said_in_words_and_not_asked_for_at_every_step(tmp_path, monkeypatch):
    from peft_mmrl.projects import workbench as module

    asked, hub = [], module.BaseModel
    monkeypatch.setattr(module, "BaseModel", lambda *given: asked.append(given) or hub(*given))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    workbench = Workbench(Project.create(tmp_path / "project", "me/no-such-clip"))
    for _ in range(2):
        with pytest.raises(OSError, match="me/no-such-clip, is not on this computer yet, and there is no connection"):
            workbench.update()
    assert len(asked) == 1
    monkeypatch.setattr(module, "RETRY_AFTER", 0.0)
    with pytest.raises(OSError, match="no connection"):
        workbench.update()
    assert len(asked) == 2
    ProjectSettings(str(DEMO_CLIP)).write(workbench.project.folder)  # another one is loaded at once
    assert "no classes yet" in " ".join(workbench.update().notes)


def test_a_model_is_at_hand_where_its_weights_lie_in_a_folder_or_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert is_at_hand(DEMO_CLIP) and not is_at_hand("me/clip")
    snapshot = tmp_path / "models--me--clip" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").touch()
    assert not is_at_hand("me/clip")
    (snapshot / "pytorch_model.bin").touch()
    assert is_at_hand("me/clip")


def test_what_is_missing_is_said_at_every_step_and_an_answer_is_given_as_soon_as_there_is_a_choice(
    project, workbench, digits
):
    picture = digits["zero"][11]
    said = workbench.update()
    assert "no classes yet" in " ".join(said.notes) and not workbench.answer(picture).ranks
    assert workbench.suggest() == []
    put(project, "zero", [])
    assert "zero is the only class" in " ".join(workbench.update().notes)
    put(project, "one", [])
    said = workbench.update()
    assert "recognised by the classes' names alone" in " ".join(said.notes) and said.accuracy is None
    answer = workbench.answer(picture)
    assert answer.words == "zero" and answer.ranks == answer.zero_shot and "by the names" in " ".join(answer.notes)
    put(project, "zero", digits["zero"][:1])
    said = workbench.update()
    assert "zero is the only class with pictures" in " ".join(said.notes)
    assert [one.picture for one in workbench.answer(picture).nearest] == ["pictures/zero/0.png"]
    put(project, "one", digits["one"][:1])
    said = workbench.update()
    assert "as soon as a class has two" in " ".join(said.notes)
    assert said.held_out is None and said.accuracy is None and said.zero_shot_accuracy["accuracy"] == 1
    assert "isn't known" in " ".join(workbench.answer(picture).notes)
    put(project, "one", digits["one"][1:4], first=1)
    said = workbench.update()
    assert "zero has a single picture" in " ".join(said.notes) and len(said.held_out.pictures) == 4
    put(project, "zero", digits["zero"][1:4], first=1)
    assert workbench.update().notes == []


def test_what_is_known_is_that_of_the_base_model_of_now(project, workbench, digits, tmp_path, monkeypatch):
    """Also where that changes while pictures are being looked at."""
    fill(project, digits, 2)
    other = shutil.copytree(DEMO_CLIP, tmp_path / "other")

    def changed(base, *given):
        ProjectSettings(str(other)).write(project.folder)
        assert workbench.base.name == str(other)
        monkeypatch.setattr("peft_mmrl.projects.workbench.fit_instant", fit_instant)
        return fit_instant(base, *given)

    monkeypatch.setattr("peft_mmrl.projects.workbench.fit_instant", changed)
    old = workbench.update()
    new = workbench.instant
    assert new is not old and workbench.instant is workbench.update() is new
    assert workbench.answer(digits["one"][11]).ranks and workbench.instant is new


def test_figures_are_those_of_quick_runs_on_the_same_folder(project, workbench, digits, capsys):
    fill(project, digits)
    (project.pictures / "one" / "again.png").write_bytes((project.pictures / "one" / "0.png").read_bytes())
    (project.pictures / "two" / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    said = workbench.update()
    peft_mmrl.fit(project.pictures, str(DEMO_CLIP), quick=True, template=project.settings.template)
    assert describe_rungs(list(said.rungs.values())) in capsys.readouterr().out
    assert [path for path, _ in said.unreadable] == ["pictures/two/damaged.png"]
    assert "1 picture cannot be opened and is left out." in said.notes


def test_pictures_are_looked_at_once_whatever_they_are_called_and_whoever_asks(
    project, workbench, digits, monkeypatch
):
    fill(project, digits, 2)
    looked = []
    monkeypatch.setattr(
        sights_of, "frozen_sight", lambda model, pixels: looked.append(len(pixels)) or real(model, pixels)
    )
    real = peft_mmrl.scoring.sightings.frozen_sight
    told = []
    before = workbench.update(lambda done, total: told.append((done, total)))
    assert sum(looked) == 8 and told[-1] == (8, 8)
    assert workbench.update() is before
    (project.pictures / "zero" / "0.png").rename(project.pictures / "zero" / "other.png")
    after = workbench.update()
    assert "pictures/zero/other.png" in after.pictures and sum(looked) == 8
    again = Workbench(project).update()
    assert sum(looked) == 8 and torch.equal(again.frozen.images, after.frozen.images)
    shutil.rmtree(project.cache)
    Workbench(project).update()
    assert sum(looked) == 16


def test_a_cache_that_is_damaged_or_cannot_be_written_costs_time_alone(project, digits):
    fill(project, digits, 2)
    project.cache.mkdir(exist_ok=True)
    (project.cache / "features.sqlite").write_bytes(b"no database" * 100)
    said = Workbench(project).update()
    assert len(said.pictures) == 8 and said.frozen.images.norm(dim=1).allclose(torch.ones(8))
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(project.cache / "features.sqlite").execute("SELECT * FROM seen")


def test_a_class_without_pictures_is_scored_as_by_clip_and_a_word_says_how_far_that_goes(project, workbench, digits):
    for name in ("zero", "one", "two"):
        put(project, name, digits[name][:6])
    put(project, "three", [])
    said = workbench.update()
    assert said.held_out.probabilities.shape == (18, 4)
    answer = workbench.answer(digits["three"][0])
    assert answer.words == "three" and answer.maps.keys() == {"class token"}
    (words,) = [note for note in answer.notes if "by its name alone" in note]
    assert re.search(r"\d+% of your other pictures .* None of your 18 pictures", words) or "of 18 pictures" in words
    ours, clip = (dict(ranks) for ranks in (answer.ranks, answer.zero_shot))
    assert ours["three"] == pytest.approx(clip["three"], abs=0.3)
    with pytest.raises(ValueError, match="no class 'four'"):
        said.trust_in_name("four")


def test_none_of_these_and_sets_come_with_the_coverage_that_is_asked_for(project, workbench, digits):
    fill(project, digits, 12)
    said = workbench.update()
    held = said.held_out
    assert held.probabilities.sum(dim=1).allclose(torch.ones(48), atol=1e-4)
    for coverage in (0.6, 0.9):
        threshold = said.confidence.for_coverage(coverage).threshold
        own = held.probabilities.gather(1, held.labels[:, None])[:, 0].double()
        assert (1 - own <= threshold).double().mean() >= coverage
    noise = PIL.Image.effect_noise((32, 32), 90)
    sizes = [len(workbench.answer(noise, coverage=coverage).likely) for coverage in (0.5, 0.9, 0.97)]
    assert sizes == sorted(sizes)
    none = workbench.answer(noise, coverage=0.05)
    assert none.is_none and none.words == "none of these" and none.ranks
    assert "too few" in " ".join(workbench.answer(noise, coverage=0.999).notes).lower()
    with pytest.raises(ValueError, match="coverage"):
        workbench.answer(noise, coverage=2)


def test_what_cannot_be_read_is_answered_in_words(workbench, project, digits, tmp_path):
    fill(project, digits, 2)
    (tmp_path / "note.png").write_text("no picture")
    answer = workbench.answer(tmp_path / "note.png")
    assert answer.words.startswith("This picture cannot be opened") and answer.ranks == [] and not answer.is_none


def test_names_that_clip_cannot_read_are_named_and_nothing_else_breaks(project, workbench):
    put(project, "zero", [])
    put(project, "very " * 20 + "long", [])
    said = workbench.update()
    assert said.frozen is None and "very very" in " ".join(said.notes)
    assert "very very" in workbench.answer(PIL.Image.new("RGB", (32, 32))).words


def test_a_run_answers_by_its_adapter_which_is_loaded_once_and_again_when_it_was_trained_anew(
    project, workbench, digits, monkeypatch
):
    fill(project, digits)
    options = {"epochs": 1, "folds": 2, "cached_views": 0, "overwrite_output_dir": True}
    folder = project.adapters / "first run.1"
    peft_mmrl.fit(project.pictures, str(DEMO_CLIP), folder, **options)
    loads = []
    load = peft_mmrl.PeftModelForZeroShotImageClassification.load_adapter
    monkeypatch.setattr(
        peft_mmrl.PeftModelForZeroShotImageClassification,
        "load_adapter",
        lambda self, *args, **kwargs: loads.append(args[1]) or load(self, *args, **kwargs),
    )
    picture = digits["two"][11]
    plain = workbench.answer(picture)
    answer = workbench.answer(picture, adapter="first run.1")
    assert answer.trained and not plain.trained
    assert list(answer.maps) == ["class token", *(f"token {number}" for number in range(1, 6))]
    assert answer.zero_shot == plain.zero_shot and answer.ranks != plain.ranks
    model, processor = peft_mmrl.scoring.unlabelled.load_classifier(folder)
    pixels = peft_mmrl.Preprocessing.of(model, processor)(picture)[None]
    with torch.no_grad():
        expected = model(pixel_values=pixels).logits.softmax(dim=1)[0].tolist()
    assert dict(answer.ranks) == pytest.approx(dict(zip(model.classes, expected, strict=True)), abs=1e-5)
    workbench.answer(picture, adapter="first run.1")
    assert dict(workbench.answer(picture).ranks) == pytest.approx(dict(plain.ranks))
    assert len(loads) == 2  # one by `load_classifier`
    with open(folder / "report" / "predictions.csv", newline="") as file:
        rows = {f"pictures/{row['path']}": row for row in csv.DictReader(file)}
    held = workbench.held_out()
    assert sorted(held.pictures) == sorted(rows) and held.classes == sorted(digits)
    for place, shares in zip(held.pictures, held.probabilities.tolist(), strict=True):
        assert shares == pytest.approx([float(rows[place][f"probability_{name}"]) for name in held.classes], abs=1e-4)
    put(project, "nine", [])
    workbench.update()
    new = workbench.answer(picture, adapter="first run.1")
    assert [name for name, _ in new.ranks if name == "nine"] and "nine came after this training" in new.notes[0]
    time.sleep(0.01)
    peft_mmrl.fit(project.pictures, str(DEMO_CLIP), folder, quick=True, overwrite_output_dir=True)
    assert not workbench.answer(picture, adapter="first run.1").trained and loads == ["run0", "default", "run1"]
    for name in ("../first", "nothing"):
        with pytest.raises((ValueError, OSError)):
            workbench.answer(picture, adapter=name)
    assert workbench.held_out().probabilities.equal(workbench.instant.held_out.probabilities)  # nothing was trained


def test_what_to_label_next_comes_with_guesses_and_without_what_cannot_be_read(project, workbench, digits):
    fill(project, digits, 4)
    for name, pictures in digits.items():
        for number, picture in enumerate(pictures[4:]):
            picture.save(project.unlabelled / f"{name}{number}.png")
    (project.unlabelled / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    found = workbench.suggest(8)
    assert len({one.picture for one in found}) == 8
    guesses = [one.guess for one in found]
    assert all(guesses.count(name) == 2 for name in digits) and all(0 < one.probability <= 1 for one in found)


def test_threads_ask_while_pictures_come_in(project, workbench, digits):
    fill(project, digits, 2)
    workbench.update()
    expected, errors, done = dict(workbench.answer(digits["one"][11]).zero_shot), [], threading.Event()

    def ask():
        try:
            while not done.is_set():
                assert dict(workbench.answer(digits["one"][11]).zero_shot) == pytest.approx(expected, abs=1e-4)
        except BaseException as error:
            errors.append(error)

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    for count in range(3, 7):
        fill(project, digits, count)
        workbench.update()
    done.set()
    for asker in askers:
        asker.join()
    assert not errors and len(workbench.instant.pictures) == 24


def test_a_damaged_adapter_is_told_of_at_every_try_and_answers_again_once_it_is_whole(project, workbench, digits):
    fill(project, digits)
    folder = project.adapters / "mine"
    peft_mmrl.fit(project.pictures, output_dir=folder, base_model=DEMO_CLIP, quick=True)
    picture = digits["zero"][11]
    assert workbench.answer(picture, "mine").ranks
    config, content = folder / "adapter_config.json", (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(b"damaged")
    for _ in range(2):
        with pytest.raises((OSError, ValueError), match="adapter"):
            workbench.answer(picture, "mine")
    (folder / "adapter_model.safetensors").write_bytes(content)
    config.touch()
    assert workbench.answer(picture, "mine").ranks


def test_it_is_said_what_a_class_without_pictures_costs_the_others(project, workbench, digits):
    from peft_mmrl.app.figure import figure_words

    put(project, "zero", digits["zero"][:6])
    put(project, "two", digits["three"][:2])  # which look like another class, of which only the name is known
    put(project, "three", [])
    said = workbench.update()
    taken = dict(zip(said.names, said.taken_for, strict=True))
    assert taken["three"] and sum(taken.values()) <= len(said.held)
    words = f"{taken['three']} of your {len(said.held)} pictures are taken for three, which has none"
    assert words in figure_words(said)
    put(project, "three", digits["three"][2:6])
    assert "are taken for" not in figure_words(workbench.update())
