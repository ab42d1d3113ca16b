"""Classes of which there are many more pictures than of others."""

import copy

import numpy as np
import pytest
import torch
from peft import get_peft_model
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy

from peft_mmrl import MMRLConfig
from peft_mmrl.data import balanced_weights
from peft_mmrl.data.balance import note_uneven


COUNTS = {"cat": 6, "dog": 2, "fox": 1}
LABELS = torch.tensor([0, 1, 0, 2, 0, 1, 0, 0, 0])


def test_weights_are_those_that_scikit_learn_calls_balanced():
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS.numpy())
    assert balanced_weights(COUNTS) == pytest.approx(expected)
    assert balanced_weights({"cat": 5, "dog": 5}) == [1, 1]
    assert balanced_weights({"cat": 3}) == [1]


@pytest.mark.parametrize(("counts", "named"), [({"cat": 2, "dog": 0, "fox": 0}, "dog, fox"), ({}, "none")])
def test_a_class_without_pictures_has_no_weight(counts, named):
    with pytest.raises(ValueError, match=f"there are none of: {named}"):
        balanced_weights(counts)


def test_classes_count_the_same_in_the_loss_whatever_the_batches(clip, tokenizer):
    """The mean over batches is the mean over classes of each class's own cross entropy."""
    config = MMRLConfig(rep_dim=16, alpha=1, reg_weight=0, class_weight=balanced_weights(COUNTS))
    model = get_peft_model(clip, config).eval()
    model.set_classes(list(COUNTS), tokenizer)
    images = torch.randn(9, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    batches = zip(images.split(3), LABELS.split(3), strict=True)
    losses = [model(pixel_values=pictures, labels=labels).loss for pictures, labels in batches]
    logits = model(pixel_values=images).class_logits
    own = [cross_entropy(logits[label == LABELS], LABELS[label == LABELS]) for label in range(3)]
    torch.testing.assert_close(sum(losses) / 3, sum(own) / 3)


def test_a_balanced_decision_finds_a_rare_class_without_training(clip, tokenizer):
    generator = torch.Generator().manual_seed(0)

    def draw(*counts):
        labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        noise = torch.randn(len(labels), 3, 32, 32, generator=generator)
        return {"pixel_values": noise + 0.2 * labels[:, None, None, None], "labels": labels}

    shots, shown, found = draw(60, 4), draw(100, 100), {}
    for name, weight in {"plain": None, "balanced": balanced_weights({"cat": 60, "dog": 4})}.items():
        model = get_peft_model(copy.deepcopy(clip), MMRLConfig(rep_dim=16, class_weight=weight))
        model.set_classes(["cat", "dog"], tokenizer)
        model.fit_decision([shots], features="frozen")
        with torch.no_grad():
            is_right = model.eval()(pixel_values=shown["pixel_values"]).logits.argmax(dim=1) == shown["labels"]
        found[name] = is_right.view(2, 100).float().mean(dim=1)  # recall of either class
    assert found["balanced"][1] > found["plain"][1] + 0.1
    assert found["balanced"].mean() > found["plain"].mean()


@pytest.mark.parametrize(("fewest", "is_said"), [(1, True), (5, True), (6, False), (20, False)])
def test_uneven_classes_are_said(fewest, is_said):
    said = note_uneven({"fox": 20, "cat": fewest, "dog": 20})
    assert len(said) == is_said
    assert not is_said or said[0].startswith(f"classes are uneven: 20 pictures of fox, {fewest} of cat. ")
