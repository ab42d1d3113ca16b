"""`peft_mmrl.fit`: from a folder, a table or a data set to a classifier, in one call."""

import json

import datasets
import pytest
import torch
from conftest import DEMO_CLIP, in_two_processes
from demo_parts.methods import load_clip
from peft import PeftModel
from peft.utils import load_peft_weights

import peft_mmrl
from peft_mmrl.data import PictureSource
from peft_mmrl.fitting import FitOptions, Fitting
from peft_mmrl.training import TrainingSettings
from peft_mmrl.tuner.decision import Decision


def short(**changes):
    return TrainingSettings(**{"epochs": 1, "crop_scale": 0.8, **changes})


def load(folder):
    return PeftModel.from_pretrained(load_clip()[0], folder).eval()


def in_memory(folder):
    return datasets.load_dataset("imagefolder", data_dir=str(folder), split="train")


def test_a_folder_a_table_and_a_data_set_in_memory_give_the_same_classifier(digit_folders, tmp_path, capsys):
    photos = digit_folders / "train"
    table = tmp_path / "labels.csv"
    rows = [f"{path},{path.parent.name}" for path in sorted(photos.glob("*/*"))]
    table.write_text("\n".join(["image,label", *rows]) + "\n")
    given = {"folder": photos, "table": str(table), "data set": in_memory(photos)}
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    logits = []
    for name, pictures in given.items():
        model = peft_mmrl.fit(pictures, DEMO_CLIP, settings=short(), folds=0)
        assert isinstance(model, peft_mmrl.PeftModelForZeroShotImageClassification) and not model.training
        assert model.classes == ["one", "two", "zero"], name
        assert model.decision.features == "adapted"
        with torch.no_grad():
            logits.append(model(pixel_values=images).logits)
    assert torch.equal(logits[0], logits[1]) and torch.equal(logits[1], logits[2])
    assert "nothing is known of its accuracy" in capsys.readouterr().out


def test_it_trains_on_all_pictures_and_takes_its_figures_from_folds(digit_folders, tmp_path, capsys):
    photos = digit_folders / "train"
    model = peft_mmrl.fit(photos, DEMO_CLIP, tmp_path / "adapter", settings=short())
    said = capsys.readouterr().out
    order = (
        "18 pictures of 3 classes (6 each); 1 epochs x 4 steps",
        "18 pictures held out in 4 folds",
        ", without training ",
    )
    order = (*order, "epoch 1: loss", "figures from 4 folds", "\naccuracy on 18 pictures", ", trained ")
    places = [said.index(words) for words in order]
    assert places == sorted(places)
    metrics = json.loads((tmp_path / "adapter" / "report" / "metrics.json").read_text())
    assert metrics["pictures"] == 18
    split = json.loads((tmp_path / "adapter" / "report" / "split.json").read_text())
    assert len(split["train"]) == 18 and "validation" not in split
    saved = load(tmp_path / "adapter")
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(saved(pixel_values=images).logits, model(pixel_values=images).logits, atol=1e-4)


