"""A report in a real browser, at the width of a desk and of a phone: it fits, it is complete, it asks nobody."""

import json
import re
import shutil
import subprocess

import numpy as np
import PIL.Image
import pytest
from report_samples import HISTORY, make_predictions, report_of

from peft_mmrl.scoring.held_out import Confidence


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="needs a browser: `apt-get install chromium`, or Chrome in the PATH"
)
PROBE = """<!doctype html><body style="margin: 0">
<iframe src="{page}" width="{width}" height="800" style="border: 0"></iframe><pre></pre>
<script>
addEventListener("load", () => {{
  const inner = document.querySelector("iframe").contentWindow, page = inner.document;
  const images = [...page.images];
  document.querySelector("pre").textContent = JSON.stringify({{
    title: page.title,
    width: page.documentElement.scrollWidth,
    headlineEnd: page.querySelector(".totals").getBoundingClientRect().bottom,
    images: images.length,
    brokenImages: images.filter(image => image.naturalWidth == 0).length,
    requests: inner.performance.getEntriesByType("resource").map(entry => entry.name)
      .filter(name => !name.startsWith("data:")),
    ground: inner.getComputedStyle(page.body).backgroundColor,
  }});
}});
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    predictions = make_predictions(trained=[True] * 7 + [False] * 3)
    settings = {"template": "a {}.", "path": "x" * 200}
    report_of(folder, predictions, settings=settings, history=HISTORY)
    return folder / "report.html"


@pytest.fixture(scope="module", params=["2 classes, 4 folds", "5 classes, held out"])
def decided(request, tmp_path_factory):
    """Pages of a default run: three accuracies, sets of classes and "none of these"."""
    folder = tmp_path_factory.mktemp("decided")
    count, folds = (2, 4) if "folds" in request.param else (5, 0)
    names = ["golden retriever", "siamese cat", "a name that is rather long for a phone", "fox", "Größe"][:count]
    predictions = make_predictions(names, before=0.5, between=1.0, after=2.0, folds=folds)
    report_of(folder, predictions, history=HISTORY, confidence=Confidence.of(predictions, None))
    return folder / "report.html"


def browse(address, tmp_path, *options):
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--allow-file-access-from-files", *options]
    done = subprocess.run([*command, f"file://{address}"], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def look(page, width, tmp_path, *options):
    """What the page is like in a window of that width."""
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.format(page=page.as_uri(), width=width))
    dump = browse(probe, tmp_path, "--dump-dom", "--virtual-time-budget=10000", *options)
    return json.loads(re.search("<pre>(.+)</pre>", dump, re.DOTALL)[1].replace("&lt;", "<").replace("&gt;", ">"))


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_and_is_complete(page, width, tmp_path):
    found = look(page, width, tmp_path)
    assert found["title"] == "my <adapter>: what it recognises"
    assert found["width"] <= width
    assert found["headlineEnd"] < 800  # what matters most is on the first screen
    assert found["images"] > 10
    assert found["brokenImages"] == 0
    assert found["requests"] == []


@pytest.mark.parametrize("width", [1280, 390])
def test_three_accuracies_fit_on_the_first_screen(decided, width, tmp_path):
    found = look(decided, width, tmp_path)
    assert found["width"] <= width
    assert found["headlineEnd"] < 800
    assert found["requests"] == []


def test_the_page_is_dark_where_people_like_it_dark(page, tmp_path):
    dark = look(page, 1280, tmp_path, "--blink-settings=preferredColorScheme=0")["ground"]
    assert sum(map(int, re.findall(r"\d+", dark)[:3])) < 150


def test_the_page_is_painted(page, tmp_path):
    browse(page, tmp_path, f"--screenshot={tmp_path / 'page.png'}", "--window-size=1280,900")
    with PIL.Image.open(tmp_path / "page.png") as picture:
        assert picture.size == (1280, 900)
        assert (31, 111, 235) in {tuple(color) for color in np.asarray(picture.convert("RGB")).reshape(-1, 3)}
