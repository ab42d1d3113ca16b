"""Metrics: against scikit-learn and plain formulas, as functions and as `evaluate` modules, and what they refuse."""

import json
import os
import subprocess
import sys

import evaluate
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, precision_recall_fscore_support, top_k_accuracy_score

from peft_mmrl import metrics
from peft_mmrl.metrics import functions


@st.composite
def scored(draw, max_pictures=30, max_classes=6):
    """Probabilities (N, C) and labels (N,)."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pictures, classes = draw(st.integers(1, max_pictures)), draw(st.integers(2, max_classes))
    probabilities = generator.dirichlet(np.full(classes, draw(st.sampled_from([0.05, 1, 20]))), pictures)
    return probabilities, generator.integers(classes, size=pictures)


@settings(max_examples=50, deadline=None)
@given(scored())
def test_per_class_is_scikit_learns(problem):
    probabilities, labels = problem
    predicted, classes = probabilities.argmax(axis=1), probabilities.shape[1]
    found = functions.per_class(predicted, labels, classes)
    wanted = precision_recall_fscore_support(labels, predicted, labels=range(classes), zero_division=0)
    occurring = np.unique(labels)
    assert found["support"] == wanted[3].tolist()
    for name, column in zip(("precision", "recall", "f1"), wanted, strict=False):
        expected = [value if label in occurring else None for label, value in enumerate(column)]
        assert found[name] == pytest.approx(expected), name
    means = precision_recall_fscore_support(labels, predicted, labels=occurring, average="macro", zero_division=0)
    for name, mean in zip(("macro_precision", "macro_recall", "macro_f1"), means, strict=False):
        assert found[name] == pytest.approx(mean), name
    one_class = len(occurring) == 1  # of which scikit-learn warns
    assert one_class or found["macro_recall"] == pytest.approx(balanced_accuracy_score(labels, predicted))


def test_a_class_without_pictures_counts_for_no_model():
    """Two models that are equally good at the classes with pictures, one of which names a class without."""
    plain, strange = (functions.per_class(predicted, [0, 0, 1, 1], 3) for predicted in ([0, 1, 1, 1], [0, 2, 1, 1]))
    for found in (plain, strange):
        assert found["recall"] == [0.5, 1, None]
        assert found["precision"][2] is found["f1"][2] is None
        assert found["macro_recall"] == 0.75
    assert metrics.load("per_class").compute(predictions=[0, 2], references=[0, 0], num_classes=3)["recall"] == [
        0.5,
        None,
        None,
    ]


def test_measures_of_many_classes_need_no_table_of_all_pairs():
    """A table of 100,000 x 100,000 classes would be 80 GB."""
    found = functions.per_class([7, 99_999], [7, 8], 100_000)
    assert (found["macro_recall"], found["recall"][7:9], found["support"][99_999]) == (0.5, [1, 0], 0)


@settings(max_examples=50, deadline=None)
@given(scored(), st.data())
def test_top_k_accuracy_is_scikit_learns(problem, data):
    probabilities, labels = problem
    classes = probabilities.shape[1]
    assume(all(len(set(row)) == classes for row in probabilities.tolist()))  # equal ones have another order there
    k = data.draw(st.integers(1, classes - 1))
    if classes == 2:  # scikit-learn takes one column then
        wanted = top_k_accuracy_score(labels, probabilities[:, 1], k=k, labels=range(classes))
    else:
        wanted = top_k_accuracy_score(labels, probabilities, k=k, labels=range(classes))
    assert functions.top_k_accuracy(probabilities, labels, k) == pytest.approx(wanted)
    assert functions.top_k_accuracy(np.log(probabilities + 1e-300), labels, k) == pytest.approx(wanted)  # logits
    assert functions.top_k_accuracy(probabilities, labels, classes) == 1


def test_of_equal_scores_the_lower_label_comes_first():
    assert functions.top_k_accuracy([[1, 1, 1]], [1], k=1) == 0
    assert functions.top_k_accuracy([[1, 1, 1]], [1], k=2) == 1


@settings(max_examples=50, deadline=None)
@given(scored(), st.integers(1, 20))
def test_calibration_error_is_the_plain_formula(problem, n_bins):
    probabilities, labels = problem
    wanted = 0.0
    for number in range(n_bins):
        inside = [
            (row.max(), row.argmax() == label)
            for row, label in zip(probabilities, labels, strict=True)
            if number / n_bins < row.max() <= (number + 1) / n_bins
        ]
        if inside:
            confidence, right = np.mean(inside, axis=0)
            wanted += len(inside) / len(labels) * abs(confidence - right)
    assert functions.expected_calibration_error(probabilities, labels, n_bins) == pytest.approx(wanted)


def test_bins_are_closed_to_the_right():
    found = functions.reliability([[0.5, 0.5], [0.75, 0.25], [1.0, 0.0]], [0, 0, 1], n_bins=4)
    assert found.count.tolist() == [0, 1, 1, 1]
    assert found.accuracy.tolist() == [0, 1, 1, 0]
    assert found.expected_calibration_error == pytest.approx((0.5 + 0.25 + 1) / 3)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_base_to_new_is_the_harmonic_mean_of_both_accuracies(pictures):
    right, is_new = np.array(pictures, dtype=bool).T
    if is_new.all() or not is_new.any():
        with pytest.raises(ValueError, match="must hold both"):
            functions.base_to_new(right.astype(int), right.astype(int), is_new)
        return
    found = functions.base_to_new(right.astype(int), np.ones(len(right)), is_new)
    base, new = right[~is_new].mean(), right[is_new].mean()
    assert (found["base_accuracy"], found["new_accuracy"]) == pytest.approx((base, new))
    assert found["harmonic_mean"] == (pytest.approx(2 / (1 / base + 1 / new)) if base and new else 0)


def test_confusion_matrix_has_true_classes_as_rows():
    assert functions.confusion_matrix([1, 1, 0], [0, 1, 0], 3).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("as_type", [list, np.array, torch.tensor, lambda rows: torch.tensor(rows).bfloat16()])
def test_lists_arrays_and_tensors_are_taken(as_type):
    probabilities, labels = [[0.75, 0.25], [0.5, 0.5], [0.125, 0.875]], [0, 1, 1]
    scores, references = as_type(probabilities), labels if as_type is list else torch.tensor(labels)
    assert functions.top_k_accuracy(scores, references, 1) == pytest.approx(2 / 3)
    expected = functions.expected_calibration_error(probabilities, labels)
    assert functions.expected_calibration_error(scores, references) == pytest.approx(expected)
    for name, wanted in (("top_k_accuracy", {"k": 1}), ("expected_calibration_error", {})):
        found = metrics.load(name).compute(predictions=scores, references=references, **wanted)
        assert found[name] == pytest.approx(getattr(functions, name)(probabilities, labels, **wanted))


def test_rounded_probabilities_are_taken():
    probabilities = torch.rand(20, 100, generator=torch.Generator().manual_seed(0)).softmax(dim=1).bfloat16()
    assert 0 <= functions.expected_calibration_error(probabilities, torch.zeros(20, dtype=torch.long)) <= 1


MODULE_INPUTS = {
    "base_to_new": {"predictions": [0, 1, 1], "references": [0, 1, 0], "is_new": [False, True, True]},
    "expected_calibration_error": {"predictions": [[0.6, 0.4], [0.1, 0.9]], "references": [1, 1], "n_bins": 10},
    "per_class": {"predictions": [0, 1, 1], "references": [0, 1, 0], "num_classes": 2},
    "top_k_accuracy": {"predictions": [[0.6, 0.3, 0.1]], "references": [1], "k": 2},
}
SCRIPT = """
import evaluate, json, sys
from peft_mmrl import metrics
for name, inputs in json.loads(sys.argv[1]).items():
    print(name, metrics.load(name).compute(**inputs) == evaluate.load(metrics.path(name)).compute(**inputs))
