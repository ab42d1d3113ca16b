"""From a source to training and validation pictures."""

import pytest
from datasets import ClassLabel, Dataset

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


def test_new_classes_are_those_whose_names_are_not_known():
    dataset = Dataset.from_dict({"label": [0, 1, 2]}).cast_column("label", ClassLabel(names=["Big_cat", "dog", "k9"]))
    assert new_class_names(dataset, ["big cat"]) == ["dog", "k9"]
    assert new_class_names(dataset, ["big cat"], {"k9": "Dog"}) == ["dog", "Dog"]
    assert new_class_names(dataset, ["big cat", "dog"], {"k9": "Dog"}) == []
