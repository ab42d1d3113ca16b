"""Reports: their numbers, their files, and the page, which holds everything in itself and is safe with any name."""

import csv
import json
import logging
import math
import re
import tracemalloc
import warnings
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib
import numpy as np
import PIL.Image
import pytest
import torch
from fontTools.ttLib import TTFont
from matplotlib import font_manager
from report_samples import HISTORY, NAMES, make_dataset, make_predictions, report_of
from scipy.stats import chi2
from sklearn.metrics import confusion_matrix, recall_score

from peft_mmrl.reports import compute_metrics, figures, fonts, results, verdict, write_report
from peft_mmrl.reports.reading import read_metrics, read_predictions
from peft_mmrl.scoring.held_out import Confidence
from peft_mmrl.scoring.labelled import Predictions
from peft_mmrl.scoring.rungs import rungs


@pytest.fixture(scope="module")
def predictions():
    return make_predictions(trained=[True] * 7 + [False] * 3)


@pytest.fixture(scope="module")
def folder(predictions, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "report"
    split = {"train": ["cat/1.jpg"], "validation": predictions.paths}
    settings = {"seed": 1, "template": ["a {}.", "the {}."], "shots": None, "<i>": "<u>"}
    confidence = Confidence.of(predictions, None)
    report_of(folder, predictions, settings=settings, history=HISTORY, split=split, confidence=confidence)
    return folder


def test_numbers_are_those_of_the_predictions(predictions):
    metrics = compute_metrics(predictions)
    labels = predictions.labels.numpy()
    after, before = (part.argmax(dim=1).numpy() for part in (predictions.probabilities, predictions.zero_shot))
    assert metrics["accuracy"] == pytest.approx(predictions.accuracy)
    assert metrics["zero_shot_accuracy"] == pytest.approx(predictions.zero_shot_accuracy)
    assert metrics["gained"] == ((after == labels) & (before != labels)).sum() > 0
    assert metrics["lost"] == ((after != labels) & (before == labels)).sum()
    assert [row["recall"] for row in metrics["per_class"]] == pytest.approx(
        list(recall_score(labels, after, average=None))
    )
    assert [row["class"] for row in metrics["per_class"]] == NAMES
    assert {row["pictures"] for row in metrics["per_class"]} == {6}
    assert metrics["base_accuracy"] == pytest.approx((after == labels)[labels < 7].mean())
    assert metrics["zero_shot_new_accuracy"] == pytest.approx((before == labels)[labels >= 7].mean())


def test_without_new_classes_there_is_no_harmonic_mean():
    assert "harmonic_mean" not in compute_metrics(make_predictions())


def test_classes_without_pictures_are_counted_nowhere():
    """The third has none; before training two pictures were called by its name."""
    metrics = compute_metrics(predictions_of([0, 2, 0, 1, 1, 2], [0, 1, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1], 3))
    assert metrics["macro_recall"] == metrics["zero_shot_macro_recall"] == pytest.approx(2 / 3)
    assert [row["pictures"] for row in metrics["per_class"]] == [3, 3, 0]
    nothing = {name: metrics["per_class"][2][name] for name in ("recall", "zero_shot_recall", "precision", "f1")}
    assert set(nothing.values()) == {None}
    assert [row["label"] for row in results.by_change(metrics["per_class"], 10)] == [0, 1]


def test_changed_pictures_come_in_the_order_of_their_change():
    probabilities = torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.4, 0.6], [0.1, 0.9], [0.8, 0.2]])
    labels = torch.zeros(5, dtype=torch.long)
    predictions = Predictions(["a", "b"], [True] * 2, list("12345"), labels, probabilities, probabilities.flip(1))
    assert results.changed_pictures(predictions) == ([1, 4, 0], [3, 2])


