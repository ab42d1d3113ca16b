"""Dropped files in a real browser, and the tab of pictures: folders, marks, whole classes, while a training runs."""

import shutil
import threading
from contextlib import suppress

import filelock
import numpy as np
import pytest
from conftest import DEMO_CLIP
from PIL import Image

from peft_mmrl.projects.project import Project
from peft_mmrl.projects.under_training import lock_of


sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="needs a browser: `apt-get install chromium`, or Chrome in the PATH"
)
PATIENCE = 120_000  # milliseconds, on a busy machine


def write_picture(path, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def leaves(tmp_path):
    """A folder of class folders as people have them."""
    folder = tmp_path / "leaves"
    names = [f"oak/{number}.png" for number in range(3)] + ["oak/tree 1/1.png", "elm/1.png", "elm/2.png"]
    for seed, name in enumerate(names):
        write_picture(folder / name, seed)
    for name in (".DS_Store", "oak/.hidden/x.png", "elm/Thumbs.db"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    (folder / "elm" / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def project(tmp_path):
    return Project.open(tmp_path / "work", DEMO_CLIP)


@pytest.fixture
def filled(project, leaves):
    """The project with classes and pictures."""
    for name in ("oak", "elm"):
        shutil.copytree(
            leaves / name, project.pictures / name, ignore=lambda _, names: {*names} & {".hidden", "broken.png"}
        )
    return project


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def faults():
    """What the page reports that went wrong."""
    return []


@pytest.fixture
def page(project, browser, faults):
    """The page of the project, on which nothing may go wrong unseen."""
    from peft_mmrl.app.serving import serve

    served = serve(project)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.on("console", lambda said: said.type == "error" and faults.append(said.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(served.local_url)
    page.locator("#figure").wait_for()
    yield page
    page.close()
    served.close()
    assert faults == []


def see(page, selector, text=None):
    found = page.locator(f"{selector} >> visible=true", has_text=text).first
    found.wait_for()
    return found


def drop(page, selector, *paths, text=None):
    """Drop files or folders as an operating system does, where the page lets it."""
    box = see(page, selector, text).bounding_box()
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + 20}
    devtools = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})
        page.wait_for_timeout(100)


def drag(page, selector, *paths, text=None):
    """Drop files or folders until the page knows of it."""
    page.evaluate(
        "dropped = false; addEventListener('drop', () => { dropped = true; }, { capture: true, once: true })"
    )
    for _ in range(10):  # Chromium lets a drag go where the page is too busy to answer it
        drop(page, selector, *paths, text=text)
        with suppress(sync_api.TimeoutError):
            return page.wait_for_function("dropped", timeout=10_000)
    raise AssertionError("Nothing was dropped.")


def counts(project):
    return {one.name: len(one.pictures) for one in project.classes()}


def test_a_chosen_folder_of_class_folders_becomes_classes(project, page, leaves):
    see(page, "#begin", "Begin here")
    assert not page.locator("#faults").is_visible()
    page.locator("#first-folder").locator("xpath=..").locator("input[type=file]").set_input_files(leaves)
    said = see(page, "#said", "2 classes from the folder: elm 2, oak 4.").inner_text()
    assert "1 not taken" in said and "elm/broken.png" in said
    assert "pictures/oak/tree 1/1.png" in project.classes()[1].pictures
    assert counts(project) == {"elm": 2, "oak": 4}
    see(page, "#drop", "Drop pictures here")


def test_what_is_dropped_goes_where_its_folders_say(project, page, leaves):
    see(page, "#begin")
    drag(page, "#begin", leaves / "oak" / "0.png")
    see(page, "#said", "in which folders these pictures lay")
    assert counts(project) == {}
    drag(page, "#begin", leaves)
    see(page, "#said", "2 classes from the folder: elm 2, oak 4.")
    write_picture(leaves / "ash" / "1.png", 50)
    write_picture(leaves / "oak" / "9.png", 51)
    see(page, "#said", "elm/broken.png")
    see(page, "#classes label", "elm · 2").click()
    see(page, "#panel-title", "elm")
    drag(page, "#drop", leaves / "ash", leaves / "oak")  # of several folders each is a class
    see(page, "#said", "ash 1")
    assert counts(project) == {"ash": 1, "elm": 2, "oak": 5}
    write_picture(leaves / "ash" / "2.png", 52)
    drag(page, "#drop", leaves / "ash")  # of one folder the pictures go into the class that is shown
    see(page, "#said", "2 pictures added to “elm”")
    drag(page, "#drop", leaves / "ash" / "1.png")
    see(page, "#said", "it is there already")
    drag(page, "#drop", leaves / "oak" / "9.png")
    see(page, "#said", "1 picture added")
    see(page, "#said", "it is there already")  # stays until something else is done than to drop others
    see(page, "#classes label", "oak").click()
    page.locator("#said").wait_for(state="hidden")


@pytest.fixture
def held_up(monkeypatch):
    """What takes pictures or names in waits until this is set."""
    from peft_mmrl.app import pictures_tab

    go = threading.Event()

    def waiting(function):
        def wait(*given, **named):
            assert go.wait(PATIENCE / 1000)
            return function(*given, **named)

        return wait

    monkeypatch.setattr(pictures_tab, "take_in_folders", waiting(pictures_tab.take_in_folders))
    monkeypatch.setattr(Project, "add_class", waiting(Project.add_class))
    yield go
    go.set()


@pytest.mark.usefixtures("filled")
def test_what_is_dropped_meanwhile_waits_and_goes_into_the_class_it_was_dropped_for(project, page, tmp_path, held_up):
    new = tmp_path / "new"
    for seed, name in enumerate(("1", "2", "3", "4", "5")):
        write_picture(new / f"new {name}.png", 70 + seed)
    see(page, "#figure .figure")  # nothing moves any more
    see(page, "#classes label", "elm · 2").click()
    see(page, "#panel-title", "elm")
    drag(page, "#drop", new / "new 1.png")
    see(page, "#drop", "processing")
    drag(page, "#drop", new / "new 2.png")
    drag(page, "#classes label", new / "new 3.png", text="oak")  # on the name of another class
    drag(page, "h1", new / "new 4.png")  # beside
    see(page, "#classes label", "oak · 4").click()  # is answered when the first picture was taken in
    drag(page, "#drop", new / "new 5.png")
    held_up.set()
    see(page, "#classes label", "elm · 5")
    see(page, "#classes label", "oak · 6")
    see(page, "#panel-title", "oak")
    lies = {path.name: path.parent.name for path in project.pictures.rglob("new *.png")}
    assert lies == {"new 1.png": "elm", "new 2.png": "elm", "new 3.png": "oak", "new 4.png": "elm", "new 5.png": "oak"}


@pytest.mark.usefixtures("filled")
def test_a_button_acts_on_the_class_that_it_was_shown_for(project, page, tmp_path, held_up):
    write_picture(tmp_path / "new.png", 90)
    see(page, "#classes label", "elm · 2").click()
    see(page, "#panel-title", "elm")
    page.locator("#names button").first.click()
    see(page, "#take-class", "Take this class and its 2 pictures out")
    drag(page, "#drop", tmp_path / "new.png")
    see(page, "#drop", "processing")
    see(page, "#classes label", "oak · 4").click()
    see(page, "#take-class", "Take this class and its 2 pictures out").click()
    held_up.set()
    page.locator("#classes label", has_text="elm").wait_for(state="hidden")
    see(page, "#panel-title", "oak")
    assert counts(project) == {"oak": 4}


@pytest.mark.usefixtures("filled")
def test_the_class_that_was_clicked_last_is_shown_whatever_is_answered_meanwhile(project, page, tmp_path, held_up):
    project.pictures.joinpath("ash").mkdir()
    page.get_by_role("tab", name="Train").click()
    page.get_by_role("tab", name="Pictures").click()
    write_picture(tmp_path / "new.png", 91)
    see(page, "#classes label", "ash · 0").click()
    see(page, "#panel-title", "ash")
    drag(page, "#drop", tmp_path / "new.png")
    for name in ("elm", "oak", "elm", "oak"):
        see(page, "#classes label", name).click()
    held_up.set()
    see(page, "#classes label", "ash · 1")
    see(page, "#panel-title", "oak")
    page.wait_for_timeout(1000)
    see(page, "#panel-title", "oak")
    assert page.locator("#classes input:checked").get_attribute("value") == "oak"


def test_what_is_refused_before_it_is_looked_at_leaves_room_for_others(project, page, faults, leaves, monkeypatch):
    from peft_mmrl.app import guard

    project.add_class("elm")
    page.get_by_role("tab", name="Train").click()
    page.get_by_role("tab", name="Pictures").click()
    see(page, "#panel-title", "elm")
    with monkeypatch.context() as narrow:
        narrow.setattr(guard, "LARGEST_REQUEST", 100)
        drag(page, "#drop", leaves / "elm" / "1.png")
        see(page, ".toast-body")
        see(page, "#drop", "Drop pictures here")
    assert faults  # the refusal
    faults.clear()
    drag(page, "#drop", leaves / "elm" / "1.png")
    see(page, "#said", "1 picture added to “elm”")


@pytest.mark.usefixtures("filled")
def test_after_an_unexpected_fault_others_can_be_dropped(project, page, leaves, monkeypatch, capsys):
    from peft_mmrl.app import pictures_tab

    def fail(*_, **__):
        raise RuntimeError("a fault of ours")

    write_picture(leaves / "new.png", 80)
    see(page, "#classes label", "elm · 2").click()
    with monkeypatch.context() as broken:
        broken.setattr(pictures_tab, "take_in_folders", fail)
        drag(page, "#drop", leaves / "new.png")
        see(page, ".toast-body", "Something went wrong")
        see(page, "#drop", "Drop pictures here")
    assert "a fault of ours" in capsys.readouterr().err
    drag(page, "#drop", leaves / "new.png")
    see(page, "#said", "1 picture added to “elm”")


@pytest.mark.usefixtures("filled")
def test_thumbnails_that_are_dragged_about_are_no_new_pictures(project, page):
    see(page, "#figure .figure")  # nothing moves any more
    see(page, "#classes label", "oak · 4").click()
    image = page.locator("#thumbnails img").first
    image.dispatch_event("dragstart")
    drop(page, "#classes label", project.pictures / "elm" / "1.png", text="oak")
    image.dispatch_event("dragend")
    drag(page, "#classes label", project.pictures / "elm" / "2.png", text="oak")
    see(page, "#said", "1 picture added to “oak”")
    assert counts(project) == {"elm": 2, "oak": 5}


@pytest.mark.usefixtures("filled")
def test_a_picture_that_is_dropped_on_another_one_is_tried(page, leaves):
    page.get_by_role("tab", name="Try").click()
    drag(page, "#try-picture", leaves / "oak" / "0.png")
    first = page.locator("#try-picture img").get_attribute("src")
    see(page, "#answer", "sure")
    write_picture(leaves / "z.png", 95)
    drag(page, "#try-picture", leaves / "z.png", leaves / "elm" / "broken.png")
    page.wait_for_function("document.querySelector('#try-picture').dataset.told == 'The first of 2 is tried.'")
    see(page, "#answer", "cannot be opened")
    drag(page, "#answer", leaves / "elm" / "1.png")  # beside
    see(page, "#answer", "sure")
    assert page.locator("#try-picture img").get_attribute("src") not in (None, first)


def test_names_that_are_typed_meanwhile_are_all_taken(project, page, held_up):
    names = ["ash", "beech", "fir", "lime"]
    line = page.locator("#new-class input, #new-class textarea")
    line.click()
    for name in names:
        page.keyboard.type(name)
        page.keyboard.press("Enter")
        sync_api.expect(line).to_have_value("")
    page.keyboard.type("map")
    held_up.set()
    for name in names:
        see(page, "#classes label", f"{name} · 0")
    assert list(counts(project)) == names
    sync_api.expect(line).to_have_value("map")
    line.fill("fir")
    held_up.clear()
    page.keyboard.press("Enter")
    sync_api.expect(line).to_have_value("")
    line.fill("maple")
    page.keyboard.press("Enter")
    sync_api.expect(line).to_have_value("")
    held_up.set()
    see(page, "#classes label", "maple · 0")
    see(page, ".toast-body", "There is a class 'fir' already")
    sync_api.expect(line).to_have_value("fir")  # to be mended


def test_a_folder_that_cannot_be_read_is_said_and_the_others_are_taken(project, page, leaves):
    page.evaluate("""() => {
      const refused = (done, failed) => failed(new DOMException("", "NotReadableError"));
      const get = DataTransferItem.prototype.webkitGetAsEntry;
      DataTransferItem.prototype.webkitGetAsEntry = function () {
        const entry = get.call(this), kind = Object.getPrototypeOf(entry), create = kind.createReader;
        kind.createReader = function () {
          return this.name === "elm" ? { readEntries: refused } : create.call(this);
        };
        return entry;
      };
    }""")
    see(page, "#begin")
    drag(page, "#begin", leaves)
    said = see(page, "#said", "from the folder").inner_text()
    assert "oak 4." in said and "elm/this folder cannot be read" in said, said
    assert counts(project) == {"oak": 4}


@pytest.mark.usefixtures("filled")
def test_marks_stay_beside_what_is_written_and_are_counted(project, page):
    shutil.copy(project.pictures / "oak" / "0.png", project.pictures / "elm" / "same.png")
    see(page, "#classes label", "oak · 4").click()
    pictures = page.locator("#thumbnails button[aria-pressed]")
    see(page, "#thumbnails button[aria-pressed]")
    assert not page.locator("#take-out").is_visible() and not page.locator("#move-to").is_visible()
    page.wait_for_function("document.querySelectorAll('#thumbnails button[aria-pressed]').length == 4")
    pictures.nth(0).click()
    see(page, "#take-out", "Take 1 picture out")
    pictures.nth(1).click()
    see(page, "#take-out", "Take 2 pictures out")
    pictures.nth(1).click()
    see(page, "#take-out", "Take 1 picture out").click()
    see(page, "#classes label", "oak · 3")
    page.locator("#take-out").wait_for(state="hidden")
    assert project.removed_pictures() == ["removed/oak/0.png"]

    page.locator("#taken-out button").first.click()
    page.locator("#taken-out button[aria-pressed]").first.click()
    see(page, "#back", "Put 1 picture back").click()
    see(page, "#classes label", "oak · 4")

    see(page, "#faults", "elm and oak")
    fault = page.locator("#fault-pictures button[aria-pressed]").first
    said = fault.inner_text()
    assert said in ("oak", "elm")
    fault.click()
    see(page, "#take-fault-out", "Take 1 picture out")
    assert fault.inner_text() == said and fault.get_attribute("aria-pressed") == "true"


@pytest.mark.usefixtures("filled")
def test_classes_are_joined_and_taken_away(project, page):
    before = counts(project)
    page.locator("#new-class input, #new-class textarea").fill("ash")
    page.click("#add-class")
    see(page, "#classes label", "ash · 0")
    page.locator("#names button").first.click()
    see(page, "#take-class", "Take this class away").click()
    page.locator("#classes label", has_text="ash").wait_for(state="hidden")
    assert counts(project) == before

    see(page, "#said", "“ash” was taken out.")
    page.locator("#take-class").wait_for(state="hidden")  # a second click takes no other class
    page.locator("#names button").first.click()
    see(page, "#take-class", "Take this class and its 2 pictures out")
    see(page, "#merge-into input").click()
    page.get_by_role("option", name="oak").click()
    page.click("#merge")
    see(page, "#classes label", "oak · 6")
    assert counts(project) == {"oak": 6}
    see(page, "#said", "The pictures of “elm” are in “oak” now.")
    page.locator("#names button").first.click()
    see(page, "#take-class", "Take this class and its 6 pictures out").click()
    see(page, "#begin")
    assert counts(project) == {} and len(project.removed_pictures()) == 6


@pytest.mark.usefixtures("filled")
def test_what_waits_for_the_end_of_a_training_is_said(project, page, leaves):
    before = counts(project)
    (project.folder / "logs").mkdir()
    training = filelock.FileLock(lock_of(project.folder, "run-1"))  # as its process holds it
    training.acquire()
    see(page, "#classes label", "oak · 4").click()
    see(page, "#busy", "A training is running")
    page.locator("#thumbnails button[aria-pressed]").nth(2).click()
    see(page, "#take-out", "Take 1 picture out").click()
    see(page, ".toast-body", "those that are there can be moved, renamed or taken out when it has ended")
    assert counts(project) == before
    write_picture(leaves / "new.png", 60)
    page.locator("#drop input[type=file]").set_input_files(leaves / "new.png")
    see(page, "#said", "1 picture added to “oak”")
    training.release()
    see(page, "#classes label", "elm · 2").click()
    page.locator("#busy").wait_for(state="hidden")
