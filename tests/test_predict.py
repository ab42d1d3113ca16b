"""`examples/predict.py` names pictures, each once and in order, and says why some cannot be named."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

import PIL.Image
import predict
import pytest
import torch
from conftest import scramble
from demo_parts.methods import DEMO_CLIP
from peft import get_peft_model
from transformers import CLIPImageProcessor, CLIPModel, CLIPProcessor

from peft_mmrl import MMRLConfig
from peft_mmrl.data import Preprocessing
from peft_mmrl.data import preprocessing as preprocessing_module
from peft_mmrl.scoring.held_out import Confidence, digest_of
from peft_mmrl.scoring.listing import Listing, list_pictures
from peft_mmrl.scoring.unlabelled import PictureBatches, largest_probabilities, load_classifier
from peft_mmrl.training import make_accelerator


NAMES = ["zero", "one", "two"]
SCRIPT = Path(predict.__file__)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """An adapter of the demo's CLIP, away from its start."""
    folder = tmp_path_factory.mktemp("adapter")
    model = get_peft_model(CLIPModel.from_pretrained(DEMO_CLIP), MMRLConfig(rep_dim=16))
    model.set_classes(NAMES, CLIPProcessor.from_pretrained(DEMO_CLIP), template="a photo of the digit {}.")
    scramble(model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven pictures and two files that are none, in two folders."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "b").mkdir()
    for number in range(5):
        PIL.Image.effect_noise((40, 30), 20 + 40 * number).save(folder / f"{number}.png")
    PIL.Image.new("RGB", (300, 1), "red").save(folder / "b" / "line.PNG")
    PIL.Image.new("RGBA", (1, 1)).save(folder / "z.webp")
    (folder / "b" / "broken.jpg").write_bytes(b"")
    (folder / "b" / "notes.txt").write_text("words")
    return folder


NAMED = ["0.png", "1.png", "2.png", "3.png", "4.png", "b/broken.jpg", "b/line.PNG", "z.webp"]


def answer(*arguments):
    output = io.StringIO()
    predict.main(predict.parse_args([str(argument) for argument in arguments]), output)
    return output.getvalue()


def rows(*arguments):
    return [json.loads(line) for line in answer(*arguments, "--format", "jsonl").splitlines()]


def test_every_picture_gets_the_model_s_answer(adapter, folder):
    found = rows(adapter, folder, "--top_k", "2", "--batch_size", "3")
    assert [row["path"] for row in found] == [str(folder / name) for name in NAMED]
    assert found[5] == {
        "path": str(folder / "b/broken.jpg"), "label": None, "probability": None, "label_2": None,
        "probability_2": None, "error": "the file is empty",
    }  # fmt: skip
    model, image_processor = load_classifier(adapter)
    preprocess = Preprocessing.of(model, image_processor)
    for row in found[:5] + found[6:]:
        with torch.no_grad():
            logits = model(pixel_values=preprocess(row["path"])[None]).logits
        best = logits.softmax(dim=1)[0].topk(2)
        assert [row["label"], row["label_2"]] == [NAMES[index] for index in best.indices]
        assert [row["probability"], row["probability_2"]] == pytest.approx(best.values.tolist(), abs=1e-5)
        assert row["error"] is None


def test_formats_say_the_same(adapter, folder):
    lines = rows(adapter, folder)
    assert list(lines[0]) == ["path", "label", "probability", "error"]
    assert json.loads(answer(adapter, folder, "--format", "json")) == lines
    table = list(csv.DictReader(io.StringIO(answer(adapter, folder, "--format", "csv"))))
    assert table == [{key: "" if value is None else str(value) for key, value in row.items()} for row in lines]
    for line, row in zip(answer(adapter, folder).splitlines(), lines, strict=True):
        assert row["path"] in line
        assert (row["error"] or f"{row['probability']:.1%} {row['label']}") in line


def test_standard_output_holds_the_answer_alone_over_two_processes(adapter, folder):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]  # as `accelerate launch` does
    command = [*launch, SCRIPT, adapter, folder, "gone.png", "--format", "json", "--batch_size", "2", "--top_k", "2"]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found, expected = json.loads(run.stdout), rows(adapter, folder, "gone.png", "--top_k", "2")
    assert [row["path"] for row in found] == [*(str(folder / name) for name in NAMED), "gone.png"]
    assert found[-1]["error"] == "there is no such file"
    for row, alone in zip(found, expected, strict=True):
        assert (row["label"], row["label_2"], row["error"]) == (alone["label"], alone["label_2"], alone["error"])
        assert row["probability"] == pytest.approx(alone["probability"], abs=1e-5)


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_processes_and_workers_share_the_batches(folder, processes, num_workers):
    shares, listing = [], list_pictures([folder, folder / "0.png"])
    for index in range(processes):
        batches = PictureBatches(listing, preprocessing(), 2, index, processes)
        loader = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=num_workers)
        shares.append([batch.paths for batch in loader])
    in_turn = [shares[turn % processes][turn // processes] for turn in range(sum(map(len, shares)))]
    assert [path for batch in in_turn for path in batch] == list(listing)


def preprocessing():
    return Preprocessing(CLIPImageProcessor(size={"shortest_edge": 2}, crop_size=2))


def test_pictures_are_read_as_far_as_they_are_asked_for(monkeypatch, folder):
    read, read_picture = [], preprocessing_module.read_picture
    monkeypatch.setattr(
        preprocessing_module, "read_picture", lambda image, *rest: read.append(image) or read_picture(image, *rest)
    )
    batches = iter(PictureBatches(list_pictures([folder]), preprocessing(), 3))
    assert len(next(batches).paths) == 3
    assert len(read) == 3


def test_files_that_arrive_meanwhile_make_no_difference(adapter, tmp_path, monkeypatch):
    """Two processes that list for themselves would answer some pictures twice and others never."""
    draw(tmp_path, *(f"{number}.png" for number in range(3, 9)))
    listing = list_pictures([tmp_path])
    draw(tmp_path, *(f"{number}.png" for number in range(3)))
    found = []
    for index in range(2):
        found += [path for batch in PictureBatches(listing, preprocessing(), 2, index, 2) for path in batch.paths]
    assert sorted(found) == [str(tmp_path / f"{number}.png") for number in range(3, 9)]


def test_content_counts_where_the_extension_says_nothing(adapter, tmp_path, capsys):
    draw(tmp_path, "photo.jpg")
    for name in ("2", "a.jfif", "b.cr2", "noextension", "c.JPG_large"):
        (tmp_path / name).write_bytes((tmp_path / "photo.jpg").read_bytes())
    for name in ("notes.txt", "README", "more.TXT"):
        (tmp_path / name).write_text("words")
    (tmp_path / "empty.png").touch()
    found = rows(adapter, tmp_path)
    names = ["2", "a.jfif", "b.cr2", "c.JPG_large", "empty.png", "noextension", "photo.jpg"]
    assert [Path(row["path"]).name for row in found] == names
    assert [row["error"] for row in found if row["error"]] == ["the file is empty"]
    said = capsys.readouterr().err
    assert "1 of 7 pictures cannot be read: the file is empty (1)" in said
    assert "3 files and folders are left out: no picture: .txt (2), no picture: without extension (1)" in said


def test_a_folder_that_cannot_be_opened_does_not_end_the_run(adapter, tmp_path, capsys, monkeypatch):
    draw(tmp_path, "a/1.png", "locked/1.png", "z/1.png")
    scandir = os.scandir

    def refuse(folder):
        if Path(folder).name == "locked":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert [Path(row["path"]).parent.name for row in rows(adapter, tmp_path)] == ["a", "z"]
    assert f"folder {tmp_path / 'locked'} cannot be opened: Permission denied (1)" in capsys.readouterr().err


def test_links_in_circles_pipes_and_hidden_files(tmp_path):
    draw(tmp_path, "a/1.png", "b/2.png", ".hidden.png", ".DS_Store.d/x.png")
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "itself.png").symlink_to(tmp_path / "itself.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    listing = list_pictures([tmp_path])
    assert [os.path.relpath(path, tmp_path) for path in listing] == ["a/1.png", "a/b/2.png", "gone.png", "itself.png"]
    assert listing.left_out == {"hidden": 2, "neither a file nor a folder": 1}


def test_a_listing_is_small_and_keeps_odd_names():
    paths = ["a", "ü/\udcff.png", "", "c" * 1000]
    listing = Listing(paths)
    assert (list(listing), listing[-1], listing[1:3], len(listing)) == (paths, paths[-1], paths[1:3], 4)
    with pytest.raises(IndexError):
        listing[4]


def draw(folder, *names):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.effect_noise((16, 16), 20 + number).save(folder / name)


def test_new_names_compete_with_the_trained_ones(adapter, folder):
    found = rows(adapter, folder / "0.png", "--classes", "seven", "--top_k", "9")[0]
    named = [found[f"label{rank}"] for rank in ("", "_2", "_3", "_4")]
    assert sorted(named) == sorted([*NAMES, "seven"])
    assert sum(found[f"probability{rank}"] for rank in ("", "_2", "_3", "_4")) == pytest.approx(1, abs=1e-5)


def test_none_of_these(adapter, folder):
    plain = rows(adapter, folder)
    limit = median(row["probability"] for row in plain if row["probability"]) - 1e-5
    expected = [
        row | {"label": "none of these"} if row["probability"] and row["probability"] < limit else row for row in plain
    ]
    assert expected != plain
    assert rows(adapter, folder, "--threshold", limit) == expected
    most, best = rows(adapter, folder, "--threshold", "1", "--top_k", "3")[0], rows(adapter, folder, "--top_k", "3")[0]
    labels, probabilities = (
        [row[f"{name}{rank}"] for rank in ("", "_2", "_3")] for row, name in ((most, "label"), (most, "probability"))
    )
    assert labels == ["none of these", best["label"], best["label_2"]]
    assert probabilities == [best["probability"], best["probability"], best["probability_2"]]


def test_people_are_told_that_the_probability_is_not_that_of_none(adapter, folder):
    picture, best = folder / "0.png", rows(adapter, folder / "0.png", "--top_k", "2")[0]
    line = answer(adapter, picture, "--threshold", "1", "--top_k", "2").strip()
    likeliest = f"{best['label']} {best['probability']:.1%}, {best['label_2']} {best['probability_2']:.1%}"
    assert line == f"none of these (likeliest: {likeliest})  {picture}"


# --- what held-out pictures said ---------------------------------------------------------------------------------

OWN = [0.9, 0.8, 0.7, 0.6, 0.5, 0.45, 0.42, 0.4, 0.3, 0.25, 0.2] + 12 * [0.95]


@pytest.fixture
def confident(adapter, tmp_path):
    """The adapter with what 23 held-out pictures said; 3 of them were named wrongly."""
    copy = shutil.copytree(adapter, tmp_path / "confident")
    labels = [index % 3 for index in range(len(OWN))]
    wrong = {8: 0.6, 9: 0.7, 10: 0.8}
    predicted = [(label + (index in wrong)) % 3 for index, label in enumerate(labels)]
    largest = [wrong.get(index, p) for index, p in enumerate(OWN)]
    Confidence(sorted(NAMES), labels, predicted, OWN, largest, folds=4).save(copy)
    return copy


def expected_sets(adapter, picture, least):
    best = rows(adapter, picture, "--top_k", "3")[0]
    ranks = [(best[f"label{rank}"], best[f"probability{rank}"]) for rank in ("", "_2", "_3")]
    return [ranks[0], *((name, p) for name, p in ranks[1:] if p >= least)]


def test_sets_hold_the_likeliest_and_what_is_probable_enough(confident, folder, capsys):
    sizes = set()
    for coverage, rank in ((0.9, 22), (0.6, 15), (0.99, None)):
        if rank is None:
            with pytest.raises(SystemExit, match="Sets that aim at 99% need at least 99 pictures .* there are 23"):
                answer(confident, folder, "--coverage", coverage)
            continue
        least = sorted(OWN, reverse=True)[rank - 1]
        found = [row for row in rows(confident, folder, "--coverage", coverage) if not row["error"]]
        said = capsys.readouterr().err
        others = f"every other of at least {least:.1%}" if least <= 0.5 else "no other: on these pictures it alone is"
        assert f"aim at {coverage:.0%}" in said and others in said
        assert "each answered by a model trained without it (4 folds)" in said
        assert "88 to 94% on average, 69% at worst" in said
        assert (
            "in their set, by class: " in said and "promise nothing for a single class, and nothing for others" in said
        )
        for row in found:
            ranks = expected_sets(confident, row["path"], least)
            assert row["labels"] == [name for name, _ in ranks]
            assert row["probabilities"] == pytest.approx([p for _, p in ranks], abs=1e-5)
            assert row["probability"] == pytest.approx(sum(p for _, p in ranks), abs=1e-5)
            assert row["label"] == {1: "{}", 2: "{} or {}", 3: "{}, {} or {}"}[len(ranks)].format(*row["labels"])
            sizes.add(len(ranks))
    assert len(sizes) > 1


def test_formats_say_the_same_of_sets(confident, folder):
    lines = rows(confident, folder, "--coverage", "0.9")
    assert list(lines[0]) == ["path", "label", "probability", "labels", "probabilities", "error"]
    assert lines[5] == {
        "path": str(folder / "b/broken.jpg"), "label": None, "probability": None, "labels": [], "probabilities": [],
        "error": "the file is empty",
    }  # fmt: skip
    assert json.loads(answer(confident, folder, "--coverage", "0.9", "--format", "json")) == lines
    table = list(csv.DictReader(io.StringIO(answer(confident, folder, "--coverage", "0.9", "--format", "csv"))))
    plain = [{name: row[name] for name in ("path", "label", "probability", "error")} for row in lines]
    assert table == [{key: "" if value is None else str(value) for key, value in row.items()} for row in plain]
    for line, row in zip(answer(confident, folder, "--coverage", "0.9").splitlines(), lines, strict=True):
        assert (row["error"] or f"{row['probability']:.1%} {row['label']}") in line and row["path"] in line


def test_a_risk_and_a_threshold_without_a_number_name_few_wrongly(confident, folder, capsys):
    named = rows(confident, folder, "--risk", "0.1")
    said = capsys.readouterr().err
    assert (
        '"None of these" below 70.0% (predict --risk 0.1) aims at no more than 10%' in said
    )  # one of three may be named
    assert "named rightly, by class: " in said and "isn't known (train --unknown_dir)" in said
    assert named == rows(confident, folder, "--threshold", "0.7000000001")
    assert rows(confident, folder, "--threshold") == rows(confident, folder, "--risk", "0.05")
    assert "below 80.0% (predict --risk 0.05)" in capsys.readouterr().err


def test_with_too_few_pictures_a_risk_is_refused_and_a_threshold_without_a_number_names_all(confident, folder, capsys):
    saved = json.loads((confident / "confidence.json").read_text())
    few = {name: saved[name][:18] for name in ("labels", "predicted", "own", "largest")}
    (confident / "confidence.json").write_text(json.dumps(saved | few))
    with pytest.raises(SystemExit, match="at a risk of 5% needs at least 19 pictures .*, and there are 18"):
        answer(confident, folder, "--risk", "0.05")
    assert rows(confident, folder, "--threshold") == rows(confident, folder)
    assert "needs at least 19 pictures that were not trained on, and there are 18. Every picture is named." in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("aim", [["--coverage", "0.9"], ["--risk", "0.1"], ["--threshold"]], ids=" ".join)
def test_with_new_classes_no_aim_is_claimed(confident, folder, aim, capsys):
    with pytest.raises(SystemExit, match="hold for the trained classes among themselves, all of them; .* axolotl"):
        answer(confident, folder, "--classes", "axolotl", *aim)
    assert capsys.readouterr().out == ""
    assert rows(confident, folder / "0.png", "--classes", "Two", *aim)  # that is a trained one
    assert rows(confident, folder / "0.png", "--classes", "axolotl", "--threshold", "0.5")


def test_of_another_decision_no_aim_is_claimed(confident, folder):
    saved = json.loads((confident / "confidence.json").read_text())
    (confident / "confidence.json").write_text(json.dumps(saved | {"decision": "0" * 16}))
    with pytest.raises(SystemExit, match="which was taken off"):
        answer(confident, folder, "--coverage", "0.9")
    assert digest_of(load_classifier(confident)[0].decision) is None


def test_pictures_of_other_classes_give_their_largest_probabilities(adapter, folder):
    model, image_processor = load_classifier(adapter)
    largest = largest_probabilities(model, image_processor, [folder], make_accelerator())
    assert largest.tolist() == [row["probability"] for row in rows(adapter, folder) if row["probability"]]


# --- what cannot be done -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [["gone.png"], ["gone.png", "nowhere/folder"]])
def test_pictures_that_do_not_exist_are_an_error(adapter, given, capsys):
    with pytest.raises(SystemExit, match=f"^error: There is no file or folder {', '.join(given)}"):
        answer(adapter, *given)
    assert capsys.readouterr().out == ""


def test_where_nothing_could_be_read_a_missing_path_is_an_error(adapter, folder):
    broken = folder / "b" / "broken.jpg"
    with pytest.raises(SystemExit, match=r"^error: nothing could be read, and there is no gone\.png"):
        answer(adapter, broken, "gone.png")
    assert len(rows(adapter, folder / "0.png", "gone.png")) == 2
    assert len(rows(adapter, broken)) == 1


def test_a_base_model_in_another_place(adapter, folder, tmp_path):
    expected = rows(adapter, folder / "0.png")
    moved = tmp_path / "adapter"
    moved.mkdir()
    for file in adapter.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    config = json.loads((moved / "adapter_config.json").read_text())
    (moved / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "/gone/clip"}))
    with pytest.raises(SystemExit, match="The base model '/gone/clip' cannot be loaded: .* --base_model"):
        answer(moved, folder)
    assert rows(moved, folder / "0.png", "--base_model", DEMO_CLIP) == expected