def test_classes_that_changed_most_are_kept():
    rows = [{"pictures": 1, "recall": 0.1 * change, "zero_shot_recall": 0.5} for change in range(10)]
    assert [round(10 * row["recall"]) for row in results.by_change(rows, 5)] == [9, 8, 7, 1, 0]
    assert len(results.by_change(rows, 10)) == 10


def predictions_of(before, after, labels, num_classes, trained=None):
    """Predictions that name given labels."""
    eye, labels = torch.eye(num_classes) * 0.8 + 0.2 / num_classes, torch.tensor(labels)
    names, paths = [f"class {label}" for label in range(num_classes)], [f"{index}.jpg" for index in range(len(labels))]
    return Predictions(names, trained or [True] * num_classes, paths, labels, eye[after], eye[before])


def test_confused_pairs_are_the_largest_off_the_diagonal():
    counts = np.array([[9, 2, 0], [0, 9, 3], [1, 0, 9]])
    actual, called = np.repeat(np.indices((3, 3)).reshape(2, -1), counts.ravel(), axis=1).tolist()
    assert results.confused_pairs(predictions_of(called, called, actual, 3), 2) == [(1, 2, 3), (0, 1, 2)]
    assert results.confused_pairs(predictions_of(actual, actual, actual, 3), 5) == []


@pytest.mark.parametrize(("gained", "lost"), [(10, 2), (2, 10), (5, 4), (1000, 900)])
def test_p_value_is_that_of_mcnemars_test(gained, lost):
    statistic = (abs(gained - lost) - 1) ** 2 / (gained + lost)
    assert results.p_value(gained, lost) == pytest.approx(chi2.sf(statistic, 1))
    assert results.p_value(3, 3) == results.p_value(0, 0) == 1


def test_a_report_has_all_its_files(folder, predictions):
    pictures = {"changed", "confusion", "curves", "per_class", "reliability"}
    texts = {"config.json", "metrics.json", "predictions.csv", "report.html", "split.json"}
    assert {path.name for path in folder.iterdir()} == texts | {f"{name}.png" for name in pictures}
    for name in pictures:
        with PIL.Image.open(folder / f"{name}.png") as picture:
            assert max(picture.size) < 3000
            assert np.asarray(picture.convert("L")).std() > 1
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    confidence = metrics.pop("confidence")
    assert metrics == compute_metrics(predictions)
    assert confidence["words"][0] == Confidence.of(predictions, None).for_coverage().words
    assert json.loads((folder / "config.json").read_text())["template"] == ["a {}.", "the {}."]
    assert json.loads((folder / "split.json").read_text())["validation"] == predictions.paths


def test_there_is_a_row_for_each_picture(folder, predictions):
    with open(folder / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == predictions.paths
    assert [row["label"] for row in rows] == [NAMES[label] for label in predictions.labels]
    assert sum(row["correct"] == "True" for row in rows) / len(rows) == pytest.approx(predictions.accuracy)
    for row, after, before in zip(rows, predictions.probabilities, predictions.zero_shot, strict=True):
        assert (row["predicted"], row["zero_shot_predicted"]) == (NAMES[after.argmax()], NAMES[before.argmax()])
        assert float(row["probability"]) == pytest.approx(after.max().item(), abs=1e-6)
        assert float(row["zero_shot_probability"]) == pytest.approx(before.max().item(), abs=1e-6)
        assert [float(row[f"probability_{name}"]) for name in NAMES] == pytest.approx(after.tolist(), abs=1e-6)


def test_what_was_written_is_read_again(folder, predictions):
    metrics = read_metrics(folder)
    assert metrics.pop("confidence") and metrics == compute_metrics(predictions)
    rows = read_predictions(folder)
    assert [(row.path, row.label) for row in rows] == [
        (path, NAMES[label]) for path, label in zip(predictions.paths, predictions.labels, strict=True)
    ]
    for row, after, before in zip(rows, predictions.probabilities, predictions.zero_shot, strict=True):
        assert (row.before, row.after) == (NAMES[before.argmax()], NAMES[after.argmax()])
        assert [row.shares[name] for name in NAMES] == pytest.approx(after.tolist(), abs=1e-6)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"null", b"{}", b"\xff", b'{"pictures": 3}', "folder"])
