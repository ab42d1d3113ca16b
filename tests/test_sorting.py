"""`predict --sort_into`: every picture where its answer says, nothing replaced, and the same when it is repeated."""

import csv
import io
import shutil
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest
from conftest import DEMO_CLIP, scramble
from hypothesis import given
from hypothesis import strategies as st
from peft import get_peft_model
from transformers import CLIPModel, CLIPProcessor

from peft_mmrl import MMRLConfig
from peft_mmrl.commands.predict import main, parse_args
from peft_mmrl.scoring.answers import Answer, SetAnswer
from peft_mmrl.scoring.file_names import folder_names, key_of_name, numbered, safe_name
from peft_mmrl.scoring.sorting import DOUBTFUL, NotSortedError, Sorter


CAT = [("cat", 0.9)]


@pytest.fixture
def photos(tmp_path):
    """`a/1.png` and `b/1.png` of one name, two more, and one that cannot be read."""
    for number, name in enumerate(["a/1.png", "b/1.png", "b/2.png", "c.png"]):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(path)
    (tmp_path / "photos" / "broken.png").write_bytes(b"")
    return tmp_path / "photos"


@pytest.fixture
def answers(photos):
    return [
        Answer(str(photos / "a/1.png"), CAT),
        Answer(str(photos / "b/1.png"), CAT),
        Answer(str(photos / "b/2.png"), [("dog", 0.4)], is_none=True),
        Answer(str(photos / "broken.png"), error="the file is empty"),
        SetAnswer(str(photos / "c.png"), [("dog", 0.5), ("cat", 0.4)]),
    ]


def sort(folder, answers, classes=("cat", "dog"), link=False):
    sorter = Sorter(folder)
    assert list(sorter.sort(answers, classes, link)) == list(answers)
    return sorter


def content(folder):
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def table(folder):
    with open(folder / "sorted.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_pictures_go_where_their_answers_say(photos, answers, tmp_path):
    before = content(photos)
    sorter = sort(tmp_path / "out", answers)
    found = content(tmp_path / "out")
    rows = {Path(row["path"]).relative_to(photos).as_posix(): row for row in table(tmp_path / "out")}
    assert {name: row["sorted_to"] for name, row in rows.items()} == {
        "a/1.png": "cat/1.png", "b/1.png": "cat/1-2.png", "b/2.png": f"{DOUBTFUL}/2.png", "broken.png": "",
        "c.png": f"{DOUBTFUL}/c.png",
    }  # fmt: skip
    assert set(found) == {row["sorted_to"] or "sorted.csv" for row in rows.values()}
    assert all(found[row["sorted_to"]] == before[name] for name, row in rows.items() if row["sorted_to"])
    assert rows["broken.png"]["error"] == "the file is empty" and rows["broken.png"]["label"] == ""
    assert (rows["b/2.png"]["label"], rows["c.png"]["label"]) == ("none of these", "dog or cat")
    assert content(photos) == before
    assert sorter.describe()[0].startswith("4 pictures are sorted into") and "2 of them" in sorter.describe()[0]
    assert "1 pictures cannot be read" in sorter.describe()[1]


@pytest.mark.parametrize("link", [False, True])
def test_a_second_run_changes_nothing_and_says_so_and_new_pictures_are_added(photos, answers, tmp_path, link):
    sort(tmp_path / "out", answers, link=link)
    before = content(tmp_path / "out")
    assert (tmp_path / "out" / "cat" / "1.png").is_symlink() is link
    again = sort(tmp_path / "out", answers, link=link)
    assert content(tmp_path / "out") == before
    assert again.describe()[0].startswith("nothing is new") and "5 pictures are known" in again.describe()[1]
    shutil.copyfile(photos / "c.png", photos / "a" / "c.png")
    more = sort(tmp_path / "out", [*answers, Answer(str(photos / "a/c.png"), CAT)], link=link)
    after = content(tmp_path / "out")
    assert set(after) - set(before) == {"cat/c.png"}
    assert more.describe()[0].startswith("1 pictures are sorted")


def test_what_a_person_has_moved_or_changed_stays(photos, answers, tmp_path):
    out = tmp_path / "out"
    sort(out, answers)
    (out / "dog").mkdir()
    (out / DOUBTFUL / "c.png").rename(out / "dog" / "c.png")
    (out / "cat" / "1.png").write_bytes(b"mine")
    before = content(out)
    answers[4] = Answer(answers[4].path, [("dog", 0.9)])
    again = sort(out, answers)
    assert content(out) == before
    assert "1 of these have another answer now" in again.describe()[-1]


def test_another_picture_in_the_place_of_one_is_a_new_one(photos, answers, tmp_path):
    sort(tmp_path / "out", answers)
    before = content(tmp_path / "out")
    PIL.Image.new("RGB", (8, 8), "green").save(photos / "broken.png")  # and it can be read now
    PIL.Image.new("RGB", (8, 8), "blue").save(photos / "a" / "1.png")
    answers[3] = Answer(str(photos / "broken.png"), CAT)
    sort(tmp_path / "out", answers)
    after = content(tmp_path / "out")
    assert set(after) - set(before) == {"cat/broken.png", "cat/1-3.png"}
    assert before.items() - {("sorted.csv", before["sorted.csv"])} <= after.items()


def test_an_interrupted_run_is_gone_on_with(photos, answers, tmp_path):
    sort(tmp_path / "whole", answers)
    sorter = Sorter(tmp_path / "out")
    running = sorter.sort(answers, ["cat", "dog"])
    next(running), next(running)
    shutil.copytree(tmp_path / "out", tmp_path / "killed")  # its table has no rows yet
    with pytest.raises(KeyboardInterrupt):
        running.throw(KeyboardInterrupt)
    assert len(table(tmp_path / "out")) == 2
    for folder in ("out", "killed"):
        sort(tmp_path / folder, answers)
        assert content(tmp_path / folder) == content(tmp_path / "whole")


def test_a_full_disk_leaves_no_part_of_a_picture(photos, answers, tmp_path, monkeypatch):
    def fail(source, target):
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copy2", fail)
        with pytest.raises(NotSortedError, match="cat.*1.png cannot be written: No space left"):
            sort(tmp_path / "out", answers)
    sort(tmp_path / "out", answers)
    sort(tmp_path / "whole", answers)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("siamese cat", "siamese cat"),
        ("Größe 大きい क्षि 👩‍👧", "Größe 大きい क्षि 👩‍👧"),
        ("a/b\\c", "a_b_c"),
        ("..", "_"),
        ("../../etc", "_.._etc"),
        (".hidden", "hidden"),
        ("what?", "what_"),
        ("NUL", "_NUL"),
        ("con.jpg", "_con.jpg"),
        ("lpt1 ", "_lpt1"),
        ("com¹", "_com¹"),
        ("console", "console"),
        ("Thumbs.db", "_Thumbs.db"),
        ("a\nb\tc", "a b c"),
        ("end. .", "end"),
        ("evil\u202egnp.exe", "evil_gnp.exe"),
        ("\u200b", "_"),
        ("e\u0301", "é"),
        ("not \udcff Unicode", "not _ Unicode"),
        ("", "_"),
    ],
)
def test_class_names_become_safe_names_of_folders(name, safe):
    assert safe_name(name) == safe


