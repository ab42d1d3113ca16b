"""A project's folder: what is opened, what names in requests may mean, and that no picture is lost or overwritten."""

import json
import os
import shutil
import time
import unicodedata
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from peft_mmrl.projects import folder_intake, intake, moving, opening, project_folder, project_settings, staging
from peft_mmrl.projects import project as project_module
from peft_mmrl.projects.better_names import NAMES_FILE
from peft_mmrl.projects.folder_intake import add_folder
from peft_mmrl.projects.intake import (
    add_pictures,
    merge_classes,
    move_pictures,
    put_back,
    remove_pictures,
    take_class_out,
)
from peft_mmrl.projects.project import Project


OUTSIDE = [  # names by which a request could mean something else than a picture of the project
    *("", "/", ".", "..", "pictures/..", "pictures/../../secret.png", "../secret.png", "pictures//cat/1.png"),
    *("/etc/passwd", "//server/share", "C:/secret.png", "C:secret.png", "pictures/C:/x.png", "pictures/cat/c:x.png"),
    *("..\\secret.png", "pictures\\..\\..\\secret.png", "\\\\server\\share\\x.png", "pictures/cat\\..\\..\\x.png"),
    *(
        "pictures/cat/1.png\0.jpg",
        "pictures/cat/\n",
        "pictures/\x1b[2J/x.png",
        "pictures/cat/./1.png",
        "./pictures/cat",
    ),
    *(
        "project.json",
        ".lock",
        ".cache/incoming/x",
        "logs/run-1.json",
        "pictures/cat/1.png/",
        "~/x.png",
        "pictures/" * 3,
    ),
    *("pictures/" + "x" * 300, "pictures/" + "x/" * 3000 + "y", "pictures/cat/\ud800.png", None, 7, b"pictures/cat"),
]
ODD_NAMES = [
    *("../../up.png", "..", ".", "", "/etc/passwd.png", "C:\\photos\\c.png", "con", "CON.png", "nul.tar.png", "com1"),
    *(
        unicodedata.normalize("NFD", "é.png"),
        "é.png",
        "É.PNG",
        "e\u0301.png",
        "photo\u202egnp.exe",
        "a\0b.png",
        "a\nb.png",
    ),
    *(
        "👩‍🔬.png",
        "🏴\U000e0067\U000e0062.png",
        "x" * 300 + ".png",
        "é" * 200 + ".png",
        " .png",
        ".png",
        ".hidden.png",
    ),
    *(
        "Thumbs.db",
        "a:b.png",
        "a?.png",
        "a*.png",
        "-rf",
        "--output_dir=x.png",
        "\ud800.png",
        "a.png.",
        "a.png ",
        "naïve",
    ),
    *("ﬁsh.png", "fish.png", "FISH.PNG", "a/b/c/d.png", "a\\b\\c.png", "page.html", "script.js", "x.svg", "1.png"),
]


def write_picture(path, seed, size=(9, 8)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG")
    return path


def contents(folder):
    """The bytes of every picture below a folder, each as often as it is there."""
    return Counter(path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix.lower() == ".png")


def all_contents(project):
    return sum((contents(area) for area in (project.pictures, project.unlabelled, project.removed)), Counter())


@pytest.fixture
def project(tmp_path):
    """Two classes of three pictures, and two pictures of which nobody has said what they show."""
    found = Project.create(tmp_path / "work")
    files = [(f"{number}.png", write_picture(tmp_path / "from" / f"{number}.png", number)) for number in range(8)]
    for position, name in enumerate(("cat", "dog")):
        found.add_class(name)
        assert not add_pictures(found, files[3 * position : 3 * position + 3], name).refused
    assert not add_pictures(found, files[6:], None).refused
    return found


# --- opening -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "litter"])
def test_a_project_is_made_where_there_is_nothing(tmp_path, there):
    folder = tmp_path / "new"
    if there != "nothing":
        folder.mkdir()
    if there == "litter":
        (folder / ".DS_Store").write_bytes(b"")
    assert Project.open(folder).folder == folder
    assert {path.name for path in folder.iterdir()} >= {
        "pictures",
        "unlabelled",
        "removed",
        "adapters",
        "project.json",
    }


def test_a_project_is_opened_as_it_is_also_by_one_of_its_folders(project):
    before = contents(project.folder)
    for place in (project.folder, str(project.folder), project.pictures, project.adapters):
        again = Project.open(place)
        assert again.folder == project.folder and again.classes() == project.classes()
    assert contents(project.folder) == before


def test_folders_that_a_user_has_taken_away_are_no_fault(project):
    shutil.rmtree(project.removed)
    shutil.rmtree(project.pictures)
    again = Project.open(project.folder)
    assert again.classes() == [] and again.removed_pictures() == []
    again.add_class("cat")
    assert again.class_folders() == ["cat"]


def test_class_folders_get_a_project_beside_them_and_stay_as_they_are(tmp_path):
    photos = tmp_path / "photos"
    for name, inner in (("cat", ""), ("what? a dog", "scene 1/"), ("CON", "")):
        for number in range(2):
            write_picture(photos / name / f"{inner}{number}.png", hash(name) % 1000 + number)
    (photos / "empty").mkdir()
    (photos / "cat" / "notes.txt").write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in photos.rglob("*")}
    project = Project.open(photos)
    assert project.folder == tmp_path / "photos-project"
    assert {path: path.stat().st_mtime_ns for path in photos.rglob("*")} == before
    assert {one.prompt_name: len(one.pictures) for one in project.classes()} == {"cat": 2, "what? a dog": 2, "CON": 2}
    assert "pictures/what_ a dog/scene 1/0.png" in [p for one in project.classes() for p in one.pictures]
    assert contents(project.pictures) == contents(photos)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "photos-project"]
    remove_pictures(project, ["pictures/cat/0.png"])
    assert Project.open(photos).removed_pictures() == ["removed/cat/0.png"]  # it is not copied a second time


