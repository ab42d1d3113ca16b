"""Pictures become `pixel_values` as the image processor makes them, and are augmented for training."""

import copy
import pickle

import datasets
import PIL.Image
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import CLIPImageProcessor

from peft_mmrl.data import PictureDataset, PictureError, Preprocessing, TrainTransform


def processor(**changes):
    return CLIPImageProcessor(**{"size": {"shortest_edge": 32}, "crop_size": 32, **changes})


def noise(width, height):
    return PIL.Image.effect_noise((width, height), 90).convert("RGB").rotate(3)


@pytest.fixture
def pictures(tmp_path):
    """Three pictures of 40 x 36 in two classes."""
    rows = {"image": [], "label": [0, 1, 0], "path": []}
    for number in range(3):
        path = tmp_path / f"{number}.png"
        noise(40, 36).save(path)
        rows["image"].append(str(path))
        rows["path"].append(path.name)
    features = {"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=["cat", "dog"])}
    return datasets.Dataset.from_dict(rows, features=datasets.Features({**features, "path": datasets.Value("string")}))


@pytest.mark.parametrize("size", [(40, 36), (1, 1), (32, 512), (500, 100), (2, 9)])
def test_evaluation_gives_what_the_image_processor_gives(size):
    picture = noise(*size)
    expected = processor()(picture, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(Preprocessing(processor())(picture), expected)


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (1000, 40), (301, 7), (13, 2001), (1999, 90)])
@pytest.mark.parametrize("crop", [32, 24])
def test_the_middle_of_a_long_picture_is_what_the_image_processor_keeps(size, crop):
    picture = noise(*size)
    expected = processor(crop_size=crop)(picture, return_tensors="pt")["pixel_values"][0]
    found = Preprocessing(processor(crop_size=crop))(picture)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 0.04  # two levels of grey, in white noise


def test_a_very_long_picture_takes_no_memory():
    assert Preprocessing(CLIPImageProcessor())(PIL.Image.new("RGB", (60000, 1))).shape == (3, 224, 224)


def test_a_processor_that_resizes_to_height_and_width():
    square = processor(size={"height": 32, "width": 24}, do_center_crop=False)
    picture = noise(400, 10)
    expected = square(picture, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(Preprocessing(square)(picture), expected)
    assert TrainTransform(square)(picture).shape == (3, 32, 24)


@pytest.mark.parametrize("transform", [Preprocessing, TrainTransform])
def test_all_pictures_must_get_one_size(transform):
    with pytest.raises(ValueError, match="`image_processor` must give all pictures one size"):
        transform(processor(do_center_crop=False))


def test_training_crops_and_mirrors_with_torch_s_random_numbers():
    transform, picture = TrainTransform(processor()), noise(64, 48)
    views = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        views.append(transform(picture))
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 2), (20000, 1)])
def test_training_takes_pictures_of_any_size(size):
    assert TrainTransform(processor())(noise(*size)).shape == (3, 32, 32)


def test_training_without_crop_and_flip_is_evaluation():
    picture = noise(32, 32)
    transform = TrainTransform(processor(), scale=(1, 1), flip=False)
    assert torch.allclose(transform(picture), Preprocessing(processor())(picture))
    flipped = TrainTransform(processor(), scale=(1, 1))
    expected = Preprocessing(processor())(picture)
    seen = {torch.equal(flipped(picture), expected.flip(-1)) for _ in range(20)}
    assert seen == {True, False}


@pytest.mark.parametrize("scale", [(0.5, 0.2), (-0.1, 1), (0.1, 2), ("a", 1)])
def test_a_scale_that_cannot_be(scale):
    with pytest.raises(ValueError, match=r"`scale\[[01]\]`"):
        TrainTransform(processor(), scale=scale)


def test_loader_workers_that_are_spawned(pictures):
    dataset = PictureDataset(pictures, Preprocessing(processor()))
    batches = list(DataLoader(dataset, batch_size=2, num_workers=1, multiprocessing_context="spawn"))
    assert [batch["labels"].tolist() for batch in batches] == [[0, 1], [0]]
    assert torch.equal(batches[1]["pixel_values"][0], dataset[2]["pixel_values"])


@pytest.mark.parametrize("transform", [Preprocessing, TrainTransform])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies(pictures, transform, copied):
    dataset = PictureDataset(pictures, transform(processor()))
    torch.manual_seed(4)
    expected = dataset[1]["pixel_values"]
    torch.manual_seed(4)
    assert torch.equal(copied(dataset)[1]["pixel_values"], expected)


def test_a_picture_that_cannot_be_read_is_named(pictures, tmp_path):
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(PictureError, match=r"1\.png: the file is empty"):
        list(DataLoader(PictureDataset(pictures, Preprocessing(processor())), batch_size=2))
