"""examples/evaluate.py: every picture once, labels by name, the same on one process and on two."""

import csv
import json
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import EXAMPLES, load_example
from datasets import Dataset, DatasetDict, Image
from demo_parts.methods import DEMO_CLIP, load_clip
from peft import LoraConfig, get_peft_model

from peft_mmrl import MMRLConfig
from peft_mmrl.data import load_folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """An adapter for `two`, `one` and `nine`, so that no class has the position of its folder."""
    clip, processor = load_clip()
    torch.manual_seed(0)
    model = get_peft_model(clip, MMRLConfig(rep_dim=16))
    model.set_classes(["two", "one", "nine"], processor, template="a photo of the digit {}.")
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def seven(adapter, digit_folders, tmp_path_factory):
    """Seven pictures; the model is right on all but the first and the last, which lie in each other's folder."""
    folder = tmp_path_factory.mktemp("seven")
    evaluate_everything(adapter, digit_folders / "train", folder / "all")
    right = {"one": [], "two": []}
    for row in rows(folder / "all"):
        if row["label"] == row["predicted"] and row["label"] in right:
            right[row["label"]].append(digit_folders / "train" / row["path"])
    wrong_first, *twos = right["two"]
    wrong_last, *ones = right["one"]
    chosen = [("one", path) for path in ones] + [("two", path) for path in twos]
    assert len(chosen) >= 5 and twos
    placed = [("one", wrong_first), *chosen[:4], chosen[-1], ("two", wrong_last)]
    for position, (label, path) in enumerate(placed):
        (folder / "pictures" / label).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / "pictures" / label / f"{position}.png")
    return folder / "pictures"


def arguments(adapter, data, output_dir, *more):
    return [str(adapter), str(data), "--output_dir", str(output_dir), *map(str, more)]


def evaluate_everything(adapter, data, output_dir, *more):
    script = load_example("evaluate")
    script.main(script.parse_args(arguments(adapter, data, output_dir, *more)))


def rows(folder):
    with open(folder / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def check_seven(folder):
    found = rows(folder)
    assert [row["path"][4:] for row in found] == [f"{position}.png" for position in range(7)]
    assert [row["label"] == row["predicted"] for row in found] == [False, True, True, True, True, True, False]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["accuracy"] == pytest.approx(5 / 7)
    return metrics


def test_two_processes_count_every_picture_once(adapter, seven, tmp_path):
    evaluate_everything(adapter, seven, tmp_path / "one", "--batch_size", 2)
    command = ["-m", "torch.distributed.run", "--nproc_per_node", "2", str(EXAMPLES / "evaluate.py")]
    command += arguments(adapter, seven, tmp_path / "two", "--batch_size", 2)
    done = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True)
    assert done.stdout.count("7 pictures, ") == 1  # one report, not one of each process
    one, two = (check_seven(tmp_path / folder) for folder in ("one", "two"))
    assert one.pop("per_class") == two.pop("per_class")
    assert one == pytest.approx(two, abs=1e-6)


def test_classes_that_were_not_trained_compete_as_new_ones(adapter, digit_folders, tmp_path, capsys):
    evaluate_everything(adapter, digit_folders / "test", tmp_path / "report")
    printed = capsys.readouterr().out
    assert "new classes, on which it was not trained: zero" in printed
    assert "classes without pictures: nine" in printed
    assert "15 pictures, 4 classes" in printed
    assert "a difference this small can be chance" in printed
    assert (tmp_path / "report" / "report.html").exists()


def test_a_mistyped_class_folder_is_asked_about(adapter, digit_folders, tmp_path, capsys):
    for folder, name in (("nine", "niine"), ("two", "two"), ("zero", "zero")):
        source = digit_folders / "test" / ("one" if folder == "nine" else folder)
        shutil.copytree(source, tmp_path / "photos" / name)
    evaluate_everything(adapter, tmp_path / "photos", tmp_path / "report")
    said = capsys.readouterr().out
    assert "'niine' is not 'nine' to the model; did you mean that one? Rename the folder" in said
    assert "new classes, on which it was not trained: niine, zero" in said
    assert said.count("did you mean") == 1


def test_a_data_set_gives_the_same_as_its_folder(adapter, seven, tmp_path):
    load_folder(seven)[0].cast_column("image", Image()).save_to_disk(tmp_path / "saved")
    evaluate_everything(adapter, tmp_path / "saved", tmp_path / "report", "--base_model", DEMO_CLIP)
    found = rows(tmp_path / "report")
    assert [row["label"] == row["predicted"] for row in found] == [False, True, True, True, True, True, False]


def test_of_a_data_set_with_splits_the_test_split_is_tested(adapter, seven, tmp_path, capsys):
    test = load_folder(seven)[0].cast_column("image", Image())
    DatasetDict({"train": test.select([0, 6]), "test": test}).save_to_disk(tmp_path / "saved")
    evaluate_everything(adapter, tmp_path / "saved", tmp_path / "report")
    assert "the split 'test' of" in capsys.readouterr().out
    assert len(rows(tmp_path / "report")) == 7
    assert json.loads((tmp_path / "report" / "run.json").read_text())["split"] == "test"


def test_bad_input_is_refused_before_anything_is_written(adapter, seven, tmp_path):
    def refused(*given):
        with pytest.raises(SystemExit) as stopped:
            evaluate_everything(*given)
        assert not (tmp_path / "report").exists()
        return str(stopped.value)

    assert "it holds other things" in refused(adapter, seven, adapter)
    trained = shutil.copytree(adapter, tmp_path / "trained")
    (trained / "run.json").write_text('{"kind": "training"}')
    assert "the training of another script" in refused(trained, seven, trained, "--overwrite_output_dir")
    assert (trained / "adapter_model.safetensors").exists()
    lora = get_peft_model(load_clip()[0], LoraConfig(target_modules=["q_proj"]))
    lora.save_pretrained(tmp_path / "lora")
    assert "not an MMRL one" in refused(tmp_path / "lora", seven, tmp_path / "report")
    assert "nowhere" in refused(tmp_path / "nowhere", tmp_path / "not looked at", tmp_path / "report")
    assert "no class folders" in refused(adapter, seven / "one", tmp_path / "report")
    Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "saved")
    assert "image_column" in refused(adapter, tmp_path / "saved", tmp_path / "report")