def test_folders_in_class_folders_keep_their_way(tmp_path):
    names = ["cat/a/a/0.png", "cat/a/0.png", "cat/a?/0.png", "cat/a*/0.png"]
    for number, name in enumerate(names):
        write_picture(tmp_path / "photos" / name, number)
    project = Project.open(tmp_path / "photos")
    assert contents(project.pictures) == contents(tmp_path / "photos")
    assert {"pictures/cat/a/a/0.png", "pictures/cat/a/0.png"} <= set(project.classes()[0].pictures)


def test_no_half_project_is_left_where_copying_fails(tmp_path, monkeypatch):
    write_picture(tmp_path / "photos" / "cat" / "0.png", 0)
    write_picture(tmp_path / "photos" / "cat" / "1.png", 1)
    copied = []

    def fails(source, target):
        if copied:
            raise OSError(28, "No space left on device")
        copied.append(source)

    monkeypatch.setattr(opening.shutil, "copyfile", fails)
    with pytest.raises(OSError, match="No space left"):
        Project.open(tmp_path / "photos")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_there_must_be_room_for_the_copies(tmp_path, monkeypatch):
    write_picture(tmp_path / "photos" / "cat" / "0.png", 0)
    monkeypatch.setattr(opening.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    with pytest.raises(OSError, match="are free"):
        Project.open(tmp_path / "photos")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["letter.txt"], "holds other things"),
        (["a.png"], "holds other things"),
        (["mail/1.txt", "mail/2.txt", "mail/a.png"], "holds other things"),
        (["train/cat/a.png", "test/cat/b.png"], "parts of a collection"),
        (["project/a.txt"], "holds other things"),
    ],
)
def test_a_folder_of_other_things_is_refused_and_stays_as_it_is(tmp_path, files, words):
    folder = tmp_path / "mine"
    for number, name in enumerate(files):
        write_picture(folder / name, number) if name.endswith(".png") else None
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).exists() or (folder / name).write_text("mine")
    with pytest.raises(ValueError, match=words):
        Project.open(folder)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == sorted(files)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_something_in_the_projects_place_is_not_touched(tmp_path):
    write_picture(tmp_path / "photos" / "cat" / "0.png", 0)
    (tmp_path / "photos-project").mkdir()
    (tmp_path / "photos-project" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="photos-project, where the project belongs, holds other things"):
        Project.open(tmp_path / "photos")
    assert [path.name for path in (tmp_path / "photos-project").iterdir()] == ["mine.txt"]


def test_folders_that_may_not_be_read_or_written_are_named(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    write_picture(tmp_path / "photos" / "cat" / "0.png", 0)
    with monkeypatch.context() as patched:
        patched.setattr(project_module.tempfile, "mkdtemp", refuse)
        with pytest.raises(OSError, match=r"photos-project, where the project belongs, cannot be written.*elsewhere"):
            Project.open(tmp_path / "photos")
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(PermissionError, match="photos cannot be read: Permission denied. Choose"):
        Project.open(tmp_path / "photos")


def test_too_many_files_are_refused_before_they_are_copied(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "MOST_PICTURES", 2)
    for number in range(3):
        write_picture(tmp_path / "photos" / "cat" / f"{number}.png", number)
    with pytest.raises(ValueError, match="more than 2 files"):
        Project.open(tmp_path / "photos")


@pytest.mark.parametrize("inside", ["pictures/cat/new", "adapters/new", "new"])
def test_no_project_lies_in_another(project, inside):
    with pytest.raises(ValueError, match="in the project"):
        Project.open(project.folder / inside)
    assert not (project.folder / inside).exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "damaged"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ("{}", "damaged"),
        ('{"version": "1"}', "damaged"),
        ('{"version": 1, "base_model": 3}', "damaged"),
        ('{"version": 1, "template": "no place"}', "damaged"),
        ('{"version": 99, "base_model": "x", "new": true}', "newer version"),
        (b"\xff\xfe\x00", "damaged"),
    ],
)
def test_a_damaged_or_newer_project_says_so_and_stays_as_it_is(project, text, words):
    file = project.folder / project_settings.PROJECT_FILE
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = file.read_bytes()
    with pytest.raises(ValueError, match=words) as error:
        Project.open(project.folder)
    assert str(file) in str(error.value)
    assert file.read_bytes() == before


def test_a_project_whose_settings_were_moved_away_gets_new_ones(project):
    before = all_contents(project)
    (project.folder / "project.json").unlink()
    assert Project.open(project.folder, base_model="me/clip").settings.base_model == "me/clip"
    assert all_contents(project) == before and not project.folder.with_name("work-project").exists()


