"""Intervals, sets of classes and "none of these" from pictures that a model was not trained on."""

import math

import pytest
import torch
from scipy.stats import beta, binomtest

from peft_mmrl.scoring.confidence import (
    accuracy_interval,
    class_sets,
    coverage_threshold,
    pictures_needed,
    risk_threshold,
)


def answers(num_pictures, num_classes=4, seed=0, sharpness=2.0):
    """Probabilities of calibrated answers and the true classes."""
    generator = torch.Generator().manual_seed(seed)
    probabilities = (sharpness * torch.randn(num_pictures, num_classes, generator=generator)).softmax(dim=1)
    return probabilities, torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def own(probabilities, labels):
    """Probabilities of the true classes."""
    return probabilities.gather(1, labels[:, None])[:, 0]


def guesses(probabilities, labels):
    """Largest probabilities, and whether they are those of the true classes."""
    largest, predicted = probabilities.max(dim=1)
    return largest, predicted == labels


# --- accuracy ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "pictures"), [(0, 1), (1, 1), (0, 10), (10, 10), (7, 10), (79, 80), (900, 1000)])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_interval_is_scipys(right, pictures, level):
    expected = binomtest(right, pictures).proportion_ci(level, method="exact")
    assert accuracy_interval(right, pictures, level) == pytest.approx(tuple(expected), abs=1e-9)


def test_interval_of_very_many_pictures_is_scipys():
    low, high = accuracy_interval(60_000, 100_000)
    assert low == pytest.approx(beta.ppf(0.05, 60_000, 40_001), abs=1e-7)
    assert high == pytest.approx(beta.ppf(0.95, 60_001, 40_000), abs=1e-7)


@pytest.mark.parametrize("truth", [0.55, 0.9, 0.99])
def test_interval_holds_the_truth_as_often_as_it_says(truth):
    held = sum(
        binomtest_pmf * (low <= truth <= high)
        for right in range(21)
        for binomtest_pmf in [math.comb(20, right) * truth**right * (1 - truth) ** (20 - right)]
        for low, high in [accuracy_interval(right, 20)]
    )
    assert held >= 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 0), "`right` must lie between 0 and `pictures`"),
        ((5, 4), "`right` must lie between 0 and `pictures`"),
        ((-1, 4), "`right` must lie between 0 and `pictures`"),
        ((1.5, 4), "`right` must be a whole number"),
        ((1, True), "`pictures` must be a whole number"),
        ((1, 4, 1.0), "`level` must lie between 0 and 1"),
        ((1, 4, float("nan")), "`level` must be a number from 0 to 1"),
    ],
)
def test_what_is_no_accuracy_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        accuracy_interval(*arguments)


# --- sets of classes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("coverage", "needed"), [(0.9, 9), (0.8, 4), (0.95, 19), (0.7, 3), (0.5, 1)])
def test_too_few_pictures_for_a_coverage(coverage, needed):
    assert pictures_needed(1 - coverage) == needed
    assert coverage_threshold(own(*answers(needed - 1 or 1)), coverage) is None or needed == 1
    assert coverage_threshold(own(*answers(needed)), coverage) is not None


@pytest.mark.parametrize("share", [1e-7, 1 - 1e-7])
def test_an_aim_that_no_number_of_pictures_reaches_is_refused(share):
    with pytest.raises(ValueError, match="`coverage` must be at least a millionth away from 0 and 1"):
        coverage_threshold(own(*answers(30)), share)
    with pytest.raises(ValueError, match="`risk` must be at least a millionth away from 0 and 1"):
        risk_threshold(*guesses(*answers(30)), share)
    assert pictures_needed(1e-6) == 10**6 - 1


def test_threshold_is_the_ranked_surprise():
    true = torch.tensor([0.95, 0.85, 0.75, 0.65, 0.55, 0.45, 0.35, 0.25, 0.15, 0.05]).double()
    assert coverage_threshold(true, 0.7) == pytest.approx(1 - 0.35 + 0.1)  # the 8th of ceil(7.7)
    assert coverage_threshold(true, 0.9) == pytest.approx(0.95)  # the 10th of ceil(9.9)


