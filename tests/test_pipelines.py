"""transformers' pipelines over an adapted model, and over the folder of an adapter."""

import logging

import pytest
import torch
from conftest import DEMO_CLIP, scramble
from peft import get_peft_model
from transformers import AutoProcessor, CLIPModel, pipeline

from peft_mmrl import MMRLConfig


TEMPLATE = "the digit {}."


@pytest.fixture
def model(demo_processor):
    model = scramble(get_peft_model(CLIPModel.from_pretrained(DEMO_CLIP), MMRLConfig(rep_dim=16)))
    model.set_classes(["zero", "one"], demo_processor, template=TEMPLATE)
    return model.eval()


@pytest.fixture
def messages():
    """What transformers logs; its loggers do not pass on to pytest's."""
    records = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: records.append(record.getMessage())
    logging.getLogger("transformers").addHandler(handler)
    yield records
    logging.getLogger("transformers").removeHandler(handler)


def scores(model, names, processor, images):
    """The model's own probabilities for each image, by class name."""
    bound = model.classes
    model.set_classes(names, processor)
    with torch.no_grad():
        rows = model(pixel_values=images).logits.softmax(dim=-1).tolist()
    model.set_classes(bound, processor)
    return [dict(zip(names, row, strict=True)) for row in rows]


def as_dicts(results):
    return [{result["label"]: result["score"] for result in one} for one in results]


@pytest.mark.parametrize("names", [["zero", "one"], ["one", "zero"], ["two", "zero", "one"], ["two"]])
def test_zero_shot_pipeline_decides_as_set_classes(names, model, demo_processor, pictures, demo_images, messages):
    classify = pipeline(
        "zero-shot-image-classification",
        model=model,
        image_processor=demo_processor.image_processor,
        tokenizer=demo_processor.tokenizer,
    )
    results = classify(pictures, candidate_labels=names, hypothesis_template=TEMPLATE)
    expected = scores(model, names, demo_processor, demo_images)
    assert as_dicts(results) == [pytest.approx(row, abs=1e-5) for row in expected]
    assert not any("not supported" in message for message in messages)


@pytest.mark.parametrize("names", [["zero", "one"], ["two", "zero", "one"]])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_image_classification_pipeline_scores_the_bound_classes(
    names, batch_size, model, demo_processor, pictures, demo_images, messages
):
    model.set_classes(names, demo_processor)
    classify = pipeline("image-classification", model=model, image_processor=demo_processor.image_processor)
    results = classify(pictures, batch_size=batch_size)
    expected = scores(model, names, demo_processor, demo_images)
    assert as_dicts(results) == [pytest.approx(row, abs=1e-5) for row in expected]
    assert [result["label"] for result in classify(pictures[0], top_k=1)] == [results[0][0]["label"]]
    assert not any("not supported" in message for message in messages)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_scores_sum_to_one(dtype, model, demo_processor, pictures, demo_images):
    expected = scores(model, ["zero", "one"], demo_processor, demo_images)
    model.to(dtype)
    classify = pipeline("image-classification", model=model, image_processor=demo_processor.image_processor)
    results = as_dicts(classify(pictures))
    assert results == [pytest.approx(row, abs=0.03) for row in expected]
    assert all(sum(row.values()) == pytest.approx(1) for row in results)


def test_a_folder_gives_the_class_features_logits(model, demo_processor, pictures, demo_images, messages, tmp_path):
    """transformers loads the folder into a plain CLIPModel, which knows no trained classes."""
    names = ["two", "zero", "one"]
    model.save_pretrained(tmp_path)
    classify = pipeline("zero-shot-image-classification", model=str(tmp_path), processor=demo_processor)
    results = classify(pictures, candidate_labels=names, hypothesis_template=TEMPLATE)
    prompts = demo_processor.tokenizer([TEMPLATE.format(name) for name in names], return_tensors="pt", padding=True)
    with torch.no_grad():
        rows = model(**prompts, pixel_values=demo_images).class_logits.softmax(dim=-1).tolist()
        with model.disable_adapter():
            frozen = model(**prompts, pixel_values=demo_images).logits.softmax(dim=-1).tolist()
    expected = [dict(zip(names, row, strict=True)) for row in rows]
    assert as_dicts(results) == [pytest.approx(row, abs=1e-5) for row in expected]
    assert rows[0] != pytest.approx(frozen[0], abs=0.01)
    assert not any("not supported" in message for message in messages)


def test_a_folder_needs_no_processor(model, pictures, tmp_path):
    """It is found with the base model that the adapter names."""
    model.save_pretrained(tmp_path)
    names = ["zero", "one"]
    classify = pipeline("zero-shot-image-classification", model=str(tmp_path))
    given = pipeline(
        "zero-shot-image-classification", model=str(tmp_path), processor=AutoProcessor.from_pretrained(DEMO_CLIP)
    )
    assert classify(pictures, candidate_labels=names) == given(pictures, candidate_labels=names)