"""


def test_modules_load_without_network_from_an_empty_cache(tmp_path):
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HTTPS_PROXY": "http://127.0.0.1:9"}
    arguments = [sys.executable, "-c", SCRIPT, json.dumps(MODULE_INPUTS)]
    done = subprocess.run(arguments, env=os.environ | offline, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [word for name in MODULE_INPUTS for word in (name, "True")]


def test_load_writes_nothing_into_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "file" / "cache"))
    (tmp_path / "file").touch()  # below which there can be no folder
    for name, inputs in MODULE_INPUTS.items():
        assert metrics.load(name).compute(**inputs)


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        (
            "per_class",
            {"predictions": [0, 1], "references": [1, 2], "num_classes": 2},
            r"from 0 to 1 \(2 classes\), got 2",
        ),
        ("per_class", {"predictions": [0, 5], "references": [0, 1], "num_classes": 2}, "`predictions`.* got 5"),
        ("per_class", {"predictions": [0, 1], "references": [0, -100], "num_classes": 2}, "`references`.* got -100"),
        ("per_class", {"predictions": [0, 1], "references": [0, 0.5], "num_classes": 2}, "whole numbers"),
        ("per_class", {"predictions": [0, 1], "references": [0, 1], "num_classes": 0}, "`num_classes`"),
        ("top_k_accuracy", {"predictions": [[0.5, 0.5]], "references": [0], "k": 3}, "`k` must be at most"),
        ("top_k_accuracy", {"predictions": [[0.5, 0.5]], "references": [0], "k": 0}, "`k` must be a positive"),
        ("top_k_accuracy", {"predictions": [[0.5, float("nan")]], "references": [0], "k": 1}, "finite"),
        ("top_k_accuracy", {"predictions": [[0.5, 0.5], [1.0]], "references": [0, 1], "k": 1}, "different length"),
        ("expected_calibration_error", {"predictions": [[2.0, 1.0]], "references": [0]}, "sum to 1"),
        ("expected_calibration_error", {"predictions": [[1.5, -0.5]], "references": [0]}, "at least 0"),
        ("expected_calibration_error", {"predictions": [[0.5, 0.5]], "references": [2]}, "from 0 to 1"),
        ("base_to_new", {"predictions": [0], "references": [0], "is_new": [True]}, "must hold both, base and new"),
    ],
)
def test_modules_refuse_bad_input(name, inputs, message):
    with pytest.raises(ValueError, match=message):
        metrics.load(name).compute(**inputs)


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([0, 1], [0], "one value for each of 2 pictures, got 1"),
        ([[0], [1]], [0, 1], r"`predictions` must have the shape \(pictures,\).* got the shape \(2, 1\)"),
        ([], [], "not be empty"),
        (["cat"], [0], "must hold numbers, got 'cat'"),
        ([True], [0], "whole numbers"),
    ],
)
def test_functions_refuse_bad_input(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        functions.accuracy(predictions, references)


def test_unknown_module_is_named():
    with pytest.raises(ValueError, match="must be one of base_to_new, .* got 'bleu'"):
        metrics.load("bleu")
