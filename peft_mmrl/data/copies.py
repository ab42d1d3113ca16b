"""Copies and near copies of pictures: kept on one side of a split, or named."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .labels import label_names
from .looks import find_alike, middle_of
from .pictures import PictureFacts
from .wording import first_few


TRAINED_ON_FILE = "trained_on.json"  # in the folder of a run; never pushed
SHOWN_COPIES = 5  # pairs that a note names


@dataclass
class Alikeness:
    """Which of N pictures are the same, in groups that no split should cut through.

    Args:
        groups: the number of each picture's group: those that are equal or nearly so, and those that the source says
            belong together (column `group`).
        notes: what a user should know: copies, and labels that contradict each other.
        copies: the groups of those that are equal or nearly so, whatever the source says.
    """

    groups: list[int]
    notes: list[str]
    copies: list[int]

    @classmethod
    def of(cls, dataset: datasets.Dataset, facts: Sequence[PictureFacts]) -> Alikeness:
        """Compare pictures with each other.

        Where most pictures look like one of another class, a look does not show what tells classes apart (a fixed
        camera, say): then only equal files count as the same.

        Args:
            dataset: N labelled pictures.
            facts: what they are like.
        """
        looks, first, place = np.unique([found.look for found in facts], return_index=True, return_inverse=True)
        pairs = find_alike(looks, [middle_of(look) for look in looks])
        labels = np.array(dataset["label"][:])
        opposite = _of_another_class(place, pairs, labels)
        notes = []
        if 2 * len(opposite) > len(facts):
            notes.append(
                f"{len(opposite)} of {len(facts)} pictures look nearly like one of another class, as they do where "
                "what tells classes apart is small: so only equal files count as copies"
            )
            _, first, place = np.unique([found.digest for found in facts], return_index=True, return_inverse=True)
            pairs = np.empty((0, 2), np.int64)
            opposite = _of_another_class(place, pairs, labels)
        links = [np.stack([np.arange(len(facts)), first[place]], axis=1), first[pairs]]
        same = _connected(len(facts), np.concatenate(links))
        notes += _note_copies(dataset, same) + _note_contradictions(dataset, opposite)
        given = np.array(given_groups(dataset), np.int64)
        links.append(np.stack([np.arange(len(facts)), given], axis=1))
        return cls(_connected(len(facts), np.concatenate(links)).tolist(), notes, same.tolist())


def _of_another_class(place: np.ndarray, pairs: np.ndarray, labels: np.ndarray) -> dict[int, int]:
    """Pictures that look like one of another class, and one such picture for each.

    Args:
        place: for each picture the position of its look.
        pairs: positions of looks that are nearly equal.
        labels: the label of each picture.
    """
    examples: dict[int, dict[int, int]] = defaultdict(dict)  # look -> label -> picture
    for picture, (look, label) in enumerate(zip(place.tolist(), labels.tolist(), strict=True)):
        examples[look].setdefault(label, picture)
    near = {look: dict(found) for look, found in examples.items()}
    for look, other in pairs.tolist():
        for one, two in ((look, other), (other, look)):
            near[one] = {**examples[two], **near[one]}
    found = {}
    for picture, (look, label) in enumerate(zip(place.tolist(), labels.tolist(), strict=True)):
        others = [other for its, other in near[look].items() if its != label]
        if others:
            found[picture] = others[0]
    return found


def _connected(count: int, links: np.ndarray) -> np.ndarray:
    """Group numbers of items that are linked (L, 2), directly or by others."""
    graph = coo_array((np.ones(len(links), bool), links.T), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def given_groups(dataset: datasets.Dataset) -> list[int]:
    """What belongs together as the column `group` says, if there is one: for each picture the first of its group."""
    names = dataset["group"][:] if "group" in dataset.column_names else [None] * len(dataset)
    first: dict[str, int] = {}
    return [first.setdefault(name, row) if name else row for row, name in enumerate(names)]


def _note_copies(dataset: datasets.Dataset, groups: np.ndarray) -> list[str]:
    members: dict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(groups.tolist()):
        members[group].append(index)
    several = [rows for rows in members.values() if len(rows) > 1]
    if not several:
        return []
    paths = dataset["path"][:]
    named = first_few([f"{paths[first]} = {paths[second]}" for first, second, *_ in several], SHOWN_COPIES)
    return [
        f"{sum(map(len, several))} pictures are equal or nearly equal to others, {len(several)} different ones: no "
        f"split cuts through these: {named}"
    ]


def _note_contradictions(dataset: datasets.Dataset, opposite: dict[int, int]) -> list[str]:
    if not opposite:
        return []
    classes, paths = label_names(dataset), dataset["path"][:]
    pairs = dict.fromkeys(tuple(sorted(pair)) for pair in opposite.items())
    named = [" = ".join(f"{paths[row]} ({classes[row]})" for row in pair) for pair in pairs]
    return [
        f"warning: {len(opposite)} pictures are equal or nearly equal to one of another class, so that one of the two "
        f"labels is wrong: {first_few(named, SHOWN_COPIES)}"
    ]


def find_seen(
    facts: Sequence[PictureFacts], digests: Sequence[str], middles: Sequence[str]
) -> tuple[list[int], list[int]]:
    """Pictures that are among others.

    Args:
        facts: of N pictures.
        digests, middles: of the files of the others, and of their looks.

    Returns:
        rows of pictures whose file is among the others, and rows of those that are only nearly equal to one of them.
    """
    known = set(digests)
    looks, place = np.unique([found.look for found in facts], return_inverse=True)
    alike = np.zeros(len(looks), bool)
    alike[find_alike(looks, sorted(set(middles)))[:, 0]] = True
    equal = [row for row, found in enumerate(facts) if found.digest in known]
    near = [row for row, found in enumerate(facts) if alike[place[row]] and found.digest not in known]
    return equal, near


def note_seen(dataset: datasets.Dataset, equal: Sequence[int], near: Sequence[int], what: str) -> list[str]:
    """A note on pictures that were, or are going to be, trained on.

    Args:
        dataset: labelled pictures.
        equal, near: from `find_seen`.
        what: is done with these pictures.
    """
    notes = []
    for rows, how in ((equal, "both trained on and"), (near, "nearly equal to pictures that are trained on, and")):
        if rows:
            named = first_few(dataset.select(rows)["path"][:], SHOWN_COPIES)
            notes.append(
                f"warning: {len(rows)} of {len(dataset)} pictures are {how} {what}: results say too much: {named}"
            )
    return notes


def trained_on(facts: Sequence[PictureFacts]) -> tuple[list[str], list[str]]:
    """By what pictures are known again, see `find_seen`: digests of files, and middles of looks."""
    return [found.digest for found in facts], [middle_of(found.look) for found in facts]


def save_trained_on(folder: str | os.PathLike[str], facts: Sequence[PictureFacts]) -> None:
    """Write what pictures were trained on, so that they are known again under other names and in other places.

    Args:
        folder: of the run.
        facts: what they are like.
    """
    rows = dict(zip(("files", "looks"), trained_on(facts), strict=True))
    Path(folder, TRAINED_ON_FILE).write_text(json.dumps(rows) + "\n", encoding="utf-8")


def load_trained_on(folder: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """Digests and looks of the pictures that an adapter was trained on; none where its folder does not tell."""
    path = Path(folder, TRAINED_ON_FILE)
    if not path.is_file():
        return [], []
    rows = json.loads(path.read_text(encoding="utf-8"))
    return rows["files"], rows["looks"]
