"""Pictures that cannot be read are found before a run."""

import json

import PIL.Image
import pytest
from accelerate import Accelerator
from conftest import in_two_processes

from peft_mmrl.data import check_pictures, describe_bad, drop_empty_classes, load_folder


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
