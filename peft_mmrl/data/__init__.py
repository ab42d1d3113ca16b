"""Labelled pictures: where they come from, how they are read, checked, sampled and turned into `pixel_values`.

A labelled data set is a `datasets.Dataset` with three columns:
  image   the picture, undecoded (`Image(decode=False)`): `peft_mmrl.data.read_picture` decodes it, alike everywhere
  label   a `ClassLabel`, whose names are the classes as the source calls them (folder names)
  path    what names the picture in splits, predictions and messages: a path relative to the data's root, or "test/12"
"""

from .pictures import PictureError, read_picture
from .shots import sample_shots
from .transforms import EvalTransform, PictureDataset, TrainTransform


__all__ = ["EvalTransform", "PictureDataset", "PictureError", "TrainTransform", "read_picture", "sample_shots"]
