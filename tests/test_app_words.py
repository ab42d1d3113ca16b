"""What the page says: numbers with their meaning, answers, what a training came to; names are never taken for HTML."""

import csv
import json

import pytest

from peft_mmrl.app.answer_html import answer_html, is_doubtful
from peft_mmrl.app.outcome_words import changed_pictures, changes_html, outcome_html, trained_words
from peft_mmrl.app.words import classes, duration, note, of_hundred, pictures, size
from peft_mmrl.data.wording import in_words, percent
from peft_mmrl.projects.picture_answers import PictureAnswer
from peft_mmrl.projects.since_training import Changes


EVIL = '<img src="http://example.com/a.png">'


@pytest.mark.parametrize(
    ("rung", "said"),
    [
        ((0.8, 0.62, 0.91), "Of 100 new pictures like yours it gets about 80 right (between 62 and 91)"),
        ((0.97, 0.94, 0.99), "Of 100 new pictures like yours it gets about 97 right (between 94 and 99)"),
        ((1.0, 1.0, 1.0), "Of 100 new pictures like yours it gets about 100 right"),
    ],
)
def test_an_accuracy_is_said_in_pictures(rung, said):
    assert of_hundred(*rung) == said


def test_numbers_and_lists_in_words():
    assert [pictures(1), pictures(1200), classes(1), classes(2)] == [
        "1 picture",
        "1,200 pictures",
        "1 class",
        "2 classes",
    ]
    assert [in_words(["a"]), in_words(["a", "b"]), in_words(["a", "b", "c"], "and")] == ["a", "a or b", "a, b and c"]
    assert [duration(seconds) for seconds in (1, 60, 190, 7200)] == [
        "less than a minute",
        "about 1 minute",
        "about 3 minutes",
        "about 2 hours",
    ]
    assert [size(number) for number in (1, 830_000, 9_900_000, 610_000_000)] == [
        "0.1 MB",
        "0.8 MB",
        "9.9 MB",
        "610 MB",
    ]
    assert [percent(share) for share in (1.0, 0.5, 0.0)] == ["> 99%", "50%", "< 1%"]


def answer(likely, ranks=(("cat", 0.6), (EVIL, 0.4))):
    return PictureAnswer("words", list(ranks), list(likely), zero_shot=list(ranks), notes=[EVIL])


def test_an_answer_says_how_sure_it_is():
    assert "This is <b>cat</b>, 60% sure." in answer_html(answer(["cat"]))
    assert "This is one of these: <b>cat</b> or <b>&lt;img" in answer_html(answer(["cat", EVIL]))
    assert "none of your classes" in answer_html(answer([]))
    assert [is_doubtful(answer(likely)) for likely in (["cat"], ["cat", EVIL], [])] == [False, True, True]
    assert not is_doubtful(PictureAnswer("This picture cannot be opened."))


def test_names_are_never_taken_for_html():
    for likely in (["cat"], ["cat", EVIL], []):
        assert "<img" not in answer_html(answer(likely))
    assert "<img" not in answer_html(PictureAnswer(EVIL))


METRICS = {
    "pictures": 40, "accuracy": 0.9, "accuracy_low": 0.79, "accuracy_high": 0.96, "macro_recall": 0.9, "gained": 10,
    "lost": 2, "difference_p_value": 0.04, "folds": 4, "zero_shot_accuracy": 0.7, "zero_shot_accuracy_low": 0.56,
    "zero_shot_accuracy_high": 0.81, "zero_shot_macro_recall": 0.7,
    "per_class": [
        {"class": EVIL, "pictures": 20, "recall": 0.8, "zero_shot_recall": 0.4},
        {"class": "dog", "pictures": 20, "recall": 1.0, "zero_shot_recall": 1.0},
    ],
}  # fmt: skip


TRAINING = {"training_gained": 1, "training_lost": 1, "training_p_value": 1.0}


