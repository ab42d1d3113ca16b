"""Copies, near copies and groups stay on one side of a split, or are named before training."""

import json
import os
import random
import re
import shutil
from collections import Counter

import numpy as np
import PIL.Image
import pytest
from accelerate import PartialState

from peft_mmrl.data import PictureSource, hold_out, load_training_data, note_trained_on, save_trained_on
from peft_mmrl.data.checking import examine_pictures
from peft_mmrl.data.copies import Alikeness


def scene(number, size=50):
    waves = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    waves[0, 0] = 1
    rng = np.random.default_rng(number)
    values = np.fft.ifft2((rng.normal(size=(size, size)) + 1j * rng.normal(size=(size, size))) / waves).real
    return PIL.Image.fromarray((128 + 50 * values / values.std()).clip(0, 255).astype(np.uint8))


def frame(number, shift):
    return scene(number).crop((shift, 0, shift + 40, 40))


def draw(root, pictures):
    """Pictures by name; a number is a scene of its own."""
    for name, picture in pictures.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (scene(picture) if isinstance(picture, int) else picture).save(root / name)
    return root


def distinct(count, first=0):
    return {f"{name}/{n}.png": first + 100 * c + n for c, name in enumerate(("cat", "dog")) for n in range(count)}


def load(root, **options):
    return load_training_data(PictureSource(folder=root), PartialState(), **options)


def said(data, words):
    return [note for note in data.notes if words in note]


def test_copies_of_any_kind_stay_on_one_side(tmp_path):
    draw(tmp_path, distinct(4))
    for n in range(4):
        original = tmp_path / "cat" / f"{n}.png"
        shutil.copy(original, tmp_path / "cat" / f"{n} copy (2).png")
        os.link(original, tmp_path / "cat" / f"linked {n}.png")
        PIL.Image.open(original).convert("RGB").save(tmp_path / "cat" / f"again {n}.jpg", quality=90)
        PIL.Image.open(original).save(tmp_path / "cat" / f"other bytes {n}.png", compress_level=1)
    for seed in range(4):
        data = load(tmp_path, validation_fraction=0.5, seed=seed)
        paths = [[path for path in part["path"] if path.startswith("cat")] for part in (data.train, data.validation)]
        sides = [{re.search(r"\d", path)[0] for path in part} for part in paths]
        assert all(sides)
        assert not sides[0] & sides[1]
    assert said(data, "20 pictures are equal or nearly equal to others, 4 different ones")


def test_frames_of_a_scene_stay_on_one_side_whatever_their_labels(tmp_path):
    """With random labels nothing can be learned; frames on both sides would pretend otherwise."""
    pictures = {
        f"{'cat' if n % 2 else 'dog'}/{n}-{shift}.png": frame(n, shift) for n in range(8) for shift in range(5)
    }
    data = load(draw(tmp_path, pictures), validation_fraction=0.25)
    scenes = [{path.split("/")[1].split("-")[0] for path in part["path"]} for part in (data.train, data.validation)]
    assert len(data.validation) == 10
    assert not scenes[0] & scenes[1]
    assert len(data.groups) == len(data.train)
    assert len(set(data.groups)) == 6


def test_few_shots_are_not_validated_with_their_copies(tmp_path):
    pictures = {
        f"{'cat' if n % 2 else 'dog'}/{n}-{shift}.png": frame(n, shift) for n in range(18) for shift in range(2)
    }
    for seed in range(3):
        data = load(draw(tmp_path, pictures), shots=2, validation_fraction=0.3, seed=seed)
        held = [] if data.validation is None else data.validation["path"]
        scenes = [{path.split("/")[1].split("-")[0] for path in part} for part in (data.train["path"], held)]
        assert len(data.train) == 4
        assert not scenes[0] & scenes[1]


