"""Tiny folders in the layouts in which the field's data sets are published."""

import json

from PIL import Image

from peft_mmrl.data.benchmarks import BENCHMARKS


WORDNET = {"n01440764": "tench", "n01484850": "great white shark", "n01514668": "rooster"}


def draw(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), "red").save(path, "jpeg")


def write_split(root, name, rows, parts=("train", "val", "test")):
    """A benchmark with a split file in which each part has the pictures `rows`: path, label, class name."""
    benchmark = BENCHMARKS[name]
    folder = root / benchmark.folder
    split = {part: [(f"{part}_{path}", label, title) for path, label, title in rows] for part in parts}
    for part in split.values():
        for path, _, _ in part:
            draw(folder / benchmark.images / path)
    (folder / benchmark.needs[0]).write_text(json.dumps(split))
    return folder


def write_wordnet(root, name, folders, names=WORDNET):
    """One of ImageNet's kind with a picture in each of `folders`."""
    folder = root / BENCHMARKS[name].folder
    for class_folder in folders:
        for number in (2, 1):
            draw(folder / BENCHMARKS[name].images / class_folder / f"{number}.JPEG")
    (folder / "classnames.txt").write_text("".join(f"{number} {title}\n" for number, title in names.items()))
    return folder
