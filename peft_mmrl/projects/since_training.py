"""What has changed in a project since a training: by the contents of the pictures that it learned from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ..data.copies import load_trained_on
from ..reports.reading import REPORT, read_predictions
from .project_runs import Run


@dataclass(frozen=True)
class Changes:
    """What a training does not know of.

    Args:
        added: pictures of classes that were not there.
        moved: pictures that were in another class.
        gone: pictures that are in no class any more.
        classes: names of classes with pictures that it does not know, as prompts say them.
    """

    added: int = 0
    moved: int = 0
    gone: int = 0
    classes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.added or self.moved or self.gone or self.classes)


def learned_from(run: Run) -> dict[str, str]:
    """The contents (digests) of the pictures that a training learned from, by their paths at that time, below
    `pictures`; none where its folder does not tell."""
    try:
        return dict(zip(run.description["split"]["train"], load_trained_on(run.folder)[0], strict=True))
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def is_of_all(run: Run) -> bool:
    """Whether a training learned from all pictures that it was given, so that its figures are those of its folds."""
    description = run.description
    split = description.get("split")
    return isinstance(split, dict) and set(split) == {"train"} and not description.get("shots")


def changes_since(run: Run, pictures: Mapping[str, str], class_names: Mapping[str, str]) -> Changes | None:
    """What is different from what a training learned from.

    A class whose folder was renamed is the same class; a picture whose content was changed is another one.

    Args:
        run: that has ended well.
        pictures: the content (digest) of each picture of the classes that can be read, by its path below the
            project's folder.
        class_names: of the classes that have such pictures, as prompts say them, by their folders.

    Returns:
        None: that cannot be told, or it learned from a part of them, or from those of another place.
    """
    if not is_of_all(run):
        return None
    then, now = _places(run, pictures)
    if not {digest for digest, _ in then} & {digest for digest, _ in now}:
        return None
    renamed = _renamed(then, now)
    then = Counter({(digest, renamed.get(folder, folder)): count for (digest, folder), count in then.items()})
    came, went = (Counter(digest for digest, _ in some.elements()) for some in (now - then, then - now))
    moved = (came & went).total()
    known = run.description.get("classes") or []
    new = tuple(name for name in class_names.values() if name not in known)
    return Changes(came.total() - moved, moved, went.total() - moved, new)


def names_now(run: Run, pictures: Mapping[str, str], class_names: Mapping[str, str]) -> dict[str, str]:
    """What classes of a training are called now that were called otherwise then.

    Args:
        run, pictures, class_names: as for `changes_since`.
    """
    if not is_of_all(run):
        return {}
    renamed = _renamed(*_places(run, pictures))
    called = {row.path.split("/")[0]: row.label for row in read_predictions(run.folder / REPORT)}
    found = {label: class_names.get(renamed.get(folder, folder)) for folder, label in called.items()}
    return {then: now for then, now in found.items() if now is not None and then not in class_names.values()}


def _places(run: Run, pictures: Mapping[str, str]) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    """The contents of pictures with the folders of their classes, as a training learned from them and as they are."""
    then = Counter((digest, path.split("/")[0]) for path, digest in learned_from(run).items())
    return then, Counter((digest, path.split("/")[1]) for path, digest in pictures.items())


def _renamed(then: Counter[tuple[str, str]], now: Counter[tuple[str, str]]) -> dict[str, str]:
    """Folders of classes that have another name now, with that: where most of their pictures lie."""
    old, new = {folder for _, folder in then}, {folder for _, folder in now}
    places: dict[str, list[str]] = {}
    for digest, folder in now:
        places.setdefault(digest, []).append(folder)
    found = {}
    for folder in old - new:
        where = Counter(place for digest, own in then if own == folder for place in places.get(digest, []))
        if where and (place := where.most_common(1)[0][0]) not in old:
            found[folder] = place
    return found