def test_metrics_that_are_damaged_are_none(tmp_path, content):
    path = tmp_path / "metrics.json"
    path.mkdir() if content == "folder" else content is None or path.write_bytes(content)
    assert read_metrics(tmp_path) is None


@pytest.mark.parametrize(
    "change",
    [
        *({name: value} for name in ("pictures", "accuracy", "difference_p_value", "folds") for value in (None, "1")),
        {"accuracy_low": None},
        {"accuracy": math.nan},
        *({"per_class": value} for value in (None, {}, [1], [{}], [{"class": "cat", "pictures": 3}])),
        {"per_class": [{"class": "cat", "pictures": 3, "recall": None, "zero_shot_recall": 1.0}]},
    ],
)
def test_metrics_of_which_a_value_is_damaged_are_none(folder, tmp_path, change):
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    (tmp_path / "metrics.json").write_text(json.dumps(metrics | change))
    assert read_metrics(tmp_path) is None


HEADER = b"path,label,zero_shot_predicted,predicted,probability_cat,probability_dog\n"


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        HEADER + b"1.png,cat,cat,cat,0.5\n",
        HEADER + b"1.png,cat,cat,cat,0.5,0.5\n2.png,ca",
        HEADER + b"1.png,cat,cat,cat,0.5,0.5,0.5\n",
        HEADER + b"1.png,cat,cat,cat,0.5,much\n",
        HEADER + b"1.png,cat,cat,cat,0.5,nan\n",
        HEADER + b"1.png,cat,cat,cat,0.5,7\n",
        HEADER + b"\xff.png,cat,cat,cat,0.5,0.5\n",
        HEADER + b"\0.png,cat,cat,cat,0.5\n",
        b"path,predicted\n1.png,cat\n",
        b"label\ncat\n",
        "folder",
    ],
)
def test_rows_of_a_damaged_file_are_none(tmp_path, content):
    path = tmp_path / "predictions.csv"
    path.mkdir() if content == "folder" else content is None or path.write_bytes(content)
    assert read_predictions(tmp_path) == []


