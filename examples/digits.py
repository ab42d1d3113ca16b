"""Handwritten digits for the demo: scikit-learn's `load_digits` as a `datasets.DatasetDict`.

The 1,797 pictures come with scikit-learn, so nothing is downloaded. They are the test part of the UCI data
set "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, 1998): 8x8 scans in 17 grey
levels, written by 13 people.
"""

from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from PIL import Image as PILImage
from PIL import ImageOps
from sklearn.datasets import load_digits as load_sklearn_digits

from peft_mmrl.data.benchmarks import BenchmarkData


# Words, not numerals: three quarters of the digits' captions in the demo's pretraining spell them out, and
# zero-shot accuracy on `train` is slightly better with them.
CLASS_NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEMPLATE = "a photo of the digit {}."
IMAGE_SIZE = 32
NUM_TRAIN = 800


def scan_to_image(scan: np.ndarray) -> PILImage.Image:
    """An 8x8 scan (values 0 to 16, strokes bright) as a 32x32 grey picture, white strokes on black."""
    picture = PILImage.fromarray(np.round(scan * 255 / 16).astype(np.uint8))
    return picture.resize((IMAGE_SIZE, IMAGE_SIZE), PILImage.Resampling.BICUBIC)


def load_digits() -> DatasetDict:
    """Load the handwritten digits.

    The split is fixed: the first 800 pictures in file order are `train`, the pool that shots and validation
    pictures are drawn from; the other 997 are `test`. The same sequence of about 130 labels repeats through
    the file, which shows that it goes from one writer's form to the next. So a cut in file order, unlike a
    shuffle, leaves nearly all test pictures to forms that are not in `train` (24 pictures of one form are).
    Classes are balanced: 79 to 82 pictures each in `train` and 95 to 102 in `test`.

    Returns:
        `DatasetDict` with splits `train` and `test` and columns `image` (32x32, grey) and `label`.
    """
    scans = load_sklearn_digits()
    features = Features({"image": Image(), "label": ClassLabel(names=CLASS_NAMES)})
    splits = {}
    for name, part in {"train": slice(0, NUM_TRAIN), "test": slice(NUM_TRAIN, None)}.items():
        columns = {
            "image": [scan_to_image(scan) for scan in scans.images[part]],
            "label": scans.target[part].tolist(),
        }
        splits[name] = Dataset.from_dict(columns, features=features)
    return DatasetDict(splits)


def as_benchmark(name: str = "digits", inverted: bool = False) -> BenchmarkData:
    """The digits as the protocols' scripts use a data set.

    Args:
        name: of the data set.
        inverted: black strokes on white, for tests only: the same classes in another domain.
    """
    parts = {}
    for split, pictures in load_digits().items():
        if inverted:
            pictures = pictures.map(lambda row: {"image": ImageOps.invert(row["image"])})
        pictures = pictures.cast_column("image", Image(decode=False))
        parts[split] = pictures.add_column("path", [f"{split}/{index}" for index in range(len(pictures))])
    return BenchmarkData(
        name=name,
        title=name,
        template=TEMPLATE,
        class_names=CLASS_NAMES,
        train=None if inverted else parts["train"],
        validation=None,
        test=parts["test"],
        settings={"epochs": 25, "learning_rate": 2e-3, "batch_size": 4, "flip": False, "crop_scale": 0.8},
        base_model=str(Path(__file__).parent / "demo_clip"),
    )


DIGIT_BENCHMARKS = {"digits": as_benchmark, "digits_inverted": lambda: as_benchmark("digits_inverted", inverted=True)}
