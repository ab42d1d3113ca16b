"""The field's data sets, read from tiny folders in the layouts in which they are published."""

import datasets
import pytest
from PIL import Image
from published_layouts import WORDNET, draw, write_split, write_wordnet

from peft_mmrl.data import read_picture
from peft_mmrl.data.benchmarks import BENCHMARKS, VARIANTS, load_benchmark, load_copy
from peft_mmrl.data.layouts import read_split_file


WITH_SPLIT_FILE = [name for name, benchmark in BENCHMARKS.items() if benchmark.read is read_split_file]


def labels_by_path(dataset):
    return dict(zip(dataset["path"], dataset["label"], strict=True))


@pytest.mark.parametrize("name", WITH_SPLIT_FILE)
def test_a_split_file_says_which_pictures_and_classes(name, tmp_path):
    rows = [("b/1.jpg", 1, "sea_lake"), ("a/1.jpg", 0, "forest"), ("b/2.jpg", 1, "sea_lake")]
    write_split(tmp_path, name, rows)
    data = load_benchmark(name, tmp_path)
    assert data.class_names == ["forest", "sea lake"]
    assert list(data.train["label"]) == [1, 0, 1]  # in the order of the file, which few-shot sampling depends on
    for part, dataset in {"train": data.train, "val": data.validation, "test": data.test}.items():
        assert [path.split("/")[-2:] for path in dataset["path"]] == [
            [f"{part}_b", "1.jpg"],
            [f"{part}_a", "1.jpg"],
            [f"{part}_b", "2.jpg"],
        ]
        assert not dataset["path"][0].startswith((".", "/"))
        assert read_picture(dataset[0]["image"]).size == (4, 4)


def test_aircraft_is_read_from_its_text_files(tmp_path):
    folder = tmp_path / "fgvc_aircraft"
    for number, part in enumerate(("train", "val", "test")):
        draw(folder / "images" / f"000{number}.jpg")
        (folder / f"images_variant_{part}.txt").write_text(f"000{number} A340-200 Long\n\n")
    (folder / "variants.txt").write_text("707-320\nA340-200 Long\n\n")
    data = load_benchmark("fgvc_aircraft", tmp_path)
    assert data.class_names == ["707-320", "A340-200 Long"]
    assert labels_by_path(data.train) == {"images/0000.jpg": 1}
    assert labels_by_path(data.test) == {"images/0002.jpg": 1}
    (folder / "images_variant_val.txt").write_text("0001\n")
    with pytest.raises(ValueError, match=r"images_variant_val.txt: each line must be a number of a picture and its"):
        load_benchmark("fgvc_aircraft", tmp_path)
    (folder / "images_variant_val.txt").write_text("0001 Concorde\n")
    with pytest.raises(ValueError, match="Concorde"):
        load_benchmark("fgvc_aircraft", tmp_path)


def test_imagenet_takes_its_validation_folder_as_test_split(tmp_path):
    folder = write_wordnet(
        tmp_path, "imagenet", [f"{part}/{number}" for part in ("train", "val") for number in WORDNET]
    )
    data = load_benchmark("imagenet", tmp_path)
    assert data.class_names == list(WORDNET.values())
    assert data.validation is None
    assert data.train["path"][:3] == [
        "images/train/n01440764/1.JPEG",
        "images/train/n01440764/2.JPEG",
        "images/train/n01484850/1.JPEG",
    ]
    assert list(data.test["label"]) == [0, 0, 1, 1, 2, 2]
    (folder / "images" / "val" / "n09999999").mkdir()
    with pytest.raises(ValueError, match=r"1 are not in classnames.txt \(n09999999\)"):
        load_benchmark("imagenet", tmp_path)


def test_a_class_folder_of_imagenet_that_is_missing_is_named(tmp_path):
    present = [f"{part}/{number}" for part in ("train", "val") for number in list(WORDNET)[:2]]
    write_wordnet(tmp_path, "imagenet", present)
    with pytest.raises(ValueError, match=r"each of 3 classes, but 1 are missing \(n01514668\)"):
        load_benchmark("imagenet", tmp_path)


def test_names_may_occur_twice_in_imagenet(tmp_path):
    names = WORDNET | {"n01514668": "tench"}
    write_wordnet(tmp_path, "imagenet_sketch", names, names)
    data = load_benchmark("imagenet_sketch", tmp_path)
    assert data.class_names == ["tench", "great white shark", "tench"]
    assert list(data.test["label"]) == [0, 0, 1, 1, 2, 2]


def test_names_may_occur_twice_in_a_split_file(tmp_path):
    write_split(tmp_path, "sun397", [("a/1.jpg", 0, "crane"), ("b/1.jpg", 1, "owl"), ("c/1.jpg", 2, "crane")])
    data = load_benchmark("sun397", tmp_path)
    assert data.class_names == ["crane", "owl", "crane"]
    assert data.test["label"][:] == [0, 1, 2]


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_r"])
def test_variants_with_some_of_imagenets_classes_are_numbered_among_these(name, tmp_path):
    write_wordnet(tmp_path, name, ["n01484850", "n01514668"])
    data = load_benchmark(name, tmp_path)
    assert data.class_names == ["great white shark", "rooster"]
    assert list(data.test["label"]) == [0, 0, 1, 1]
    assert data.train is None


