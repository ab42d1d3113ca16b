"""Labelled pictures: where they come from, how they are read, checked, sampled and turned into `pixel_values`.

A labelled data set is a `datasets.Dataset` with three columns:
  image   the picture, undecoded (`Image(decode=False)`): `peft_mmrl.data.read_picture` decodes it, alike everywhere
  label   a `ClassLabel`, whose names are the classes as the source calls them (folder names)
  path    what names the picture in splits, predictions and messages: a path relative to the data's root, or "test/12"
"""

from .shots import sample_shots


__all__ = ["sample_shots"]