@pytest.mark.parametrize(("count", "columns"), [(100, 100), (101, 0)])
def test_of_many_classes_rows_have_the_own_one_and_the_likeliest(count, columns, tmp_path):
    predictions = make_predictions([f"class {label}" for label in range(count)], 102)
    report_of(tmp_path, predictions)
    with open(tmp_path / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sum(name.startswith("probability_") for name in rows[0]) == columns
    assert ("own_probability" in rows[0]) == (not columns)
    for row, label, after in zip(rows, predictions.labels, predictions.probabilities, strict=True):
        own = row["own_probability"] if not columns else row[f"probability_class {label}"]
        assert float(own) == pytest.approx(after[label].item(), abs=1e-6)
        assert float(row["probability"]) == pytest.approx(after.max().item(), abs=1e-6)


def test_half_precision_is_taken(tmp_path, predictions):
    half = replace(
        predictions, probabilities=predictions.probabilities.bfloat16(), zero_shot=predictions.zero_shot.bfloat16()
    )
    assert report_of(tmp_path / "report", half)["accuracy"] == pytest.approx(predictions.accuracy, abs=0.05)


def test_a_report_without_history_or_changes(tmp_path):
    predictions = make_predictions(["cat", "dog"], 4)
    predictions.probabilities = predictions.zero_shot = torch.eye(2)[predictions.labels]
    metrics = report_of(tmp_path / "report", predictions)
    assert (metrics["gained"], metrics["lost"], metrics["accuracy"]) == (0, 0, 1)
    assert not {"curves.png", "changed.png", "split.json"} & {path.name for path in (tmp_path / "report").iterdir()}
    page = (tmp_path / "report" / "report.html").read_text()
    assert "4 of 4 pictures are recognised,\nas many as before." in page
    assert "None: all pictures are recognised." in page


@pytest.mark.parametrize(
    ("right_before", "right_after", "headline"),
    [
        (20, 50, "Training helped: 50 of 60 pictures are recognised,\n20 before."),
        (50, 20, "Training did harm: 20 of 60 pictures are recognised,\n50 before."),
        (30, 32, "32 of 60 pictures are recognised,\n30 before."),
    ],
)
def test_the_headline_claims_no_more_than_the_pictures_show(right_before, right_after, headline, tmp_path):
    predictions = make_predictions(["cat", "dog"])
    right = torch.arange(60)
    for name, count in (("zero_shot", right_before), ("probabilities", right_after)):
        said = torch.where(right < count, predictions.labels, 1 - predictions.labels)
        setattr(predictions, name, torch.eye(2)[said] * 0.8 + 0.1)
    report_of(tmp_path / "report", predictions)
    page = (tmp_path / "report" / "report.html").read_text()
    assert f"<h1>{headline}</h1>" in page
    assert ("can be chance" in page) == headline.startswith("32")


GOOD, DEFECT = [0] * 60, [1] * 4
MANY = [label for label in range(10) for _ in range(10)]


@pytest.mark.parametrize(
    ("before", "after", "labels", "said"),
    [
        pytest.param([0] * 34 + [1] * 30, [0] * 64, GOOD + DEFECT, "mixed", id="the rare class is lost"),
        pytest.param([0] * 64, [0] * 34 + [1] * 30, GOOD + DEFECT, "mixed", id="the rare class is won"),
        pytest.param([0] * 34 + [1] * 30, [0] * 60 + [1] * 4, GOOD + DEFECT, "helped", id="none is lost"),
        pytest.param([0] * 60 + [1] * 4, [0] * 34 + [1] * 30, GOOD + DEFECT, "harmed", id="none is won"),
        pytest.param([0] * 60 + [1] * 4, [0] * 64, GOOD + DEFECT, "unclear", id="few pictures"),
        pytest.param([0] * 50 + MANY[50:], MANY[:90] + [8] * 10, MANY, "mixed", id="one class of ten is lost"),
        pytest.param([0] * 50 + MANY[50:], MANY[:92] + [8] * 3 + MANY[95:], MANY, "helped", id="little is lost"),
    ],
)
def test_training_helped_only_where_no_class_paid_for_it(before, after, labels, said, tmp_path):
    predictions = predictions_of(before, after, labels, max(labels) + 1)
    metrics = report_of(tmp_path / "report", predictions)
    assert verdict.verdict(metrics) == said
    page = (tmp_path / "report" / "report.html").read_text()
    assert ("Training helped" in page) == (said == "helped")
    assert ("Training did harm" in page) == (said == "harmed")
    assert ("Some classes gained, others lost" in page) == (said == "mixed")
    assert f"{metrics['macro_recall']:.1%}" in page.partition("Class by class")[0]


def test_a_lost_class_stands_beside_the_accuracy(tmp_path):
    predictions = predictions_of([0] * 34 + [1] * 30, [0] * 64, GOOD + DEFECT, 2)
    metrics = report_of(tmp_path / "report", predictions)
    top = (tmp_path / "report" / "report.html").read_text().partition("Class by class")[0]
    assert '<b>0.0%</b> <span class="note">0 of 4</span>' in top  # of the weakest class, after
    assert "Half or more of what was recognised before is lost" in top and "(4 → 0 of 4)" in top
    assert verdict.summary(metrics) == [
        "accuracy on 64 pictures: 93.8% (zero-shot 59.4%)",
        "mean recall of 2 classes: 50.0% (zero-shot 78.3%); weakest: class 1 100% -> 0%",
        "better: class 0 57% -> 100%",
        "worse: class 1 100% -> 0%",
    ]


def test_memory_grows_with_pictures_and_classes_not_with_pairs_of_classes(tmp_path):
    """A table of all pairs of 3,000 classes takes 72 MB; the probabilities of 10 pictures are 0.1 MB."""
    predictions = make_predictions([f"class {label}" for label in range(3000)], 10)
    tracemalloc.start()
    report_of(tmp_path / "report", predictions)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6


def test_pictures_that_vanished_are_named(tmp_path, predictions):
    dataset = make_dataset(predictions, broken=range(60))
    write_report(tmp_path, predictions, dataset, title="t", settings={})
    assert "cannot be read" in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "changed.png").exists()