@given(st.lists(st.text(st.characters(), max_size=300), unique=True))
def test_any_names_become_different_folders_inside(names):
    folders = folder_names(names, [DOUBTFUL])
    keys = [key_of_name(folder) for folder in folders.values()]
    assert list(folders) == names and len(set(keys)) == len(keys) and DOUBTFUL not in keys
    for folder in folders.values():
        assert folder == Path(folder).name and len(folder.encode()) < 120 and folder[-1] not in " ."


def test_names_that_some_system_takes_for_one_are_numbered():
    names = ["Cat", "cat", "CAT", "Straße", "STRASSE", "a/b", "a:b", "to check"]
    folders = ["Cat", "cat-2", "CAT-3", "Straße", "STRASSE-2", "a_b", "a_b-2", "to check-2"]
    assert list(folder_names(names, [DOUBTFUL]).values()) == folders


def test_numbered_names_of_files_stay_short_enough():
    names = numbered("x" * 251, ".png")
    assert next(names) == "x" * 251 + ".png"
    assert next(names).endswith("x-2.png") and len(next(names)) < 255


def test_folders_and_foreign_tables_are_refused(photos, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds other things"):
        Sorter(tmp_path / "mine")
    (tmp_path / "mine" / "sorted.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="another table"):
        Sorter(tmp_path / "mine")
    with pytest.raises(ValueError, match="is a file"):
        Sorter(photos / "c.png")
    (tmp_path / "link").symlink_to(photos)
    sorter = Sorter(tmp_path / "out")
    for sorter.folder in (photos, photos / "out", photos.parent, tmp_path / "link" / "out"):
        with pytest.raises(ValueError, match="--sort_into .* lies in .* Choose another folder"):
            sorter.check_apart([photos])


# --- the command -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    model = get_peft_model(CLIPModel.from_pretrained(DEMO_CLIP), MMRLConfig(rep_dim=16))
    model.set_classes(["one", "t/wo"], CLIPProcessor.from_pretrained(DEMO_CLIP))
    scramble(model).save_pretrained(folder)
    return folder


def predict(*arguments):
    output = io.StringIO()
    main(parse_args([str(argument) for argument in arguments]), output)
    return output.getvalue()


def test_the_command_sorts_and_still_answers(adapter, photos, tmp_path, capsys):
    said = predict(adapter, photos, "--sort_into", tmp_path / "out", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(said)))
    placed = {row["path"]: row for row in table(tmp_path / "out")}
    folders = {"one": "one", "t/wo": "t_wo"}
    for row in rows:
        assert placed[row["path"]]["error"] == row["error"]
        assert placed[row["path"]]["sorted_to"].partition("/")[0] == folders.get(row["label"], "")
    before = content(tmp_path / "out")
    assert "4 pictures are sorted into" in capsys.readouterr().err
    predict(adapter, photos, "--sort_into", tmp_path / "out")
    assert "nothing is new" in capsys.readouterr().err
    assert content(tmp_path / "out") == before
    predict(adapter, photos, "--sort_into", tmp_path / "unsure", "--threshold", "1")
    assert {row["sorted_to"].partition("/")[0] for row in table(tmp_path / "unsure")} == {DOUBTFUL, ""}


def test_the_command_refuses_before_anything_is_written(adapter, photos, tmp_path):
    for arguments, words in (
        (["--sort_into", photos / "out"], "lies in"),
        (["--sort_into", adapter], "holds other things"),
        (["--link"], "--link says how"),
    ):
        with pytest.raises(SystemExit, match=words):
            predict(adapter, photos, *arguments)
    assert not (photos / "out").exists()


def test_the_main_process_sorts(adapter, photos, tmp_path):
    predict(adapter, photos, "--sort_into", tmp_path / "one")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "peft_mmrl", "predict"]
    command = [*launch, adapter, photos, "--batch_size", "2", "--sort_into", tmp_path / "two"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("pictures are sorted into") == 1
    one, two = content(tmp_path / "one"), content(tmp_path / "two")
    assert set(one) == set(two)
    assert [row["sorted_to"] for row in table(tmp_path / "one")] == [
        row["sorted_to"] for row in table(tmp_path / "two")
    ]
