"""The Space: a page to try the demo's digits on, that anybody may open and nobody can change."""

import importlib.util
import tomllib

import httpx
import pytest
from conftest import EXAMPLES


pytest.importorskip("gradio", reason='needs the extra "app": pip install "peft_mmrl[app]"')
SPACE = EXAMPLES / "space"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("space_app", SPACE / "app.py")
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


def test_its_header_and_requirements_are_those_of_a_space():
    yaml = pytest.importorskip("yaml")
    header = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert header["sdk"] == "gradio" and header["app_file"] == "app.py"
    project = tomllib.loads((EXAMPLES.parent / "pyproject.toml").read_text())["project"]
    extra = [one for one in project["optional-dependencies"]["app"] if not one.startswith("peft_mmrl")]  # to take away
    wanted = [*project["dependencies"], *extra]
    assert (SPACE / "requirements.txt").read_text().splitlines()[1:] == wanted
