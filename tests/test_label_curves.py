"""examples/label_curves.py: that choosing saves labels, on one seed and few labels."""

import label_curves
import pytest


def test_chosen_labels_are_worth_more_than_random_ones(tmp_path, capsys):
    arguments = ["--seeds", "1", "2", "--labels", "20", "40", "--output", str(tmp_path / "curves.png")]
    args = label_curves.parse_args(arguments)
    found = label_curves.compare(args)
    assert all(set(runs[0]) == {20, 40} for curves in found.values() for runs in curves.values())
    mean = {
        choice: sum(run[number] for curves in found.values() for run in curves[choice] for number in (20, 40)) / 12
        for choice in label_curves.CHOICES
    }
    assert mean["chosen"] > mean["random"] + 0.02
    said = capsys.readouterr().out
    assert "zero-shot accuracy: 72.9%" in said and "skewed" in said
    label_curves.draw(found, args.output)
    assert args.output.read_bytes().startswith(b"\x89PNG")


def test_numbers_of_labels_are_those_that_are_reached(capsys):
    with pytest.raises(SystemExit):
        label_curves.parse_args(["--labels", "15"])
    assert "multiples of 10, got [15]" in capsys.readouterr().err
