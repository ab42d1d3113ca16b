"""The folder of a run: it owns the files that it lists, and changes nothing before the new ones are whole."""

import errno
import os
import signal
from pathlib import Path

import pytest
from accelerate import PartialState

from peft_mmrl.training.run_folder import RunFolder, read_json, write_json, writing


RUN = {"kind": "training", "seed": 1}


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def finish(folder, files, run=RUN):
    run_folder = RunFolder(folder)
    run_folder.start(run, PartialState())
    with run_folder.finish(run) as new:
        for name, content in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_text(content)


@pytest.fixture
def folder(tmp_path):
    """A finished run with a file of the user's in its folder and one in its sub-folder."""
    folder = tmp_path / "run"
    finish(folder, {"weights": "old", "report/page": "old", "report/deep/curve": "old"})
    (folder / "notes.txt").write_text("mine")
    (folder / "report" / "notes.txt").write_text("mine")
    return folder


def test_a_new_run_replaces_the_files_of_the_last_and_no_others(folder):
    finish(folder, {"weights": "new", "log": "new"}, {**RUN, "seed": 2})
    found = contents(folder)
    assert read_json(folder / "run.json") == {"kind": "training", "seed": 2, "files": ["log", "weights"]}
    found.pop("run.json")
    assert found == {"weights": b"new", "log": b"new", "notes.txt": b"mine", "report/notes.txt": b"mine"}
    assert not (folder / "report" / "deep").exists()


def test_a_list_that_names_files_elsewhere_is_not_believed(folder, tmp_path):
    (tmp_path / "photo.jpg").write_text("mine")
    (folder / "linked").symlink_to(tmp_path)
    names = ["../photo.jpg", str(tmp_path / "photo.jpg"), "linked/photo.jpg", "report/../../photo.jpg", "", ".."]
    write_json(folder / "run.json", {**RUN, "files": names})
    finish(folder, {"log": "new"})
    assert (tmp_path / "photo.jpg").read_text() == "mine"


def stop_with(error):
    def stop(*args, **kwargs):
        raise error

    return stop


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), ValueError()]
)
def test_what_is_there_stays_where_writing_the_new_ends_early(folder, error):
    before = contents(folder)
    run_folder = RunFolder(folder)
    run_folder.start(RUN, PartialState())
    with pytest.raises(type(error)), run_folder.finish({**RUN, "seed": 2}) as new:
        (new / "weights").write_text("half")
        raise error
    assert contents(folder) == before
    assert not (folder / ".unfinished").exists()


@pytest.mark.parametrize("failing", [1, 2, 3, 4, 5])
def test_what_is_there_stays_where_a_file_cannot_be_moved(folder, failing, monkeypatch):
    before = contents(folder)
    moves = []
    replace = Path.replace

    def fail(path, target):
        moves.append(path)
        if len(moves) == failing + 1:  # the first is that of run.json
            raise OSError(errno.EACCES, "Permission denied")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="cannot be written: Permission denied"):
        finish_without_start(folder, {"weights": "new", "report/page": "new", "log": "new"})
    assert contents(folder) == before


def finish_without_start(folder, files):
    with RunFolder(folder).finish({**RUN, "seed": 2}) as new:
        for name, content in files.items():
            (new / name).parent.mkdir(exist_ok=True)
            (new / name).write_text(content)


def test_a_file_that_no_run_wrote_is_not_replaced(folder):
    before = contents(folder)
    with pytest.raises(OSError, match=r"run/notes\.txt is in the way: no run has written it"):
        finish_without_start(folder, {"weights": "new", "notes.txt": "new"})
    assert contents(folder) == before
    with pytest.raises(ValueError, match=r"holds notes\.txt, which no run has written"):
        RunFolder(folder).check("training", overwrite=True, own=["weights", "notes.txt"])


def test_sigterm_waits_for_the_renaming(folder, monkeypatch):
    replace, moves = Path.replace, []

    def interrupted(path, target):
        if not moves:
            os.kill(os.getpid(), signal.SIGINT)
        moves.append(path)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finish_without_start(folder, {"weights": "new"})
    assert (folder / "weights").read_text() == "new"
    assert read_json(folder / "run.json")["files"] == ["weights"]


def test_a_finished_run_stays_as_it_is_while_the_next_one_runs(folder):
    before = contents(folder)
    RunFolder(folder).start({**RUN, "seed": 2}, PartialState())
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("output", "pictures", "message"),
    [
        ("work", "work/photos", "the pictures .*work/photos lies in --output_dir"),
        ("work", "work", "the pictures .* lies in --output_dir"),
        ("work/photos/run1", "work/photos", "--output_dir .*run1 lies in the pictures .*, whose folders are classes"),
        ("work/photos/new/run1", "work/photos", "whose folders are classes"),
        ("link/run1", "work/photos", "whose folders are classes"),
        ("work/photos/../photos/run1", "work/photos", "whose folders are classes"),
    ],
)
def test_pictures_and_runs_do_not_lie_in_each_other(output, pictures, message, tmp_path):
    (tmp_path / "work" / "photos").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "work" / "photos")
    with pytest.raises(ValueError, match=message):
        RunFolder(tmp_path / output).check_inputs({"the pictures": tmp_path / pictures})


def test_a_run_beside_the_pictures_is_fine(tmp_path):
    (tmp_path / "photos").mkdir()
    RunFolder(tmp_path / "photos2").check_inputs({"the pictures": tmp_path / "photos", "--eval_dir": None})


def test_other_inputs_may_lie_around_a_run_but_not_in_it(tmp_path):
    (tmp_path / "adapter").mkdir()
    RunFolder(tmp_path / "adapter" / "evaluation").check_inputs(others={"the adapter": tmp_path / "adapter"})
    RunFolder(tmp_path / "adapter").check_inputs(others={"--base_model": "openai/clip", "--class_names": None})
    (tmp_path / "adapter" / "names.csv").touch()
    with pytest.raises(ValueError, match=r"--class_names .*names\.csv lies in --output_dir"):
        RunFolder(tmp_path / "adapter").check_inputs(others={"--class_names": tmp_path / "adapter" / "names.csv"})


def test_json_is_whole_or_as_before(tmp_path, monkeypatch):
    path = tmp_path / "état.json"
    write_json(path, {"class": "café"})
    monkeypatch.setattr(Path, "write_text", stop_with(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match=r"état\.json cannot be written: No space left on device"):
        write_json(path, {"class": "other"})
    assert read_json(path) == {"class": "café"}
    assert [file.name for file in tmp_path.iterdir()] == ["état.json"]


def test_what_libraries_raise_where_they_cannot_write_names_the_file(tmp_path):
    with (
        pytest.raises(OSError, match=r"weights\.safetensors cannot be written: .*enforce fail"),
        writing(tmp_path / "weights.safetensors"),
    ):
        raise RuntimeError("enforce fail at inline_container.cc")
