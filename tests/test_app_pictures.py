"""The tab of pictures, without a browser: what is listed can be reached, and a click means what was clicked."""

import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from peft_mmrl.projects.intake import remove_pictures, take_class_out
from peft_mmrl.projects.project import Project


gr = pytest.importorskip("gradio", reason='needs the extra "app": pip install "peft_mmrl[app]"')


@pytest.fixture
def project(tmp_path):
    found = Project.create(tmp_path / "work")
    for name, number in (("oak", 3), ("elm", 2)):
        found.add_class(name)
        for seed in range(number):
            pixels = np.random.default_rng(seed + 10 * number).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(found.pictures / name / f"{seed}.png")
    return found


@pytest.fixture
def tab(project):
    from peft_mmrl.app.desk import Desk
    from peft_mmrl.app.figure import Figure
    from peft_mmrl.app.pictures_tab import PicturesTab

    desk = Desk(project)
    with gr.Blocks():
        return PicturesTab(desk, Figure(desk))


def test_a_click_on_a_list_that_is_shown_no_more_marks_nothing(project, tab):
    def click(shown, name, *marked):
        return tab.marking._mark(shown, SimpleNamespace(shown=name, marked=list(marked)))

    pictures = [f"pictures/oak/{number}.png" for number in range(3)]
    seen, _, gallery, _ = tab.marking.show(pictures[1:])
    name = re.search('data-shown="(.+?)"', gallery["value"])[1]
    assert click(seen, name, 0)[0] == [pictures[1]]
    now, *_ = tab.marking.show(pictures)  # a picture came before it
    assert click(now, name, 0) == gr.skip() == click(now, None, 0)


def test_faults_of_the_same_words_and_many_faults_can_be_reached(project, tab, monkeypatch):
    from peft_mmrl.app import faults_panel

    for number in range(2):
        shutil.copy(project.pictures / "oak" / f"{number}.png", project.pictures / "oak" / f"again {number}.png")
    found = tab.faults._find()
    assert [fault.words for fault in found[:2]] == ["oak has the same file 2 times."] * 2
    choices = tab.faults._list(found)[1]["choices"]
    assert [place for _, place in choices] == list(range(len(found)))
    listed = [tab.faults._show(found, place)[1][1] for _, place in choices[:2]]
    assert listed == [fault.pictures for fault in found[:2]] and listed[0] != listed[1]

    assert tab.faults._list(found)[1]["label"] == f"Worth a look: {len(found)} things"
    monkeypatch.setattr(faults_panel, "MOST_FAULTS", 2)
    assert tab.faults._list(found)[1]["label"] == f"Worth a look: the first 2 of {len(found)}"
    monkeypatch.setattr(faults_panel, "MOST_FAULTY", 1)
    assert "The first 1 of 2 pictures" in tab.faults._show(found, 0)[0]


def test_all_pictures_that_were_taken_out_can_be_reached_and_say_their_class(project, tab, monkeypatch):
    from peft_mmrl.app import pictures_tab

    (project.unlabelled / "loose.png").write_bytes((project.pictures / "oak" / "0.png").read_bytes())
    remove_pictures(project, ["unlabelled/loose.png"])
    project.set_prompt_name("elm", "elm leaf")
    remove_pictures(project, ["pictures/elm/0.png"])
    take_class_out(project, "oak")
    monkeypatch.setattr(pictures_tab, "MOST_THUMBNAILS", 2)
    _, more, shown, *_ = tab._show_removed(2)
    assert more["value"] == "Show all 5" and more["visible"] and len(shown[1]) == 2
    _, more, shown, _, gallery, _ = tab._show_removed(100)
    assert not more["visible"] and sorted(shown[1]) == sorted(project.removed_pictures())
    assert re.findall("<span>(.*?)</span>", gallery["value"]) == ["elm leaf", "", "oak", "oak", "oak"]