@pytest.mark.parametrize("given", ["", "  ", "a\0b"])
def test_no_folder_is_no_project(given):
    with pytest.raises(ValueError, match="is no folder"):
        Project.open(given)


def test_a_file_is_no_project(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(ValueError, match="is a file"):
        Project.open(tmp_path / "a.zip")


def test_a_project_that_cannot_be_written_can_be_looked_at(project, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    again = Project.open(project.folder)
    monkeypatch.setattr(again._lock, "acquire", refuse)
    assert len(again.classes()) == 2 and len(again.unlabelled_pictures()) == 2
    for change in (
        lambda: again.add_class("bird"),
        lambda: again.rename_class("cat", "kitten"),
        lambda: remove_pictures(again, ["pictures/cat/0.png"]),
        lambda: again.set_template("a drawing of a {}."),
    ):
        with pytest.raises(OSError, match=r"cannot be written to.*can be looked at"):
            change()


def test_settings_are_kept_and_checked(project):
    project.set_template("a drawing of a {}.")
    kept = project_settings.ProjectSettings(project.settings.base_model, "a drawing of a {}.")
    assert Project.open(project.folder).settings == kept
    with pytest.raises(ValueError, match="place"):
        project.set_template("no place")
    with pytest.raises(ValueError, match="base model"):
        project_settings.ProjectSettings(" ")
    assert project.settings.template == "a drawing of a {}."
    assert json.loads((project.folder / "project.json").read_text())["version"] == 1


# --- names in requests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OUTSIDE, ids=lambda name: repr(name)[:40])
def test_a_name_that_leads_elsewhere_is_refused(project, name):
    with pytest.raises(ValueError, match="no place in this project"):
        project.path(name)
    before = all_contents(project)
    for action in (
        lambda: move_pictures(project, ["pictures/cat/0.png", name], "dog"),
        lambda: remove_pictures(project, ["pictures/cat/0.png", name]),
        lambda: put_back(project, [name]),
        lambda: move_pictures(project, ["pictures/cat/0.png"], name if name is not None else ""),
        lambda: add_pictures(project, [], name if name is not None else ""),
        lambda: project.rename_class(name, "bird"),
        lambda: project.remove_class(name),
        lambda: project.set_prompt_name(name, "bird"),
    ):
        with pytest.raises(ValueError):
            action()
    assert all_contents(project) == before
    assert (project.pictures / "cat" / "0.png").is_file()  # nothing is moved where one is refused


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(parts=st.lists(st.sampled_from(["pictures", "cat", "..", ".", "/", "\\", "~", "C:", "0.png", ""]) | st.text()))
def test_no_name_leads_out_of_the_project(project, parts):
    try:
        found = project.path("/".join(parts))
    except ValueError:
        return
    assert found.resolve().is_relative_to(project.folder)


@pytest.mark.parametrize("kind", ["file", "folder", "dangling", "inside", "area"])
def test_links_that_somebody_has_planted_are_not_followed(project, tmp_path, kind):
    secret = write_picture(tmp_path / "secret" / "s.png", 99)
    link = project.pictures / "cat" / "link"
    target = {"file": secret, "folder": secret.parent, "dangling": tmp_path / "nowhere.png"}.get(kind)
    if kind == "inside":
        target = project.pictures / "dog"
    if kind == "area":
        shutil.rmtree(project.removed)
        project.removed.symlink_to(tmp_path / "secret")
        with pytest.raises(ValueError, match="is a link to another place"):
            Project.open(project.folder)
        with pytest.raises(ValueError, match="is a link"):
            remove_pictures(project, ["pictures/cat/0.png"])
        assert os.listdir(tmp_path / "secret") == ["s.png"] and (project.pictures / "cat/0.png").is_file()
        return
    link.symlink_to(target)
    names = ["pictures/cat/link", "pictures/cat/link/s.png", "pictures/cat/link/../link/s.png"]
    for name in names:
        with pytest.raises(ValueError):
            project.path(name)
        with pytest.raises(ValueError):
            move_pictures(project, [name], "dog")
    assert [len(one.pictures) for one in project.classes()] == [3, 3]
    shutil.rmtree(project.pictures / "dog")
    (project.pictures / "dog").symlink_to(tmp_path / "secret")
    assert project.class_folders() == ["cat"]
    for action in (
        lambda: add_pictures(project, [("n.png", secret)], "dog"),
        lambda: move_pictures(project, ["pictures/cat/0.png"], "dog"),
    ):
        with pytest.raises(ValueError, match="no class 'dog'"):
            action()
    assert os.listdir(tmp_path / "secret") == ["s.png"]


def test_a_link_in_the_way_of_what_is_taken_out_is_not_followed(project, tmp_path):
    (tmp_path / "secret").mkdir()
    (project.removed / "cat").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="is a link"):
        remove_pictures(project, ["pictures/cat/0.png"])
    assert os.listdir(tmp_path / "secret") == [] and (project.pictures / "cat/0.png").is_file()


def test_a_link_is_not_taken_for_an_upload(project, tmp_path):
    secret = write_picture(tmp_path / "secret.png", 99)
    (tmp_path / "upload.png").symlink_to(secret)
    given = [tmp_path / "upload.png", tmp_path, tmp_path / "a\0b", tmp_path / ("x" * 300)]
    found = add_pictures(project, [(path.name, path) for path in given], "cat")
    assert [reason for _, reason in found.refused][:2] == ["it is not a file"] * 2
    assert all("cannot be copied" in reason for _, reason in found.refused[2:]) and not found.added


# --- pictures come in ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["cat", None])
def test_odd_names_become_safe_ones_and_no_two_are_one(project, tmp_path, place):
    files = [(name, write_picture(tmp_path / "up" / str(n), 100 + n)) for n, name in enumerate(ODD_NAMES)]
    before = all_contents(project)
    around = sorted(path.name for path in tmp_path.iterdir())
    found = add_pictures(project, files, place)
    assert not found.refused and len(found.added) == len(files)
    assert all_contents(project) == before + Counter(path.read_bytes() for _, path in files)
    assert sorted(path.name for path in tmp_path.iterdir()) == around
    folder = project.unlabelled if place is None else project.pictures / place
    assert all((project.folder / name).parent == folder for name in found.added)
    keys = [unicodedata.normalize("NFKC", Path(name).name).casefold() for name in found.added]
    assert len(set(keys)) == len(keys)
    assert all(name.endswith((".png", ".PNG")) for name in found.added)  # nothing poses as a web page
    listed = project.unlabelled_pictures() if place is None else project.classes()[0].pictures
    assert set(found.added) <= set(listed)


def test_what_is_no_picture_or_too_large_is_refused_with_the_reason_and_the_rest_is_taken(
    project, tmp_path, monkeypatch
):
    monkeypatch.setattr(staging, "LARGEST_FILE", 2000)
    monkeypatch.setattr(staging, "MOST_PIXELS", 100)
    good = write_picture(tmp_path / "good.png", 50)
    (tmp_path / "words.png").write_text("words")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "half.png").write_bytes(good.read_bytes()[:-40])
    (tmp_path / "bytes.png").write_bytes(bytes(2001))
    write_picture(tmp_path / "pixels.png", 51, (20, 20))
    os.mkfifo(tmp_path / "pipe.png")
    names = ["words", "empty", "half", "bytes", "pixels", "pipe", "missing", "good"]
    found = add_pictures(project, [(f"{name}.png", tmp_path / f"{name}.png") for name in names], "cat")
    assert found.added == ["pictures/cat/good.png"]
    assert [name for name, _ in found.refused] == [f"{name}.png" for name in names[:-1]]
    reasons = [
        "not a picture",
        "empty",
        "damaged",
        "file is too large",
        "picture is too large",
        "not a file",
        "copied",
    ]
    assert all(part in reason for (_, reason), part in zip(found.refused, reasons, strict=True))
    assert os.listdir(project.cache / "incoming") == []


