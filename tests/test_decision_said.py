"""An adapter without a decision that is asked for trained and new classes together says once what to do."""

import pytest
import torch
from conftest import DEMO_CLIP, load_example, scramble
from peft import get_peft_model
from transformers import CLIPModel, pipeline

from peft_mmrl import MMRLConfig


TEMPLATE = "the digit {}."
MIXED = ["zero", "one", "two"]
SAID = "Trained and new classes compete"


@pytest.fixture
def model(demo_processor):
    """Trained on zero and one."""
    model = scramble(get_peft_model(CLIPModel.from_pretrained(DEMO_CLIP), MMRLConfig(rep_dim=16)))
    model.set_classes(MIXED[:2], demo_processor, template=TEMPLATE)
    return model.eval()


@pytest.fixture
def adapter(model, tmp_path):
    model.save_pretrained(tmp_path / "adapter")
    return str(tmp_path / "adapter")


def times_said(recwarn):
    return sum(SAID in str(warning.message) for warning in recwarn)


def test_bound_classes_and_their_pipeline(model, demo_processor, demo_images, pictures, recwarn):
    bound = model.bound_to(MIXED, demo_processor)
    with torch.no_grad():
        model(pixel_values=demo_images)
        assert times_said(recwarn) == 0
        bound(pixel_values=demo_images), bound(pixel_values=demo_images)
        assert times_said(recwarn) == 1
        model.set_classes(MIXED, demo_processor)
        model(pixel_values=demo_images)
    pipeline("image-classification", model=model, image_processor=demo_processor.image_processor)(pictures)
    assert times_said(recwarn) == 1


def test_the_pipeline_over_bound_classes(model, demo_processor, pictures, recwarn):
    model.set_classes(MIXED, demo_processor)
    classify = pipeline("image-classification", model=model, image_processor=demo_processor.image_processor)
    classify(pictures), classify(pictures)
    assert times_said(recwarn) == 1


@pytest.mark.parametrize("has_decision", [False, True])
def test_the_zero_shot_pipeline_whose_prompts_no_decision_covers(
    has_decision, model, demo_processor, demo_images, pictures, recwarn
):
    if has_decision:
        model.fit_decision(demo_images, torch.tensor([0, 1, 1]))
    classify = pipeline(
        "zero-shot-image-classification",
        model=model,
        image_processor=demo_processor.image_processor,
        tokenizer=demo_processor.tokenizer,
    )
    for labels, times in ((MIXED[:2], 0), (MIXED[2:], 0), (MIXED, 1), (MIXED, 1)):
        classify(pictures, candidate_labels=labels, hypothesis_template=TEMPLATE)
        assert times_said(recwarn) == times
    (said,) = [str(warning.message) for warning in recwarn if SAID in str(warning.message)]
    assert "`set_classes` or `bound_to`, not for `input_ids`" in said


def test_predict_with_further_classes(adapter, digit_folders, recwarn, capsys):
    predict = load_example("predict")
    given = [adapter, str(digit_folders / "test"), "--base_model", str(DEMO_CLIP), "--batch_size", "4"]
    predict.main(predict.parse_args(given))
    assert times_said(recwarn) == 0
    predict.main(predict.parse_args([*given, "--classes", "two"]))
    assert times_said(recwarn) == 1


def test_evaluate_on_pictures_of_both(adapter, digit_folders, tmp_path, recwarn):
    evaluate = load_example("evaluate")
    given = [adapter, str(digit_folders / "test"), "--base_model", str(DEMO_CLIP), "--batch_size", "4"]
    evaluate.main(evaluate.parse_args([*given, "--output_dir", str(tmp_path / "evaluation")]))
    assert times_said(recwarn) == 1
