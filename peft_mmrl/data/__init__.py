"""Labelled pictures: where they come from, how they are read, checked, sampled and turned into `pixel_values`.

A labelled data set is a `datasets.Dataset` with these columns:
  image   the picture, undecoded (`Image(decode=False)`): `peft_mmrl.data.read_picture` decodes it, alike everywhere
  label   a `ClassLabel`, whose names are the classes as the source calls them (folder names)
  path    what names the picture in splits, predictions and messages: a path relative to the data's root, or "test/12"
and sometimes two more:
  group   what it belongs to, a scene or a person, say: no split cuts through a group; "" where it is on its own
  line    of the table that lists it
"""

from .balance import balanced_weights
from .checking import check_pictures, describe_bad
from .class_names import check_distinct, clean_class_name, notes_on_codes, prompt_names, read_class_names
from .copies import save_trained_on
from .labels import check_several_classes, close_names, drop_empty_classes, match_labels, new_class_names
from .pictures import PictureError, PictureFacts, examine_picture, read_picture
from .preparation import (
    PictureSource,
    TrainingData,
    beyond_range,
    choose_preprocessing,
    load_training_data,
    note_trained_on,
)
from .preprocessing import Preprocessing
from .shots import deal_folds, hold_out, load_split, sample_few_shot, sample_shots, save_split
from .sources import load_folder, load_named
from .tables import load_table
from .transforms import PictureDataset, TrainTransform


__all__ = [
    "PictureDataset",
    "PictureError",
    "PictureFacts",
    "PictureSource",
    "Preprocessing",
    "TrainTransform",
    "TrainingData",
    "balanced_weights",
    "beyond_range",
    "check_distinct",
    "check_pictures",
    "check_several_classes",
    "choose_preprocessing",
    "clean_class_name",
    "close_names",
    "deal_folds",
    "describe_bad",
    "drop_empty_classes",
    "examine_picture",
    "hold_out",
    "load_folder",
    "load_named",
    "load_split",
    "load_table",
    "load_training_data",
    "match_labels",
    "new_class_names",
    "note_trained_on",
    "notes_on_codes",
    "prompt_names",
    "read_class_names",
    "read_picture",
    "sample_few_shot",
    "sample_shots",
    "save_split",
    "save_trained_on",
]