def test_a_copy_of_a_picture_of_the_class_is_refused_and_one_of_another_class_is_taken(project, tmp_path):
    first, other = tmp_path / "from" / "0.png", tmp_path / "from" / "6.png"
    assert add_pictures(project, [("new.png", first)], "cat").refused == [
        ("new.png", "it is there already: pictures/cat/0.png")
    ]
    assert add_pictures(project, [("new.png", first)], "dog").added == ["pictures/dog/new.png"]
    assert "it is there already" in add_pictures(project, [("x.png", other)], None).refused[0][1]
    assert "it is there already" in add_pictures(project, [("x.png", first)], None).refused[0][1]  # it has a class
    twice = write_picture(tmp_path / "twice.png", 77)
    assert len(add_pictures(project, [("a.png", twice), ("b.png", twice)], "cat").added) == 1


def test_a_full_project_says_so(project, tmp_path, monkeypatch):
    monkeypatch.setattr(intake, "MOST_PICTURES", 10)
    files = [(f"n{n}.png", write_picture(tmp_path / f"n{n}.png", 60 + n)) for n in range(4)]
    found = add_pictures(project, files, "cat")
    assert len(found.added) == 2 and [reason for _, reason in found.refused] == [intake.FULL] * 2


@pytest.mark.parametrize("where", ["copyfile", "examine_picture", "place"])
def test_a_crash_leaves_no_half_picture(project, tmp_path, monkeypatch, where):
    def dies(*args, **kwargs):
        raise KeyboardInterrupt

    before = all_contents(project)
    owner = {"copyfile": staging.shutil, "examine_picture": staging, "place": moving}[where]
    with monkeypatch.context() as patched:
        patched.setattr(owner, where, dies)
        with pytest.raises(KeyboardInterrupt):
            add_pictures(project, [("n.png", write_picture(tmp_path / "n.png", 70))], "cat")
    assert all_contents(project) == before
    assert not add_pictures(project, [("n.png", tmp_path / "n.png")], "cat").refused  # the lock is free


def test_what_a_dead_process_has_left_goes_and_what_another_works_on_stays(project, tmp_path):
    incoming = project.cache / "incoming"
    for name, age in (("old", 2 * staging.LEFT_BEHIND), ("new", 0)):
        (incoming / name).write_bytes(b"half")
        os.utime(incoming / name, (time.time() - age,) * 2)
    assert add_pictures(project, [("n.png", write_picture(tmp_path / "n.png", 70))], "cat").added
    assert os.listdir(incoming) == ["new"]


