"""Class names for prompts: from folders' names, and from a file of better ones."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Mapping, Sequence

from ..tuner.names import how_they_differ, match_keys, name_keys, same_names, spaced
from ..tuner.tokenization import PromptTokenizer
from .folders import natural_key
from .wording import first_few


NUMBER = re.compile(r"^(?:n(?P<wordnet>\d{8})[-_ ]+(?=.)|(?P<number>\d+)\.(?=[^\W\d]))")
WORD = re.compile(r"[^\W\d_]{3}|[^\W\d_a-zA-Z]")  # three letters, or one of a script whose words may be that short


def prompt_names(folders: Sequence[str], tokenizer: PromptTokenizer | None = None) -> tuple[dict[str, str], list[str]]:
    """Names of class folders as prompts should say them.

    Underscores become blanks, blanks are not doubled, accents are composed. Where the folders of a data set are
    numbered, all of them (`001.Black_footed_Albatross`, `n02085620-Chihuahua`), the numbers go, unless two names would
    be the same class without. Everything else stays, hyphens and capitals included; where that is not what is meant,
    `read_class_names` reads better names.

    Args:
        folders: names of all class folders of a data set.
        tokenizer: the base model's, see [`~peft_mmrl.tuner.names.name_keys`].

    Returns:
        a name for each folder, and notes on what was left out, or left in.
    """
    whole = {folder: spaced(folder) for folder in folders}
    if not _are_numbered(folders):
        return whole, []
    short = {folder: without_number(folder) for folder in folders}
    first = next(iter(whole))
    equal = [[folders[position] for position in same] for same in same_names(name_keys([*short.values()], tokenizer))]
    if equal:
        return whole, [
            f"the numbers in front of class names are kept, since {listed(equal[0])} would be one class without; "
            "--class_names gives other names"
        ]
    return short, [
        f"the numbers in front of all class names are left out of prompts: {first!r} is {short[first]!r}; "
        "--class_names gives other names"
    ]


def _are_numbered(folders: Iterable[str]) -> bool:
    """Whether all names start with a number of their own, and these are such as people count with: WordNet's, numbers
    of one length with zeros in front, or all from 0 or 1 on. `2023.Winter` and `10.M8 bolt` are names."""
    found = [NUMBER.match(folder) for folder in folders]
    if not found or None in found:
        return False
    for kind in ("wordnet", "number"):
        digits = [match[kind] for match in found]
        if None in digits or len(set(map(int, digits))) < len(digits):
            continue
        is_padded = len(set(map(len, digits))) == 1 and any(number.startswith("0") for number in digits)
        numbers = sorted(map(int, digits))
        counts = numbers[0] in (0, 1) and numbers[-1] - numbers[0] == len(numbers) - 1 > 0
        return kind == "wordnet" or is_padded or counts
    return False


def clean_class_name(name: str) -> str:
    """A single folder's name as a prompt should say it, see [`prompt_names`]."""
    return prompt_names([name])[0][name]


def without_number(folder: str) -> str:
    """A folder's name as a prompt would say it, without a number in front."""
    return spaced(NUMBER.sub("", folder))


def read_class_names(
    path: str | os.PathLike[str],
    folders: Iterable[str],
    tokenizer: PromptTokenizer | None = None,
    empty: Iterable[str] = (),
) -> dict[str, str]:
    """Read names for prompts from a file with a line `folder,name` for each class that is not named as its folder.

    Args:
        path: a CSV file without header.
        folders: the classes that there are.
        tokenizer: the base model's; a folder may be written in any way that is the same class to it.
        empty: folders without pictures, which may be named, too.

    Raises:
        OSError: there is no such file.
        ValueError: a line of another form, an unknown folder, or one that is named twice.
    """
    known, names, empty = list(folders), {}, set(empty)
    keys = name_keys(known, tokenizer)
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file, skipinitialspace=True)
        for row in rows:
            if not row:
                continue
            where = f"{path}, line {rows.line_num}"
            if len(row) != 2 or not row[0].strip() or not row[1].strip():
                raise ValueError(f"{where}: each line must be `folder,name`, got {','.join(row)!r}.")
            written, name = row[0].strip(), row[1].strip()
            if written in empty and written not in known:
                continue
            (place,) = match_keys(name_keys([written], tokenizer), keys)
            if written not in known and place is None:
                raise ValueError(f"{where}: there is no class {written!r}, only {listed(known)}.")
            folder = written if written in known else known[place]
            if folder in names:
                raise ValueError(f"{where}: the class {folder!r} is named a second time.")
            names[folder] = name
    return names


def check_distinct(names: Mapping[str, str], tokenizer: PromptTokenizer | None = None) -> None:
    """Raise where two folders are the same class.

    Args:
        names: of each folder the name for prompts.
        tokenizer: the base model's, see [`~peft_mmrl.tuner.names.name_keys`].

    Raises:
        ValueError: it names both folders, what their names differ in, and what to do.
    """
    folders, said = list(names), list(names.values())
    for first, second, *_ in same_names(name_keys(said, tokenizer)):
        both = f"{folders[first]!r} and {folders[second]!r}"
        if (said[first], said[second]) != (folders[first], folders[second]):
            both += f" (in prompts {said[first]!r} and {said[second]!r})"
        given = folders if said[first] == said[second] else said
        raise ValueError(
            f"The classes {both} are the same to the base model: {how_they_differ(given[first], given[second])}. Put "
            "their pictures under one name, or give one of them another name with --class_names."
        )


def notes_on_codes(names: Iterable[str]) -> list[str]:
    """A note where class names are numbers or codes, which say nothing to CLIP."""
    codes = [name for name in names if not WORD.search(name) and not name.isalpha()]
    if not codes:
        return []
    return [
        f"class names that are mere numbers or codes: {listed(codes)}. CLIP goes by names: zero-shot accuracy is at "
        "chance for them, and new classes are hardly told from them; --class_names gives better names"
    ]


def listed(names: Iterable[str]) -> str:
    """Names for a message, the first ten of them."""
    return first_few([repr(name) for name in in_natural_order(names)])


def in_natural_order(labels: Iterable[str]) -> list[str]:
    """The classes that occur: `class 2` before `class 10`."""
    return sorted(set(labels), key=natural_key)
