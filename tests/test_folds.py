"""Folds: how pictures are dealt, and that nothing that answers for a picture has seen it."""

import copy
import random
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from demo_parts.methods import load_clip
from digits import CLASS_NAMES, load_digits
from hypothesis import given
from hypothesis import strategies as st
from peft import get_peft_model

from peft_mmrl import MMRLConfig
from peft_mmrl.data import deal_folds
from peft_mmrl.data.shots import NEVER
from peft_mmrl.data.sources import load_columns
from peft_mmrl.fitting import folds as folds_of
from peft_mmrl.fitting.folds import Folds
from peft_mmrl.fitting.options import FitOptions
from peft_mmrl.fitting.plan import Plan
from peft_mmrl.training import FrozenFeatures, TrainingSettings, training_pictures


ITEMS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12)), min_size=1, max_size=40)


@given(ITEMS, st.sampled_from([None, 2, 3, 5]), st.integers(0, 9))
def test_groups_stay_whole_and_of_each_class_something_is_left_to_train_on(items, number, seed):
    labels, groups = zip(*items, strict=True)
    fold = deal_folds(labels, groups, number, random.Random(seed))
    assert fold == deal_folds(labels, groups, number, random.Random(seed))
    place = {}
    for group, index in zip(groups, fold, strict=True):
        assert place.setdefault(group, index) == index
    used = set(fold) - {NEVER}
    assert used == set(range(len(used)))
    for index in used:
        assert {label for label, own in zip(labels, fold, strict=True) if own != index} == set(labels)


@pytest.mark.parametrize(
    ("counts", "number", "sizes"),
    [
        ({"a": 4, "b": 4}, None, [2, 2, 2, 2]),
        ({"a": 2, "b": 2}, None, [2, 2]),
        ({"a": 3, "b": 12}, None, [5, 5, 5]),
        ({"a": 1, "b": 4}, None, [1, 1, 1, 1]),
        ({"a": 1, "b": 1}, None, []),
        ({"a": 60, "b": 60}, None, [30, 30, 30, 30]),
        ({"a": 6, "b": 6}, 2, [6, 6]),
        ({"a": 2, "b": 4}, 4, [2, 2, 1, 1]),
        ({"a": 2, "b": 4}, 10**12, [1] * 6),
    ],
)
def test_folds_are_even_and_as_many_as_the_smallest_class_allows(counts, number, sizes):
    labels = [name for name, count in counts.items() for _ in range(count)]
    fold = deal_folds(labels, range(len(labels)), number, random.Random(1))
    found = Counter(index for index in fold if index != NEVER)
    assert [found[index] for index in range(len(found))] == sizes
    single = {name for name, count in counts.items() if count == 1}
    assert {label for label, index in zip(labels, fold, strict=True) if index == NEVER} == single


@pytest.fixture(scope="module")
def digits():
    """Four pictures of each of three digits, a model with an adapter for them, and what frozen CLIP sees."""
    part = load_digits()["train"]
    rows = [row for digit in range(3) for row in [r for r, label in enumerate(part["label"]) if label == digit][:4]]
    dataset, _ = load_columns(part.select(rows), "digits", "digit", "image", "label")
    clip, processor = load_clip()
    torch.manual_seed(1)
    model = get_peft_model(clip, MMRLConfig())
    model.set_classes(CLASS_NAMES[:3], processor)
    accelerator = Accelerator(cpu=True)
    frozen = FrozenFeatures.of(model, dataset, processor, accelerator)
    frozen.fit_decision(model)
    return SimpleNamespace(**locals())


def test_every_picture_is_answered_by_what_was_fitted_and_trained_without_it(digits, monkeypatch):
    fold = torch.tensor(deal_folds(digits.dataset["label"], range(12), 3, random.Random(1)))
    folds = Folds(digits.model, digits.dataset, digits.frozen, fold, None)
    seen, asked = [], []

    def train(model, pictures, *args, **kwargs):
        assert model.active_adapter == folds_of.ADAPTER
        seen.append(set(pictures.indices))

    def predict(model, dataset, *args, **kwargs):
        asked.append(set(dataset["path"]))
        probabilities = torch.full((len(dataset), 3), float(len(asked)))
        return SimpleNamespace(probabilities=probabilities)

    monkeypatch.setattr(folds_of, "train", train)
    monkeypatch.setattr(folds_of, "predict", predict)
    answers = folds.train(list(range(12)), TrainingSettings(epochs=1), digits.processor, digits.accelerator)
    paths = digits.dataset["path"][:]
    for index in range(3):
        rows = set((fold == index).nonzero().flatten().tolist())
        assert asked[index] == {paths[row] for row in rows}
        assert seen[index] == set(range(12)) - rows
        assert (answers[sorted(rows)] == index + 1).all()