def test_other_pictures_are_refused_before_anything_is_written(tmp_path, predictions):
    shuffled = make_dataset(predictions).select(range(59, -1, -1))
    with pytest.raises(ValueError, match="`dataset` must hold the pictures of `predictions` in their order"):
        write_report(tmp_path / "report", predictions, shuffled, title="t", settings={})
    empty = Predictions(["a"], [True], [], torch.zeros(0, dtype=torch.long), torch.zeros(0, 1), torch.zeros(0, 1))
    with pytest.raises(ValueError, match="at least one picture"):
        write_report(tmp_path / "report", empty, shuffled.select([]), title="t", settings={})
    assert not (tmp_path / "report").exists()


@pytest.fixture
def regular_only(tmp_path, monkeypatch):
    """matplotlib with a font that has 猫 and no bold, and with nothing remembered of earlier searches."""
    font = TTFont(matplotlib.get_data_path() + "/fonts/ttf/DejaVuSans.ttf")
    for table in font["cmap"].tables:
        if table.isUnicode():
            table.cmap[ord("猫")] = table.cmap[ord("C")]
    for record in font["name"].names:
        if record.nameID in (1, 4, 16):  # names of the family and of the font
            record.string = "Regular Only"
    font.save(tmp_path / "regular.ttf")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", font_manager.fontManager.ttflist.copy())
    font_manager.fontManager.addfont(tmp_path / "regular.ttf")  # forgets the searches
    fonts._letters.cache_clear()


def test_figures_leave_matplotlib_as_it_was_and_warn_of_nothing(tmp_path, predictions, regular_only, caplog):
    before = dict(matplotlib.rcParams)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        report_of(tmp_path / "report", predictions, history=HISTORY)
    assert dict(matplotlib.rcParams) == before
    assert not caplog.records


def test_names_that_no_font_has_are_numbered():
    families = fonts.families_for(["dog"])
    assert families == ["DejaVu Sans"]
    names = ["dog", "猫", "costs $5", "two\nlines", "x" * 40]
    drawable = fonts.drawable_names(names, families)
    assert drawable == ["dog", "class 1", r"costs \$5", "two lines", "x" * 25 + "…"]


@pytest.mark.parametrize("num_classes", [2, 40, 41, 300])
def test_confusion_is_drawn_for_any_number_of_classes(num_classes):
    predictions = make_predictions([f"class {label}" for label in range(num_classes)], 2 * num_classes, after=2)
    counts = confusion_matrix(predictions.labels, predictions.probabilities.argmax(dim=1), labels=range(num_classes))
    with figures.style(fonts.families_for(predictions.class_names)):
        axes = figures.draw_confusion(predictions, predictions.class_names).axes[0]
    if num_classes <= 40:
        shares = counts / counts.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(axes.images[0].get_array(), shares)
    else:
        widths = [bar.get_width() for bar in axes.patches]
        assert len(widths) == 20
        assert widths[0] == (counts - np.diag(counts.diagonal())).max()