def test_a_folder_without_pictures(adapter, tmp_path, capsys):
    assert json.loads(answer(adapter, tmp_path, "--format", "json")) == []
    assert answer(adapter, tmp_path, "--format", "csv") == "path,label,probability,error\n"
    assert f"there are no pictures in {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top_k", "0"], "`--top_k` must be a positive whole number, got 0"),
        (["--batch_size", "-1"], "`--batch_size`"),
        (["--threshold", "1.5"], "`--threshold` must be a number from 0 to 1"),
        (["--threshold"], r"has no confidence\.json: train it anew"),
        (["--coverage", "0.9"], r"has no confidence\.json: train it anew"),
        (["--coverage", "1"], "`--coverage` must lie between 0 and 1, got 1.0"),
        (["--coverage", "90"], "`--coverage` must be a number from 0 to 1, got 90.0"),
        (["--risk", "0"], "`--risk` must lie between 0 and 1, got 0.0"),
        (["--coverage", "0.9", "--top_k", "2"], "--coverage answers with sets of any size and --top_k"),
        (["--classes", "axolotl", "Axolotl"], "same class"),
    ],
)
def test_wrong_arguments(adapter, folder, arguments, message):
    with pytest.raises(SystemExit, match=message):
        answer(adapter, folder, *arguments)


def test_something_that_is_no_adapter(folder):
    with pytest.raises(SystemExit, match=r"adapter_config\.json"):
        answer(folder, folder)


def test_a_mistyped_adapter_is_named_at_once(tmp_path, capsys):
    with pytest.raises(SystemExit, match="There is no folder my-adaptr with an adapter"):
        predict.main(predict.parse_args(["my-adaptr", str(tmp_path)]))
