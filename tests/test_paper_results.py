"""The published numbers that reports show, and the papers' settings."""

import pytest

from peft_mmrl.data.benchmarks import BENCHMARKS, VARIANTS
from peft_mmrl.metrics.functions import harmonic_mean
from peft_mmrl.protocols.rows import SOURCES, published_results, published_scores
from peft_mmrl.training import paper_settings
from peft_mmrl.training.presets import PLUS_PLUS, PROTOCOLS, REG_WEIGHT, TRANSFER_BETA


DATASETS = set(BENCHMARKS) - set(VARIANTS)


def tables():
    for source in SOURCES:
        assert set(published_results()[source]) == set(PROTOCOLS)
        for protocol, methods in published_results()[source].items():
            for method, table in methods.items():
                yield source, protocol, method, table


def average(table, names, score):
    return sum(table[name][score] for name in names) / len(names)


def test_numbers_are_complete_and_h_is_that_of_base_and_new():
    for _, protocol, _, table in tables():
        assert set(table) == (set(BENCHMARKS) if protocol == "cross-dataset" else DATASETS)
        for scores in table.values():
            assert all(0 < value < 100 for value in scores.values())
            if protocol == "base-to-new":
                assert scores["h"] == pytest.approx(harmonic_mean(scores["base"], scores["new"]), abs=0.1)


def test_averages_are_those_that_the_paper_reports():
    table = published_results()["paper"]["base-to-new"]["mmrl"]
    base, new = (average(table, DATASETS, score) for score in ("base", "new"))
    assert (base, new) == pytest.approx((85.68, 77.16), abs=0.005)
    assert harmonic_mean(base, new) == pytest.approx(81.20, abs=0.005)
    table = published_results()["paper"]["cross-dataset"]["mmrl"]
    assert average(table, DATASETS - {"imagenet"}, "accuracy") == pytest.approx(67.25, abs=0.005)
    assert average(table, VARIANTS, "accuracy") == pytest.approx(60.59, abs=0.005)


def test_numbers_are_found_by_run_and_have_a_source():
    assert published_scores("paper", "base-to-new", "eurosat", "mmrl") == {"base": 95.60, "new": 80.17, "h": 87.21}
    assert published_scores("rerun", "base-to-new", "eurosat", "mmrl")["new"] == 72.33
    assert published_scores("paper", "base-to-new", "eurosat", "mmrl", shots=4) == {}
    assert published_scores("paper", "base-to-new", "digits", "mmrl") == {}
    assert published_scores("paper", "few-shot", "eurosat", "lora") == {}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("papers", "base-to-new"), "`source` must be one of paper, rerun, got 'papers'"),
        (("paper", "base-2-new"), "`protocol` must be one of base-to-new, few-shot, cross-dataset, got 'base-2-new'"),
    ],
)
def test_an_unknown_source_or_protocol_of_scores_is_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        published_scores(*asked, "eurosat", "mmrl")
    assert all("https://" in published_results()["sources"][source] for source in SOURCES)


def test_the_papers_settings():
    """Spot checks of every table: https://github.com/yunncheng/MMRL."""
    found = paper_settings("mmrl", "base-to-new", "eurosat", seed=3)
    assert (found.epochs, found.batch_size, found.learning_rate, found.seed) == (10, 4, 1e-3, 3)
    assert (found.weight_decay, found.warmup_epochs, found.crop_scale, found.flip) == (5e-4, 1, 0.5, True)
    assert found.config == {"reg_weight": 0.01, "rep_dim": 2048}
    for protocol in ("base-to-new", "few-shot"):
        found = paper_settings("mmrl++", protocol, "imagenet")
        assert (found.epochs, found.batch_size, found.learning_rate) == (5, 32, 1e-3)
        assert found.config == {"beta": 0.9, "reg_weight": 0.2}
    found = paper_settings("mmrl", "few-shot", "dtd")
    assert (found.epochs, found.batch_size, found.learning_rate, found.config) == (50, 32, 1e-3, {"reg_weight": 6.0})
    found = paper_settings("mmrl++", "few-shot", "food101")
    assert (found.epochs, found.batch_size, found.learning_rate) == (100, 32, 2e-3)
    assert found.config == {"beta": 0.1, "reg_weight": 1.0}
    found = paper_settings("mmrl", "cross-dataset", "imagenet")
    assert (found.epochs, found.batch_size, found.warmup_epochs, found.config) == (1, 32, 0, {"reg_weight": 0.2})
    assert paper_settings("mmrl++", "cross-dataset", "imagenet").config == {"beta": 0.9, "reg_weight": 0.1}
    assert paper_settings("lora", "few-shot", "dtd").config == {}


def test_every_data_set_has_settings():
    assert set(REG_WEIGHT) == set(PLUS_PLUS) == DATASETS
    assert set(TRANSFER_BETA) == set(BENCHMARKS)


def test_settings_can_be_changed_but_not_invented():
    changed = paper_settings("mmrl", "base-to-new", "digits", epochs=3, flip=False)
    assert (changed.epochs, changed.flip, changed.batch_size) == (3, False, 4)
    with pytest.raises(ValueError, match="`protocol` must be one of base-to-new"):
        paper_settings("mmrl", "zero-shot", "dtd")
