"""From a source to training and validation pictures."""

import pytest
from datasets import ClassLabel, Dataset, DatasetDict

from peft_mmrl.data import PictureSource, new_class_names


def test_a_name_means_a_table_a_folder_or_a_data_set(digit_folders, tmp_path):
    folder = digit_folders / "train"
    assert PictureSource.find(str(folder)) == PictureSource(folder=folder)
    assert PictureSource.find(str(folder), "test") == PictureSource(dataset_name=str(folder), split="test")
    (tmp_path / "labels.csv").touch()
    assert PictureSource.find(str(tmp_path / "labels.csv")) == PictureSource(file=tmp_path / "labels.csv")
    assert PictureSource.find("me/pets") == PictureSource(dataset_name="me/pets")
    Dataset.from_dict({"label": [0]}).save_to_disk(tmp_path / "saved")
    assert PictureSource.find(str(tmp_path / "saved")).dataset_name == str(tmp_path / "saved")


def test_a_source_is_one_place():
    for places in ({}, {"file": "a.csv", "dataset_name": "me/pets"}):
        with pytest.raises(ValueError, match="one folder, one file or one data set"):
            PictureSource(**places)


@pytest.mark.parametrize("options", [{"split": "test"}, {"config_name": "small"}])
def test_a_table_has_no_splits_and_no_configurations(options, tmp_path):
    (tmp_path / "labels.csv").touch()
    (name,) = options
    with pytest.raises(ValueError, match=f"`{name}` must be left out, got .*labels.csv is a table"):
        PictureSource.find(str(tmp_path / "labels.csv"), **options)


@pytest.mark.parametrize("name", ["image_column", "label_column", "group_column", "split", "config_name"])
def test_a_folder_of_class_folders_has_no_columns_no_splits_and_no_configurations(name, tmp_path):
    with pytest.raises(ValueError, match=f"`{name}` must be left out, got 'x': .* is a folder"):
        PictureSource(folder=tmp_path, **{name: "x"})


def test_the_test_split_is_tested_unless_one_is_named(tmp_path):
    one = Dataset.from_dict({"label": [0]})
    one.save_to_disk(tmp_path / "one")
    DatasetDict({"train": one, "test": one}).save_to_disk(tmp_path / "both")
    DatasetDict({"train": one, "dev": one}).save_to_disk(tmp_path / "untested")
    source, notes = PictureSource.find(str(tmp_path / "both")).to_test()
    assert (source.split, notes) == (
        "test",
        [f"the split 'test' of {tmp_path / 'both'} is tested; --split names another (train)"],
    )
    with pytest.raises(ValueError, match="^--split must be given: .*untested has no split 'test', only train, dev"):
        PictureSource.find(str(tmp_path / "untested")).to_test()
    for where, split in (("one", None), ("untested", "dev")):
        source = PictureSource.find(str(tmp_path / where), split)
        assert source.to_test() == (source, [])


def test_new_classes_are_those_whose_names_are_not_known():
    dataset = Dataset.from_dict({"label": [0, 1, 2]}).cast_column("label", ClassLabel(names=["Big_cat", "dog", "k9"]))
    assert new_class_names(dataset, ["big cat"]) == ["dog", "k9"]
    assert new_class_names(dataset, ["big cat"], {"k9": "Dog"}) == ["dog", "Dog"]
    assert new_class_names(dataset, ["big cat", "dog"], {"k9": "Dog"}) == []
