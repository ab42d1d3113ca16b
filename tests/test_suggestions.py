"""`peft-mmrl suggest`, and how pictures are chosen that should be labelled next."""

import csv
import io
import json
import sys

import numpy as np
import pytest
import torch
from conftest import DEMO_CLIP

import peft_mmrl
from peft_mmrl.commands import main as command_line
from peft_mmrl.projects.suggestions import SAME_COSINE, suggest
from peft_mmrl.scoring.reference import REFERENCE_FILE
from peft_mmrl.scoring.sightings import margins_of


def pictures_of(counts, seed=0, width=16):
    """Features around a direction for each class, and their classes."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    features = rng.normal(size=(len(counts), width))[labels] + 0.5 * rng.normal(size=(len(labels), width))
    return features / np.linalg.norm(features, axis=1, keepdims=True), labels


NOTHING = np.empty((0, 16)), np.empty(0, int)


@pytest.mark.parametrize("number", [1, 5, 9])
def test_each_class_gets_as_many_from_the_first_label_on(number):
    features, guesses = pictures_of([40, 10, 6])
    chosen = suggest(*NOTHING, features, guesses, np.linspace(0, 1, len(guesses)), number)
    assert len(set(chosen)) == number
    counts = np.bincount(guesses[chosen], minlength=3)
    assert counts.max() - counts.min() <= 1
    assert len(set(guesses[chosen[:3]])) == min(3, number)  # in turn, so that the first ones are of all classes


def test_classes_with_few_labels_come_first_and_what_there_is_not_is_made_up_by_others():
    features, guesses = pictures_of([10, 10, 3])
    known, labels = pictures_of([8, 0, 8], seed=1)
    margins = np.random.default_rng(0).random(len(guesses))
    assert set(guesses[suggest(known, labels, features, guesses, margins, 6)]) == {1}
    assert np.bincount(guesses[suggest(known, labels, features, guesses, margins, 23)]).tolist() == [10, 10, 3]
    assert sorted(suggest(known, labels, features, guesses, margins, 100)) == list(range(23))


def test_what_is_sure_is_not_asked():
    features, guesses = pictures_of([30, 30])
    margins = np.ones(60)
    margins[[*range(12), *range(30, 42)]] = 0.1
    assert set(suggest(*NOTHING, features, guesses, margins, 8)) <= {*range(12), *range(30, 42)}


def test_copies_of_each_other_and_of_labelled_pictures_are_not_suggested():
    features, guesses = pictures_of([6, 6])
    several = np.concatenate([features, features + 1e-4, features])
    several /= np.linalg.norm(several, axis=1, keepdims=True)
    twice = np.tile(guesses, 3)
    chosen = suggest(*NOTHING, several, twice, np.zeros(36), 36)
    assert sorted(row % 12 for row in chosen) == list(range(12))
    chosen = suggest(features[:3], guesses[:3], several, twice, np.zeros(36), 36)
    assert sorted(row % 12 for row in chosen) == list(range(3, 12))
    assert np.tril(several[chosen] @ several[chosen].T, -1).max() < SAME_COSINE


def test_many_pictures_are_drawn_from_and_the_seed_alone_decides(monkeypatch):
    monkeypatch.setattr("peft_mmrl.projects.suggestions.MOST_COMPARED", 20)
    features, guesses = pictures_of([100, 100])
    first, again, other = (suggest(*NOTHING, features, guesses, np.zeros(200), 10, seed) for seed in (0, 0, 1))
    assert first == again != other and len(set(first)) == 10


def test_nothing_to_choose_from_is_no_error_and_rows_must_fit():
    assert suggest(*NOTHING, *NOTHING, np.empty(0)) == []
    features, guesses = pictures_of([2, 2])
    with pytest.raises(ValueError, match="a row for each picture"):
        suggest(*NOTHING, features, guesses[:3], np.zeros(4))


def test_margins_are_those_of_the_two_likeliest_classes():
    assert margins_of(torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8]])).tolist() == pytest.approx([0.2, 0.7])
    assert margins_of(torch.ones(2, 1)).tolist() == [1, 1]


# --- the command -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(digit_folders, tmp_path_factory):
    """A run without training on six pictures of three digits."""
    folder = tmp_path_factory.mktemp("run") / "my-adapter"
    peft_mmrl.fit(digit_folders / "train", str(DEMO_CLIP), folder, quick=True)
    return folder


def call(*arguments):
    command_line.main(["suggest", *map(str, arguments)])


def test_the_command_writes_a_row_for_each_suggested_picture(run, digit_folders, tmp_path, capsys):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    (tmp_path / "more" / "notes.txt").write_text("no picture")
    call(run, digit_folders / "test", tmp_path / "more", "--number", "6")
    said = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert list(rows[0]) == ["path", "guess", "probability", "rank"]
    assert [row["rank"] for row in rows] == list("123456")
    assert len({row["path"] for row in rows}) == 6 and all("/test/" in row["path"] for row in rows)
    assert sorted(row["guess"] for row in rows) == ["one", "one", "two", "two", "zero", "zero"]
    assert "1 of 16 pictures cannot be read: damaged" in said.err and "left out: no picture: .txt (1)" in said.err


def test_other_forms_say_the_same_and_a_file_that_is_there_is_kept(run, digit_folders, tmp_path, capsys):
    given = run, digit_folders / "test", "--number", "3"
    call(*given, "--output", tmp_path / "next.csv")
    assert capsys.readouterr().out == ""
    before = (tmp_path / "next.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(before)))
    call(*given, "--format", "jsonl")
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [{name: str(value) for name, value in one.items()} for one in objects] == rows
    call(*given, "--format", "table")
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == [row["path"] for row in rows]
    with pytest.raises(SystemExit, match="--output .*next.csv is there already"):
        call(*given, "--output", tmp_path / "next.csv")
    assert (tmp_path / "next.csv").read_text() == before
    with pytest.raises(SystemExit, match="there is no folder .*missing"):
        call(*given, "--output", tmp_path / "missing" / "next.csv")


def test_pictures_that_were_trained_on_are_not_suggested(run, digit_folders, capsys):
    call(run, digit_folders / "train", digit_folders / "test")
    said = capsys.readouterr()
    assert 0 < len(said.out.splitlines()) - 1 <= 15 and "/train/" not in said.out
    assert "are suggested: the others are nearly equal to these, or known" in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--number", "0"], "--number"),
        (["--output", "nowhere/next.csv"], "nowhere/next.csv cannot be written"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(run, digit_folders, arguments, message):
    with pytest.raises(SystemExit, match=message):
        call(run, digit_folders / "test", *arguments)


def test_what_is_missing_is_named_before_anything_is_looked_at(run, digit_folders, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="no file or folder .*nowhere"):
        call(run, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="no picture that can be read"):
        call(run, tmp_path / "empty")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "skactiveml.pool", None)
        with pytest.raises(SystemExit, match=r'scikit-activeml is not installed: pip install "peft_mmrl\[app\]"'):
            call(run, digit_folders / "test")
    (run / REFERENCE_FILE).rename(run / "gone")
    try:
        with pytest.raises(SystemExit, match=f"holds no {REFERENCE_FILE}.*: train it here"):
            call(run, digit_folders / "test")
    finally:
        (run / "gone").rename(run / REFERENCE_FILE)