def test_a_picture_in_two_classes_is_named(tmp_path):
    draw(tmp_path, distinct(5) | {"dog/same.png": 3, "cat/near.png": frame(900, 0), "dog/near.png": frame(900, 1)})
    data = load(tmp_path)
    (note,) = said(data, "one of the two labels is wrong")
    assert note.startswith("warning: 4 pictures")
    assert "cat/3.png (cat) = dog/same.png (dog)" in note
    assert "cat/near.png (cat) = dog/near.png (dog)" in note


def test_many_copies_are_named_in_a_line(tmp_path):
    draw(tmp_path, {f"{name}/{n}{copy}.png": n for name in ("cat",) for n in range(30) for copy in "ab"})
    draw(tmp_path, {f"dog/{n}.png": 100 + n for n in range(4)})
    (note,) = said(load(tmp_path), "equal or nearly equal to others")
    assert note.endswith("cat/12a.png = cat/12b.png, cat/13a.png = cat/13b.png and 25 more")
    assert "\n" not in note


def test_a_camera_that_shows_hardly_any_difference_leaves_pictures_to_validate_with(tmp_path):
    part = scene(1)
    good, bad = {}, {}
    for n in range(10):
        values = np.array(part) ^ (np.random.default_rng(n).random((50, 50)) < 0.5)
        good[f"good/{n}.png"] = PIL.Image.fromarray(values)
        values = values.copy()
        values[n : n + 3, 20] = 0
        bad[f"scratched/{n}.png"] = PIL.Image.fromarray(values)
    data = load(draw(tmp_path, good | bad | {"good/copy.png": good["good/0.png"]}), validation_fraction=0.2)
    assert len(data.validation) == 4
    assert said(data, "21 of 21 pictures look nearly like one of another class")
    assert said(data, "2 pictures are equal or nearly equal to others, 1 different ones")
    assert not said(data, "one of the two labels is wrong")


def test_a_class_of_one_scene_is_named(tmp_path):
    draw(tmp_path, {f"cat/{n}.png": frame(1, n) for n in range(6)} | {f"dog/{n}.png": 10 + n for n in range(6)})
    data = load(tmp_path, validation_fraction=0.2)
    assert {path.split("/")[0] for path in data.validation["path"]} == {"dog"}
    assert said(data, "so that none is held out: cat")


def test_pictures_to_validate_with_that_are_trained_on_are_counted(tmp_path):
    train, test = draw(tmp_path / "train", distinct(3)), draw(tmp_path / "test", distinct(3, first=50))
    shutil.copy(train / "cat/0.png", test / "cat/other name.png")
    os.link(train / "dog/1.png", test / "cat/mislabelled.png")
    draw(train, {"cat/frame.png": frame(900, 0)})
    draw(test, {"cat/frame.png": frame(900, 1)})
    data = load(train, validation=PictureSource(folder=test))
    (equal,) = said(data, "both trained on and validated with: results say too much")
    assert "2 of 9 pictures" in equal
    assert "cat/mislabelled.png, cat/other name.png" in equal
    (near,) = said(data, "nearly equal to pictures that are trained on")
    assert "1 of 9 pictures" in near


def test_an_adapter_s_folder_knows_its_pictures_again(tmp_path):
    train = draw(tmp_path / "photos", distinct(3))
    data = load(train, validation_fraction=0)
    save_trained_on(tmp_path, data.facts)
    train.rename(tmp_path / "moved")
    for number, path in enumerate(sorted((tmp_path / "moved").glob("*/*.png"))):
        path.rename(path.with_name(f"renamed {number}.png"))
    draw(tmp_path / "moved", {"cat/new.png": 77, "dog/x.png": 78})
    pictures, _ = PictureSource(folder=tmp_path / "moved").load()
    notes, counts = note_trained_on(pictures, tmp_path)
    assert counts == {"pictures_trained_on": 6, "nearly_equal_to_these": 0}
    assert "6 of 8 pictures are both trained on and tested" in notes[0]
    assert note_trained_on(pictures, tmp_path / "nowhere") == ([], {})
    assert str(tmp_path) not in (tmp_path / "trained_on.json").read_text()


# --- groups that are said --------------------------------------------------------------------------------------------