def test_imagenet_v2_numbers_its_folders(tmp_path):
    names = {f"n{number:08}": f"thing {number}" for number in range(11)}
    write_wordnet(tmp_path, "imagenetv2", map(str, range(11)), names)
    data = load_benchmark("imagenetv2", tmp_path)
    found = labels_by_path(data.test)
    assert found["imagenetv2-matched-frequency-format-val/10/1.JPEG"] == 10
    assert found["imagenetv2-matched-frequency-format-val/2/1.JPEG"] == 2  # not in the order of text


def test_what_is_missing_is_named_with_its_place(tmp_path):
    with pytest.raises(ValueError, match="no data set 'cifar10', only imagenet, caltech101"):
        load_benchmark("cifar10", tmp_path)
    for name in BENCHMARKS:
        with pytest.raises(FileNotFoundError, match=r"DATASETS\.md#.*--data_dir"):
            load_benchmark(name, tmp_path)
    folder = write_split(tmp_path, "dtd", [("a/1.jpg", 0, "banded"), ("b/1.jpg", 1, "dotted")])
    (folder / BENCHMARKS["dtd"].needs[0]).unlink()
    with pytest.raises(FileNotFoundError, match=r"split_zhou_DescribableTextures.json.*DATASETS.md#dtd"):
        load_benchmark("dtd", tmp_path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a/1.jpg", -1, "forest")], "whole number of at least 0, got -1"),
        ([("a/1.jpg", 1.0, "forest")], "whole number of at least 0, got 1.0"),
        ([("a/1.jpg", "1", "forest")], "whole number of at least 0, got '1'"),
        ([("a/1.jpg", 1, "forest"), ("b/1.jpg", 2, "lake")], "labels 0 to 1, but no picture has the label 0"),
        ([("a/1.jpg", 0, "forest"), ("b/1.jpg", 5, "lake")], "has the label 1, and the largest label is 5"),
        ([("a/1.jpg", 1, "forest"), ("b/1.jpg", 1, "lake")], "label 1 stands for 'forest' and, at train_b/1.jpg"),
    ],
)
def test_labels_that_mean_nothing_are_refused(rows, message, tmp_path):
    write_split(tmp_path, "eurosat", rows)
    with pytest.raises(ValueError, match=message):
        load_benchmark("eurosat", tmp_path)


def test_a_file_that_is_no_split_file_is_refused(tmp_path):
    folder = write_split(tmp_path, "eurosat", [("a/1.jpg", 0, "forest")], parts=("train", "test"))
    with pytest.raises(ValueError, match="split_zhou_EuroSAT.json must be a JSON object with lists"):
        load_benchmark("eurosat", tmp_path)
    (folder / "split_zhou_EuroSAT.json").write_text("[[]")
    with pytest.raises(ValueError, match="split_zhou_EuroSAT.json must be a JSON object with lists"):
        load_benchmark("eurosat", tmp_path)


def save_copy(folder, **parts):
    """A `datasets` data set with two pictures of each class, in the order in which a part names them."""
    splits = {}
    for part, names in parts.items():
        rows = {"image": [Image.new("RGB", (4, 4))] * (2 * len(names)), "label": sorted([*range(len(names))] * 2)}
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))})
        splits[part] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(splits).save_to_disk(folder)
    return str(folder)


def test_a_copy_of_datasets_takes_the_place_of_a_folder(tmp_path):
    source = save_copy(tmp_path / "copy", train=["banded", "polka_dotted"], test=["polka_dotted", "banded"])
    data = load_copy("dtd", source)
    assert (data.title, data.template, data.class_names) == ("DTD", "{} texture.", ["banded", "polka dotted"])
    assert data.train["path"][:] == ["train/0", "train/1", "train/2", "train/3"]
    assert data.test["label"][:] == [1, 1, 0, 0]  # by name, not by position
    assert load_copy("patterns", source).template == "a photo of a {}."


def test_the_split_that_a_copy_is_tested_on(tmp_path):
    parts = {"train": ["a", "b"], "validation": ["a", "b"], "test": ["b", "a"]}
    source = save_copy(tmp_path / "all", **parts)
    assert load_copy("dtd", source).test["path"][0] == "test/0"
    assert load_copy("imagenet", source).test["path"][0] == "validation/0"
    assert load_copy("food101", save_copy(tmp_path / "no test", train=["a"], val=["a"])).test["path"][0] == "val/0"
    variant = load_copy("imagenet_r", save_copy(tmp_path / "variant", train=["a", "b"]))
    assert (variant.train, variant.test["path"][0]) == (None, "train/0")
    with pytest.raises(ValueError, match="has no split 'test' or 'validation'.*, only train"):
        load_copy("dtd", save_copy(tmp_path / "nothing to test", train=["a", "b"]))


def test_there_are_eleven_data_sets_and_four_variants():
    assert len(BENCHMARKS) == 15
    assert set(VARIANTS) < set(BENCHMARKS)
    assert all("{}" in benchmark.template for benchmark in BENCHMARKS.values())
