"""The Space: a page to try the demo's digits on, that anybody may open and nobody can change."""

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from types import SimpleNamespace

import httpx
import pytest
from conftest import EXAMPLES
from packaging.specifiers import SpecifierSet


pytest.importorskip("gradio", reason='needs the extra "app": pip install "peft_mmrl[app]"')
SPACE = EXAMPLES / "space"


ROOT = EXAMPLES.parent


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """What the README has copied, in a place where nothing else of the clone is near."""
    folder = tmp_path_factory.mktemp("copied")
    (command,) = re.findall(r"^cp -r (.+) my-space/$", (SPACE / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    for pattern in command.split():
        for path in ROOT.glob(pattern):
            if path.is_dir():
                shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def project(copied, tmp_path_factory):
    spec = importlib.util.spec_from_file_location("space_app", copied / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_project(tmp_path_factory.mktemp("space") / "digits")


def test_it_has_one_tab_and_answers_at_once(project):
    from peft_mmrl.app.serving import serve
    from peft_mmrl.projects.workbench import Workbench

    page = serve(project, host="0.0.0.0", read_only=True)  # no password
    try:
        tabs = [block.label for block in page.blocks.values() if block.get_block_name() == "tabitem"]
        assert tabs == ["Try"]
        (figure,) = (block for block in page.blocks.values() if block.elem_id == "figure")
        filled = [call.fn.__name__ for call in page.fns.values() if figure in call.outputs]
        assert "show" in filled  # not only "being looked at"
        report = project.adapters / "run-1" / "report" / "report.html"
        report.parent.mkdir(parents=True)
        report.write_text("with pictures")
        shown = httpx.get(f"http://127.0.0.1:{page.server_port}/gradio_api/file={report}")
        assert shown.status_code == 403
    finally:
        page.close()
    instant = Workbench(project).update()
    assert len(instant.pictures) == 160
    assert instant.accuracy["accuracy"] > instant.zero_shot_accuracy["accuracy"]


def test_what_is_copied_is_all_that_it_needs(copied, project):
    assert project.settings.base_model == str(copied / "demo_clip")
    made = {"app.py", "digits.py", "demo_clip", "peft_mmrl", "README.md", "requirements.txt"}
    assert {path.name for path in copied.iterdir()} == made
    imported = "import peft_mmrl, peft_mmrl.app.serving; print(peft_mmrl.__file__)"
    done = subprocess.run([sys.executable, "-c", imported], cwd=copied, env={}, capture_output=True, text=True)
    assert done.stdout.strip() == str(copied / "peft_mmrl" / "__init__.py"), done.stderr


def test_a_picture_that_is_dropped_while_the_page_loads_is_answered_by_the_training(project, monkeypatch):
    import gradio

    from peft_mmrl.app import try_tab
    from peft_mmrl.app.desk import Desk
    from peft_mmrl.app.figure import Figure
    from peft_mmrl.projects.picture_answers import PictureAnswer

    dropped = project.folder / ".uploads" / "1.png"
    dropped.parent.mkdir(exist_ok=True)
    dropped.touch()
    asked, desk = [], Desk(project, True)
    monkeypatch.setattr(desk.workbench, "answer", lambda path, run: asked.append(run) or PictureAnswer("three"))
    with gradio.Blocks():
        tab = try_tab.TryTab(desk, Figure(desk))
    not_chosen_yet = None
    for runs in ([SimpleNamespace(name="run-2", is_done=True), SimpleNamespace(name="run-1", is_done=True)], []):
        monkeypatch.setattr(try_tab, "finished_runs", lambda _, runs=runs: runs)
        tab._ask(not_chosen_yet, {"path": str(dropped)})
    assert asked == ["run-2", None]


def test_its_header_and_requirements_are_those_of_a_space():
    yaml = pytest.importorskip("yaml")
    header = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert header["sdk"] == "gradio" and header["app_file"] == "app.py"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert header["python_version"] in SpecifierSet(project["requires-python"])  # without it a Space takes 3.10
    assert len(header["short_description"]) <= 60  # or else it is refused
    extra = [one for one in project["optional-dependencies"]["app"] if not one.startswith("peft_mmrl")]  # to take away
    wanted = [*project["dependencies"], *extra]
    assert (SPACE / "requirements.txt").read_text().splitlines()[1:] == wanted
