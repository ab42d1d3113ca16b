"""Pictures that cannot be read are found before a run."""

import io
import json
import os
import random
import sqlite3
from pathlib import Path

import datasets
import PIL.Image
import pytest
from accelerate import Accelerator
from conftest import in_two_processes

from peft_mmrl.data import (
    PictureFacts,
    check_pictures,
    describe_bad,
    drop_empty_classes,
    examine_picture,
    hold_out,
    known,
    load_folder,
    sample_shots,
)
from peft_mmrl.data.checking import examine_pictures
from peft_mmrl.data.cpus import usable_cpus
from peft_mmrl.data.drawing import draw_readable_shots


@pytest.fixture
def dataset(tmp_path):
    """Five pictures, two of which are broken."""
    for path in ("cat/1.png", "cat/2.png", "dog/1.png"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        PIL.Image.new("RGB", (8, 8)).save(tmp_path / path)
    (tmp_path / "cat/0.jpg").write_bytes(b"")
    (tmp_path / "bird").mkdir()
    (tmp_path / "bird/b.png").write_text("words")
    return load_folder(tmp_path)[0]


BAD = [("bird/b.png", "not a picture, or of a format that is not opened"), ("cat/0.jpg", "the file is empty")]


def test_bad_pictures_are_left_out_and_listed(dataset):
    good, bad = check_pictures(dataset)
    assert good["path"][:] == ["cat/1.png", "cat/2.png", "dog/1.png"]
    assert bad == BAD
    assert describe_bad(bad) == f"2 pictures cannot be read:\n  {BAD[0][0]}: {BAD[0][1]}\n  {BAD[1][0]}: {BAD[1][1]}"


def test_bad_pictures_are_an_error_where_that_is_wanted(dataset):
    with pytest.raises(ValueError, match=r"2 pictures cannot be read:\n  bird/b\.png: .*\n  cat/0\.jpg: the file"):
        check_pictures(dataset, on_bad="error", num_workers=1)


def test_good_pictures_stay_as_they_are(dataset):
    good, _ = check_pictures(dataset)
    assert check_pictures(good, on_bad="error") == (good, [])


def test_a_class_that_loses_all_its_pictures(dataset):
    good, empty = drop_empty_classes(check_pictures(dataset)[0])
    assert empty == ["bird"]
    assert good.features["label"].names == ["cat", "dog"]
    assert good["label"][:] == [0, 0, 1]
    assert drop_empty_classes(good) == (good, [])


def test_nothing_can_be_read(dataset):
    with pytest.raises(ValueError, match="1 picture cannot be read:"):
        check_pictures(dataset.select([0]))


def test_more_pictures_than_are_held_at_a_time(dataset):
    many = dataset.select(list(range(5)) * 40)
    good, bad = check_pictures(many)
    assert (len(good), len(bad)) == (120, 80)


@pytest.mark.parametrize(("name", "value"), [("on_bad", "ignore"), ("num_workers", 0)])
def test_wrong_arguments(dataset, name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        check_pictures(dataset, **{name: value})


def check_in_each_process(dataset, folder):
    accelerator = Accelerator(cpu=True)
    good, bad = check_pictures(dataset, accelerator=accelerator)
    found = {"processes": accelerator.num_processes, "good": good["path"][:], "bad": bad}
    (folder / f"{accelerator.process_index}.json").write_text(json.dumps(found))


def test_processes_share_the_work_and_know_all(dataset, tmp_path):
    in_two_processes(check_in_each_process, dataset, tmp_path)
    for index in range(2):
        found = json.loads((tmp_path / f"{index}.json").read_text())
        assert found["processes"] == 2
        assert found["good"] == ["cat/1.png", "cat/2.png", "dog/1.png"]
        assert list(map(tuple, found["bad"])) == BAD


# --- what is not done twice, and not at all -----------------------------------------------------------------------


@pytest.fixture
def examined(monkeypatch):
    """Paths of the pictures that were decoded to be checked."""
    paths = []
    monkeypatch.setattr(
        "peft_mmrl.data.checking.examine_picture",
        lambda image, *rest: paths.append(Path(image["path"] or "").name) or examine_picture(image, *rest),
    )
    return paths


def test_a_file_that_did_not_change_is_not_decoded_again(dataset, examined, tmp_path):
    first = examine_pictures(dataset)
    assert len(examined) == 5
    examined.clear()
    assert examine_pictures(dataset) == first
    assert sorted(examined) == ["0.jpg", "b.png"]  # bad ones may have been mended, or a decoder installed
    examined.clear()
    PIL.Image.new("RGB", (9, 7)).save(tmp_path / "cat" / "2.png")
    (tmp_path / "dog" / "1.png").write_bytes(b"damaged since")
    changed = examine_pictures(dataset)
    assert sorted(examined) == ["0.jpg", "1.png", "2.png", "b.png"]
    assert changed[3] == PictureFacts(9, 7) and "not a picture" in changed[4]


def test_of_a_file_only_its_last_state_is_kept(dataset, tmp_path):
    def rows():
        with sqlite3.connect(known.FILE) as file:
            return file.execute("SELECT COUNT(*) FROM known").fetchone()

    examine_pictures(dataset)
    before = rows()
    for time in (1, 2):
        os.utime(tmp_path / "cat" / "2.png", (time, time))
        examine_pictures(dataset)
    assert rows() == before == (3,)


def test_pictures_in_a_table_are_known_by_their_bytes(examined):
    content = io.BytesIO()
    PIL.Image.new("I;16", (6, 5), 700).save(content, "PNG")
    rows = {"image": [{"bytes": content.getvalue(), "path": None}] * 2, "path": ["0", "1"]}
    features = datasets.Features({"image": datasets.Image(decode=False), "path": datasets.Value("string")})
    table = datasets.Dataset.from_dict(rows, features=features)
    expected = [PictureFacts(6, 5, (700.0, 700.0))] * 2
    assert examine_pictures(table) == expected
    examined.clear()
    assert examine_pictures(table) == expected
    assert examined == []


def test_nothing_is_lost_where_nothing_can_be_kept(dataset, examined, monkeypatch, tmp_path):
    monkeypatch.setattr("peft_mmrl.data.known.FILE", tmp_path / "cat" / "1.png" / "no folder.sqlite")
    assert examine_pictures(dataset) == examine_pictures(dataset)
    assert len(examined) == 7  # this process remembers
    (tmp_path / "damaged.sqlite").write_bytes(b"no data base" * 100)
    monkeypatch.setattr("peft_mmrl.data.known.FILE", tmp_path / "damaged.sqlite")
    assert len(check_pictures(dataset)[0]) == 3


def many(folder, bad=()):
    """Two classes of 20 pictures."""
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(20):
            path = folder / name / f"{name}{number}.png"
            PIL.Image.new("RGB", (4, 4)).save(path) if path.stem not in bad else path.write_bytes(b"")
    return load_folder(folder)[0]


def test_of_few_shots_only_those_are_decoded(tmp_path, examined):
    dataset = many(tmp_path)
    drawn, held, bad = draw_readable_shots(dataset, 3, 0.2, seed=1)
    assert (len(drawn), len(held), bad) == (6, 8, [])
    assert sorted(examined) == sorted(f"{path.split('/')[1]}" for path in dataset.select([*drawn, *held])["path"][:])
    labels = dataset["label"][:]
    kept, expected_held = hold_out(labels, 0.2, random.Random(1))
    shots = sample_shots([labels[row] for row in kept], 3, random.Random(1))
    assert (drawn, held) == ([kept[index] for index in shots], expected_held)


def test_bad_shots_are_replaced_by_others_of_their_class(tmp_path, examined):
    first = many(tmp_path / "a")
    drawn, held, _ = draw_readable_shots(first, 3, 0.2, seed=1)
    spoiled = [Path(first[row]["path"]).stem for row in (drawn[0], drawn[1], drawn[4], held[0])]
    dataset = many(tmp_path / "b", spoiled)
    examined.clear()
    again, held_again, bad = draw_readable_shots(dataset, 3, 0.2, seed=1)
    assert sorted(dataset["label"][row] for row in again) == [0, 0, 0, 1, 1, 1]
    assert {drawn[2], drawn[3], drawn[5]} < set(again) and held_again == held[1:]
    assert not set(again) & set(held)
    assert sorted(Path(path).stem for path, _ in bad) == sorted(spoiled)
    assert len(examined) == 14 + 3
    assert draw_readable_shots(dataset, 3, 0.2, seed=1)[0] == again
    with pytest.raises(ValueError, match="pictures cannot be read"):
        draw_readable_shots(dataset, 3, 0.2, seed=1, on_bad="error")


def test_a_class_is_not_lost_while_any_of_its_pictures_can_be_read(tmp_path):
    for good in range(20):
        dataset = many(tmp_path / str(good), [f"dog{number}" for number in range(20) if number != good])
        drawn, held, _ = draw_readable_shots(dataset, 3, 0.2, seed=1)
        assert [row for row in drawn if row >= 20] == [20 + natural(good)]
        assert not any(row >= 20 for row in held)
    with pytest.raises(ValueError, match="cannot be read"):
        draw_readable_shots(dataset.select([20, 21]), 1, 0, seed=1)


def natural(number):
    """Position of a file among `dog0.png` to `dog19.png` in the order of their names."""
    return sorted(range(20), key=lambda each: f"dog{each}.png").index(number)


# --- how many threads -----------------------------------------------------------------------------------------------


def test_threads_follow_affinity(monkeypatch):
    monkeypatch.setattr("peft_mmrl.data.cpus.MEMBERSHIP", Path("/gone"))
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {3, 9}, raising=False)
    assert usable_cpus() == 2


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/pod/box", {"pod/cpu.max": "150000 100000", "pod/box/cpu.max": "max 100000"}, 1),
        ("0::/not/seen", {"cpu.max": "50000 100000"}, 1),
        ("0::/", {"cpu.max": "max 100000"}, 8),
        ("0::/", {}, 8),
        (
            "4:memory:/\n3:cpu,cpuacct:/box",
            {"cpu,cpuacct/box/cpu.cfs_quota_us": "300000", "cpu,cpuacct/box/cpu.cfs_period_us": "100000"},
            3,
        ),
        ("3:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
    ],
)
def test_threads_follow_a_container_s_quota(membership, files, expected, monkeypatch, tmp_path):
    (tmp_path / "membership").write_text(membership + "\n")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    monkeypatch.setattr("peft_mmrl.data.cpus.MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr("peft_mmrl.data.cpus.CGROUPS", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert usable_cpus() == expected
