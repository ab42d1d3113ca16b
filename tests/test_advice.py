"""Advice from answers out of fold: labels that are probably wrong, and where more pictures help most."""

import random
import sys

import numpy as np
import pytest
import torch
from demo_parts.methods import load_clip
from digits import CLASS_NAMES, load_digits
from peft import get_peft_model

from peft_mmrl import MMRLConfig
from peft_mmrl.data import deal_folds
from peft_mmrl.data.sources import load_columns
from peft_mmrl.metrics.functions import per_class
from peft_mmrl.projects.gauges import gauges
from peft_mmrl.projects.mistakes import probable_mistakes
from peft_mmrl.training import FrozenFeatures, make_accelerator


@pytest.fixture(scope="module")
def seen():
    """What the demo's frozen CLIP sees in 800 digits."""
    clip, processor = load_clip()
    model = get_peft_model(clip, MMRLConfig())
    model.set_classes(CLASS_NAMES, processor)
    pictures, _ = load_columns(load_digits()["train"], "digits", "train", "image", "label")
    return FrozenFeatures.of(model, pictures, processor, make_accelerator(cpu=True), with_mirrored=False)


def of_rows(seen, rows, labels=None):
    rows = torch.as_tensor(rows)
    labels = seen.labels[rows] if labels is None else torch.as_tensor(labels)
    return FrozenFeatures(seen.images[rows], None, seen.text, labels, seen.scale, seen.measures[rows])


def out_of_fold(frozen):
    labels = frozen.labels.tolist()
    fold = torch.tensor(deal_folds(labels, range(len(labels)), None, random.Random(1)))
    return frozen.hold_out(frozen.fit_untrained(features="frozen"), fold)[1]


def some_of_each(seen, counts, rng):
    """Rows of so many pictures of each digit, and the other rows of each."""
    rows = [rng.permutation(np.flatnonzero(seen.labels.numpy() == digit)).tolist() for digit in range(10)]
    chosen = [row for own, count in zip(rows, counts, strict=True) for row in own[:count]]
    return chosen, [own[count:] for own, count in zip(rows, counts, strict=True)]


# --- mistakes ----------------------------------------------------------------------------------------------------


def test_planted_wrong_labels_are_found_among_the_first(seen):
    planted = found = first = named = 0
    for seed in range(2):
        rng = np.random.default_rng(seed)
        rows, _ = some_of_each(seen, [16] * 10, rng)
        labels = seen.labels[torch.tensor(rows)].numpy().copy()
        wrong = rng.choice(len(rows), 12, replace=False)
        right = labels[wrong].copy()
        labels[wrong] = (labels[wrong] + rng.integers(1, 10, 12)) % 10
        mistakes = probable_mistakes(labels, out_of_fold(of_rows(seen, rows, labels)))
        places = [mistake.position for mistake in mistakes]
        planted += 12
        named += len(places)
        found += len({*places} & {*wrong})
        first += len({*places[:12]} & {*wrong})
        truth = dict(zip(wrong.tolist(), right.tolist(), strict=True))
        mended = [mistake.suggested == truth[mistake.position] for mistake in mistakes if mistake.position in truth]
        assert np.mean(mended) > 0.7
        assert [mistake.score for mistake in mistakes] == sorted(mistake.score for mistake in mistakes)
        assert all(mistake.suggested != labels[mistake.position] for mistake in mistakes)
    assert found / planted >= 0.85 and first / planted >= 0.6 and found / named >= 0.35


def test_classes_without_labels_and_labels_that_are_right_are_no_trouble():
    labels = np.array([0, 0, 2, 2])
    sure = np.eye(4)[labels]
    assert probable_mistakes(labels, sure) == []
    assert probable_mistakes(np.zeros(3, int), np.eye(2)[[0, 1, 1]]) == []  # one class: nothing to go by
    assert probable_mistakes([], np.empty((0, 3))) == []
    swapped = np.eye(4)[[0, 0, 2, 1]] * 0.9 + 0.025
    assert all(mistake.position == 3 and mistake.suggested == 1 for mistake in probable_mistakes(labels, swapped))


def test_a_picture_that_looks_like_a_class_known_by_name_alone_is_named_where_it_hardly_looks_like_its_own():
    labels = np.repeat([0, 1], 6)
    probabilities = np.array([[0.9, 0.06, 0.04]] * 6 + [[0.06, 0.9, 0.04]] * 6)
    assert probable_mistakes(labels, probabilities) == []
    probabilities[3] = [0.02, 0.01, 0.97]  # like nobody's
    probabilities[8] = [0.1, 0.3, 0.6]  # like its own, too
    found = probable_mistakes(labels, probabilities)
    assert (3, 2) in [(one.position, one.suggested) for one in found]
    assert 8 not in [one.position for one in found]


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0], np.full((2, 2), 0.5), "a row per picture"),
        ([0, 3], np.full((2, 2), 0.5), "between 0 and 1"),
        ([0, 1], np.ones((2, 2)), "add up to 1"),
        ([0, 1], np.array([[np.nan, 0.5], [0.5, 0.5]]), "add up to 1"),
    ],
)
def test_what_is_no_answer_out_of_fold_is_refused(labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        probable_mistakes(labels, probabilities)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(ImportError, match=r'cleanlab is not installed: pip install "peft_mmrl\[app\]"'):
        probable_mistakes([0, 1], np.eye(2))


# --- gauges ------------------------------------------------------------------------------------------------------


def test_classes_that_are_named_gain_more_by_four_pictures_than_the_others(seen):
    gains = {True: [], False: []}
    for seed in range(2):
        rng = np.random.default_rng(seed)
        counts = rng.integers(2, 9, 10)
        rows, others = some_of_each(seen, counts, rng)
        frozen = of_rows(seen, rows)
        test = torch.tensor(sorted(set(range(800)) - set(rows) - {row for own in others for row in own[:4]}))

        def recalls(frozen, test=test):
            said = frozen.decide(frozen.fit_untrained(features="frozen"), seen.images[test]).argmax(dim=1)
            return per_class(said, seen.labels[test], 10)["recall"]

        before = recalls(frozen)
        for digit, gauge in enumerate(gauges(frozen.labels, out_of_fold(frozen), CLASS_NAMES)):
            after = recalls(of_rows(seen, rows + others[digit][:4]))[digit]
            gains[gauge.is_most].append(after - before[digit])
    assert min(map(len, gains.values())) >= 3
    assert np.mean(gains[True]) > np.mean(gains[False]) + 0.03


def test_words_and_numbers_say_the_same():
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    shares = torch.tensor([0.95, 0.95, 0.95, 0.95, 0.4, 0.4, 0.6, 0.3])
    probabilities = torch.zeros(8, 4).scatter(1, labels[:, None], shares[:, None])
    probabilities[:, 3] = 1 - shares
    good, bad, single, empty = gauges(labels, probabilities, ["cat", "dog", "fox", "elk"], [4, 4, 1, 0])
    assert good.words == "4 of 4 pictures of cat are recognised, 95% sure: that is good."
    assert good.recall == 1 and not good.is_most
    assert bad.recall == 0.25
    assert single.recall is None and "cannot be checked" in single.words
    assert empty.is_most and "first ones help most" in empty.words
    found = gauges(labels[4:], probabilities[4:], ["cat", "dog", "fox", "elk"])
    assert [gauge.is_most for gauge in found] == [True, False, True, True]
    with pytest.raises(ValueError, match="shape"):
        gauges(labels, probabilities[:3], ["cat", "dog", "fox", "elk"])
