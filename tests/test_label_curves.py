"""examples/label_curves.py: that choosing saves labels, on one seed and few labels."""

import label_curves
import pytest


def test_chosen_labels_are_worth_more_than_random_ones(tmp_path, capsys):
    arguments = ["--seeds", "1", "--labels", "20", "30", "--output", str(tmp_path / "curves.png")]
    args = label_curves.parse_args(arguments)
    found = label_curves.compare(args)
    assert all(set(runs[0]) == {20, 30} for curves in found.values() for runs in curves.values())
    mean = {
        choice: sum(run[number] for curves in found.values() for run in curves[choice] for number in (20, 30)) / 6
        for choice in label_curves.CHOICES
    }
    assert mean["chosen"] > mean["random"] + 0.02
    said = capsys.readouterr().out
    assert "zero-shot accuracy: 72.9%" in said and "skewed" in said
    label_curves.draw(found, args.output)
    assert args.output.read_bytes().startswith(b"\x89PNG")


def test_other_strategies_can_be_compared():
    args = label_curves.parse_args(["--seeds", "1", "--labels", "10", "--also", "CoreSet"])
    pool = label_curves.of_rows(label_curves.look("train"), range(40))
    (found,) = label_curves.curve(label_curves.by_strategy(*args.also), pool, pool, [], args.labels, 1).values()
    assert 0.5 < found <= 1


def test_numbers_of_labels_are_those_that_are_reached(capsys):
    with pytest.raises(SystemExit):
        label_curves.parse_args(["--labels", "15"])
    assert "multiples of 10, got [15]" in capsys.readouterr().err