def test_a_full_disk_is_a_reason(project, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(staging.shutil, "copyfile", full)
    found = add_pictures(project, [("n.png", write_picture(tmp_path / "n.png", 70))], "cat")
    assert "No space left" in found.refused[0][1] and not found.added


# --- pictures come in folders -------------------------------------------------------------------------------------


def in_folders(place, *names):
    """Files of these names, as a browser gives them: each a picture of its own unless its name says otherwise."""
    place.mkdir()
    files = []
    for number, name in enumerate(names):
        path = place / f"{number}{Path(name).suffix}"
        write_picture(path, 500 + number) if path.suffix == ".png" else path.write_text("words")
        files.append((name, path))
    return files


def counts(project):
    return {one.name: len(one.pictures) for one in project.classes()}


def test_a_folder_of_pictures_goes_into_one_class(project, tmp_path):
    files = in_folders(tmp_path / "up", "holiday/1.png", "holiday/2.png", "holiday/.DS_Store", "holiday/Thumbs.db")
    found = add_folder(project, files, "cat")
    assert found.classes == {"cat": 2} and not found.is_sorted and not found.refused
    assert counts(project) == {"cat": 5, "dog": 3}


def test_a_folder_of_class_folders_becomes_classes_whatever_class_is_chosen(project, tmp_path):
    names = ["all/Cat/1.png", "all/oak/1.png", "all/oak/tree 1/1.png", "all/.git/x.png", "all/oak/notes.txt"]
    found = add_folder(project, in_folders(tmp_path / "up", *names), "dog")
    assert found.is_sorted and found.classes == {"cat": 1, "oak": 2}
    assert counts(project) == {"cat": 4, "dog": 3, "oak": 2}
    assert project.classes()[2].pictures == ["pictures/oak/1.png", "pictures/oak/tree 1/1.png"]  # a group stays one
    assert found.refused == [("oak/notes.txt", "not a picture, or of a format that is not opened")]


def test_several_folders_at_once_are_classes(project, tmp_path):
    found = add_folder(project, in_folders(tmp_path / "up", "oak/1.png", "elm/1.png", "elm/2.png"), None)
    assert found.classes == {"elm": 2, "oak": 1}


def test_pictures_beside_class_folders_are_left_out_and_said(project, tmp_path):
    found = add_folder(project, in_folders(tmp_path / "up", "all/1.png", "all/oak/1.png", "2.png"), "cat")
    assert found.classes == {"all": 2} and [name for name, _ in found.refused] == ["2.png"]
    found = add_folder(project, in_folders(tmp_path / "more", "all/1.png", "all/oak/2.png"), "cat")
    assert found.classes == {"oak": 1} and found.refused == [("1.png", folder_intake.BESIDE_CLASSES)]


def test_a_folder_without_pictures_is_no_class(project, tmp_path):
    names = ["all/1.png", "all/words/notes.txt", "all/words/more.txt"]
    found = add_folder(project, in_folders(tmp_path / "up", *names), "cat")
    assert found.classes == {"cat": 1} and [name for name, _ in found.refused] == ["words/notes.txt", "words/more.txt"]
    bad = in_folders(tmp_path / "bad", "all/oak/1.png", "all/elm/2.png")
    bad[0][1].write_text("no picture")
    found = add_folder(project, bad, None)
    assert found.classes == {"elm": 1} and found.refused[0][0] == "oak/1.png"
    assert "oak" not in project.class_folders()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a/train/1.png", "a/test/2.png"], "parts of a collection"),
        (["1.png"], "Add a class first"),
        (["a/1.png"], "Add a class first"),
    ],
)
def test_folders_that_say_no_class_are_refused(project, tmp_path, names, words):
    with pytest.raises(ValueError, match=words):
        add_folder(project, in_folders(tmp_path / "up", *names), None)
    assert counts(project) == {"cat": 3, "dog": 3}


@pytest.mark.parametrize(
    "way", ["..", ".", "", "/etc", "C:", "\\x", "a\0b", "\ud800", "\n", "x" * 5000, "- -", "x" * 101]
)
def test_folders_that_lead_elsewhere_are_refused_and_nothing_is_written_outside(project, tmp_path, way):
    outside = sorted(tmp_path.iterdir())
    names = [f"all/{way}/1.png", f"all/oak/{way}/2.png", f"{way}/oak/3.png", "all/elm/4.png"]
    found = add_folder(project, in_folders(tmp_path / "up", *names), "cat")
    assert "elm" in counts(project) or "all" in counts(project)
    assert len(found.added) + len(found.refused) == 4
    assert all(project.path(picture).is_file() for picture in found.added)
    assert sorted(tmp_path.iterdir()) == sorted([*outside, tmp_path / "up"])


def test_a_folder_of_many_classes_looks_through_the_project_once(project, tmp_path, monkeypatch):
    walked, walk = [], project_folder.walk
    monkeypatch.setattr(project_folder, "walk", lambda folder, *a, **b: walked.append(folder) or walk(folder, *a, **b))
    found = add_folder(
        project, in_folders(tmp_path / "up", *(f"all/c{n}/{m}.png" for n in range(9) for m in (0, 1))), None
    )
    assert len(found.classes) == 9 and len(found.added) == 18
    assert walked.count(project.pictures) == 1 and walked.count(project.removed) == 1