def test_what_is_trained_decides_by_what_was_fitted_without_the_pictures_that_it_is_asked_for(digits, monkeypatch):
    fold = torch.tensor(deal_folds(digits.dataset["label"], range(12), 3, random.Random(1)))
    folds = Folds(digits.model, digits.dataset, digits.frozen, fold, digits.model.decision)
    used = []

    def predict(model, dataset, *args, **kwargs):
        used.append(model.decision)
        return SimpleNamespace(probabilities=torch.zeros(len(dataset), 3))

    monkeypatch.setattr(folds_of, "train", lambda *args, **kwargs: None)
    monkeypatch.setattr(folds_of, "predict", predict)
    folds.train(list(range(12)), TrainingSettings(epochs=1), digits.processor, digits.accelerator)
    images, labels = digits.frozen.images, digits.frozen.labels
    assert len(used) == 3
    for index, decision in enumerate(used):
        assert decision.features == "adapted"
        for label in range(3):
            others = images[(fold != index) & (labels == label)].mean(dim=0)
            assert torch.allclose(decision.prototypes[label].cpu(), others, atol=1e-6)


def test_decisions_of_folds_are_those_that_a_user_would_fit_on_the_other_pictures(digits):
    fold = torch.tensor(deal_folds(digits.dataset["label"], range(12), 2, random.Random(1)))
    whole = digits.model.decision
    folds = Folds(digits.model, digits.dataset, digits.frozen, fold, whole)
    answers = folds.untrained
    frozen, model = digits.frozen, digits.model
    try:
        for index, decision in enumerate(folds.decisions):
            kept = fold != index
            expected = model.fit_decision(frozen.images[kept], frozen.labels[kept], features="frozen")
            assert torch.allclose(decision.probe_weight, expected.probe_weight, atol=1e-4)
            pictures = training_pictures(model, digits.dataset, digits.processor, plain_settings(), 0)
            rows = folds.held_out(index).tolist()
            pixels = torch.stack([pictures[row]["pixel_values"] for row in rows])
            with torch.no_grad():
                said = model.eval()(pixel_values=pixels).logits.softmax(dim=1)
            assert torch.allclose(answers[rows], said, atol=1e-3)
    finally:
        model.decision = whole


def plain_settings():
    """Settings without augmentation."""
    return TrainingSettings(crop_scale=1.0, flip=False, epochs=2)


def test_folds_leave_the_model_as_it_was_and_name_what_they_asked(digits):
    model = digits.model
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    fold = torch.tensor(deal_folds(digits.dataset["label"], range(12), 2, random.Random(1)))
    fold[0] = NEVER
    decision = model.decision
    folds = Folds(model, digits.dataset, digits.frozen, fold, decision)
    pictures = training_pictures(model, digits.dataset, digits.processor, plain_settings(), 0)
    trained = folds.train(pictures, plain_settings(), digits.processor, digits.accelerator)
    found = folds.predictions(trained)
    assert list(model.peft_config) == ["default"] and model.active_adapter == "default"
    assert model.decision is decision and model.classes == CLASS_NAMES[:3]
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert len(found.paths) == 11 and found.folds == 2 and found.is_trained
    assert digits.dataset["path"][0] not in found.paths
    for probabilities in (found.probabilities, found.untrained, found.zero_shot):
        assert torch.allclose(probabilities.sum(dim=1), torch.ones(11), atol=1e-4)
    assert not torch.allclose(found.probabilities, found.untrained, atol=1e-3)


def test_pictures_that_are_never_held_out_count_in_what_folds_take(digits):
    data = SimpleNamespace(
        train=digits.dataset,
        validation=None,
        groups=[0, 0, 1, 1, *range(2, 6), *[6] * 4],  # of the second class any, of the third none can be held out
        class_names=CLASS_NAMES[:3],
        pictures_per_class=lambda: dict.fromkeys(CLASS_NAMES[:3], 4),
    )
    plan = Plan(digits.model, data, FitOptions(None, TrainingSettings()), digits.accelerator)
    trained_on = [int((plan.folds != index).sum()) for index in range(plan.num_folds)]
    assert plan.num_folds == 2 and sum(trained_on) == 16
    assert plan.seconds(60) == pytest.approx(60 * 16 / 12)
    assert "then 2 folds, 1.3 times as long" in str(plan)


def test_folds_that_would_take_too_long_are_fewer_unless_somebody_asks_for_them(digits):
    data = SimpleNamespace(
        train=digits.dataset,
        validation=None,
        groups=list(range(12)),
        class_names=CLASS_NAMES[:3],
        pictures_per_class=lambda: dict.fromkeys(CLASS_NAMES[:3], 4),
    )

    def plan(folds):
        options = FitOptions(None, TrainingSettings(), folds=folds)
        return Plan(digits.model, data, options, digits.accelerator)

    quick, slow, asked = plan(None), plan(None), plan(4)
    quick.limit_folds(training=60)
    assert quick.num_folds == 4 and "about 3 minutes" in quick.describe_folds(60)
    slow.limit_folds(training=3600)
    assert slow.num_folds == 2 and "about 60 minutes" in slow.describe_folds(3600)
    asked.limit_folds(training=3600)
    assert asked.num_folds == 4
    assert plan(0).num_folds == 0
    few = copy.copy(data)
    few.groups = [0] * 4 + list(range(4, 12))
    assert Plan(digits.model, few, FitOptions(None, TrainingSettings()), digits.accelerator).never_asked == ["zero"]