def test_sets_cover_what_was_aimed_at_on_average():
    covered = []
    for seed in range(300):
        threshold = coverage_threshold(own(*answers(30, seed=seed)), 0.9)
        probabilities, labels = answers(50, seed=1000 + seed)
        covered.append(class_sets(probabilities, threshold).gather(1, labels[:, None]).double().mean())
    assert 0.89 <= torch.stack(covered).mean() <= 0.96


def test_sets_hold_probable_classes_and_always_the_likeliest():
    probabilities = torch.tensor([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0], [0.3, 0.3, 0.4]])
    assert class_sets(probabilities, 0.75).tolist() == [[True, True, False], [True, False, False], [True, True, True]]
    assert class_sets(probabilities, 0.1).sum(dim=1).tolist() == [1, 1, 1]
    assert class_sets(probabilities, 0.1)[2].tolist() == [False, False, True]


# --- none of these -----------------------------------------------------------------------------------------------


def test_fewest_errors_are_named():
    largest, is_right = torch.tensor([0.9, 0.8, 0.7, 0.6]).double(), torch.tensor([True, False, True, False])
    assert risk_threshold(largest, is_right, 0.2) == pytest.approx(0.8)  # no error allowed: just above 0.8
    assert risk_threshold(largest, is_right, 0.2) > 0.8
    assert risk_threshold(largest, is_right, 0.4) == pytest.approx(0.6)  # one allowed
    assert risk_threshold(largest, is_right, 0.6) == 0  # both allowed


@pytest.mark.parametrize(("risk", "needed"), [(0.05, 19), (0.1, 9), (0.3, 3)])
def test_too_few_pictures_for_a_risk(risk, needed):
    assert pictures_needed(risk) == needed
    assert risk_threshold(*guesses(*answers(needed - 1)), risk) is None
    assert risk_threshold(*guesses(*answers(needed)), risk) is not None


def test_risk_is_kept_on_average():
    wrong = []
    for seed in range(300):
        threshold = risk_threshold(*guesses(*answers(40, seed=seed)), 0.1)
        probabilities, labels = answers(50, seed=1000 + seed)
        best, predicted = probabilities.max(dim=1)
        wrong.append(((best >= threshold) & (predicted != labels)).double().mean())
    assert torch.stack(wrong).mean() <= 0.1


GIVEN = {
    coverage_threshold: {"own": torch.full((4,), 0.5), "coverage": 0.5},
    risk_threshold: {"largest": torch.full((4,), 0.5), "is_right": torch.ones(4, dtype=torch.bool), "risk": 0.5},
}


@pytest.mark.parametrize("function", GIVEN)
@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, torch.full((4,), float("nan")), "must lie between 0 and 1"),
        (0, torch.full((4,), 1.5), "must lie between 0 and 1"),
        (0, torch.zeros(4, 2), "must have the shape"),
        (0, torch.zeros(0), "must have the shape"),
        (0, [0.5], "must be a tensor of floats"),
        (-1, 0, "must lie between 0 and 1"),
        (-1, 1, "must lie between 0 and 1"),
        (-1, "much", "must be a number from 0 to 1"),
    ],
)
def test_what_are_no_answers_is_refused(function, position, value, message):
    given = dict(GIVEN[function])
    name = list(given)[position]
    with pytest.raises(ValueError, match=f"`{name}` {message}"):
        function(**given | {name: value})


@pytest.mark.parametrize("is_right", [torch.ones(3, dtype=torch.bool), torch.ones(4), [True] * 4])
def test_what_is_right_must_be_told_of_each_picture(is_right):
    with pytest.raises(ValueError, match="`is_right` must be a tensor of 4 booleans"):
        risk_threshold(torch.full((4,), 0.5), is_right, 0.5)