def test_a_project_is_full_also_in_the_middle_of_a_folder(project, tmp_path, monkeypatch):
    monkeypatch.setattr(intake, "MOST_PICTURES", 11)
    found = add_folder(project, in_folders(tmp_path / "up", *(f"all/{n}/{m}.png" for n in "ab" for m in (0, 1))), None)
    assert found.classes == {"a": 2, "b": 1} and found.refused == [("b/1.png", intake.FULL)]


@pytest.mark.parametrize("depth", [30, 1900])
def test_folders_that_lie_too_deep_are_refused_and_the_others_taken(project, tmp_path, depth):
    names = [f"all/oak/{'a/' * depth}1.png", "all/oak/2.png", f"all/oak/{'b/' * 15}3.png"]
    found = add_folder(project, in_folders(tmp_path / "up", *names), None)
    assert found.classes == {"oak": 2} and found.refused == [("1.png", folder_intake.TOO_DEEP)]
    assert counts(project)["oak"] == 2


def test_a_file_that_goes_while_it_is_taken_in_is_refused_and_the_others_taken(project, tmp_path, monkeypatch):
    def find(contents, path):
        if path.suffix == ".png" and not contents.found:
            contents.found = True
            path.unlink()
        return staged_find(contents, path)

    staged_find = staging.Contents.find
    monkeypatch.setattr(staging.Contents, "found", False, raising=False)
    monkeypatch.setattr(staging.Contents, "find", find)
    files = [(f"n{n}.png", write_picture(tmp_path / f"n{n}.png", 60 + n)) for n in range(2)]
    found = add_pictures(project, files, "cat")
    assert found.added == ["pictures/cat/n1.png"] and found.refused[0][0] == "n0.png"


# --- classes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["cat", "Cat", "CAT", " cat ", "ca\u200bt", "Kätzchen", unicodedata.normalize("NFD", "kätzchen")]
)
def test_a_class_that_is_there_is_not_made_again(project, name):
    project.add_class("kätzchen")
    with pytest.raises(ValueError, match="There is a class"):
        project.add_class(name)
    with pytest.raises(ValueError, match="There is a class"):
        project.rename_class("dog", name)
    with pytest.raises(ValueError, match="There is a class"):
        project.set_prompt_name("dog", name)
    assert project.class_folders() == ["cat", "dog", "kätzchen"]


def test_a_class_that_is_made_for_pictures_goes_again_where_none_came(project):
    with project.class_of(" CAT ") as folder:
        assert folder == "cat"
    with pytest.raises(OSError, match="the disk is full"), project.class_of("AC/DC"):
        assert project.prompt_names()["AC_DC"] == "AC/DC"
        raise OSError("the disk is full")
    with project.class_of("bird") as folder:  # another tab renames it meanwhile
        project.rename_class(folder, "tit")
    with project.class_of("owl") as folder:
        shutil.copyfile(project.path(project.classes()[0].pictures[0]), project.pictures / folder / "1.png")
    assert project.class_folders() == ["cat", "dog", "owl", "tit"] and "AC_DC" not in project.prompt_names()


@pytest.mark.parametrize("name", ["", "   ", "_", "...", "\0", "\u200b\u202e", "x" * 101, None, 3, "/", "..", "- -"])
def test_a_name_that_is_none_is_refused(project, name):
    for change in (
        project.add_class,
        lambda name: project.rename_class("dog", name),
        lambda name: project.class_of(name).__enter__(),
    ):
        with pytest.raises(ValueError, match="needs a name|may have 100"):
            change(name)
    assert project.class_folders() == ["cat", "dog"]


@pytest.mark.parametrize(
    ("name", "folder", "said"),
    [
        ("black cat", "black cat", "black cat"),
        ("AC/DC", "AC_DC", "AC/DC"),
        ("../../up", "_.._up", "../../up"),
        ("CON", "_CON", "CON"),
        ("what?", "what_", "what?"),
        ("a\u202eb", "ab", "ab"),
        ('say "miau", please', "say _miau_, please", 'say "miau", please'),
        ("👩‍🔬", "👩‍🔬", "👩‍🔬"),
        ("猫", "猫", "猫"),
        (".net", "net", ".net"),
    ],
)
def test_a_name_that_is_no_folders_name_is_kept_for_prompts(project, name, folder, said):
    made = project.add_class(name)
    assert (project.pictures / made).is_dir() and (project.pictures / made).parent == project.pictures
    assert project.prompt_names()[made] == said
    assert made == folder
    project.rename_class(made, "bird")
    assert project.prompt_names() == {"bird": "bird", "cat": "cat", "dog": "dog"}
    assert not (project.folder / NAMES_FILE).exists()


def test_renaming_moves_the_folder_what_was_taken_out_and_the_better_name(project):
    remove_pictures(project, ["pictures/cat/0.png"])
    project.set_prompt_name("cat", "domestic cat, asleep")
    assert project.rename_class("cat", "felis") == "felis"
    assert project.prompt_names() == {"dog": "dog", "felis": "domestic cat, asleep"}
    assert (project.folder / NAMES_FILE).read_text() == 'felis,"domestic cat, asleep"\n'
    assert put_back(project, ["removed/felis/0.png"]) == {"removed/felis/0.png": "pictures/felis/0.png"}
    assert project.rename_class("felis", "Felis") == "Felis"  # capitals alone
    project.set_prompt_name("Felis", None)
    assert project.prompt_names() == {"dog": "dog", "Felis": "Felis"} and not (project.folder / NAMES_FILE).exists()


