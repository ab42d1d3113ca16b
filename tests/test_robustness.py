"""`evaluate --corruptions`: seeded, stronger is worse, beside zero-shot CLIP, in numbers, words and on the page."""

import json

import numpy as np
import PIL.Image
import pytest
import torch
from conftest import DEMO_CLIP
from demo_parts.methods import load_clip
from peft import get_peft_model
from transformers import CLIPImageProcessor

from peft_mmrl import MMRLConfig, Preprocessing
from peft_mmrl.commands.evaluate import main, parse_args
from peft_mmrl.data.corruptions import CORRUPTIONS, STRENGTHS, CorruptedView


NAMES = ["light", "contrast", "blur", "noise", "JPEG", "colour cast", "rotation", "crop", "scale"]


@pytest.fixture(scope="module")
def preprocessing():
    return Preprocessing(CLIPImageProcessor.from_pretrained(DEMO_CLIP))


def picture(size, seed=0):
    """Smooth colours with an edge, as photographs have them."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return PIL.Image.fromarray(small).resize(size, PIL.Image.Resampling.BICUBIC)


def test_there_are_nine():
    assert [corruption.name for corruption in CORRUPTIONS] == NAMES


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda corruption: corruption.name)
def test_stronger_is_further_from_the_picture(preprocessing, corruption):
    distances = np.zeros(3)
    for seed in range(6):
        image = picture((64, 64), seed)
        plain = preprocessing(image)
        views = [CorruptedView(preprocessing, corruption, strength)(image) for strength in range(3)]
        assert all(view.shape == plain.shape for view in views)
        distances += [(view - plain).abs().mean().item() for view in views]
    assert 0 < distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda corruption: corruption.name)
def test_what_is_random_depends_on_seed_and_picture_alone(preprocessing, corruption):
    images = [picture((50, 40), seed) for seed in range(12)]
    views = [CorruptedView(preprocessing, corruption, 1, seed) for seed in (0, 0, 1)]
    state = torch.random.get_rng_state()
    orders = (images, images[::-1], images)
    one, again, other = (
        torch.stack([view(image) for image in order]) for view, order in zip(views, orders, strict=True)
    )
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(one, again.flip(0))
    is_random = corruption.name in ("light", "noise", "colour cast", "rotation", "crop")
    assert torch.equal(one, other) is not is_random


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (2000, 3), (2, 900), (640, 480)])
def test_pictures_of_any_size_can_be_corrupted(preprocessing, size):
    for corruption in CORRUPTIONS:
        for fit in ("crop", "pad", "squeeze"):
            prepared = Preprocessing(preprocessing.image_processor, fit)
            assert CorruptedView(prepared, corruption, 2)(picture(size)).isfinite().all()


def test_strengths_mean_the_same_for_pictures_of_any_size(preprocessing):
    small = picture((64, 64))
    large = small.resize((640, 640), PIL.Image.Resampling.BICUBIC)
    for name in ("blur", "JPEG"):
        view = CorruptedView(preprocessing, CORRUPTIONS[NAMES.index(name)], 2)
        assert (view(small) - view(large)).abs().mean() < 0.1


def test_the_command_says_it_in_numbers_words_and_on_the_page(digit_folders, tmp_path, capsys):
    clip, processor = load_clip()
    model = get_peft_model(clip, MMRLConfig(rep_dim=16))
    model.set_classes(["two", "one", "zero"], processor, template="a photo of the digit {}.")
    model.save_pretrained(tmp_path / "adapter")
    for run in ("one", "two"):
        arguments = [tmp_path / "adapter", digit_folders / "test", "--output_dir", tmp_path / run, "--corruptions"]
        main(parse_args([*map(str, arguments), "--batch_size", "4" if run == "one" else "15"]))
    one, two = (json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("one", "two"))
    rows = one["corruptions"]
    assert rows == two["corruptions"]
    assert {row["corruption"] for row in rows} == set(NAMES)
    means = [row["mean_accuracy"] for row in rows]
    assert means == sorted(means) and means[0] < one["accuracy"]
    for row in rows:
        assert row["strengths"] == list(STRENGTHS) and len(row["values"]) == 3
        assert row["mean_accuracy"] == pytest.approx(sum(row["accuracy"]) / 3)
        assert row["zero_shot_mean_accuracy"] == pytest.approx(sum(row["zero_shot_accuracy"]) / 3)
    printed = capsys.readouterr().out
    places = [printed.index(words) for words in ("weakest first", *(f"  {row['corruption']} " for row in rows))]
    assert places == sorted(places)
    page = (tmp_path / "one" / "report.html").read_text()
    assert page.index("On worse pictures") < page.index(rows[0]["meaning"]) < page.index(rows[-1]["meaning"])
