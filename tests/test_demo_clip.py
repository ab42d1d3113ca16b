"""The demo's CLIP: loads like any CLIP, sees real handwritten digits zero-shot, and can be made again."""

import warnings
from pathlib import Path

import pretrain_demo_clip
import pytest
import torch
from datasets import concatenate_datasets
from digits import CLASS_NAMES, TEMPLATE, load_digits
from transformers import AutoProcessor, AutoTokenizer, CLIPModel, CLIPProcessor, CLIPTokenizer


FOLDER = Path(__file__).parents[1] / "examples" / "demo_clip"
MAX_BYTES = 3_000_000


@pytest.fixture(scope="module")
def clip() -> CLIPModel:
    return CLIPModel.from_pretrained(FOLDER).eval()


@pytest.fixture(scope="module")
def processor() -> CLIPProcessor:
    return CLIPProcessor.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def digits():
    return load_digits()


@pytest.fixture(scope="module")
def scores(clip, processor, digits) -> tuple[torch.Tensor, torch.Tensor]:
    """Zero-shot logits (1797, 10) and labels (1797,) of all handwritten digits."""
    pictures = concatenate_datasets(list(digits.values()))
    texts = [TEMPLATE.format(name) for name in CLASS_NAMES]
    inputs = processor(text=texts, images=list(pictures["image"]), padding=True, return_tensors="pt")
    with torch.no_grad():
        return clip(**inputs).logits_per_image, torch.tensor(pictures["label"])


def test_folder_is_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MAX_BYTES


def test_loads_with_auto_classes():
    assert isinstance(AutoProcessor.from_pretrained(FOLDER), CLIPProcessor)
    assert isinstance(AutoTokenizer.from_pretrained(FOLDER), CLIPTokenizer)


def test_loads_and_processes_without_warnings(digits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        processor = CLIPProcessor.from_pretrained(FOLDER)
        model = CLIPModel.from_pretrained(FOLDER)
        images = [digits["train"][0]["image"]]
        inputs = processor(text=["one", "a photo of two"], images=images, padding=True, return_tensors="pt")
    assert model.dtype == torch.float32
    assert inputs["pixel_values"].shape == (1, 3, 32, 32)


def test_config_and_tokenizer_agree(clip, processor):
    text_config, tokenizer = clip.config.text_config, processor.tokenizer
    assert text_config.vocab_size == len(tokenizer)
    assert text_config.max_position_embeddings == tokenizer.model_max_length == 32
    assert text_config.bos_token_id == tokenizer.bos_token_id
    assert text_config.eos_token_id == tokenizer.eos_token_id != 2  # 2 would mean pooling by the largest id
    assert text_config.pad_token_id == tokenizer.pad_token_id


@pytest.mark.parametrize("classes", [range(5), range(5, 10)], ids=["0-4", "5-9"])
def test_zero_shot_on_handwritten_digits(scores, classes):
    logits, labels = scores
    shown = torch.isin(labels, torch.tensor(classes))
    predicted = logits[shown][:, list(classes)].argmax(dim=1) + classes[0]
    accuracy = (predicted == labels[shown]).float().mean().item()
    assert 0.75 <= accuracy <= 0.92  # right often enough to start from, with room for adaptation


def test_weights_survive_half_precision(clip):
    assert 5 < clip.logit_scale.exp().item() < 100
    assert all(parameter.isfinite().all() for parameter in clip.parameters())


def test_image_processor_keeps_digits_as_they_are(processor, digits):
    image = digits["train"][0]["image"]
    pixel_values = processor(images=image, return_tensors="pt")["pixel_values"][0]
    image_processor = processor.image_processor
    grey = pixel_values * image_processor.image_std[0] + image_processor.image_mean[0]
    expected = torch.tensor(list(image.tobytes())).reshape(32, 32) / 255
    torch.testing.assert_close(grey, expected.expand(3, -1, -1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "text",
    [
        "a photo of the digit three .",
        "don 't",
        "r2d2",
        "straße",
        "😀 👍🏽",
        "日本語 の 数字",
        "شكرا",
        "\0",
        "",
    ],
)
def test_tokenizer_round_trips_any_text(processor, text):
    tokenizer = processor.tokenizer
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    assert tokenizer.unk_token_id not in ids[1:-1]
    # CLIP's tokenizer puts spaces between words, numerals and signs; nothing else changes.
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(" ", "")


def test_digits_are_split_in_file_order(digits):
    assert {name: len(split) for name, split in digits.items()} == {"train": 800, "test": 997}
    for split in digits.values():
        counts = torch.bincount(torch.tensor(split["label"]), minlength=10)
        assert counts.min() >= 0.09 * len(split) and counts.max() <= 0.11 * len(split)
    assert digits["train"].features["label"].names == CLASS_NAMES
    assert digits["train"][0]["image"].size == (32, 32)


def test_pretraining_runs_end_to_end(tmp_path, capsys):
    arguments = ["--output_dir", str(tmp_path), "--steps", "3", "--batch_size", "8", "--max_glyphs", "40"]
    pretrain_demo_clip.main(pretrain_demo_clip.parse_args(arguments))
    assert "zero-shot on handwritten digits 0-9" in capsys.readouterr().out
    model, processor = CLIPModel.from_pretrained(tmp_path), CLIPProcessor.from_pretrained(tmp_path)
    inputs = processor(text=["a photo of the digit three."], return_tensors="pt")
    assert model.get_text_features(**inputs).pooler_output.shape == (1, 64)