def test_a_list_of_names_that_somebody_has_spoiled_is_not_overwritten(project):
    (project.folder / NAMES_FILE).write_text("cow,beautiful cow\n")
    assert project.prompt_names() == {"cat": "cat", "dog": "dog"}
    for change in (lambda: project.set_prompt_name("cat", "tabby"), lambda: project.rename_class("cat", "tabby")):
        with pytest.raises(ValueError, match=r"class_names.csv, line 1"):
            change()
    assert (project.folder / NAMES_FILE).read_text() == "cow,beautiful cow\n" and (project.pictures / "cat").is_dir()


def test_a_class_with_pictures_is_not_taken_away(project):
    with pytest.raises(ValueError, match="has pictures"):
        project.remove_class("cat")
    remove_pictures(project, project.classes()[0].pictures)
    (project.pictures / "cat" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        project.remove_class("cat")
    (project.pictures / "cat" / "notes.txt").rename(project.pictures / "cat" / ".picasa.ini")
    with pytest.raises(ValueError, match=r"\(.picasa.ini\): move them away first. Those .* are hidden"):
        project.remove_class("cat")
    (project.pictures / "cat" / ".picasa.ini").unlink()
    (project.pictures / "cat" / ".DS_Store").write_bytes(b"")  # what systems leave everywhere keeps no class
    (project.pictures / "cat" / "scene").mkdir()
    project.remove_class("cat")
    assert project.class_folders() == ["dog"]
    assert put_back(project, ["removed/cat/0.png"]) == {"removed/cat/0.png": "pictures/cat/0.png"}


# --- pictures move ------------------------------------------------------------------------------------------------


def test_pictures_move_are_taken_out_and_come_back_and_none_is_overwritten(project, tmp_path):
    before = all_contents(project)
    write_picture(project.pictures / "cat" / "scene" / "0.png", 90)
    write_picture(project.pictures / "dog" / "0.png", 91)
    before += Counter(p.read_bytes() for p in (project.pictures / "cat/scene/0.png", project.pictures / "dog/0.png"))
    moved = move_pictures(project, ["pictures/cat/0.png", "pictures/cat/scene/0.png", "unlabelled/6.png"], "dog")
    assert moved == {
        "pictures/cat/0.png": "pictures/dog/0-2.png",
        "pictures/cat/scene/0.png": "pictures/dog/scene/0.png",  # its group stays one
        "unlabelled/6.png": "pictures/dog/6.png",
    }
    assert not (project.pictures / "cat" / "scene").exists()
    out = remove_pictures(project, ["pictures/dog/0.png", "pictures/dog/0.png", "unlabelled/7.png"])
    assert out == {"pictures/dog/0.png": "removed/dog/0.png", "unlabelled/7.png": "removed/7.png"}
    write_picture(project.pictures / "dog" / "0.png", 92)
    assert put_back(project, out.values()) == {
        "removed/dog/0.png": "pictures/dog/0-3.png",
        "removed/7.png": "unlabelled/7.png",
    }
    assert move_pictures(project, ["pictures/dog/6.png"], "dog") == {"pictures/dog/6.png": "pictures/dog/6.png"}
    assert move_pictures(project, ["pictures/dog/6.png"], None) == {"pictures/dog/6.png": "unlabelled/6.png"}
    assert all_contents(project) == before + Counter([(project.pictures / "dog" / "0.png").read_bytes()])
    with pytest.raises(ValueError, match="not there any more"):
        remove_pictures(project, ["pictures/cat/0.png"])


def test_classes_are_put_together(project):
    before = all_contents(project)
    merge_classes(project, "cat", "dog")
    assert project.class_folders() == ["dog"] and len(project.classes()[0].pictures) == 6
    assert all_contents(project) == before


def test_a_class_is_taken_out_with_its_pictures_and_comes_back_with_them(project):
    before = all_contents(project)
    take_class_out(project, "cat")
    assert project.class_folders() == ["dog"] and all_contents(project) == before
    put_back(project, project.removed_pictures())
    assert [len(one.pictures) for one in project.classes()] == [3, 3] and all_contents(project) == before


@pytest.mark.parametrize("act", [take_class_out, lambda project, name: merge_classes(project, name, "dog")])
def test_nothing_is_moved_out_of_a_class_that_cannot_go(project, act):
    before = project.classes()
    (project.pictures / "cat" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds other files \(notes.txt\)"):
        act(project, "cat")
    with pytest.raises(ValueError, match="no class"):
        act(project, "cow")
    assert project.classes() == before


def test_classes_put_together_need_both(project):
    for name, into in (("cat", "cow"), ("cow", "cat")):
        with pytest.raises(ValueError, match="no class 'cow'"):
            merge_classes(project, name, into)
    merge_classes(project, "cat", "cat")
    assert [len(one.pictures) for one in project.classes()] == [3, 3]


@pytest.mark.parametrize("act", [merge_classes, lambda project, *names: project.rename_class(*names)])
def test_what_was_taken_out_follows_its_class_beside_what_lies_there(project, act):
    project.add_class("bird")
    remove_pictures(project, ["pictures/cat/0.png", "pictures/cat/1.png"])
    write_picture(project.removed / "bird" / "0.png", 95)  # of a class of that name
    before = all_contents(project)
    if act is not merge_classes:
        project.remove_class("bird")
    act(project, "cat", "bird")
    assert {*project.removed_pictures()} == {f"removed/bird/{name}.png" for name in ("0", "0-2", "1")}
    put_back(project, project.removed_pictures())
    assert project.class_folders() == ["bird", "dog"] and all_contents(project) == before


def test_a_link_beside_what_was_taken_out_is_not_followed(project, tmp_path):
    remove_pictures(project, ["pictures/cat/0.png"])
    (tmp_path / "elsewhere").mkdir()
    (project.removed / "dog").symlink_to(tmp_path / "elsewhere")
    merge_classes(project, "cat", "dog")
    assert not list((tmp_path / "elsewhere").iterdir()) and (project.removed / "cat" / "0.png").is_file()


def test_pictures_come_back_into_the_class_that_has_their_name_now(project):
    remove_pictures(project, ["pictures/cat/0.png"])
    project.rename_class("cat", "Cat")
    (project.removed / "Cat").rename(project.removed / "cat")
    assert put_back(project, ["removed/cat/0.png"]) == {"removed/cat/0.png": "pictures/Cat/0.png"}


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "move", "remove", "back", "class", "rename", "say", "drop"]),
        st.integers(0, 50),
        st.sampled_from(ODD_NAMES) | st.text(max_size=20),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_whatever_is_done_no_picture_is_lost_or_doubled_and_nothing_else_is_touched(tmp_path_factory, actions):
    root = tmp_path_factory.mktemp("any")
    project = Project.create(root / "work")
    expected, seed = Counter(), 0
    for name in ("one", "two"):
        project.add_class(name)
    for action, number, text in actions:
        classes = [*project.class_folders(), None]
        place = classes[number % len(classes)]
        pictures = [p for one in project.classes() for p in one.pictures] + project.unlabelled_pictures()
        picture = pictures[number % len(pictures)] if pictures else "pictures/none"
        removed = project.removed_pictures()
        try:
            if action == "add":
                seed += 1
                file = write_picture(root / "upload", seed)
                if add_pictures(project, [(text, file)], place).added:
                    expected[file.read_bytes()] += 1
                file.unlink()
            elif action == "move":
                move_pictures(project, [picture], place)
            elif action == "remove":
                remove_pictures(project, [picture])
            elif action == "back":
                put_back(project, removed[:1])
            elif action == "class":
                project.add_class(text)
            elif action == "rename":
                project.rename_class(place or "", text)
            elif action == "say":
                project.set_prompt_name(place or "", text)
            else:
                project.remove_class(place or "")
        except ValueError:
            pass
        assert all_contents(project) == expected
        assert os.listdir(root) == ["work"]
        said = [unicodedata.normalize("NFC", name).lower() for name in project.prompt_names().values()]
        assert len(set(said)) == len(said)
    again = Project.open(project.folder)
    assert again.prompt_names() == project.prompt_names()