def sides(data):
    return [{path.split("-")[0] for path in part["path"]} for part in (data.train, data.validation)]


def test_a_folder_in_a_class_folder_is_a_group(tmp_path):
    pictures = {
        f"{c}/day {g}/{n}.png": 1000 * len(c) + 100 * g + n
        for c in ("cat", "horse")
        for g in range(4)
        for n in range(3)
    }
    data = load(draw(tmp_path, pictures), validation_fraction=0.3)
    days = [{path.rsplit("/", 1)[0] for path in part["path"]} for part in (data.train, data.validation)]
    assert (len(data.train), len(data.validation)) == (18, 6)
    assert not days[0] & days[1]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "dataset"])
def test_a_column_says_what_belongs_together(tmp_path, kind):
    names = [f"{group}-{n}.png" for group in range(6) for n in range(4)]
    draw(tmp_path, {name: 10 * number for number, name in enumerate(names)})
    rows = [{"file_name": name, "label": "ab"[int(name[0]) % 2], "scene": name[0]} for name in names]
    if kind == "csv":
        table = tmp_path / "labels.csv"
        table.write_text("file_name,label,scene\n" + "\n".join(",".join(row.values()) for row in rows))
        source = PictureSource(file=table, group_column="scene")
    else:
        table = tmp_path / ("labels.jsonl" if kind == "jsonl" else "metadata.jsonl")
        table.write_text("\n".join(map(json.dumps, rows)))
        places = {"file": table} if kind == "jsonl" else {"dataset_name": str(tmp_path), "split": "train"}
        source = PictureSource(**places, group_column="scene")
    data = load_training_data(source, PartialState(), validation_fraction=0.3)
    assert (len(data.train), len(data.validation)) == (16, 8)
    assert set(Counter(data.validation["group"]).values()) == {4}


def test_an_unknown_group_column(tmp_path):
    draw(tmp_path, distinct(2))
    (tmp_path / "labels.csv").write_text("image,label\ncat/0.png,cat\ndog/0.png,dog\n")
    with pytest.raises(ValueError, match=r"no column 'scene' \(`group_column`\), only image, label"):
        PictureSource(file=tmp_path / "labels.csv", group_column="scene").load()


def test_no_split_cuts_through_a_group():
    for seed in range(50):
        rng = random.Random(seed)
        labels = [rng.choice("abc") for _ in range(rng.randrange(3, 60))]
        groups = [rng.randrange(1 + len(labels) // 2) for _ in labels]  # some of several classes
        kept, held = hold_out(labels, rng.choice([0.1, 0.3, 0.8]), random.Random(seed), groups)
        assert sorted(kept + held) == list(range(len(labels)))
        assert not {groups[row] for row in kept} & {groups[row] for row in held}
        assert {labels[row] for row in kept} == set(labels)


def test_single_pictures_are_held_out_as_without_groups():
    labels = [number % 3 for number in range(100)]
    alone = hold_out(labels, 0.2, random.Random(1))
    assert hold_out(labels, 0.2, random.Random(1), list(range(100))) == alone


def test_a_large_group_is_held_out_where_there_is_no_smaller_one():
    assert hold_out(["a"] * 10, 0.2, random.Random(1), [0] * 5 + [1] * 5)[1] in (list(range(5)), list(range(5, 10)))
    assert hold_out(["a"] * 10, 0.2, random.Random(1), [0] * 10) == (list(range(10)), [])


def test_groups_join_what_looks_alike(tmp_path):
    draw(tmp_path, {"cat/a/1.png": 1, "cat/a/2.png": 2, "cat/3.png": 2, "cat/4.png": 4, "dog/5.png": 5})
    pictures, _ = PictureSource(folder=tmp_path).load()
    groups = dict(zip(pictures["path"], Alikeness.of(pictures, examine_pictures(pictures)).groups, strict=True))
    assert groups["cat/a/1.png"] == groups["cat/a/2.png"] == groups["cat/3.png"]
    assert len(set(groups.values())) == 3
