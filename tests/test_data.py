"""Which pictures are trained on: the field's protocol, validation pictures, files that keep a choice."""

import json
import random
from collections import Counter

import datasets
import pytest

from peft_mmrl.data import hold_out, load_split, sample_few_shot, sample_shots, save_split


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


def test_a_few_shot_split_is_drawn_from_one_random_state():
    validation = ["c", "a", "b"] * 6
    rng = random.Random(2)
    expected = sample_shots(LABELS, 8, rng), sample_shots(validation, 4, rng)
    assert sample_few_shot(LABELS, validation, 8, seed=2) == expected
    train, held = sample_few_shot(LABELS, validation, 1, seed=2)
    assert (len(train), len(held)) == (3, 3)


def test_held_out_pictures():
    labels = ["a"] * 10 + ["b"] * 2 + ["c"] + ["d"] * 40
    train, held = hold_out(labels, 0.2, random.Random(1))
    assert sorted(train + held) == list(range(len(labels)))
    assert Counter(labels[index] for index in held) == {"a": 2, "b": 1, "d": 8}
    assert hold_out(labels, 0.2, random.Random(1)) == (train, held)
    assert hold_out(labels, 0, random.Random(1)) == (list(range(len(labels))), [])
    assert Counter(labels[index] for index in hold_out(labels, 1, random.Random(1))[0]) == {
        "a": 1,
        "b": 1,
        "c": 1,
        "d": 1,
    }
    with pytest.raises(ValueError, match="`fraction`"):
        hold_out(labels, 1.5, random.Random(1))


@pytest.fixture
def pool():
    return datasets.Dataset.from_dict(
        {"path": [f"{label}/{n}.jpg" for n, label in enumerate(LABELS)], "label": LABELS}
    )


def test_a_split_is_read_again_whatever_the_order_of_files(pool, tmp_path):
    parts = {"train": pool.select([3, 0, 6]), "validation": pool.select([1])}
    save_split(tmp_path / "split.json", parts)
    assert json.loads((tmp_path / "split.json").read_text()) == {
        "train": ["c/3.jpg", "b/0.jpg", "a/6.jpg"],
        "validation": ["a/1.jpg"],
    }
    shuffled = pool.select([7, 6, 5, 4, 3, 2, 1, 0])
    again = load_split(tmp_path / "split.json", {"train": shuffled, "validation": shuffled})
    assert {name: part[:] for name, part in again.items()} == {name: part[:] for name, part in parts.items()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"train": ["b/0.jpg", "b/9.jpg"]}',
            r"1 of 2 pictures of the part 'train' are not in the data set: b/9\.jpg",
        ),
        ('{"test": []}', "has no part 'train', only test"),
        ("[1, 2]", "must be a JSON object with a list of paths per part"),
        ('{"train": 3}', "must be a JSON object with a list of paths per part"),
        ("{", "must be a JSON object with a list of paths per part"),
    ],
)
def test_a_split_that_does_not_fit(pool, tmp_path, content, message):
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_split(tmp_path / "split.json", {"train": pool})
