"""The whole way on the page in a real browser: create, drop, train, try, correct, label, train again, take away."""

import re
import shutil
import zipfile

import pytest
from conftest import DEMO_CLIP

from peft_mmrl.projects.project import Project


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


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A new project and its page, on which trainings are short."""
    from peft_mmrl.app import train_tab
    from peft_mmrl.app.serving import serve

    project = Project.open(tmp_path_factory.mktemp("work") / "my digits", DEMO_CLIP)
    with pytest.MonkeyPatch.context() as patch:
        start = train_tab.start
        patch.setattr(train_tab, "start", lambda project: start(project, epochs=2, folds=2))
        page = serve(project)
        yield project, page.local_url
        page.close()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
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

    def fits(self):
        return self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

    def leave(self):
        assert self.faults == []
        assert self.hosts <= {self.address.rstrip("/"), "data:", "blob:" + self.address.rstrip("/")}
        self.page.close()


def pictures_of(project, name):
    return len(next(one.pictures for one in project.classes() if one.name == name))


def test_the_whole_way(served, browser, digits, tmp_path):
    project, address = served
    me = Visitor(browser, address)
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
    me.see("#figure", re.compile(r"Of 100? new pictures it gets about \d+ right \(between \d+ and \d+\)"))
    me.see("#gauges", "zero")

    me.train()
    assert "Of 10" in me.see("#outcome").inner_text()
    report = me.see("#outcome a", "Open the whole report").get_attribute("href")
    assert "pictures are recognised" in me.page.request.get(address.rstrip("/") + report).text()

    me.tab("Try")
    me.drop([digits["zero"][20]], "#try-picture")
    me.see("#answer", "zero")
    me.see("#nearest img")
    me.see("#maps img")

    me.tab("Improve")
    me.see("#question", "This picture is in two, and looks more like zero")
    zeros = pictures_of(project, "zero")
    me.page.keyboard.press(str(1 + [one.name for one in project.classes()].index("zero")))
    asked = "document.querySelector('#question')?.innerText ?? ''"
    me.page.wait_for_function(f"!/in two, and looks more like zero/.test({asked})")
    me.see("#undo").click()
    me.see("#question", "This picture is in two, and looks more like zero")
    assert pictures_of(project, "zero") == zeros
    me.page.keyboard.press(str(1 + [one.name for one in project.classes()].index("zero")))
    me.page.wait_for_function(f"!/in two, and looks more like zero/.test({asked})")
    while said := me.page.evaluate(asked):  # what else is asked is right as it is
        if lies_in := re.search(r"is in (\w+),", said):
            me.page.get_by_role("button", name=re.compile(rf"^{lies_in[1]} \[\d\]$")).click()
            me.page.wait_for_function(f"said => ({asked}) != said", arg=said)
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
        me.page.wait_for_function("alt => document.querySelector('#question img')?.alt != alt", arg=shown)
    assert sum(pictures_of(project, name) for name in CLASSES) == 3 * EACH + 5

    me.train()
    me.see("#which-run")

    me.tab("Pictures")
    me.add_class("seven")
    me.see("#figure", "seven")  # what it is worth by its name alone

    me.tab("Take away")
    me.page.click("#make-adapter")
    me.see("#file-adapter a")
    with me.page.expect_download() as download:
        me.page.locator("#file-adapter a").first.click()
    download.value.save_as(tmp_path / "adapter.zip")
    names = [name.rpartition("/")[2] for name in zipfile.ZipFile(tmp_path / "adapter.zip").namelist()]
    assert {"adapter_model.safetensors", "adapter_config.json", "decision.safetensors"} <= set(names)
    me.leave()


def test_a_phone_shows_all_of_it(served, browser, digits):
    _, address = served
    me = Visitor(browser, address, width=390)
    for name, seen in {"Pictures": "#classes", "Train": "#start", "Try": "#try-picture", "Improve": "#kind"}.items():
        me.tab(name)
        me.see(seen)
        assert me.fits(), name
    me.leave()
