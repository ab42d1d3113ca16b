"""Which pictures are trained on: few-shot sampling as the field does it (CoOp's protocol), and files that keep it."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import datasets

from ..tuner.validation import as_number, as_positive_int
from .wording import first_few


VALIDATION_SHOTS = 4


def sample_shots(labels: Sequence[Hashable], shots: int, rng: random.Random) -> list[int]:
    """Choose `shots` items of each class, all of a class that has fewer.

    Items are grouped by label, in the order in which labels first appear, and each group is sampled with
    `rng.sample`. A validation split is sampled with the same `rng` afterwards, with `min(shots, 4)`.

    Args:
        labels: the label of every item.
        shots: items per class.
        rng: `random.Random(seed)`.

    Returns:
        indices of the chosen items, class by class.
    """
    shots = as_positive_int("shots", shots)
    return [
        index for group in _groups(labels) for index in (rng.sample(group, shots) if len(group) >= shots else group)
    ]


def sample_few_shot(
    labels: Sequence[Hashable], validation_labels: Sequence[Hashable], shots: int, seed: int
) -> tuple[list[int], list[int]]:
    """Choose training and validation items as the protocol does: `shots` and `min(shots, 4)` of each class, the
    second with the random state that the first left.

    Args:
        labels: of the training split.
        validation_labels: of the validation split.
        shots: training items per class.
        seed: of the run.

    Returns:
        indices into the training split and into the validation split.
    """
    rng = random.Random(seed)
    train = sample_shots(labels, shots, rng)
    return train, sample_shots(validation_labels, min(shots, VALIDATION_SHOTS), rng)


def hold_out(
    labels: Sequence[Hashable], fraction: float, rng: random.Random, groups: Sequence[Hashable] | None = None
) -> tuple[list[int], list[int]]:
    """Divide items into those to train on and those to validate with.

    Of each class the same fraction is held out, rounded, but one item at least stays and, in a class of two or more,
    one at least is held out. Groups stay whole: so fewer or more may be held out, and none of a class that is one
    group.

    Args:
        labels: the label of every item.
        fraction: share that is held out; 0: none.
        rng: `random.Random(seed)`.
        groups: of every item, such as the scene that a picture shows; None: each is one of its own.

    Returns:
        indices of both parts, ascending.
    """
    fraction = as_number("fraction", fraction, 0, 1)
    if not fraction:
        return list(range(len(labels))), []
    groups = range(len(labels)) if groups is None else groups
    sizes, groups_of = _sizes_of_groups(labels, groups)
    counts, held, left = Counter(labels), set(), Counter(labels)

    def can_go(group: Hashable) -> bool:
        return all(size < left[label] for label, size in sizes[group].items())

    def hold(group: Hashable) -> None:
        held.add(group)
        left.subtract(sizes[group])

    for label, own in groups_of.items():
        target = max(1, round(fraction * counts[label]))
        free = [group for group in own if group not in held]
        drawn = rng.sample(free, min(target, len(free) - 1)) if free else []
        for group in drawn:
            if counts[label] - left[label] + sizes[group][label] <= target and can_go(group):
                hold(group)
        if left[label] == counts[label]:  # each is larger than what should be held out
            for group in sorted(filter(can_go, drawn), key=lambda group: sizes[group][label])[:1]:
                hold(group)
    out = [index for index, group in enumerate(groups) if group in held]
    return [index for index, group in enumerate(groups) if group not in held], out


MOST_FOLDS = 4
NEVER = -1  # fold of an item that is never held out


def deal_folds(
    labels: Sequence[Hashable], groups: Sequence[Hashable], num_folds: int | None, rng: random.Random
) -> list[int]:
    """Deal items into folds, each of which is held out once while a model is trained on the others.

    Each class is spread over the folds as evenly as its groups allow, and some of it is always left to train on: the
    only group of a class is never held out.

    Args:
        labels: the label of every item.
        groups: of every item: groups stay whole.
        num_folds: None: as many as the smallest class has groups, of those that have several, and `MOST_FOLDS` at
            most.
        rng: `random.Random(seed)`.

    Returns:
        the fold of every item, from 0 without gaps, or `NEVER`.
    """
    sizes, groups_of = _sizes_of_groups(labels, groups)
    several = [len(own) for own in groups_of.values() if len(own) > 1]
    if num_folds is None:
        num_folds = min([*several, MOST_FOLDS])
    num_folds = min(num_folds, len(sizes))  # more would stay empty
    fold = dict.fromkeys(sizes, NEVER)
    can_go = {group for group, size in sizes.items() if all(len(groups_of[label]) > 1 for label in size)}
    dealt: dict[Hashable, Counter[int]] = {label: Counter() for label in groups_of}  # items of each fold
    total: Counter[int] = Counter()
    counts = Counter(labels)
    for label, own in sorted(groups_of.items(), key=lambda item: len(item[1])):
        for group in rng.sample(own, len(own)):
            if group not in can_go or fold[group] != NEVER:
                continue
            for index in sorted(range(num_folds), key=lambda index: (dealt[label][index], total[index], index)):
                if all(dealt[other][index] + size < counts[other] for other, size in sizes[group].items()):
                    fold[group] = index
                    total[index] += sum(sizes[group].values())
                    for other, size in sizes[group].items():
                        dealt[other][index] += size
                    break
    used = sorted({index for index in fold.values() if index != NEVER})
    number = {index: place for place, index in enumerate(used)} | {NEVER: NEVER}
    return [number[fold[group]] for group in groups]


def _sizes_of_groups(
    labels: Sequence[Hashable], groups: Sequence[Hashable]
) -> tuple[dict[Hashable, Counter[Hashable]], dict[Hashable, list[Hashable]]]:
    """How many items of each class a group has, and the groups of each class, in the order in which they appear."""
    sizes: dict[Hashable, Counter[Hashable]] = {}
    for label, group in zip(labels, groups, strict=True):
        sizes.setdefault(group, Counter())[label] += 1
    groups_of: dict[Hashable, list[Hashable]] = {label: [] for label in labels}
    for group, size in sizes.items():
        for label in size:
            groups_of[label].append(group)
    return sizes, groups_of


def _groups(labels: Sequence[Hashable]) -> list[list[int]]:
    """Indices of each label's items, in the order in which labels first appear."""
    groups: dict[Hashable, list[int]] = {}
    for index, label in enumerate(labels):
        groups.setdefault(label, []).append(index)
    return list(groups.values())


