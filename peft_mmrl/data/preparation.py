"""From what a user points at to what is trained on: training and validation pictures of the same classes."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import datasets
from accelerate import Accelerator, PartialState

from ..tuner.tokenization import PromptTokenizer
from ..tuner.validation import InvalidTypeError
from .balance import note_uneven
from .checking import BadPicture, check_pictures, describe_bad, examine_pictures
from .class_names import check_distinct, notes_on_codes, prompt_names, read_class_names
from .copies import Alikeness, find_seen, load_trained_on, note_seen, trained_on
from .drawing import draw_readable_shots
from .labels import check_several_classes, drop_empty_classes, match_labels
from .pictures import PictureFacts
from .preprocessing import ImageProcessor, Preprocessing
from .shots import hold_out
from .sources import is_saved, load_columns, load_folder, load_named, split_names
from .tables import load_table


@dataclass
class PictureSource:
    """Where labelled pictures are: one of `folder`, `file`, `dataset_name` and `dataset`. What means nothing there is
    refused.

    Args:
        folder: with a sub-folder per class.
        file: CSV or JSON lines with a picture's path and its label per row.
        dataset_name: a `datasets` data set, Hub id or folder.
        split: of that data set.
        image_column, label_column: of file or data set, where they cannot be found.
        config_name: configuration of the data set, where it has several.
        group_column: of file or data set, says what belongs together, such as pictures of one scene; None: nothing.
        dataset: a `datasets` data set in memory.

    Raises:
        ValueError: not one place, or a field that says nothing of it.
    """

    folder: Path | None = None
    file: Path | None = None
    dataset_name: str | None = None
    split: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    config_name: str | None = None
    group_column: str | None = None
    dataset: datasets.Dataset | None = None

    def __post_init__(self) -> None:
        places = (self.folder, self.file, self.dataset_name, self.dataset)
        if sum(place is not None for place in places) != 1:
            raise ValueError("Pictures must come from one folder, one file or one data set.")
        fields = ["split", "config_name"] if self.dataset_name is None else []
        fields += ["image_column", "label_column", "group_column"] if self.folder is not None else []
        for name in fields:
            if (value := getattr(self, name)) is not None:
                kind = "folder of class folders" if self.folder is not None else "table"
                raise ValueError(f"`{name}` must be left out, got {value!r}: {self} is a {kind}, which has none.")

    @classmethod
    def find(
        cls,
        where: str,
        split: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        config_name: str | None = None,
    ) -> PictureSource:
        """The source that a name means: a table, a folder, or else a data set, also where its split or configuration
        is named."""
        path, places = Path(where), {}
        if path.is_file():
            places["file"] = path
        elif path.is_dir() and not is_saved(where) and split is None and config_name is None:
            places["folder"] = path
        else:
            places["dataset_name"] = where
        columns = {"image_column": image_column, "label_column": label_column}
        return cls(**places, split=split, config_name=config_name, **columns)

    @classmethod
    def of(cls, given: str | os.PathLike[str] | datasets.Dataset | PictureSource) -> PictureSource:
        """The source that a user gives: itself, a data set in memory, or what `find` makes of a name."""
        if isinstance(given, datasets.Dataset):
            return cls(dataset=given)
        if isinstance(given, str | os.PathLike):
            return cls.find(os.fspath(given))
        if isinstance(given, datasets.DatasetDict):
            raise InvalidTypeError(
                f"Pictures must be one split of the data set, such as data[{next(iter(given), 'train')!r}]."
            )
        if not isinstance(given, cls):
            raise InvalidTypeError(f"Pictures must be a folder, a table or a data set, got {given!r}.")
        return given

    def __str__(self) -> str:
        return (
            "a data set in memory" if self.dataset is not None else str(self.folder or self.file or self.dataset_name)
        )

    def load(self) -> tuple[datasets.Dataset, list[str]]:
        """The labelled pictures, and notes on them."""
        if self.folder is not None:
            return load_folder(self.folder)
        if self.file is not None:
            return load_table(self.file, self.image_column, self.label_column, self.group_column)
        columns = (self.image_column, self.label_column, self.group_column)
        if self.dataset is not None:
            return load_columns(self.dataset, str(self), "picture", *columns)
        return load_named(self.dataset_name, self.split, *columns, self.config_name)

    def sub_folders(self) -> list[str]:
        """Of a folder of class folders the names of these, also where they are empty."""
        return [path.name for path in self.folder.iterdir() if path.is_dir()] if self.folder is not None else []

    def to_test(self) -> tuple[PictureSource, list[str]]:
        """The source with the split that is tested, "test" where none is named; and notes.

        Raises:
            ValueError: none is named, and there are others alone.
        """
        if self.dataset_name is None or self.split is not None:
            return self, []
        known = split_names(self.dataset_name, self.config_name)
        if not known:
            return self, []
        if "test" not in known:
            raise ValueError(f"--split must be given: {self} has no split 'test', only {', '.join(known)}.")
        others = ", ".join(split for split in known if split != "test")
        notes = [f"the split 'test' of {self} is tested; --split names another ({others})"] if others else []
        return replace(self, split="test"), notes


@dataclass
class TrainingData:
    """Pictures to train on and to validate with.

    Args:
        train: labelled pictures; labels are positions in `class_names`.
        validation: pictures of the same classes; None where there are none.
        class_names: names as prompts say them.
        notes: what a user should know of the data, a line each.
        source: where the training pictures come from.
        validation_source: where the others come from; None: they were held out of the same.
        facts: what the training pictures are like.
        groups: of each training picture; those of one group are (nearly) equal or show the same scene, so that no
            split should cut through them.
    """

    train: datasets.Dataset
    validation: datasets.Dataset | None
    class_names: list[str]
    notes: list[str]
    source: str
    validation_source: str | None = None
    facts: list[PictureFacts] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)

    def parts(self) -> dict[str, datasets.Dataset]:
        """`train` and, where there is one, `validation`."""
        parts = {"train": self.train, "validation": self.validation}
        return {name: part for name, part in parts.items() if part is not None}

    def pictures_per_class(self) -> dict[str, int]:
        """Training pictures of each class."""
        counts = Counter(self.train["label"][:])
        return {name: counts[position] for position, name in enumerate(self.class_names)}


def load_training_data(
    source: PictureSource,
    accelerator: Accelerator | PartialState,
    *,
    tokenizer: PromptTokenizer | None = None,
    validation: PictureSource | None = None,
    class_names: Path | None = None,
    shots: int | None = None,
    validation_fraction: float = 0,
    on_bad_image: str = "skip",
    seed: int = 1,
) -> TrainingData:
    """Read, check and divide a user's pictures.

    Args:
        source: pictures to train on.
        accelerator: its processes share the work of checking that all pictures that are used can be decoded.
        tokenizer: the base model's, which says when two names are the same class, see
            [`~peft_mmrl.tuner.names.name_keys`].
        validation: pictures to validate with, matched by class name; None: a part of the others is held out.
        class_names: file of names for prompts, see `read_class_names`.
        shots: pictures of each class to train on; None: all.
        validation_fraction: part of each class to hold out, where there is no `validation`; 0: none.
        on_bad_image: "skip" leaves out pictures that cannot be read, "error" refuses them.
        seed: of what is held out and which shots are drawn.

    Raises:
        ValueError: both `validation` and `validation_fraction`, a single class, two that are the same, no class in
            common, or, with "error", pictures that cannot be read.
        OSError: something isn't there.
    """
    if validation is not None:
        check_no_fraction(validation_fraction)
    pictures, notes = source.load()
    check_several_classes(pictures, str(source))
    folders = pictures.features["label"].names
    renamed = {} if class_names is None else read_class_names(class_names, folders, tokenizer, source.sub_folders())
    names_of, more = prompt_names([folder for folder in folders if folder not in renamed], tokenizer)
    names_of |= renamed
    check_distinct({folder: names_of[folder] for folder in folders}, tokenizer)
    notes += [*more, *notes_on_codes(names_of.values())]
    divided = _divide(pictures, shots, validation_fraction, seed, on_bad_image, accelerator)
    pictures, kept, held, groups, more = divided
    notes += more
    pictures, empty = drop_empty_classes(pictures.select([*kept, *held]))
    if empty:
        notes.append(f"classes of which no picture can be read, left out: {', '.join(empty)}")
        check_several_classes(pictures, f"{source}, without pictures that cannot be read,")
    names = [names_of[folder] for folder in pictures.features["label"].names]

    found = pictures.select(range(len(kept), len(pictures))) if held else None
    pictures = pictures.select(range(len(kept)))
    if validation is not None:
        found, more = validation.load()
        found, unknown, missing = match_labels(found, names, renamed, tokenizer, more)
        found, bad = check_pictures(found, on_bad_image, accelerator=accelerator)
        notes += more + _left_out(bad)
        if unknown:
            notes.append(f"classes of {validation} that are not trained, left out: {', '.join(unknown)}")
        if missing:
            notes.append(f"classes without pictures in {validation}: {', '.join(missing)}")
    if shots is not None:
        few = [name for name, count in Counter(pictures["label"][:]).items() if count < shots]
        if few:
            notes.append(
                f"classes with fewer than {shots} pictures: {', '.join(names[label] for label in sorted(few))}"
            )
    facts = _facts(pictures, accelerator)
    if validation is not None:
        notes += note_seen(found, *find_seen(_facts(found, accelerator), *trained_on(facts)), "validated with")
    elsewhere = None if validation is None else str(validation)
    data = TrainingData(pictures, found, names, notes, str(source), elsewhere, facts, groups)
    data.notes += note_uneven(data.pictures_per_class())
    return data


def check_no_fraction(fraction: float) -> None:
    """Raise where a part of the pictures is to be held out beside others that are given.

    Raises:
        ValueError: it is.
    """
    if fraction:
        raise ValueError(
            f"`validation_fraction` must be left out, got {fraction:g}: there are pictures to take the figures from."
        )


def _divide(
    pictures: datasets.Dataset,
    shots: int | None,
    fraction: float,
    seed: int,
    on_bad: str,
    accelerator: Accelerator | PartialState,
) -> tuple[datasets.Dataset, list[int], list[int], list[int], list[str]]:
    """Draw pictures to train on and to validate with, so that nothing is on both sides that is the same.

    Returns:
        pictures, rows to train on, rows that are held out, the group of each picture that is trained on, and notes.
    """
    if shots is None:
        pictures, bad = check_pictures(pictures, on_bad, accelerator=accelerator)
        same = Alikeness.of(pictures, _facts(pictures, accelerator))
        kept, held = hold_out(pictures["label"][:], fraction, random.Random(seed), same.groups)
        groups = [same.groups[row] for row in kept]
    else:
        kept, held, bad = draw_readable_shots(pictures, shots, fraction, seed, on_bad, accelerator)
        used = pictures.select([*kept, *held])
        same = Alikeness.of(used, _facts(used, accelerator))
        groups, others = same.groups[: len(kept)], same.groups[len(kept) :]
        trained = set(groups)
        held = [row for row, group in zip(held, others, strict=True) if group not in trained]
    notes = _left_out(bad) + same.notes
    if fraction:
        notes += _not_held_out(pictures, kept, held)
    return pictures, kept, held, groups, notes


def choose_preprocessing(
    data: TrainingData,
    image_processor: ImageProcessor,
    fit: str | None = None,
    accelerator: Accelerator | PartialState | None = None,
) -> Preprocessing:
    """Decide how the pictures of a run become `pixel_values`; what a user should know of it is added to its notes.

    Args:
        data: the run's pictures.
        image_processor: the base model's.
        fit: as the user wants it, see `Preprocessing`; None: as it suits the pictures.
        accelerator: shares the work between its processes.

    Raises:
        ValueError: pictures that would be nearly black.
    """
    preprocessing, notes = Preprocessing.choose(image_processor, _facts(data.train, accelerator), fit)
    data.notes += notes
    if data.validation is not None:
        data.notes += beyond_range(data.validation, preprocessing, accelerator)
    return preprocessing


def beyond_range(
    pictures: datasets.Dataset, preprocessing: Preprocessing, accelerator: Accelerator | PartialState | None = None
) -> list[str]:
    """A note on labelled pictures of more than 8 bits that are not what a run was decided for."""
    beyond = sum(preprocessing.is_beyond(facts.values) for facts in _facts(pictures, accelerator))
    return [preprocessing.warning(beyond)] if beyond else []


def _facts(dataset: datasets.Dataset, accelerator: Accelerator | PartialState | None) -> list[PictureFacts]:
    """What pictures are like that were all read before, which is remembered."""
    found = examine_pictures(dataset, accelerator=accelerator)
    return [facts for facts in found if isinstance(facts, PictureFacts)]


def note_trained_on(
    pictures: datasets.Dataset, adapter: str | os.PathLike[str], accelerator: Accelerator | PartialState | None = None
) -> tuple[list[str], dict[str, int]]:
    """Notes on labelled pictures that an adapter was trained on, and how many there are.

    Args:
        pictures: that can be read.
        adapter: the folder of its run; others tell nothing.
        accelerator: shares the work between its processes.
    """
    equal, near = find_seen(_facts(pictures, accelerator), *load_trained_on(adapter))
    notes = note_seen(pictures, equal, near, "tested")
    return notes, {"pictures_trained_on": len(equal), "nearly_equal_to_these": len(near)} if notes else {}


def _not_held_out(pictures: datasets.Dataset, kept: Sequence[int], held: Sequence[int]) -> list[str]:
    """A note on classes of several pictures of which none could be held out."""
    labels, names = pictures["label"][:], pictures.features["label"].names
    several = {label for label, count in Counter(labels[row] for row in kept).items() if count > 1}
    none = sorted(several - {labels[row] for row in held})
    listed = ", ".join(names[label] for label in none)
    return (
        [f"classes whose pictures are all alike or of one group, so that none is held out: {listed}"] if none else []
    )


def _left_out(bad: Sequence[BadPicture]) -> list[str]:
    """A note on pictures that cannot be read."""
    return [f"{describe_bad(bad)}\nThey are left out."] if bad else []
