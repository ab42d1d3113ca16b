"""`peft-mmrl app`: what it refuses, what it opens, and that closing it loses nothing."""

import shutil
import sys
from types import SimpleNamespace

import pytest
from conftest import DEMO_CLIP

from peft_mmrl.commands import app


@pytest.fixture
def served(monkeypatch):
    """What would have been served; nothing is."""
    found = []

    def serve(project, **options):
        found.append((project, options))
        return SimpleNamespace(local_url="http://127.0.0.1:7860/", share_url=None, block_thread=lambda: None)

    monkeypatch.setattr(app, "serve", serve)
    monkeypatch.setattr(app, "from_extra", lambda name: None)
    return found


def start(*arguments):
    app.main(app.parse_args([*map(str, arguments), "--base_model", str(DEMO_CLIP)]))


def test_a_new_project_is_made_and_opened_again(served, tmp_path, capsys):
    start(tmp_path / "leaves", "--no_browser")
    start(tmp_path / "leaves")
    (first, options), (second, _) = served
    assert first.folder == second.folder == tmp_path / "leaves"
    assert (tmp_path / "leaves" / "project.json").is_file()
    assert options == {"host": "127.0.0.1", "port": None, "share": False, "password": None, "open_browser": False}
    assert "The page is http://127.0.0.1:7860/" in capsys.readouterr().out


def test_a_folder_of_class_folders_stays_as_it_is(served, digit_folders, tmp_path):

    shutil.copytree(digit_folders / "train", tmp_path / "digits")
    before = sorted(path.relative_to(tmp_path) for path in (tmp_path / "digits").rglob("*"))
    start(tmp_path / "digits")
    ((project, _),) = served
    assert project.folder == tmp_path / "digits-project"
    assert sum(len(one.pictures) for one in project.classes()) > 0
    assert sorted(path.relative_to(tmp_path) for path in (tmp_path / "digits").rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 lets others see"),
        (["--share"], "--share lets others see"),
        (["--share", "--password", "short"], "--password must have 8"),
        (["--port", "0"], "--port"),
    ],
)
def test_what_is_not_safe_is_refused_before_anything_is_made(served, tmp_path, options, said):
    with pytest.raises(SystemExit) as stopped:
        start(tmp_path / "leaves", *options)
    assert said in str(stopped.value)
    assert not (tmp_path / "leaves").exists() and served == []


def test_without_gradio_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SystemExit) as stopped:
        start(tmp_path / "leaves")
    assert 'pip install "peft_mmrl[app]"' in str(stopped.value)
    assert not (tmp_path / "leaves").exists()
