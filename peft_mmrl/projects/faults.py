"""What is wrong with a project's pictures and classes, in words for people who know the subject and not the field."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..data.checking import examine_pictures
from ..data.class_names import notes_on_codes
from ..data.copies import Alikeness
from ..data.folders import LINK, is_litter
from ..data.pictures import PictureFacts
from ..data.sources import labelled
from ..data.wording import counted, first_few, in_words
from ..tuner.names import how_they_differ, name_keys, same_names
from .better_names import read_better_names
from .project import Project
from .project_folder import ClassFolder


FEW = 4  # pictures of a class, below which hardly anything is learned, and nothing can be checked
ENOUGH = 16


@dataclass(frozen=True)
class Fault:
    """Something that should be looked at.

    Args:
        kind: "unreadable", "left out", "equal copies", "near copies", "two classes", "few pictures", "one class",
            "code", "same name" or "names file".
        words: what is wrong.
        advice: what to do.
        pictures: that it is about, below the project's folder.
        classes: that it is about, by folder.
    """

    kind: str
    words: str
    advice: str
    pictures: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)


def find_faults(project: Project) -> list[Fault]:
    """All that is wrong, what spoils most first. Pictures that were decoded before are not decoded again."""
    skipped: list[tuple[Path, str]] = []
    classes = [
        ClassFolder(name, said, project.pictures_in(project.pictures / name, lambda *found: skipped.append(found)))
        for name, said in project.prompt_names().items()
    ]
    found = [*_names_file(project), *_unreadable_and_alike(project, classes), *_same_names(classes)]
    return [*found, *_few(classes), *_codes(classes), *_left_out(project, skipped)]


def _names_file(project: Project) -> list[Fault]:
    try:
        read_better_names(project.folder, project.class_folders())
    except (ValueError, OSError) as error:
        words = f"The list of better names cannot be used: {error}"
        return [Fault("names file", words, "Mend that line in the file, or move the file away.")]
    return []


def _unreadable_and_alike(project: Project, classes: Sequence[ClassFolder]) -> list[Fault]:
    pictures = [picture for one in classes for picture in one.pictures]
    labels = [one.name for one in classes for _ in one.pictures]
    if not pictures:
        return []
    files = [{"path": str(project.folder / picture), "bytes": None} for picture in pictures]
    dataset = labelled(files, labels, pictures, [one.name for one in classes])
    facts = examine_pictures(dataset)
    reasons: dict[str, list[str]] = defaultdict(list)
    for picture, fact in zip(pictures, facts, strict=True):
        if isinstance(fact, str):
            reasons[fact].append(picture)
    faults = [
        Fault(
            "unreadable",
            f"{counted(len(bad), 'file')} cannot be opened as a picture: {reason}.",
            "Save the picture anew as JPEG or PNG and add it again; take this file out.",
            bad,
        )
        for reason, bad in reasons.items()
    ]
    rows = [row for row, fact in enumerate(facts) if isinstance(fact, PictureFacts)]
    if not rows:
        return faults
    same = Alikeness.of(dataset.select(rows), [facts[row] for row in rows])
    return faults + _alike([pictures[row] for row in rows], [labels[row] for row in rows], facts, rows, same)


def _alike(
    pictures: Sequence[str],
    labels: Sequence[str],
    facts: Sequence[PictureFacts | str],
    rows: Sequence[int],
    same: Alikeness,
) -> list[Fault]:
    groups: dict[int, list[int]] = defaultdict(list)
    for position, group in enumerate(same.copies):
        groups[group].append(position)
    faults = []
    for members in groups.values():
        if len(members) < 2:
            continue
        named = [pictures[position] for position in members]
        classes = sorted({labels[position] for position in members})
        equal = len({facts[rows[position]].digest for position in members}) == 1
        how = "the same file" if equal else "nearly the same picture"
        sure = "" if equal else "probably "
        if len(classes) > 1:
            where = in_words(classes, "and")
            words = f"{counted(len(members), 'picture')} in {where} are {how}: {sure}one of the labels is wrong."
            advice = "Keep it where it belongs, and take it out of the other class."
            faults.append(Fault("two classes", words, advice, named, classes))
        elif equal:
            words = f"{classes[0]} has {how} {len(members)} times."
            faults.append(Fault("equal copies", words, "Keep one and take the others out.", named, classes))
        else:
            words = f"{counted(len(members), 'picture')} of {classes[0]} are nearly the same."
            advice = "They teach as much as one. Take the others out where you have more different ones."
            faults.append(Fault("near copies", words, advice, named, classes))
    order = ["two classes", "equal copies", "near copies"]
    return sorted(faults, key=lambda fault: order.index(fault.kind))


def _same_names(classes: Sequence[ClassFolder]) -> list[Fault]:
    faults = []
    for positions in same_names(name_keys([one.prompt_name for one in classes], None)):
        names, (first, second) = [classes[place].name for place in positions], positions[:2]
        differ = how_they_differ(classes[first].prompt_name, classes[second].prompt_name)
        words = f"The classes {in_words(names, 'and')} are one class to the program: {differ}."
        advice = "Put their pictures into one class, or give one of them a name that says what is different."
        faults.append(Fault("same name", words, advice, classes=names))
    return faults


def _few(classes: Sequence[ClassFolder]) -> list[Fault]:
    filled = [one for one in classes if one.pictures]
    if not filled:  # nothing is wrong with what is only just begun
        return []
    faults = []
    if len(filled) < 2:
        words = "There is nothing to tell apart yet: at least two classes must have pictures."
        advice = "Add a second class" if len(classes) == 1 else "Go on"
        faults.append(Fault("one class", words, f"{advice} and put pictures into it."))
    empty = [one.name for one in classes if not one.pictures]
    if empty:
        words = (
            f"{in_words(empty, 'and')} {'has' if len(empty) == 1 else 'have'} no pictures: recognised by name alone."
        )
        faults.append(Fault("few pictures", words, f"Add pictures: {FEW} at least, {ENOUGH} are good.", classes=empty))
    for one in filled:
        if len(one.pictures) < FEW:
            words = (
                f"{one.name} has {counted(len(one.pictures), 'picture')}: too few to learn it well, or to check it."
            )
            advice = f"Add more, as different as you can find: {FEW} at least, {ENOUGH} are good."
            faults.append(Fault("few pictures", words, advice, classes=[one.name]))
    return faults


def _codes(classes: Sequence[ClassFolder]) -> list[Fault]:
    codes = [one for one in classes if notes_on_codes([one.prompt_name])]
    if not codes:
        return []
    names = [one.name for one in codes]
    words = f"{in_words(names, 'and')} {'is a name that says' if len(names) == 1 else 'are names that say'} nothing."
    advice = (
        "The program knows what many words look like, and learns with fewer pictures where a class has one: give "
        "it a better name."
    )
    return [Fault("code", words, advice, classes=names)]


def _left_out(project: Project, skipped: Iterable[tuple[Path, str]]) -> list[Fault]:
    """Files that lie among the pictures and are none, or cannot be used as they are."""
    reasons: dict[str, list[str]] = defaultdict(list)
    loose = [path for path in project.pictures.glob("*") if path.is_symlink() or not path.is_dir()]
    for path, reason in [*skipped, *((path, LINK if path.is_symlink() else "in no class") for path in loose)]:
        if not is_litter(path.name):
            name = path.relative_to(project.folder).as_posix()
            reasons[reason].append(name.encode("utf-8", "replace").decode())
    advice = "If a picture is missing, add it to a class here; otherwise nothing needs to be done."
    return [
        Fault(
            "left out",
            f"{counted(len(names), 'file')} in the folder of pictures not used ({reason}): {first_few(names, 5)}.",
            advice,
        )
        for reason, names in reasons.items()
    ]
