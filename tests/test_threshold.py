"""The threshold for "none of these" keeps its promise on known pictures and says what it costs."""

import json

import pytest
import torch

from peft_mmrl.scoring.threshold import Threshold


@pytest.fixture
def probabilities():
    """Of 40 pictures over 4 classes."""
    return (3 * torch.randn(40, 4, generator=torch.Generator().manual_seed(0))).softmax(dim=1)


@pytest.fixture
def labels(probabilities):
    """The likeliest class, but for the five last pictures."""
    labels = probabilities.argmax(dim=1)
    labels[-5:] = (labels[-5:] + 1) % 4
    return labels


@pytest.mark.parametrize("max_rejected", [0, 0.05, 0.3, 1])
def test_no_more_known_pictures_are_rejected_than_allowed(probabilities, labels, max_rejected):
    chosen = Threshold.choose(probabilities, labels, max_rejected=max_rejected)
    best, predicted = probabilities.double().max(dim=1)
    rejected = best < chosen.threshold
    assert chosen.known_rejected == rejected.double().mean().item() <= max_rejected
    assert chosen.known_rejected >= min(max_rejected, 39 / 40) - 1e-9  # and no fewer than need be
    wrong = sum(
        not reject and guess != label for reject, guess, label in zip(rejected, predicted, labels, strict=True)
    )
    assert chosen.known_wrong == pytest.approx(wrong / 40)
    assert (chosen.pictures, chosen.score) == (40, "max_probability")


def test_pictures_of_other_classes_are_counted_where_they_are_given(probabilities, labels):
    unknown = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 1.0, 0.0]])
    chosen = Threshold.choose(probabilities, labels, unknown)
    assert (chosen.unknown_accepted, chosen.unknown) == (0.5, "given")


def test_without_them_each_picture_s_own_class_is_hidden(probabilities, labels):
    chosen = Threshold.choose(probabilities, labels)
    accepted = 0
    for row, label in zip(probabilities, labels, strict=True):
        others = torch.cat([row[:label], row[label + 1 :]])  # what softmax gives without that class
        accepted += (others / others.sum()).max().item() >= chosen.threshold
    assert chosen.unknown_accepted == pytest.approx(accepted / 40)
    assert chosen.unknown == "own class hidden"


def test_certain_answers():
    chosen = Threshold.choose(torch.eye(3), torch.arange(3))
    assert (chosen.threshold, chosen.known_rejected, chosen.known_wrong, chosen.unknown_accepted) == (1, 0, 0, 0)


def test_it_is_saved_beside_the_adapter(probabilities, labels, tmp_path):
    chosen = Threshold.choose(probabilities, labels)
    chosen.save(tmp_path)
    assert json.loads((tmp_path / "threshold.json").read_text())["threshold"] == chosen.threshold
    assert Threshold.load(tmp_path) == chosen
    assert f"{chosen.threshold:.3f}" in str(chosen)


def test_an_adapter_without_threshold(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no threshold\.json: training writes one"):
        Threshold.load(tmp_path)
    (tmp_path / "threshold.json").write_text('{"limit": 3}')
    with pytest.raises(ValueError, match=r"threshold\.json holds no threshold"):
        Threshold.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_rejected": 2}, "`max_rejected`"),
        ({"probabilities": torch.zeros(0, 4)}, "`probabilities`"),
        ({"probabilities": [[0.5, 0.5]]}, "`probabilities`"),
        ({"labels": torch.zeros(3, dtype=torch.long)}, "`labels`"),
        ({"labels": torch.full((40,), 4)}, "`labels`"),
        ({"unknown_probabilities": torch.ones(2, 3)}, "`unknown_probabilities`"),
    ],
)
def test_wrong_arguments(probabilities, labels, changes, message):
    with pytest.raises(ValueError, match=message):
        Threshold.choose(**{"probabilities": probabilities, "labels": labels, **changes})
