"""Few-shot sampling by the field's protocol."""

import random

import pytest

from peft_mmrl.data import sample_shots


LABELS = ["b", "a", "b", "c", "a", "b", "a", "b"]


def test_groups_are_sampled_in_the_order_in_which_labels_appear():
    rng = random.Random(1)
    expected = [index for group in ([0, 2, 5, 7], [1, 4, 6]) for index in rng.sample(group, 2)] + [3]
    assert sample_shots(LABELS, 2, random.Random(1)) == expected


def test_validation_goes_on_with_the_same_random_state():
    rng = random.Random(2)
    first, second = sample_shots(LABELS, 1, rng), sample_shots(LABELS, 1, rng)
    rng = random.Random(2)
    assert [rng.sample([0, 2, 5, 7], 1)[0], rng.sample([1, 4, 6], 1)[0], rng.sample([3], 1)[0]] == first
    assert [rng.sample([0, 2, 5, 7], 1)[0], rng.sample([1, 4, 6], 1)[0], rng.sample([3], 1)[0]] == second


def test_other_random_calls_do_not_matter():
    random.seed(99)
    random.random()
    assert sample_shots(LABELS, 2, random.Random(3)) == sample_shots(LABELS, 2, random.Random(3))


@pytest.mark.parametrize("shots", [0, -1, 1.5, "2"])
def test_shots_must_be_a_positive_whole_number(shots):
    with pytest.raises(ValueError, match="`shots`"):
        sample_shots(LABELS, shots, random.Random(0))
