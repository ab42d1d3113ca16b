"""What held-out pictures said is kept beside an adapter: it answers for any aim and claims no more than is known."""

import json
import re
from dataclasses import replace

import pytest
import torch
from conftest import make_clip
from peft import PeftModel, get_peft_model
from report_samples import make_predictions

from peft_mmrl import MMRLConfig
from peft_mmrl.scoring.confidence import class_sets, coverage_threshold, risk_threshold
from peft_mmrl.scoring.held_out import Confidence, digest_of


NAMES = ["cat", "dog", "fox"]


@pytest.fixture(scope="module")
def predictions():
    return make_predictions(NAMES, 60, after=1.5)


@pytest.fixture(scope="module")
def confidence(predictions):
    return Confidence.of(predictions, None)


def test_sets_are_those_of_the_probabilities(predictions, confidence):
    own = predictions.probabilities.double().gather(1, predictions.labels[:, None])
    for coverage in (0.5, 0.8, 0.9, 0.97):
        aim = confidence.for_coverage(coverage)
        assert aim.threshold == coverage_threshold(own[:, 0], coverage)
        sets = class_sets(predictions.probabilities, aim.threshold)
        assert aim.good == sets.gather(1, predictions.labels[:, None])[:, 0].tolist()
        assert sum(aim.good) / 60 >= coverage
        assert f"{sum(aim.good)} ({sum(aim.good) / 60:.1%}) have their class in the set" in aim.words


def test_naming_keeps_the_risk(predictions, confidence):
    largest, predicted = predictions.probabilities.double().max(dim=1)
    is_right = predicted == predictions.labels
    for risk in (0.02, 0.05, 0.2):
        aim = confidence.for_risk(risk)
        assert aim.threshold == risk_threshold(largest, is_right, risk)
        named = largest >= aim.threshold
        assert aim.good == (named & is_right).tolist()
        assert (named & ~is_right).sum() + 1 <= risk * 61
        right, wrong, none = re.search(
            r"(\d+) are named rightly, (\d+) wrongly and (\d+) not at all", aim.words
        ).groups()
        assert [int(right), int(wrong), int(none)] == [sum(aim.good), (named & ~is_right).sum(), (~named).sum()]


def test_where_few_enough_are_wrong_all_are_named():
    aim = Confidence.of(make_predictions(NAMES, 60, after=9.0), None).for_risk()
    assert aim.threshold == 0 and aim.words.startswith("Naming every picture (predict --risk 0.05) aims at")


@pytest.mark.parametrize(("pictures", "coverage", "risk"), [(8, 9, 19), (3, 9, 19)])
def test_too_few_pictures_say_how_many_are_needed(pictures, coverage, risk):
    confidence = Confidence.of(make_predictions(NAMES, pictures), None)
    assert confidence.for_coverage().threshold is confidence.for_risk().threshold is None
    words = "at least {} pictures that were not trained on, and there are {}."
    assert confidence.for_coverage().words == f"Sets that aim at 90% need {words.format(coverage, pictures)}"
    assert confidence.for_risk().words == f'"None of these" at a risk of 5% needs {words.format(risk, pictures)}'


def test_it_says_where_it_comes_from_and_what_came_of_it_in_trials(predictions, confidence):
    folds = Confidence.of(replace(predictions, folds=4), None)
    for aim in (folds.for_coverage(), folds.for_risk()):
        assert "Of 60 pictures, each answered by a model trained without it (4 folds), " in aim.words
    assert "Of 60 held-out pictures " in confidence.for_coverage().words
    assert (
        "aim at 90%" in folds.for_coverage().words
        and "88 to 94% on average, 69% at worst" in folds.for_coverage().words
    )


@pytest.mark.parametrize("names", [["cat", "dog"], NAMES])
def test_of_other_classes_nothing_is_claimed_unless_their_pictures_are_given(names):
    predictions = make_predictions(names, 60, after=1.0)
    assert (
        "How many pictures of other classes would be named isn't known"
        in Confidence.of(predictions, None).for_risk().words
    )
    given = Confidence.of(predictions, None, torch.tensor([0.0, 0.01, 1.0], dtype=torch.double))
    assert "Of 3 pictures of other classes that were given, 1 would be named." in given.for_risk().words


def test_a_class_with_few_pictures_is_reported_apart():
    predictions = make_predictions(["cat", "dog"], 40)
    kept = [index for index, label in enumerate(predictions.labels.tolist()) if label == 0 or index < 6]
    for name in ("labels", "probabilities", "zero_shot"):
        setattr(predictions, name, getattr(predictions, name)[kept])
    confidence = Confidence.of(predictions, None)
    assert confidence.rare() == {"dog"}
    assert re.fullmatch(
        r"cat \d+ of 20; with few pictures: dog \d of 3", confidence.by_class_in_words(confidence.for_coverage().good)
    )
    assert Confidence.of(make_predictions(["cat", "dog"], 4), None).rare() == set()


