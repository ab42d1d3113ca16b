"""MMRL, MMRL++ and baselines through one function, on the demo's CLIP and digits."""

import pytest
import torch
from datasets import concatenate_datasets
from demo_parts.methods import load_clip
from digits import CLASS_NAMES, TEMPLATE, load_digits

from peft_mmrl.scoring.labelled import predict
from peft_mmrl.training import TrainingSettings, Transfer, make_accelerator
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


@pytest.fixture(scope="module")
def trained(accelerator):
    clip, processor = load_clip()
    shots = pictures("train", TRAINED, 8)
    return fit_classifier("mmrl", clip, processor, shots, TRAINED, TEMPLATE, SETTINGS, accelerator), shots


def test_a_decision_is_that_of_the_model_and_the_papers_way_stays(trained, accelerator, tmp_path):
    classifier, shots = trained
    mixed, test = ["zero", *TRAINED], pictures("test", ["zero", *TRAINED], 10)
    before = classifier.logits(test, mixed)
    decided = classifier.with_decision(shots, TRAINED)
    logits = decided.logits(test, mixed)
    assert torch.equal(classifier.logits(test, mixed), before)
    model, processor = classifier.model, classifier.processor
    model.set_classes(TRAINED, processor)
    views = [processor(images=list(part["image"]), return_tensors="pt").pixel_values for part in (shots, test)]
    model.fit_decision(views[0], torch.tensor(shots["label"]))
    model.set_classes(mixed, processor)
    with torch.no_grad():
        assert torch.allclose(logits, model(pixel_values=views[1]).logits, atol=1e-4)
    assert not torch.allclose(logits, before, atol=1e-2)
    for each, has_decision in ((decided, True), (classifier, False)):
        each.save(tmp_path / str(has_decision))
        assert (tmp_path / str(has_decision) / "decision.safetensors").exists() == has_decision


@pytest.mark.filterwarnings("error:The adapter's decision was fitted for another")
def test_new_classes_are_decided_in_any_template(trained, accelerator):
    classifier, shots = trained
    decided, test = classifier.with_decision(shots, TRAINED), pictures("test", ["one", "two"], 10)
    config = decided.model.peft_config["default"]
    config.zero_shot_weight = 1.0
    try:
        found = decided.logits(test, ["one", "two"], Transfer("the number {}."))
    finally:
        config.zero_shot_weight = 0.5
    clip, processor = load_clip()
    zero_shot = fit_classifier("zero-shot", clip, processor, test, [], TEMPLATE, SETTINGS, accelerator)
    assert torch.allclose(found, zero_shot.logits(test, ["one", "two"], Transfer("the number {}.")), atol=1e-4)


def test_the_first_classes_are_trained_and_others_new_whatever_their_names(trained):
    """ImageNet has two names twice; of one pair a class is a base class and the other a new one."""
    classifier, shots = trained
    test = pictures("test", TRAINED, 10)
    twice = [*TRAINED, TRAINED[0]]
    both = classifier.with_decision(shots, TRAINED), classifier
    for each in both:
        logits = each.logits(test, twice, Transfer(TEMPLATE, trained=2))
        assert each.model.seen == [True, True, False]
        assert not torch.allclose(logits[:, 0], logits[:, 2], atol=1e-2)


def test_a_decision_knows_classes_of_one_name_apart(accelerator):
    clip, processor = load_clip()
    names, shots = ["seven", "seven", "three"], pictures("train", ["seven", "one", "three"], 4)
    classifier = fit_classifier("untrained", clip, processor, shots, names, TEMPLATE, SETTINGS, accelerator)
    test = pictures("test", ["seven", "one", "three"], 10)
    assert accuracy(classifier.logits(test, names), test) > 0.8  # by their pictures


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
