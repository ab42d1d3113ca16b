"""The page's last tab: files that can be saved, and uploading, against a stand-in for the Hub."""

import html
import os
import re
import shutil
import subprocess
import sys

import huggingface_hub
import pytest
from conftest import DEMO_CLIP
from digits import CLASS_NAMES, load_digits
from hub_server import HubServer, use_hub

import peft_mmrl
from peft_mmrl.hub import upload
from peft_mmrl.projects.project import Project


gr = pytest.importorskip("gradio", reason='needs the extra "app": pip install "peft_mmrl[app]"')
PUBLISHED = [
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "confidence.json",
    "decision.safetensors",
    "pictures/per_class.png",
    "pictures/reliability.png",
]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with a training of one step, and things in its folder that are nobody's business."""
    project = Project.open(tmp_path_factory.mktemp("somewhere") / "project", DEMO_CLIP)
    part = load_digits()["train"]
    for digit in range(2):
        project.add_class(CLASS_NAMES[digit])
        rows = [row for row, label in enumerate(part["label"]) if label == digit][:8]
        for row in rows:
            part[row]["image"].save(project.pictures / CLASS_NAMES[digit] / f"grandmother {row}.png")
    folder = project.adapters / "run-1"
    peft_mmrl.fit(project.pictures, str(DEMO_CLIP), folder, epochs=1, folds=2, cached_views=0)
    shutil.copy(next(project.pictures.glob("*/*.png")), folder / "picture.png")
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "adapter_model.safetensors").write_bytes(b"of a training that goes on")
    return project


@pytest.fixture
def tab(project):
    from peft_mmrl.app.desk import Desk
    from peft_mmrl.app.take_away_tab import TakeAwayTab

    with gr.Blocks(analytics_enabled=False):
        return TakeAwayTab(Desk(project))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr(upload, "WAITS", (0, 0))
    with HubServer() as server:
        use_hub(monkeypatch, server.url, tmp_path / "cache")
        yield server


@pytest.fixture
def logged_out(monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))


def told(call, *given):
    """What the page says instead of an answer."""
    from peft_mmrl.app.desk import told

    with pytest.warns(UserWarning) as said:  # so Gradio tells it outside of requests
        told(call)(*given)
    return html.unescape(str(said[0].message))


def words_of(shown):
    return re.sub("<[^>]*>", "", shown)


def test_an_upload_is_private_unless_asked_otherwise(hub, tab):
    assert tab.private.value is True
    said = tab._push(None, " me/pets ", tab.private.value)
    assert hub.private == {"me/pets"} and words_of(said) == "It is uploaded to me/pets, and private."
    assert f'href="{hub.url}/me/pets"' in said
    said = tab._push("run-1", "plants", False)
    assert hub.private == {"me/pets"} and words_of(said) == "It is uploaded to me/plants, and public."


def test_a_repository_stays_as_private_as_it_was_and_the_page_says_so(hub, tab):
    tab._push(None, "me/pets", True)
    assert "still private" in tab._push(None, "me/pets", False) and "me/pets" in hub.private
    tab._push(None, "me/plants", False)
    assert "me/plants is public already: make it private on the Hub" in told(tab._push, None, "me/plants", True)


def test_nothing_is_uploaded_but_what_the_page_says(hub, tab, project):
    from peft_mmrl.app.take_away_tab import PUBLIC

    assert "names of your classes, how many pictures each has" in PUBLIC
    assert "Your pictures and the report stay here" in PUBLIC
    tab._push(None, "me/pets", False)
    files = hub.files("me/pets")
    assert sorted(files) == PUBLISHED
    pictures = [path.read_bytes() for path in project.pictures.glob("*/*.png")]
    for name, content in files.items():
        assert content not in pictures
        for secret in (b"grandmother", os.fsencode(project.folder.parent), os.fsencode(DEMO_CLIP)):
            assert secret not in content, name
    card = files["README.md"].decode()
    assert "| `zero` | 8 |" in card and "thumbnail" not in card and "data:image" not in card


