"""What a project's page says is wrong, in words that need no explanation."""

import re
import time

import numpy as np
import pytest
from PIL import Image

from peft_mmrl.data import checking
from peft_mmrl.projects.faults import find_faults
from peft_mmrl.projects.project import Project


JARGON = re.compile(r"CLIP|prompt|zero-shot|token|split|recall|--\w|label_|dataset|None|digest|/tmp", re.IGNORECASE)


def write_picture(path, seed, size=64):
    """Smooth, so that saving it as JPEG makes a near copy, and unlike others."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def project(tmp_path):
    """Two classes of five pictures in which nothing is wrong."""
    found = Project.create(tmp_path / "work")
    for position, name in enumerate(("cat", "dog")):
        for number in range(5):
            write_picture(found.pictures / name / f"{number}.png", 10 * position + number)
    return found


def faults_of(project, kind):
    found = find_faults(project)
    for fault in found:
        assert fault.words.endswith(".") and fault.advice.endswith(".")
        assert not JARGON.search(fault.words + fault.advice), fault
        assert all(project.path(picture).is_file() for picture in fault.pictures)
        assert set(fault.classes) <= set(project.class_folders())
    return [fault for fault in found if fault.kind == kind]


def test_nothing_is_wrong_where_nothing_is(project):
    assert find_faults(project) == []


def test_files_that_cannot_be_read_are_named_with_the_reason(project):
    (project.pictures / "cat" / "empty.jpg").write_bytes(b"")
    (project.pictures / "cat" / "words.png").write_text("words")
    (project.pictures / "dog" / "words.jpg").write_text("words")
    found = {tuple(fault.pictures): fault.words for fault in faults_of(project, "unreadable")}
    assert found == {
        ("pictures/cat/empty.jpg",): "1 file cannot be opened as a picture: the file is empty.",
        ("pictures/cat/words.png", "pictures/dog/words.jpg"): (
            "2 files cannot be opened as a picture: not a picture, or of a format that is not opened."
        ),
    }


def test_copies_are_told_from_near_copies_and_from_one_picture_in_two_classes(project):
    cat, dog = project.pictures / "cat", project.pictures / "dog"
    (cat / "copy.png").write_bytes((cat / "0.png").read_bytes())
    Image.open(cat / "1.png").save(cat / "again.jpg", quality=95)
    (dog / "cat.png").write_bytes((cat / "2.png").read_bytes())
    (dog / "scene").mkdir()
    (dog / "3.png").rename(dog / "scene" / "3.png")  # what lies in one folder is no copy
    (dog / "4.png").rename(dog / "scene" / "4.png")
    (equal,), (near,), (two,) = (faults_of(project, kind) for kind in ("equal copies", "near copies", "two classes"))
    assert equal.pictures == ["pictures/cat/0.png", "pictures/cat/copy.png"]
    assert equal.words == "cat has the same file 2 times."
    assert near.pictures == ["pictures/cat/1.png", "pictures/cat/again.jpg"]
    assert two.pictures == ["pictures/cat/2.png", "pictures/dog/cat.png"] and two.classes == ["cat", "dog"]
    assert two.words == "2 pictures in cat and dog are the same file: one of the labels is wrong."
    (dog / "cat.png").unlink()
    Image.open(cat / "2.png").save(dog / "cat.jpg", quality=95)
    (two,) = faults_of(project, "two classes")
    assert two.words.endswith("are nearly the same picture: probably one of the labels is wrong.")
    assert [fault.kind for fault in find_faults(project)][:3] == ["two classes", "equal copies", "near copies"]


def test_classes_with_too_few_pictures_are_named(project):
    project.add_class("bird")
    write_picture(project.pictures / "cow" / "0.png", 77)
    empty, few = faults_of(project, "few pictures")
    assert empty.classes == ["bird"] and "no pictures" in empty.words
    assert few.classes == ["cow"] and few.words.startswith("cow has 1 picture:")


@pytest.mark.parametrize("names", [[], ["cat"], ["cat", "dog"]])
def test_nothing_is_wrong_before_the_first_picture(tmp_path, names):
    project = Project.create(tmp_path / "work")
    for name in names:
        project.add_class(name)
    assert find_faults(project) == []


@pytest.mark.parametrize("classes", [["cat"], ["cat", "dog"]])
def test_one_class_is_too_few(tmp_path, classes):
    project = Project.create(tmp_path / "work")
    for name in classes[:1]:
        write_picture(project.pictures / name / "0.png", 1)
    for name in classes[1:]:
        project.add_class(name)
    assert len(faults_of(project, "one class")) == 1


def test_names_that_say_nothing_are_named_until_they_have_a_better_one(project):
    for number, name in enumerate(("7", "A12")):
        for picture in range(4):
            write_picture(project.pictures / name / f"{picture}.png", 200 + 10 * number + picture)
    (fault,) = faults_of(project, "code")
    assert fault.classes == ["7", "A12"] and fault.words == "7 and A12 are names that say nothing."
    project.set_prompt_name("7", "seven")
    (fault,) = faults_of(project, "code")
    assert fault.classes == ["A12"] and fault.words == "A12 is a name that says nothing."


def test_classes_that_somebody_has_made_twice_are_named(project):
    for number in range(4):
        write_picture(project.pictures / "Cat" / f"{number}.png", 300 + number)
    (fault,) = faults_of(project, "same name")
    assert fault.classes == ["Cat", "cat"] and "differ in capitals alone" in fault.words


def test_what_lies_among_the_pictures_and_is_not_used_is_named(project, tmp_path):
    (project.pictures / "cat" / "notes.txt").write_text("mine")
    (project.pictures / "loose.png").write_bytes((project.pictures / "cat" / "0.png").read_bytes())
    (project.pictures / "cat" / "link.png").symlink_to(tmp_path / "elsewhere.png")
    (project.pictures / "cow").symlink_to(tmp_path)
    (project.pictures / "cat" / "Thumbs.db").write_bytes(b"")
    with open(bytes(project.pictures / "cat") + b"/\xff.png", "wb") as file:
        file.write((project.pictures / "cat" / "0.png").read_bytes()[:-1] + b"x")
    found = sorted(fault.words for fault in faults_of(project, "left out"))
    assert len(found) == 4
    assert any("notes.txt" in words and "not a picture" in words for words in found)
    assert any("loose.png" in words and "in no class" in words for words in found)
    assert any("2 files" in words and "link.png" in words and "cow" in words and "a link" in words for words in found)
    assert any("?.png" in words and "name that cannot be shown" in words for words in found)
    "".join(found).encode()  # it can be sent to a page


def test_a_spoiled_list_of_names_is_named(project):
    (project.folder / "class_names.csv").write_text("cow,beautiful cow\n")
    (fault,) = [fault for fault in find_faults(project) if fault.kind == "names file"]
    assert "class_names.csv, line 1" in fault.words and "'cow'" in fault.words


def test_pictures_are_decoded_once(project, monkeypatch):
    first = find_faults(project)
    monkeypatch.setattr(checking, "examine_picture", None)
    assert find_faults(project) == first


def test_many_pictures_take_a_moment(project):
    """2,000 pictures that were looked at before; the limit leaves room for a slow machine."""
    for number in range(2000):
        write_picture(project.pictures / "cat" / f"m{number}.png", 1000 + number, 8)
    find_faults(project)
    start = time.perf_counter()
    find_faults(project)
    assert time.perf_counter() - start < 10
