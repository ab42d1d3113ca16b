"""examples/promises.py: what default runs promise beside what they keep, on runs that are too short to be good."""

import json
from functools import partial

import promises
import pytest

from peft_mmrl.training import TrainingSettings


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(promises, "TrainingSettings", partial(TrainingSettings, epochs=1))
    monkeypatch.setattr(promises, "SPLITS", {"first": range(5)})


def test_it_compares_the_promise_with_pictures_that_no_run_has_seen(short, tmp_path, capsys):
    arguments = ["--kinds", "digits", "--shots", "2", "--seeds", "1", "--output", str(tmp_path / "all.json")]
    promises.main(promises.parse_args(arguments))
    (found,) = json.loads((tmp_path / "all.json").read_text())
    promised = found["promised"]["trained"]
    assert found["covered"] == (promised["low"] <= found["base"] <= promised["high"])
    assert found["zero_shot_base"] == pytest.approx(0.918, abs=0.05)  # as in the README's table, in another template
    assert found["new"] == found["zero_shot_new"]
    assert "of 1 runs" in (said := capsys.readouterr().out) and "new   against zero-shot: +0.0 points" in said


def test_letters_are_drawn_alike_each_time_and_differ():
    first, second = promises.letters(), promises.letters()
    pictures = [world.train[0]["image"].tobytes() for world in (first, second)]
    assert pictures[0] == pictures[1] != first.train[1]["image"].tobytes()
    assert len(first.train) == 400 and len(first.test) == 600 and len(first.names) == 10