@pytest.fixture
def run(tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "metrics.json").write_text(json.dumps(METRICS))
    with open(tmp_path / "report" / "predictions.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "zero_shot_predicted", "predicted"])
        rows.writerows(
            [["a.png", "cat", "dog", "cat"], ["b.png", "cat", "cat", "dog"], ["c.png", "cat", "dog", "fox"]]
        )
    return tmp_path


def test_a_training_is_summed_up_in_sentences(run):
    said = outcome_html(run)
    assert "Your pictures have helped." in said
    assert "Of 100 new pictures like yours it gets about 90 right (between 79 and 96)" in said
    assert "of 100 new pictures like yours it gets about 70 right (between 56 and 81)" in said
    assert "Of your 40 pictures 10 are now right that had been wrong, and 2 wrong that were right." in said
    assert "(16 of 20 right)" in said
    assert "<img" not in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"difference_p_value": 0.4}, "cannot be said yet"),
        ({"gained": 1, "lost": 9, "macro_recall": 0.5}, "It has become worse"),
        ({"gained": 9, "lost": 1, "macro_recall": 0.5}, "Some classes are recognised better, and others worse."),
        (TRAINING | {"training_gained": 0, "training_lost": 0}, "the training itself makes no difference"),
        (
            TRAINING | {"training_gained": 2, "training_lost": 1},
            "2 are right that had been wrong, and 1 wrong that were right: that can be chance.",
        ),
        (TRAINING | {"training_lost": 9, "training_p_value": 0.01}, "without training it is better. Choose “Your"),
        (
            TRAINING | {"training_gained": 9, "training_p_value": 0.01},
            "9 are right that had been wrong, and 1 wrong that were right: that is hardly ever chance.",
        ),
    ],
)
def test_what_a_training_did_not_bring_is_said_too(run, changes, said):
    (run / "report" / "metrics.json").write_text(json.dumps(METRICS | changes))
    assert said in outcome_html(run)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Next: <b>Try</b> it"),
        ({"accuracy": 0.7}, "Next: add pictures of &lt;img"),
        ({"gained": 1, "lost": 9, "macro_recall": 0.5}, "Next: look into <b>Improve</b>"),
        ({"gained": 0, "lost": 0, "difference_p_value": 1.0, "accuracy": 1.0}, "All 40 are answered as before"),
        ({"gained": 0, "lost": 0, "difference_p_value": 1.0}, "The same 36 of your 40 pictures are right as before"),
        ({"untrained_accuracy": 0.8}, "with your pictures, but without training: of 100 new pictures like yours"),
    ],
)
def test_every_result_says_what_comes_next_and_nothing_that_reads_oddly(run, changes, said):
    (run / "report" / "metrics.json").write_text(json.dumps(METRICS | changes))
    found = outcome_html(run)
    assert said in found and found.count("Next: ") == 1
    assert "<img" not in found and " 0 are now right" not in found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (None, ""),
        (Changes(), ""),
        (Changes(added=1), "1 picture was added since the last training: train again to learn from it."),
        (Changes(3, 1), "3 pictures were added and 1 moved since the last training: train again to learn from them."),
        (Changes(gone=2), "2 pictures were taken out since the last training: train again to do without them."),
        (Changes(classes=("null", EVIL)), "does not know null, &lt;img"),
    ],
)
def test_what_has_changed_since_a_training_is_said(changes, said):
    found = changes_html(changes)
    assert said in found and bool(found) == bool(said) and "<img" not in found


def test_a_run_without_figures_says_so(tmp_path):
    assert "too few pictures to check" in outcome_html(tmp_path) and "Next: " in outcome_html(tmp_path)
    assert trained_words(tmp_path) == "Trained. There were too few pictures to check how good it is."
    assert changed_pictures(tmp_path, 5) == []


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"\xff\xfe", b"path,label\n1,2,3\n", b"path,label,predicted\n1\n"]
)
def test_damaged_files_of_a_report_are_no_fault_of_the_page(run, content):
    for name in ("metrics.json", "predictions.csv"):
        (run / "report" / name).write_bytes(content)
    assert "too few pictures to check" in outcome_html(run) and "too few" in trained_words(run)
    assert changed_pictures(run, 5) == []


def test_pictures_that_changed_are_those_that_became_right_or_wrong(run):
    assert [one.path for one in changed_pictures(run, 5)] == ["a.png", "b.png"]
    assert [one.path for one in changed_pictures(run, 1)] == ["a.png"]


def test_small_print_is_read_out_where_it_is_new():
    assert note("a <b>b</b>") == '<p class="note">a <b>b</b></p>'
    assert note("a", "since", is_news=True) == '<p class="note since" role="status">a</p>'