class Elements(HTMLParser):
    """All elements of a page with their attributes, and those that are still open."""

    VOID = {"meta", "link", "img", "br"}

    def __init__(self, page):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_holds_everything_and_runs_nothing(folder):
    page = Elements((folder / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    tags = {tag for tag, _ in page.elements}
    assert tags.isdisjoint({"script", "iframe", "object", "form", "u", "adapter"})
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) > 10
    for _, attributes in page.elements:
        assert all(attributes.get(name, "data:").startswith("data:") for name in ("src", "href"))
        assert not [name for name in attributes if name.startswith("on")]
    assert all(attributes["alt"] for attributes in images)


def test_names_written_from_right_to_left_leave_the_rest_in_order(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    body = re.sub('alt="[^"]*"', "", text.partition("<body>")[2])
    assert body.count("كلب") == body.count("<bdi>كلب</bdi>") > 2


def test_of_many_classes_the_page_says_what_it_leaves_out(tmp_path):
    predictions = make_predictions([f"class {label}" for label in range(20)], 40)
    report_of(tmp_path, predictions)
    assert "the 4 classes between are in the table at the end" in (tmp_path / "report.html").read_text()


def read(folder):
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


# --- the decision, folds, and what they say ----------------------------------------------------------------------


def test_three_accuracies_stand_at_the_top_of_the_page(tmp_path):
    predictions = make_predictions(["cat", "dog", "fox"], before=0.5, between=1.5, after=3.0)
    metrics = report_of(tmp_path, predictions)
    page = (tmp_path / "report.html").read_text()
    assert results.rungs_in(metrics) == rungs(predictions)
    assert [rung["model"] for rung in results.rungs_in(metrics)] == ["zero-shot", "without training", "trained"]
    top = page.partition("Class by class")[0]
    labels = re.findall(r'<span class="label note">([^<]*)</span>', top)
    assert labels == ["before", "no training", "after", "before", "after", "before", "after"]
    for rung in results.rungs_in(metrics):
        assert f'{rung["model"]} <b class="number">{rung["accuracy"]:.1%}</b>' in top
        assert f"({rung['low']:.1%} to {rung['high']:.1%})" in top
        assert f"left: {rung['low']:.1%}" in top
    assert "The adapter helped: " in top  # training alone is not what it was
    assert "a decision that was fitted on your pictures" in top


@pytest.mark.parametrize(
    ("right_without", "right_trained", "change", "gained", "lost", "chance"),
    [
        (30, 50, "added 33.3 points to", 20, 0, "is hardly ever chance (p < 0.001)"),
        (30, 38, "added 13.3 points to", 8, 0, "is hardly ever chance (p = 0.01)"),
        (30, 31, "added 1.7 points to", 1, 0, "can be chance (p = 1.00)"),
        (30, 30, "made no difference to", 0, 0, None),
        (50, 30, "took 33.3 points from", 0, 20, "is hardly ever chance (p < 0.001)"),
    ],
)
def test_what_training_added_to_the_decision_is_said_with_its_doubt(
    right_without, right_trained, change, gained, lost, chance, tmp_path
):
    predictions = make_predictions(["cat", "dog"], between=1.0)
    right = torch.arange(60)
    for name, count in (("untrained", right_without), ("probabilities", right_trained)):
        called = torch.where(right < count, predictions.labels, 1 - predictions.labels)
        setattr(predictions, name, torch.eye(2)[called] * 0.8 + 0.1)
    metrics = report_of(tmp_path, predictions)
    said = f"Training {change} what the decision gets without it"
    said += "." if chance is None else f" (pictures gained: {gained}, lost: {lost}). That {chance}."
    assert verdict.training_added(metrics) == said
    assert said in verdict.summary(metrics) and said.replace("<", "&lt;") in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("change", [{"untrained": None}, {"is_trained": False, "untrained": None}])
def test_where_one_of_both_was_not_scored_nothing_is_said_of_training(change):
    metrics = compute_metrics(replace(make_predictions(["cat", "dog"]), **change))
    assert verdict.training_added(metrics) is None and "training_p_value" not in metrics


def test_out_of_fold_answers_are_called_so(tmp_path):
    predictions = make_predictions(["cat", "dog", "fox"], between=2.0, folds=4)
    predictions.class_names, predictions.trained = ["cat", "dog", "fox", "lynx"], [True] * 4  # of lynx there is one
    for name in ("probabilities", "zero_shot", "untrained"):
        setattr(predictions, name, torch.cat([getattr(predictions, name), torch.zeros(60, 1)], dim=1))
    metrics = report_of(tmp_path, predictions, confidence=Confidence.of(predictions, None))
    page = " ".join((tmp_path / "report.html").read_text().split())
    assert "they were dealt into 4 folds, and each fold was answered by models that were trained on the others" in page
    assert "Nothing is known of 1 class without pictures here: of a single picture none can be held out." in page
    assert page.count("classes that it was not trained on") == 1  # nothing is promised of them, and once is enough
    assert verdict.summary(metrics)[0].startswith(
        "accuracy on 60 pictures, each answered by a model trained without it (4"
    )
    plain = report_of(tmp_path / "plain", make_predictions(["cat", "dog", "fox"], between=2.0))
    assert "fold" not in (tmp_path / "plain" / "report.html").read_text().partition("<body>")[2]
    assert verdict.summary(plain)[0].startswith("accuracy on 60 pictures: ")


def test_what_happened_to_sets_and_names_is_counted_by_class(tmp_path):
    predictions = make_predictions(["cat", "dog", "fox"], after=1.5)
    metrics = report_of(tmp_path, predictions, confidence=Confidence.of(predictions, None))["confidence"]
    sets = predictions.probabilities.double() >= 1 - metrics["set_threshold"]
    sets |= torch.nn.functional.one_hot(predictions.probabilities.argmax(dim=1), 3).bool()
    largest, predicted = predictions.probabilities.double().max(dim=1)
    named = largest >= metrics["naming_threshold"]
    assert metrics["set_size"] == pytest.approx(sets.sum(dim=1).double().mean().item())
    assert metrics["single_sets"] == (sets.sum(dim=1) == 1).sum()
    for label, row in enumerate(metrics["per_class"]):
        own = predictions.labels == label
        assert row == {
            "class": predictions.class_names[label], "pictures": 20, "rare": False, "held": sets[own, label].sum(),
            "right": (own & named & (predicted == label)).sum(), "wrong": (own & named & (predicted != label)).sum(),
            "none": (own & ~named).sum(),
        }  # fmt: skip
    page = (tmp_path / "report.html").read_text()
    assert "Several classes, or none of these" in page and "promise nothing for a single class" in page


def test_with_too_few_pictures_the_page_says_how_many_are_needed(tmp_path):
    predictions = make_predictions(["cat", "dog"], 6)
    metrics = report_of(tmp_path, predictions, confidence=Confidence.of(predictions, None))["confidence"]
    page = (tmp_path / "report.html").read_text()
    assert metrics["set_threshold"] is metrics["naming_threshold"] is None
    assert "need at least 9 pictures" in page and "needs at least 19 pictures" in page and "What happened" not in page


def test_the_page_says_the_numbers(folder, predictions):
    page = (folder / "report.html").read_text(encoding="utf-8")
    recognised = round(predictions.accuracy * 60)
    assert f"{recognised} of 60 pictures are recognised" in page
    assert f"{predictions.accuracy:.1%}" in page
    assert f"{predictions.zero_shot_accuracy:.1%}" in page
    assert all(name in page for name in ("猫", "कुत्ता", "كلب", "Größe", "&lt;script&gt;alert(1)&lt;/script&gt;"))
    assert all(
        words.replace('"', "&#34;").replace("'", "&#39;") in page for words in read(folder)["confidence"]["words"]
    )
    assert "a {}., the {}." in page