def save_split(path: str | os.PathLike[str], parts: Mapping[str, datasets.Dataset]) -> None:
    """Write which pictures a run used, as JSON with a list of paths per part (train, validation).

    Paths are those of the data set's column `path`, so the file means the same pictures on another machine.
    """
    content = json.dumps({name: part["path"][:] for name, part in parts.items()}, indent=2) + "\n"
    part = Path(f"{path}.part")  # so that there is the whole file or none
    part.write_text(content, encoding="utf-8")
    part.replace(path)


def load_split(path: str | os.PathLike[str], sources: Mapping[str, datasets.Dataset]) -> dict[str, datasets.Dataset]:
    """Choose the pictures that `save_split` wrote down, in the order in which it did.

    Args:
        path: the file.
        sources: for each part of the file that is wanted, the data set to choose from.

    Raises:
        OSError: there is no such file.
        ValueError: it is no file of `save_split`, lacks a part, or names a picture that there is not.
    """
    try:
        parts = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError:
        parts = None
    if not isinstance(parts, dict) or not all(isinstance(names, list) for names in parts.values()):
        raise ValueError(f"{path} must be a JSON object with a list of paths per part (train, validation).")
    chosen = {}
    for part, dataset in sources.items():
        if part not in parts:
            raise ValueError(f"{path} has no part {part!r}, only {', '.join(parts)}.")
        position = {name: index for index, name in enumerate(dataset["path"][:])}
        missing = [name for name in parts[part] if name not in position]
        if missing:
            raise ValueError(
                f"{path}: {len(missing)} of {len(parts[part])} pictures of the part {part!r} are not in the data set: "
                f"{first_few(missing)}."
            )
        chosen[part] = dataset.select([position[name] for name in parts[part]])
    return chosen