def test_classes_where_it_goes_worst_come_first(confidence):
    labels = torch.tensor(confidence.labels)
    assert confidence.by_class_in_words((labels != 1).tolist()) == "dog 0 of 20, cat 20 of 20, fox 20 of 20"


def test_it_is_saved_beside_the_adapter(predictions, tmp_path):
    for unknown in (None, torch.tensor([0.25, 0.5])):
        confidence = Confidence.of(replace(predictions, folds=3), None, unknown)
        confidence.save(tmp_path)
        assert Confidence.load(tmp_path) == confidence
    assert set(json.loads((tmp_path / "confidence.json").read_text())) == {
        "class_names", "labels", "predicted", "own", "largest", "folds", "unknown", "decision",
    }  # fmt: skip


def test_an_adapter_without_it(tmp_path):
    (tmp_path / "threshold.json").write_text("{}")  # of former versions
    with pytest.raises(FileNotFoundError, match=r"has no confidence\.json: train it anew"):
        Confidence.load(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "no JSON",
        "[]",
        "{}",
        {"labels": [0]},
        {"labels": [3, 0]},
        {"predicted": [-1, 0]},
        {"own": [0.5, float("nan")]},
        {"own": ["much", 0.5]},
        {"largest": [0.5, 1.5]},
        {"unknown": [2.0]},
        {"more": 1},
        {"labels": [], "predicted": [], "own": [], "largest": []},
    ],
)
def test_a_damaged_file_is_refused(content, tmp_path):
    whole = {"class_names": NAMES, "labels": [0, 1], "predicted": [0, 0], "own": [0.9, 0.2], "largest": [0.9, 0.7]}
    text = content if isinstance(content, str) else json.dumps(whole | content)
    (tmp_path / "confidence.json").write_text(text)
    with pytest.raises(ValueError, match=r"confidence\.json does not hold what held-out pictures said"):
        Confidence.load(tmp_path)


# --- what it holds for -------------------------------------------------------------------------------------------


@pytest.fixture
def decided(tokenizer, images):
    model = get_peft_model(make_clip(), MMRLConfig(rep_dim=16))
    model.set_classes(NAMES, tokenizer)
    model.fit_decision(images, torch.tensor([0, 1, 2, 0]))
    return model.eval()


def test_it_holds_for_the_trained_classes_in_any_order(predictions, decided, tokenizer):
    confidence = Confidence.of(predictions, decided.decision)
    confidence.check_fits(decided)
    decided.set_classes(NAMES[::-1], tokenizer)
    confidence.check_fits(decided)


@pytest.mark.parametrize("names", [[*NAMES, "axolotl"], NAMES[:2]])
def test_it_holds_for_no_others_and_no_part_of_them(names, predictions, decided, tokenizer):
    decided.set_classes(names, tokenizer)
    with pytest.raises(
        ValueError, match=f"hold for the trained classes among themselves.*{(set(names) ^ set(NAMES)).pop()}"
    ):
        Confidence.of(predictions, decided.decision).check_fits(decided)


def test_it_does_not_hold_where_the_decision_is_not_used(predictions, decided, tokenizer, tmp_path):
    confidence = Confidence.of(predictions, decided.decision)
    decided.save_pretrained(tmp_path)
    decided.set_classes(NAMES, tokenizer, template="a sketch of a {}.")
    with pytest.raises(ValueError, match="not used here: it was fitted for another template"):
        confidence.check_fits(decided)
    with pytest.warns(UserWarning):
        elsewhere = PeftModel.from_pretrained(make_clip(seed=5), tmp_path).eval()
    with pytest.raises(ValueError, match="not used here: it was fitted for another base model"):
        confidence.check_fits(elsewhere)


def test_it_holds_for_the_decision_that_it_was_saved_with(predictions, decided, images, tmp_path):
    confidence = Confidence.of(predictions, decided.decision)
    decided.save_pretrained(tmp_path)
    decided.load_adapter(tmp_path, "default")  # the same, read from disk
    confidence.check_fits(decided)
    decided.fit_decision(images, torch.tensor([0, 1, 2, 1]))
    with pytest.raises(ValueError, match="which is another now"):
        confidence.check_fits(decided)
    decided.decision = None
    with pytest.raises(ValueError, match="which was taken off"):
        confidence.check_fits(decided)
    Confidence.of(predictions, None).check_fits(decided)
    assert digest_of(None) is None