def hammer(folder, seed):
    """What a tab does that somebody clicks around in."""
    project, rng = Project.open(folder), np.random.default_rng(seed)
    for step in range(60):
        classes = project.class_folders()
        pictures = [picture for one in project.classes() for picture in one.pictures]
        try:
            kind = rng.integers(5)
            if kind == 0 and pictures:
                move_pictures(project, [str(rng.choice(pictures))], str(rng.choice(classes)))
            elif kind == 1 and pictures:
                remove_pictures(project, [str(rng.choice(pictures))])
            elif kind == 2:
                put_back(project, project.removed_pictures()[:2])
            elif kind == 3:
                project.rename_class(str(rng.choice(classes)), f"class {rng.integers(3)}")
            else:
                file = write_picture(folder.parent / f"from-{seed}.png", 10_000 * seed + step)
                found = add_pictures(project, [("one name.png", file)], str(rng.choice(classes)))
                assert all("no class" in reason for _, reason in found.refused)
        except ValueError as error:  # another was quicker
            assert any(words in str(error) for words in ("any more", "There is a class"))


@pytest.mark.parametrize("how", ["threads", "processes"])
def test_two_at_once_lose_no_picture_and_double_none(project, how, monkeypatch):
    def slowly(source, target):
        time.sleep(0.002)
        place(source, target)

    place = moving.place
    monkeypatch.setattr(moving, "place", slowly)
    before = sum(all_contents(project).values())
    if how == "threads":
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(hammer, [project.folder] * 2, (1, 2)))
    else:
        context = get_context("fork")
        processes = [context.Process(target=hammer, args=(project.folder, seed)) for seed in (1, 2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0, 0]
    found = all_contents(project)
    assert set(found.values()) == {1} and len(found) > before
    originals = [path for path in (project.folder.parent / "from").iterdir()]
    assert {path.read_bytes() for path in originals} <= set(found)
    assert len(project.class_folders()) == 2


def test_somebody_who_takes_too_long_is_named(project, monkeypatch):
    monkeypatch.setattr(project_folder, "PATIENCE", 0.1)
    with project.locked(), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: Project.open(project.folder).add_class("bird"))
        with pytest.raises(TimeoutError, match="Try again"):
            waiting.result()
