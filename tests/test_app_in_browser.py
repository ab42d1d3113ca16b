"""The whole way on the page in a real browser: create, drop, train, try, correct, label, train again, take away."""

import re
import shutil
import zipfile
from pathlib import Path

import pytest
from conftest import DEMO_CLIP

from peft_mmrl.projects.intake import add_pictures
from peft_mmrl.projects.project import Project
from peft_mmrl.training.checkpoints import is_checkpoint
from peft_mmrl.training.run_folder import CHECKPOINT


sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="needs a browser: `apt-get install chromium`, or Chrome in the PATH"
)
CLASSES = ["zero", "two", "three"]
EACH = 10
PATIENCE = 120_000  # milliseconds, on a busy machine


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Files of digits by their name, 30 of each."""
    from digits import CLASS_NAMES, load_digits

    folder, found = tmp_path_factory.mktemp("digits"), {name: [] for name in CLASS_NAMES}
    for number, row in enumerate(load_digits()["train"].select(range(300))):
        path = folder / f"scan {number}.png"
        row["image"].save(path)
        found[CLASS_NAMES[row["label"]]].append(str(path))
    return found


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A new project and its page, on which trainings are short."""
    from peft_mmrl.app import train_tab
    from peft_mmrl.app.serving import serve

    project, start = Project.open(tmp_path / "my digits", DEMO_CLIP), train_tab.start
    monkeypatch.setattr(train_tab, "start", lambda project: start(project, epochs=2, folds=2))
    page = serve(project)
    yield project, page.local_url
    page.close()


@pytest.fixture(scope="module")
def browser():
    """A browser with a camera that shows moving colours, and that may be used without asking."""
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", *camera])
        yield browser
        browser.close()


