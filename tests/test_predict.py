"""`examples/predict.py` names pictures, each once and in order, and says why some cannot be named."""

import csv
import io
import json
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
from peft_mmrl.scoring.threshold import Threshold
from peft_mmrl.scoring.unlabelled import PictureBatches, find_pictures, load_classifier


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
    shares = []
    for index in range(processes):
        batches = PictureBatches([folder, folder / "0.png"], preprocessing(), 2, index, processes)
        loader = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=num_workers)
        shares.append([batch.paths for batch in loader])
    in_turn = [shares[turn % processes][turn // processes] for turn in range(sum(map(len, shares)))]
    assert [path for batch in in_turn for path in batch] == list(find_pictures([folder, folder / "0.png"]))


def preprocessing():
    return Preprocessing(CLIPImageProcessor(size={"shortest_edge": 2}, crop_size=2))


def test_folders_are_read_as_far_as_they_are_asked_for(monkeypatch, folder):
    read, read_picture = [], preprocessing_module.read_picture
    monkeypatch.setattr(
        preprocessing_module, "read_picture", lambda image, *rest: read.append(image) or read_picture(image, *rest)
    )
    batches = iter(PictureBatches([folder] * 100000, preprocessing(), 3))
    assert len(next(batches).paths) == 3
    assert len(read) == 3


def test_new_names_compete_with_the_trained_ones(adapter, folder):
    found = rows(adapter, folder / "0.png", "--classes", "seven", "--top_k", "9")[0]
    named = [found[f"label{rank}"] for rank in ("", "_2", "_3", "_4")]
    assert sorted(named) == sorted([*NAMES, "seven"])
    assert sum(found[f"probability{rank}"] for rank in ("", "_2", "_3", "_4")) == pytest.approx(1, abs=1e-5)


def test_none_of_these(adapter, folder, tmp_path, capsys):
    plain = rows(adapter, folder)
    limit = median(row["probability"] for row in plain if row["probability"]) - 1e-5
    expected = [
        row | {"label": "none of these"} if row["probability"] and row["probability"] < limit else row for row in plain
    ]
    assert expected != plain
    assert rows(adapter, folder, "--threshold", limit) == expected
    most, best = rows(adapter, folder, "--threshold", "1", "--top_k", "3")[0], rows(adapter, folder, "--top_k", "3")[0]
    assert [most[name] for name in ("label", "label_2", "label_3")] == [
        "none of these",
        best["label"],
        best["label_2"],
    ]

    copy = tmp_path / "adapter"
    copy.mkdir()
    for file in adapter.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    Threshold(limit, 40, 0.05, 0.1, 0.3, "given").save(copy)
    assert rows(copy, folder, "--threshold") == expected
    assert "lets 30.0% of pictures of other classes pass" in capsys.readouterr().err


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


def test_a_folder_without_pictures(adapter, tmp_path):
    assert json.loads(answer(adapter, tmp_path, "--format", "json")) == []
    assert answer(adapter, tmp_path, "--format", "csv") == "path,label,probability,error\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top_k", "0"], "`--top_k` must be a positive whole number, got 0"),
        (["--batch_size", "-1"], "`--batch_size`"),
        (["--threshold", "1.5"], "`--threshold` must be a number from 0 to 1"),
        (["--threshold"], r"has no threshold\.json"),
        (["--classes", "axolotl", "Axolotl"], "same class"),
    ],
)
def test_wrong_arguments(adapter, folder, arguments, message):
    with pytest.raises(SystemExit, match=message):
        answer(adapter, folder, *arguments)


def test_something_that_is_no_adapter(folder):
    with pytest.raises(SystemExit, match=r"adapter_config\.json"):
        answer(folder, folder)
