"""MMRL, MMRL++ and baselines through one function, on the demo's CLIP and digits."""

import pytest
import torch
from datasets import concatenate_datasets
from demo_parts.methods import load_clip
from digits import CLASS_NAMES, TEMPLATE, load_digits

from peft_mmrl.scoring.labelled import predict
from peft_mmrl.training import TrainingSettings, make_accelerator
from peft_mmrl.training.classifiers import METHODS, fit_classifier


TRAINED = ["seven", "three"]  # not in the order of their digits
SETTINGS = TrainingSettings(epochs=8, learning_rate=2e-3, flip=False, crop_scale=0.8)


def pictures(split, names, count):
    """`count` pictures of each digit as a labelled data set, labels in the order of `names`."""
    digits = load_digits()[split].cast_column("image", load_digits()[split].features["image"])
    parts = []
    for position, name in enumerate(names):
        rows = [index for index, label in enumerate(digits["label"]) if label == CLASS_NAMES.index(name)][:count]
        part = digits.select(rows).remove_columns("label").add_column("label", [position] * count)
        parts.append(part.add_column("path", [f"{split}/{row}" for row in rows]))
    return concatenate_datasets(parts)


@pytest.fixture(scope="module")
def accelerator():
    return make_accelerator(SETTINGS, cpu=True)


def accuracy(logits, dataset):
    return (logits.argmax(dim=1) == torch.tensor(dataset["label"])).float().mean().item()


@pytest.fixture(scope="module")
def test_set():
    return pictures("test", TRAINED, 20)


@pytest.fixture(scope="module")
def zero_shot(accelerator, test_set):
    clip, processor = load_clip()
    classifier = fit_classifier("zero-shot", clip, processor, test_set, TRAINED, TEMPLATE, SETTINGS, accelerator)
    return classifier.logits(test_set, TRAINED)


def test_zero_shot_is_clip_itself(zero_shot, test_set):
    clip, processor = load_clip()
    prompts = [TEMPLATE.format(name) for name in TRAINED]
    inputs = processor(text=prompts, images=list(test_set["image"]), padding=True, return_tensors="pt")
    with torch.no_grad():
        assert torch.allclose(zero_shot, clip(**inputs).logits_per_image, atol=1e-4)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "zero-shot"])
def test_a_method_learns_its_classes_and_answers_for_others(method, zero_shot, test_set, accelerator, tmp_path):
    clip, processor = load_clip()
    shots = pictures("train", TRAINED, 8)
    classifier = fit_classifier(method, clip, processor, shots, TRAINED, TEMPLATE, SETTINGS, accelerator)
    assert accuracy(classifier.logits(test_set, TRAINED), test_set) > accuracy(zero_shot, test_set) + 0.1
    mixed = ["zero", *TRAINED]
    logits = classifier.logits(pictures("test", mixed, 10), mixed)
    assert logits.shape == (30, 3)
    assert accuracy(logits, pictures("test", mixed, 10)) > 0.6
    classifier.save(tmp_path)
    assert (tmp_path / "adapter_config.json").exists() == (method != "linear-probe")


def test_predictions_hold_both_models(test_set, zero_shot, accelerator):
    clip, processor = load_clip()
    classifier = fit_classifier("mmrl", clip, processor, test_set, TRAINED, TEMPLATE, SETTINGS, accelerator)
    found = predict(classifier.model, test_set, processor.image_processor, accelerator, batch_size=7)
    assert found.class_names == TRAINED
    assert found.trained == [True, True]
    assert found.paths[:2] == test_set["path"][:2]
    assert torch.allclose(found.zero_shot, zero_shot.softmax(dim=1), atol=1e-5)
    assert found.accuracy > found.zero_shot_accuracy
    again = predict(classifier.model, test_set, processor.image_processor, accelerator, zero_shot=found.zero_shot)
    assert torch.allclose(again.probabilities, found.probabilities, atol=1e-5)


def test_an_unknown_method_is_named(accelerator):
    with pytest.raises(ValueError, match="`method` must be one of mmrl"):
        fit_classifier("coop", None, None, None, [], TEMPLATE, SETTINGS, accelerator)