@pytest.mark.parametrize(
    "name, said",
    [
        ("", "like my-name/leaves"),
        ("my pets", "like my-name/leaves"),
        ("a/b/c", "like my-name/leaves"),
        ("../pets", "like my-name/leaves"),
        ("you/pets", "must be your name on the Hub"),
    ],
)
def test_a_name_that_cannot_be_used_is_said_in_words(hub, tab, name, said):
    words = told(tab._push, None, name, True)
    assert said in words and "repo_id" not in words
    assert not hub.branches


def test_a_token_that_the_hub_does_not_take_is_said_in_words(hub, tab, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "expired")
    assert "does not accept the access token. Run `hf auth login` again" in told(tab._push, None, "me/pets", True)
    monkeypatch.setenv("HF_TOKEN", "reader")
    assert "the token must have write access" in told(tab._push, None, "reader/pets", True)
    assert not hub.branches


def test_whoever_is_not_logged_in_is_told_what_to_do_once(hub, tab, logged_out, monkeypatch):
    def log_in_is_shown():
        return dict(zip(tab.outputs, tab.show(None), strict=True))[tab.log_in]["visible"]

    assert log_in_is_shown() and "hf auth login" in tab.log_in.value and "Access Tokens" in tab.log_in.value
    assert "type hf auth login in a terminal" in told(tab._push, None, "me/pets", True)
    assert not hub.branches
    monkeypatch.setenv("HF_TOKEN", "me")
    assert not log_in_is_shown()


@pytest.mark.parametrize("offline", [False, True])
def test_a_hub_that_cannot_be_reached_is_said_in_words(tab, monkeypatch, tmp_path, offline):
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path)  # nobody listens there
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(upload, "WAITS", (0, 0))
    assert "the Hub cannot be reached" in told(tab._push, None, "me/pets", True)


def test_the_newest_training_is_taken_unless_another_one_is_chosen(tab, project):
    shown = dict(zip(tab.outputs, tab.show(None), strict=True))[tab.which]
    assert dict(shown["choices"]) == {"The newest training (run-1)": shown["value"]}
    newer = shutil.copytree(project.adapters / "run-1", project.adapters / "run-2")
    try:
        os.utime(newer / "run.json")
        assert tab._run(shown["value"]).name == "run-2" and tab._run("run-1").name == "run-1"
        again = dict(zip(tab.outputs, tab.show(shown["value"]), strict=True))[tab.which]
        assert again["value"] == shown["value"] and "The newest training (run-2)" in dict(again["choices"])
    finally:
        shutil.rmtree(newer)
    assert "not there any more" in told(tab._run, "run-2")


def test_a_file_is_made_where_the_page_shows_it_and_says_how_large_it_is(tab, project):
    made = tab._maker("adapter")(None)
    assert re.fullmatch(r"Save it \(run-1, \d\.\d MB\)", made["label"])
    assert made["value"] == str(project.folder / f".cache/shown/files/{os.getpid()}/project-run-1-adapter.zip")
    assert os.path.isfile(made["value"])


def test_files_of_pages_that_were_closed_are_removed_and_those_of_others_stay(tmp_path):
    from peft_mmrl.app.places import TO_SAVE, UPLOADS, prepare_places

    project = Project.open(tmp_path / "project", DEMO_CLIP)
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        for place in (UPLOADS, TO_SAVE):
            for name in (str(other.pid), str(os.getpid()), "1" + "0" * 30, "-1", "name"):
                (project.folder / place / name).mkdir(parents=True)
                (project.folder / place / name / "large.zip").write_text("content")
            (project.folder / place / "loose.zip").write_text("content")  # of an older version
            os.utime(project.folder / place / str(os.getpid()), (1, 1))  # of a process that had the same number
        prepare_places(project)
        for place in (UPLOADS, TO_SAVE):
            left = {
                path.relative_to(project.folder / place).as_posix() for path in (project.folder / place).rglob("*")
            }
            assert left == {str(other.pid), f"{other.pid}/large.zip", str(os.getpid())}
    finally:
        other.communicate()