def test_folds_change_nothing_in_what_is_saved(digit_folders, tmp_path):
    for name, folds in (("with", 2), ("without", 0)):
        peft_mmrl.fit(digit_folders / "train", DEMO_CLIP, tmp_path / name, settings=short(), folds=folds)
    weights = [load_peft_weights(str(tmp_path / name)) for name in ("with", "without")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    (tensors, said), (others, other) = (Decision.load(tmp_path / name).state() for name in ("with", "without"))
    assert said == other and all(torch.equal(tensors[name], others[name]) for name in tensors)


def test_quick_returns_the_decision_without_training(digit_folders, tmp_path, capsys):
    model = peft_mmrl.fit(digit_folders / "train", DEMO_CLIP, tmp_path / "quick", quick=True)
    assert model.decision.features == "frozen"
    assert "epoch" not in (said := capsys.readouterr().out)
    assert ", without training " in said and ", trained " not in said
    assert load(tmp_path / "quick").decision.features == "frozen"


def test_pictures_to_take_the_figures_from_make_folds_needless(digit_folders, capsys):
    test = in_memory(digit_folders / "test")
    peft_mmrl.fit(digit_folders / "train", DEMO_CLIP, eval_pictures=test, settings=short(), flip=False)
    said = capsys.readouterr().out
    assert "18 pictures of 3 classes (6 each); 15 more to validate with" in said and "fold" not in said
    assert "accuracy on 15 pictures: " in said


def test_a_class_with_one_picture_is_never_asked_and_the_run_says_so(digit_folders, tmp_path, capsys):
    one = in_memory(digit_folders / "train")
    labels = one["label"]
    rows = [row for row in range(len(one)) if labels[row] != 0] + [labels.index(0)]
    peft_mmrl.fit(one.select(rows), DEMO_CLIP, tmp_path / "adapter", settings=short(), folds=2)
    assert "nothing is known of one: a single picture" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "adapter" / "report" / "metrics.json").read_text())
    assert metrics["pictures"] == 12
    peft_mmrl.fit(one.select([labels.index(label) for label in range(3)]), DEMO_CLIP, settings=short())
    assert "every class has a single picture" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "`folds` must be 2 at least"),
        ({"folds": -1}, "`folds`"),
        ({"folds": 4, "validation_fraction": 0.2}, "`folds` must be left out"),
        ({"quick": True, "decision": False}, "`quick` fits the decision alone"),
        ({"quick": True, "tracker": "tensorboard"}, "`quick` does not train: `tracker` must be left out"),
        ({"resume_from_checkpoint": "latest"}, "there is none"),
        ({"template": "no place for a name"}, "`template`"),
        ({"method": "mmrlpp"}, "`method` must be one of mmrl, mmrl\\+\\+, got 'mmrlpp'"),
        ({"on_bad_image": "ignore"}, '`on_bad_image` must be "skip" or "error"'),
        ({"fit": "stretch"}, "`fit` must be one of"),
        ({"shots": 0}, "`shots`"),
        ({"checkpointing_steps": 0}, "`checkpointing_steps`"),
        ({"cached_views": -1}, "`cached_views`"),
        ({"num_workers": -1}, "`num_workers`"),
        ({"validation_fraction": -0.1}, "`validation_fraction`"),
        ({"eval_pictures": "elsewhere", "validation_fraction": 0.2}, "`validation_fraction` must be left out"),
        ({"unknown_dir": ".", "folds": 0}, "`unknown_dir` needs pictures that are held out"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_read(options, message):
    with pytest.raises(ValueError, match=message):
        peft_mmrl.fit("nowhere", "no/where", **options)


@pytest.mark.parametrize("pictures", [None, 3, datasets.DatasetDict()])
def test_what_is_no_source_of_pictures_is_refused(pictures):
    with pytest.raises(TypeError, match="Pictures must be"):
        peft_mmrl.fit(pictures, DEMO_CLIP)


@pytest.mark.parametrize("place", ["smal", "./smal", "no where/"])
def test_a_misspelt_folder_is_none(place):
    with pytest.raises(FileNotFoundError, match=f"There is no file or folder {place}"):
        peft_mmrl.fit(place, DEMO_CLIP)


def test_hyper_parameters_may_be_given_by_name(digit_folders, capsys):
    peft_mmrl.fit(digit_folders / "train", DEMO_CLIP, settings=short(), folds=0, epochs=2, seed=3)
    assert "2 epochs x 4 steps" in capsys.readouterr().out
    with pytest.raises(TypeError, match="no option epoch; there are .*epochs.*folds"):
        peft_mmrl.fit("nowhere", DEMO_CLIP, epoch=2)


def fit_in_each_process(photos, folder):
    torch.set_num_threads(1)
    options = FitOptions(
        PictureSource(photos), short(batch_size=2), str(DEMO_CLIP), folds=2, output_dir=folder / "two"
    )
    fitting = Fitting(options)
    fitting.prepare()
    fitting.run()
    fitting.save()
    found = fitting.predictions
    torch.save((found.probabilities, found.untrained), folder / f"{fitting.accelerator.process_index}.pt")


def test_two_processes_take_the_figures_of_one(digit_folders, tmp_path):
    photos = digit_folders / "train"
    in_two_processes(fit_in_each_process, photos, tmp_path)
    options = FitOptions(PictureSource(photos), short(batch_size=4), str(DEMO_CLIP), folds=2)
    one = Fitting(options)
    one.prepare()
    one.run()
    for process in range(2):
        trained, untrained = torch.load(tmp_path / f"{process}.pt")
        assert torch.allclose(trained, one.predictions.probabilities, atol=1e-3)
        assert torch.allclose(untrained, one.predictions.untrained, atol=1e-3)
    assert load(tmp_path / "two").decision.features == "adapted"


def test_new_classes_are_scored_as_clip_scores_them_unless_somebody_asks(digit_folders, tmp_path):
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for weight in (None, 0.5):
        settings = short(epochs=2, config={} if weight is None else {"zero_shot_weight": weight}, learning_rate=1e-2)
        model = peft_mmrl.fit(digit_folders / "train", DEMO_CLIP, settings=settings, folds=0, flip=False)
        model.set_classes(["three", "four"], load_clip()[1])
        with torch.no_grad():
            logits = model(pixel_values=images).logits
            with model.disable_adapter():
                zero_shot = model(pixel_values=images).logits
        assert torch.allclose(logits, zero_shot, atol=1e-4) == (weight is None)


def test_balanced_classes_count_the_same_in_loss_and_decision(digit_folders, capsys):
    uneven = in_memory(digit_folders / "train")
    labels = uneven["label"]
    rows = [labels.index(0), *(row for row in range(len(uneven)) if labels[row] != 0)]
    settings = short()
    model = peft_mmrl.fit(uneven.select(rows), DEMO_CLIP, settings=settings, folds=0, balance=True)
    assert settings == short()  # what a user gives stays as it is
    assert model.peft_config["default"].class_weight == pytest.approx([13 / 3, 13 / 18, 13 / 18])


def test_pictures_of_other_classes_say_how_many_would_be_named(digit_folders, tmp_path, capsys):
    others = tmp_path / "others"
    others.mkdir()
    for path in list(digit_folders.glob("test/*/*"))[:3]:
        (others / path.name).write_bytes(path.read_bytes())
    (others / "broken.png").write_bytes(b"no picture")
    given = {"settings": short(), "folds": 2}
    peft_mmrl.fit(digit_folders / "train", DEMO_CLIP, tmp_path / "adapter", unknown_dir=others, **given)
    assert "3 of 4 pictures in" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "adapter" / "confidence.json").read_text())["unknown"]) == 3
    with pytest.raises(OSError, match="unknown_dir"):
        peft_mmrl.fit(digit_folders / "train", DEMO_CLIP, unknown_dir=tmp_path / "nowhere")
