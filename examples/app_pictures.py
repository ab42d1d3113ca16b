"""Draws the page for the README: `examples/app-pictures.png` and `examples/app-improve.png`.

    python examples/app_pictures.py        # needs playwright and a chromium in the PATH

A project of the demo's digits on the demo's small CLIP, one picture of them in a wrong class.
"""

import shutil
import tempfile
from pathlib import Path

import PIL.Image
from digits import CLASS_NAMES, TEMPLATE, load_digits
from playwright.sync_api import Page, sync_playwright

from peft_mmrl.app.serving import serve
from peft_mmrl.projects.project import Project


EXAMPLES = Path(__file__).parent
CLASSES, EACH = 5, 9
COLORS = 64


def make_project(folder: Path) -> Project:
    """Five digits, nine pictures each; a zero among the twos."""
    project = Project.create(folder, str(EXAMPLES / "demo_clip"))
    project.set_template(TEMPLATE)
    rows = load_digits()["train"].select(range(400))
    for label, name in enumerate(CLASS_NAMES[:CLASSES]):
        project.add_class(name)
        own = [number for number, other in enumerate(rows["label"]) if other == label]
        for number in own[:EACH]:
            rows[number]["image"].save(project.pictures / name / f"{number}.png")
        if label == 0:
            wrong = rows[own[EACH]]["image"]
    wrong.save(project.pictures / "two" / "wrong.png")
    return project


def draw(address: str) -> None:
    """Both pictures, in few colours."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))))
    with sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page(
            viewport={"width": 900, "height": 900}
        )
        page.goto(address)
        page.locator("#gauges >> text=two").first.wait_for()
        shoot(page, "app-pictures.png", 1260)
        page.get_by_role("tab", name="Improve").click()
        page.locator("#question img").wait_for()
        shoot(page, "app-improve.png", 650)


def shoot(page: Page, name: str, height: int) -> None:
    """A picture of the page as it is, of so many pixels from its top."""
    page.wait_for_timeout(1000)
    page.mouse.move(0, 0)
    page.set_viewport_size({"width": 900, "height": height})
    page.screenshot(path=EXAMPLES / name)
    PIL.Image.open(EXAMPLES / name).convert("RGB").quantize(COLORS).save(EXAMPLES / name, optimize=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        served = serve(make_project(Path(folder) / "digits"))
        draw(served.local_url)
        served.close()