class Visitor:
    """Somebody in front of the page, who notes what goes wrong."""

    def __init__(self, browser, address, width=1280):
        self.page = browser.new_page(viewport={"width": width, "height": 900}, accept_downloads=True)
        self.page.set_default_timeout(PATIENCE)
        self.faults, self.hosts, self.address = [], set(), address
        self.page.on("console", lambda said: said.type == "error" and self.faults.append(said.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("response", lambda answer: answer.status >= 400 and self.faults.append(answer.url))
        self.page.on(
            "request", lambda asked: self.hosts.add(re.sub(r"^(\w+:(//[^/]*)?).*", r"\1", asked.url, flags=re.S))
        )
        self.page.goto(address)
        self.see("#figure")

    def see(self, selector, text=None):
        found = self.page.locator(f"{selector} >> visible=true", has_text=text).first
        found.wait_for()
        return found

    def tab(self, name):
        """Go to a tab; what was seen of the one before was no wider than the window."""
        assert self.fits()
        self.page.get_by_role("tab", name=name).click()

    def add_class(self, name):
        self.page.locator("#new-class input, #new-class textarea").fill(name)
        self.page.click("#add-class")
        self.see("#classes label", f"{name} · 0")

    def drop(self, files, at="#drop"):
        self.page.locator(f"{at} input[type=file]").set_input_files(files)

    def train(self):
        self.tab("Train")
        self.see("#start").click()
        self.see("#cancel")
        self.see("#outcome", "pictures")

    def wait_for_another_question(self, said):
        """What is asked next, the picture's name and the words, or nothing; `said` is a part of what was asked."""
        asked = (
            "[...document.querySelectorAll('#question .asked, #question .figure')]"
            ".filter(one => one.checkVisibility()).map(one => one.alt ?? one.innerText).join(': ')"
        )
        self.page.wait_for_function(f"said => !({asked}).includes(said)", arg=said)
        return self.page.evaluate(asked)

    def fits(self):
        return self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

    def leave(self):
        assert self.fits()
        assert self.faults == []
        assert self.hosts <= {self.address.rstrip("/"), "data:", "blob:" + self.address.rstrip("/")}
        self.page.close()


def fill(project, digits, names):
    """Eight pictures for each class."""
    for name in names:
        files = [(f"{row}.png", Path(path)) for row, path in enumerate(digits[name][:8])]
        add_pictures(project, files, project.add_class(name))


def pictures_of(project, name):
    return len(next(one.pictures for one in project.classes() if one.name == name))


@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_the_whole_way(served, browser, digits, tmp_path, width):
    project, address = served
    me = Visitor(browser, address, width)
    me.see(".empty", "Begin here")

    broken, copy = tmp_path / "broken.png", tmp_path / "again.png"
    broken.write_bytes(b"no picture")
    shutil.copy(digits["two"][0], copy)
    for name in CLASSES:  # 30 pictures, one of them in a wrong class, one broken, one twice
        files = digits[name][:EACH]
        if name == "two":
            files = [*files[: EACH - 1], digits["zero"][EACH], str(broken), str(copy)]
        me.add_class(name)
        me.drop(files)
        me.see("#classes label", f"{name} · {EACH}")
        if name == "two":
            said = me.see("#said", "2 not taken")
            assert "broken.png" in said.inner_text() and "again.png" in said.inner_text()
    me.see("#figure", re.compile(r"Of 100 new pictures like yours it gets about \d+ right \(between \d+ and \d+\)"))
    me.see("#gauges", "zero")

    me.train()
    assert "Of 100" in me.see("#outcome").inner_text()
    report = me.see("#outcome a", "Open the whole report").get_attribute("href")
    assert "pictures are recognised" in me.page.request.get(address.rstrip("/") + report).text()

    me.tab("Try")
    me.drop([digits["zero"][20]], "#try-picture")
    me.see("#answer", "zero")
    me.see("#nearest img")
    me.see("#maps img")
    before = pictures_of(project, "three")
    me.page.click("#belongs input")
    me.page.get_by_role("option", name="three").click()
    me.see("#taught", "Thank you: it is a picture of “three” now.")
    me.see("#figure", "1 picture was added since the last training")
    assert pictures_of(project, "three") == before + 1

    me.tab("Improve")
    me.see("#question", "This picture is in two, and looks more like zero")
    zeros = pictures_of(project, "zero")
    me.page.keyboard.press(str(1 + [one.name for one in project.classes()].index("zero")))
    me.wait_for_another_question("in two, and looks more like zero")
    me.see("#undo").click()
    me.see("#question", "This picture is in two, and looks more like zero")
    assert pictures_of(project, "zero") == zeros
    me.page.keyboard.press(str(1 + [one.name for one in project.classes()].index("zero")))
    said = me.wait_for_another_question("in two, and looks more like zero")
    while said:  # what else is asked is right as it is
        lies_in = re.search(r"is in (\w+),", said)[1]
        me.page.get_by_role("button", name=re.compile(rf"^{lies_in} \[\d\]$")).click()
        said = me.wait_for_another_question(said)
    assert pictures_of(project, "zero") == zeros + 1

    me.page.get_by_label("What is this?").click()
    unknown = [(name, file) for name in CLASSES for file in digits[name][21:24]]
    me.drop([file for _, file in unknown], "#drop-new")
    me.see("#question", "What is this?")
    truth = {file.rpartition("/")[2]: name for name, file in unknown}
    for _ in range(5):
        shown = me.see("#question img").get_attribute("alt")
        before = len(project.unlabelled_pictures())
        me.page.keyboard.press(str(1 + [one.name for one in project.classes()].index(truth[shown])))
        while len(project.unlabelled_pictures()) == before:
            me.page.wait_for_timeout(100)
        me.wait_for_another_question(shown)
    assert sum(pictures_of(project, name) for name in CLASSES) == 3 * EACH + 1 + 5

    me.train()
    me.see("#which-run")

    me.tab("Pictures")
    me.add_class("seven")
    me.see("#figure", "seven")  # what it is worth by its name alone

    me.tab("Take away")
    me.page.click("#make-adapter")
    me.see("#file-adapter")
    with me.page.expect_download() as download:
        me.page.locator("#file-adapter").first.click()
    download.value.save_as(tmp_path / "adapter.zip")
    names = [name.rpartition("/")[2] for name in zipfile.ZipFile(tmp_path / "adapter.zip").namelist()]
    assert {"adapter_model.safetensors", "adapter_config.json", "decision.safetensors"} <= set(names)
    me.leave()


def test_a_class_is_made_where_it_is_missed(served, browser, digits):
    project, address = served
    fill(project, digits, CLASSES[:2])
    me = Visitor(browser, address, width=390)
    me.tab("Try")
    me.drop([digits["three"][0]], "#try-picture")
    me.see("#tried-new-class input").fill("number 3")  # its digit answers nothing
    me.page.keyboard.press("Enter")
    me.see("#taught", "it is a picture of “number 3” now")
    assert pictures_of(project, "number 3") == 1

    me.tab("Improve")
    me.page.get_by_label("What is this?").click()
    me.drop([digits["seven"][0]], "#drop-new")
    me.see("#question", "What is this?")
    me.see("#asked-new-class input").type("number 2")
    me.page.locator("#asked-new-class button").click()
    me.see("#improve-state", "1 picture answered")
    assert pictures_of(project, "number 2") == 1 and pictures_of(project, "two") == 8
    me.leave()


def test_two_visitors_at_once_lose_nothing_and_see_each_others_work(served, browser, digits):
    project, address = served
    one, other = Visitor(browser, address), Visitor(browser, address, width=390)
    one.add_class("zero")
    other.tab("Train")
    other.tab("Pictures")
    other.see("#classes label", "zero · 0").click()
    one.add_class("two")
    one.see("#classes label", "zero · 0").click()
    one.see("h3", "Pictures of “zero”")
    one.drop(digits["zero"][:10])
    other.drop(digits["zero"][10:20])
    while pictures_of(project, "zero") < 20:
        one.page.wait_for_timeout(100)
    one.see("#classes label", "two · 0").click()
    one.see("h3", "Pictures of “two”")
    one.drop(digits["two"][:10])
    one.see("#classes label", "two · 10")
    for visitor in (one, other):
        visitor.tab("Train")
        visitor.tab("Pictures")
        visitor.see("#classes label", "zero · 20")
        visitor.see("#classes label", "two · 10")

    for visitor in (one, other):
        visitor.tab("Train")
        visitor.see("#start")
    one.page.click("#start")
    one.see("#cancel")
    other.page.click("#start")  # it still shows what was so before
    other.see(".toast-body", "A training runs already")
    other.tab("Try")
    other.tab("Train")
    other.see("#cancel")
    for visitor in (one, other):
        visitor.see("#outcome", "pictures")
        visitor.leave()
    assert [path.name for path in project.adapters.iterdir()] == ["run-1"]


def test_a_training_is_stopped_and_goes_on(served, browser, digits, monkeypatch):
    from peft_mmrl.app import train_tab
    from peft_mmrl.projects.project_runs import start

    project, address = served
    monkeypatch.setattr(train_tab, "start", lambda project: start(project, epochs=40, folds=2, checkpointing_steps=4))
    fill(project, digits, CLASSES[:2])
    me = Visitor(browser, address, width=390)
    me.tab("Train")
    me.see("#start").click()
    me.see("#cancel")
    while not is_checkpoint(project.adapters / "run-1" / CHECKPOINT):
        me.page.wait_for_timeout(100)
    me.page.click("#cancel")
    me.see("#progress", "You stopped it. It can go on where it was.")
    me.see("#resume").click()
    me.see("#cancel")
    me.see("#outcome", "pictures")
    me.leave()
    assert "of 40 epochs are done" in (project.folder / "logs" / "run-1.log").read_text()


def test_the_camera_takes_a_picture_that_is_answered(served, browser):
    project, address = served
    for name in CLASSES:
        project.add_class(name)
    me = Visitor(browser, address)
    me.tab("Try")
    me.page.get_by_label("Capture from camera").click()
    me.page.get_by_text("Click to Access Webcam").click()
    me.page.wait_for_function("document.querySelector('#try-picture video')?.videoWidth > 0")  # it shows something
    me.page.get_by_label("capture photo").click()
    me.see("#answer", "sure")
    me.leave()
