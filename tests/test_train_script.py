"""examples/train.py on folders of digits: what it writes and says, and what it refuses."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import train
from datasets import load_dataset
from demo_parts.methods import DEMO_CLIP, load_clip
from peft import PeftModel
from peft.utils import load_peft_weights
from transformers import BertConfig

from peft_mmrl.commands import arguments as cli
from peft_mmrl.data import PictureSource
from peft_mmrl.fitting import run as runs


QUICK = ["--epochs", "2", "--learning_rate", "2e-3", "--no_flip", "--crop_scale", "0.8"]
TEMPLATES = ["--template", "a photo of the digit {}.", "--template", "the number {}."]


def run(output_dir, *arguments, base_model=DEMO_CLIP):
    given = [*map(str, arguments), "--base_model", str(base_model), "--output_dir", str(output_dir)]
    train.main(train.parse_args([*QUICK, *given]))


def refused(capsys, output_dir, *arguments, **kwargs):
    """What a run that is refused says; nothing is written."""
    capsys.readouterr()
    before = sorted(output_dir.rglob("*")) if output_dir.exists() else None
    with pytest.raises(SystemExit) as stopped:
        run(output_dir, *arguments, **kwargs)
    assert before == (sorted(output_dir.rglob("*")) if output_dir.exists() else None)
    assert "epoch 1" not in capsys.readouterr().out
    return str(stopped.value)


def names_in(folder):
    return json.loads((folder / "adapter_config.json").read_text())["classes"]


@pytest.fixture
def photos(digit_folders, tmp_path):
    """A copy of the training folder that a test may spoil."""
    return Path(shutil.copytree(digit_folders / "train", tmp_path / "photos"))


def test_it_says_what_it_does_and_writes_a_classifier(digit_folders, tmp_path, capsys):
    folder = tmp_path / "adapter"
    run(folder, "--train_dir", digit_folders / "train", "--eval_dir", digit_folders / "test", *TEMPLATES)
    printed = capsys.readouterr()
    assert "18 pictures of 3 classes (6 each); 15 more to validate with; 2 epochs x 4 steps = 8 steps" in printed.out
    assert "zero-shot accuracy on 15 pictures: " in printed.out
    assert "epoch 2: loss " in printed.out
    assert "4 pictures a step; 2 of 18 pictures, others each time, are left out of an epoch" in printed.out
    assert "8 steps, about 1 minute to go" in printed.err
    assert "%|" not in printed.err  # no bars where nobody looks

    clip, _ = load_clip()
    model = PeftModel.from_pretrained(clip, folder)
    assert model.classes == ["one", "two", "zero"]
    assert model.peft_config["default"].template == ["a photo of the digit {}.", "the number {}."]
    split = json.loads((folder / "report" / "split.json").read_text())
    assert sorted(split["train"]) == sorted(
        path.relative_to(digit_folders / "train").as_posix() for path in digit_folders.glob("train/*/*")
    )
    assert len(split["validation"]) == 15


@pytest.mark.parametrize("method", ["mmrl", "mmrl++"])
def test_methods_and_their_settings_reach_the_config(method, digit_folders, tmp_path):
    options = ["--method", method, "--reg_weight", "2", "--alpha", "0.6", "--epochs", "1", "--seed", "5"]
    run(tmp_path / "adapter", "--train_dir", digit_folders / "train", *options)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["reg_weight"], config["alpha"]) == (2, 0.6)
    assert (config["aligner_rank"] is None) == (method == "mmrl")


def test_a_preset_gives_the_papers_settings_where_none_are_given(tmp_path):
    arguments = ["--output_dir", str(tmp_path), "--preset", "few-shot/eurosat"]
    settings = cli.training_settings(train.parse_args([*arguments, "--batch_size", "8", "--alpha", "0.6"]))
    assert (settings.epochs, settings.batch_size) == (50, 8)
    assert settings.config == {"reg_weight": 0.01, "rep_dim": 2048, "alpha": 0.6}
    settings = cli.training_settings(train.parse_args([*arguments, "--method", "mmrl++", "--no_flip"]))
    assert (settings.epochs, settings.batch_size, settings.flip) == (100, 32, False)


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("few-shot/cats", "the data set must be one of stanford_cars"),
        ("few-shot/", "the data set must be one of stanford_cars"),
        ("fewshot", "the protocol must be one of base-to-new, few-shot, cross-dataset"),
        ("fewshot/eurosat", "the protocol must be one of base-to-new"),
        ("cross-dataset/eurosat", "cross-dataset has the same settings for all data sets"),
        ("cross-dataset/", "cross-dataset has the same settings for all data sets"),
    ],
)
def test_a_preset_that_there_is_not_is_refused(preset, message, tmp_path):
    args = train.parse_args(["--output_dir", str(tmp_path), "--preset", preset])
    with pytest.raises(ValueError, match=f"^--preset {preset}: {message}"):
        cli.training_settings(args)


SOURCES = {"folder": ["--train_dir", "photos"], "table": ["--train_file", "l.csv"], "hub": ["--dataset_name", "pets"]}


@pytest.mark.parametrize(
    ("source", "options", "named"),
    [
        ("folder", ["--image_column", "picture"], "--image_column picture"),
        ("folder", ["--label_column", "kind", "--eval_dir", "test"], "--label_column kind"),
        ("folder", ["--dataset_config_name", "small"], "--dataset_config_name small"),
        ("table", ["--dataset_config_name", "small"], "--dataset_config_name small"),
        ("folder", ["--train_split", "train"], "--train_split train"),
        ("table", ["--train_split", "dev"], "--train_split dev"),
        ("table", ["--eval_split", "dev"], "--eval_split dev"),
    ],
)
def test_an_option_that_says_nothing_of_the_source_is_refused(source, options, named, tmp_path):
    args = train.parse_args(["--output_dir", str(tmp_path), *SOURCES[source], *options])
    with pytest.raises(ValueError, match=f"^{named} says something of --.* alone"):
        cli.data_arguments(args)


def test_options_reach_the_sources_that_they_are_of(tmp_path):
    def sources(*given):
        found = cli.data_arguments(train.parse_args(["--output_dir", str(tmp_path), *given]))
        return found["source"], found["validation"]

    columns = ["--image_column", "picture", "--label_column", "kind"]
    of_table = {"image_column": "picture", "label_column": "kind"}
    folder, table = sources(*SOURCES["folder"], "--eval_file", "test.csv", *columns)
    assert (folder, table) == (PictureSource(Path("photos")), PictureSource(file=Path("test.csv"), **of_table))
    table, folder = sources(*SOURCES["table"], "--eval_dir", "test", *columns)
    assert (table, folder) == (PictureSource(file=Path("l.csv"), **of_table), PictureSource(Path("test")))
    splits = ["--train_split", "a", "--eval_split", "b", "--dataset_config_name", "small"]
    both = sources(*SOURCES["hub"], *splits, *columns)
    assert both == tuple(
        PictureSource(dataset_name="pets", split=split, config_name="small", **of_table) for split in "ab"
    )


def test_what_the_method_refuses_is_refused_before_anything_is_read(tmp_path, capsys):
    nowhere = ["--train_dir", tmp_path / "nowhere"]
    assert "`template`" in refused(capsys, tmp_path / "new", *nowhere, "--template", "a photo", base_model="no/where")
    message = refused(capsys, tmp_path / "new", *nowhere, "--label_smoothing", "1", base_model="no/where")
    assert "--label_smoothing" in message


def write_table(photos, path):
    rows = [(file.relative_to(path.parent).as_posix(), file.parent.name) for file in sorted(photos.glob("*/*"))]
    if path.suffix == ".csv":
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([("image", "label"), *rows])
    else:
        path.write_text("".join(json.dumps({"picture": picture, "what": label}) + "\n" for picture, label in rows))


def test_all_kinds_of_sources_give_the_same_adapter(photos, tmp_path):
    write_table(photos, tmp_path / "labels.csv")
    write_table(photos, tmp_path / "labels.jsonl")
    load_dataset("imagefolder", data_dir=str(photos))["train"].save_to_disk(tmp_path / "saved")
    sources = {
        "folder": ["--train_dir", photos],
        "csv": ["--train_file", tmp_path / "labels.csv"],
        "jsonl": ["--train_file", tmp_path / "labels.jsonl", "--image_column", "picture", "--label_column", "what"],
        "datasets": ["--dataset_name", tmp_path / "saved"],
    }
    found = {}
    for name, source in sources.items():
        run(tmp_path / name, *source, "--epochs", "1")
        assert names_in(tmp_path / name) == ["one", "two", "zero"]
        found[name] = load_peft_weights(str(tmp_path / name))
    assert all(torch.equal(found["folder"][key], found["csv"][key]) for key in found["folder"])
    assert all(torch.equal(found["csv"][key], found["jsonl"][key]) for key in found["csv"])
    # names of pictures differ there, their order does not
    assert all(torch.equal(found["csv"][key], found["datasets"][key]) for key in found["csv"])


def test_names_for_prompts_can_be_given(photos, tmp_path):
    (tmp_path / "names.csv").write_text("one,the digit one\nzero,nothing\n")
    run(tmp_path / "adapter", "--train_dir", photos, "--class_names", tmp_path / "names.csv", "--epochs", "1")
    assert names_in(tmp_path / "adapter") == ["the digit one", "two", "nothing"]


def test_evaluation_labels_are_matched_by_name(photos, digit_folders, tmp_path, capsys):
    """`one` is missing from the evaluation set and `nine` is only there, so that positions differ."""
    test = shutil.copytree(digit_folders / "test", tmp_path / "test")
    (test / "one").rename(test / "nine")
    run(tmp_path / "adapter", "--train_dir", photos, "--eval_dir", test, "--epochs", "1")
    printed = capsys.readouterr().out
    assert "that are not trained, left out: nine" in printed
    assert f"classes without pictures in {test}: one" in printed
    assert "10 more to validate with" in printed


def spoil(photos):
    """Three pictures that cannot be read."""
    whole = next(photos.glob("zero/*.png")).read_bytes()
    (photos / "zero" / "empty.jpg").write_bytes(b"")
    (photos / "zero" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "two" / "text.png").write_text("no picture")


def test_bad_pictures_are_found_before_training(photos, tmp_path, capsys):
    spoil(photos)
    run(tmp_path / "adapter", "--train_dir", photos, "--epochs", "1", "--shots", "5", "--folds", "0")
    printed = capsys.readouterr().out
    assert "3 pictures cannot be read" in printed
    for name in ("zero/empty.jpg", "zero/cut.png", "two/text.png"):
        assert name in printed
    assert "15 pictures of 3 classes (5 each); 1 epochs" in printed  # shots are drawn from those that can


def test_bad_pictures_can_be_an_error(photos, tmp_path, capsys):
    spoil(photos)
    message = refused(capsys, tmp_path / "adapter", "--train_dir", photos, "--on_bad_image", "error")
    assert "zero/cut.png" in message


def test_an_interrupted_run_goes_on(photos, tmp_path, monkeypatch, capsys):
    source = ["--train_dir", photos, "--cached_views", "2"]
    run(tmp_path / "whole", *source)

    def full_disk(*arguments):
        raise OSError("disk full")

    def stop(record):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="disk full.*--resume_from_checkpoint latest"):
        patch.setattr(runs, "write_results", full_disk)
        run(tmp_path / "late", *source)
    run(tmp_path / "late", *source, "--resume_from_checkpoint", "latest")  # all epochs are done
    reports = [(tmp_path / name / "report" / "predictions.csv").read_text() for name in ("whole", "late")]
    assert reports[0] == reports[1]

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="^130$"):
        patch.setattr(runs, "epoch_line", stop)
        run(tmp_path / "adapter", *source, "--checkpointing_steps", "2")
    assert "interrupted. To go on, add --resume_from_checkpoint latest" in capsys.readouterr().err
    assert not (tmp_path / "adapter" / "adapter_config.json").exists()
    resume = ["--resume_from_checkpoint", "latest"]
    assert "of learning_rate" in refused(capsys, tmp_path / "adapter", *source, *resume, "--learning_rate", "0.1")
    run(tmp_path / "adapter", *source, *resume)
    whole, resumed = (load_peft_weights(str(tmp_path / name)) for name in ("whole", "adapter"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_folders_in_which_something_would_be_lost_are_refused(photos, tmp_path, capsys):
    source = ["--train_dir", photos]
    assert "is a file" in refused(capsys, next(photos.glob("*/*")), *source)
    assert "it holds other things" in refused(capsys, photos, *source)
    assert "holds no checkpoint" in refused(capsys, tmp_path / "new", *source, "--resume_from_checkpoint", "latest")
    run(tmp_path / "adapter", *source, "--epochs", "1")
    checkpoint = tmp_path / "elsewhere" / "checkpoint"
    checkpoint.mkdir(parents=True)
    (checkpoint / "progress.json").write_text("{}")
    resume = ["--resume_from_checkpoint", checkpoint]
    assert "it holds other things" in refused(capsys, photos, *source, *resume)
    assert "holds a run already" in refused(capsys, tmp_path / "adapter", *source)
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    (evaluation / "run.json").write_text('{"kind": "evaluation"}')
    assert "the evaluation of another script" in refused(capsys, evaluation, *source, "--overwrite_output_dir")
    run(tmp_path / "adapter", *source, "--epochs", "1", "--seed", "2", "--overwrite_output_dir")
    assert json.loads((tmp_path / "adapter" / "run.json").read_text())["seed"] == 2


def test_bad_input_is_refused_before_anything_is_written(photos, tmp_path, capsys, monkeypatch):
    folder, source = tmp_path / "adapter", ["--train_dir", photos]
    assert "--train_dir, --train_file and --dataset_name" in refused(capsys, folder)
    assert "--train_dir, --train_file and --dataset_name" in refused(
        capsys, folder, *source, "--dataset_name", "beans"
    )
    assert "no class folders" in refused(capsys, folder, "--train_dir", photos / "one")
    assert "batch_size" in refused(capsys, folder, *source, "--batch_size", "0")
    assert "`template`" in refused(capsys, folder, *source, "--template", "a photo")
    if not torch.cuda.is_available():
        assert "fp16" in refused(capsys, folder, *source, "--mixed_precision", "fp16")
    BertConfig().save_pretrained(tmp_path / "bert")
    assert "is not a CLIP" in refused(capsys, folder, *source, base_model=tmp_path / "bert")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("peft_mmrl.hub.upload.get_token", lambda: None)
    assert "access token" in refused(capsys, folder, *source, "--push_to_hub", "--hub_model_id", "me/adapter")
    write_table(photos, tmp_path / "labels.csv")
    table = ["--train_file", tmp_path / "labels.csv"]
    assert "kind" in refused(capsys, folder, *table, "--label_column", "kind")
    for name in ("one", "two"):
        shutil.rmtree(photos / name)
    assert "at least two classes" in refused(capsys, folder, *source)


@pytest.mark.parametrize(
    ("tracker", "installed", "message"),
    [
        ("wandb", ["tensorboard"], "--with_tracking wandb: install wandb with pip; installed are tensorboard"),
        ("all", [], "--with_tracking all: install a tracker, tensorboard say, with pip; installed are none"),
        ("wandd", ["tensorboard"], "--with_tracking must be one of all, .*wandb.* got 'wandd'"),
    ],
)
def test_a_tracker_that_would_log_nothing_is_refused(
    tracker, installed, message, photos, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(cli, "get_available_trackers", lambda: installed)
    assert re.search(message, refused(capsys, tmp_path / "run", "--train_dir", photos, "--with_tracking", tracker))


def test_uneven_classes_are_noted_before_training_and_recall_stands_beside_accuracy(photos, tmp_path, capsys):
    for path in sorted(photos.glob("two/*"))[1:]:
        path.unlink()
    folder = tmp_path / "adapter"
    run(folder, "--train_dir", photos, "--epochs", "1", "--validation_fraction", "0.4")
    said = capsys.readouterr().out
    noted = said.index("classes are uneven: 4 pictures of one, 1 of two. A rare class can vanish while accuracy rises")
    assert noted < said.index("epoch 1: loss ")
    assert re.search(r"epoch 1: .*accuracy .*, mean recall \d", said)
    assert re.search(r"accuracy on \d+ pictures: .*\nTraining .*\nmean recall of \d classes: .*; weakest: ", said)
    assert re.search(r"\| mean recall \| \d", (folder / "README.md").read_text())
    assert "Recall of each class" in (folder / "README.md").read_text()


@pytest.mark.parametrize("tracker", ["tensorboard", "trackio"])
def test_trackers_get_every_epoch(tracker, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    run(tmp_path / "adapter", "--train_dir", photos, "--with_tracking", tracker)
    kept = tmp_path / "trackio" if tracker == "trackio" else tmp_path / "adapter"
    pattern = "*.db" if tracker == "trackio" else "events*"
    assert list(kept.rglob(pattern))
