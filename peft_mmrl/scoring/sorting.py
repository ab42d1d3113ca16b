"""Puts pictures into folders by what a classifier says to them: none is lost or replaced, and a table says where."""

from __future__ import annotations

import csv
import filecmp
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .answers import Answer, SetAnswer
from .file_names import folder_names, numbered


SORTED_FILE = "sorted.csv"
SORTED_COLUMNS = ["path", "label", "probability", "sorted_to", "error", "sha256"]
DOUBTFUL = "to check"  # the folder for a person
UNPLACED = ".unfinished"


class NotSortedError(OSError):
    """Something that cannot be written where pictures are sorted into; the message names it."""


class Sorter:
    """A folder with a folder of pictures for each class, one for those that a person should look at, and `sorted.csv`.

    A picture is known again by its place and its content: what the table has is left as it is, also where somebody has
    moved it since, or where it would go elsewhere by now.

    Args:
        folder: may be missing; what is in it was put there by a sorter.
        argument: what users name it with.

    Raises:
        ValueError: it holds other things, or is a file.
    """

    def __init__(self, folder: str | os.PathLike[str], argument: str = "--sort_into") -> None:
        self.folder, self.table = Path(folder), Path(folder, SORTED_FILE)
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{argument} {folder} is a file.")
        self.rows = self._read(argument)
        self.known = {(row["path"], row["sha256"]): row for row in self.rows}
        self.taken = {row["sorted_to"] for row in self.rows if row["sorted_to"]}
        self.old = self.elsewhere = 0
        self.new: list[dict[str, str]] = []

    def _read(self, argument: str) -> list[dict[str, str]]:
        if self.table.is_file():
            with open(self.table, newline="", encoding="utf-8", errors="surrogateescape") as file:
                reader = csv.DictReader(file)
                rows = list(reader)
            if reader.fieldnames == SORTED_COLUMNS and all(None not in [*row, *row.values()] for row in rows):
                return rows
            raise ValueError(f"{argument} {self.folder}: its {SORTED_FILE} is another table. Choose another folder.")
        if self.folder.is_dir() and any(self.folder.iterdir()):
            raise ValueError(
                f"{argument} {self.folder} holds other things, and no {SORTED_FILE} that tells what was sorted into "
                "it: choose another folder."
            )
        return []

    def check_apart(self, sources: Iterable[str | os.PathLike[str]], argument: str = "--sort_into") -> None:
        """Refuse pictures that lie where they are sorted into, or the other way round: the next run would find more.

        Raises:
            ValueError: names the folder.
        """
        output = self.folder.resolve()
        for source in sources:
            place = Path(source).resolve()
            if place.is_relative_to(output) or output.is_relative_to(place):
                inner, outer = (source, self.folder) if place.is_relative_to(output) else (self.folder, source)
                raise ValueError(f"{argument} {self.folder}: {inner} lies in {outer}. Choose another folder.")

    def sort(self, answers: Iterable[Answer], class_names: Sequence[str], link: bool = False) -> Iterator[Answer]:
        """Put each picture into its folder when its answer passes by.

        Args:
            answers: of pictures; sets of several classes and "none of these" are for a person.
            class_names: of all classes that there can be.
            link: make symbolic links in place of copies.

        Raises:
            NotSortedError: something cannot be written. What was sorted is in the table all the same.
        """
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._write()
        folders = self._folders(class_names)
        try:
            for answer in answers:
                self._put(answer, folders, link)
                yield answer
        finally:
            self._write()

    def _folders(self, class_names: Sequence[str]) -> dict[str, str]:
        """The folder of each class: that of earlier runs, or one that is nobody else's."""
        before = {row["label"]: row["sorted_to"].partition("/")[0] for row in self.rows if row["sorted_to"]}
        before = {name: folder for name, folder in before.items() if name in class_names and folder != DOUBTFUL}
        fresh = [name for name in class_names if name not in before]
        return before | folder_names(fresh, [DOUBTFUL, SORTED_FILE, *before.values()])

    def _put(self, answer: Answer, folders: dict[str, str], link: bool) -> None:
        path = os.path.abspath(answer.path)
        try:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            error = answer.error or ""
        except OSError as gone:
            digest, error = "", answer.error or gone.strerror or str(gone)
        said = answer.as_row(1)
        label, probability = ("", "") if error else (said["label"], f"{said['probability']:.6f}")
        known = self.known.get((path, digest))
        if known is not None:
            self.old += 1
            self.elsewhere += known["label"] != label
            return
        target = "" if error else self._place(path, DOUBTFUL if _is_doubtful(answer) else folders[label], link)
        row = dict(zip(SORTED_COLUMNS, [path, label, probability, target, error, digest], strict=True))
        self.known[path, digest] = row
        self.rows.append(row)
        self.new.append(row)

    def _place(self, path: str, folder: str, link: bool) -> str:
        """Copy or link a picture under the first name that is free; where an interrupted run did so, that is it."""
        stem, suffix = os.path.splitext(os.path.basename(path))
        for name in numbered(stem, suffix):
            relative, target = f"{folder}/{name}", self.folder / folder / name
            if relative in self.taken:
                continue
            if os.path.lexists(target):
                if not _is_same(target, path):
                    continue
            else:
                self._write_picture(path, target, link)
            self.taken.add(relative)
            return relative
        raise AssertionError("numbers do not end")

    def _write_picture(self, path: str, target: Path, link: bool) -> None:
        part = self.folder / UNPLACED
        with _writing(target):
            target.parent.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):
                part.unlink()
            if link:
                part.symlink_to(path)
            else:
                shutil.copy2(path, part)
            part.rename(target)

    def _write(self) -> None:
        part = self.table.with_name(f"{SORTED_FILE}.part")
        with _writing(self.table):
            with open(part, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                writer = csv.DictWriter(file, SORTED_COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(self.rows)
            part.replace(self.table)

    def describe(self) -> list[str]:
        """Lines on what this run did."""
        placed = [row for row in self.new if row["sorted_to"]]
        doubtful = sum(row["sorted_to"].startswith(f"{DOUBTFUL}/") for row in placed)
        lines = []
        if placed:
            lines.append(
                f"{len(placed)} pictures are sorted into {self.folder}, {doubtful} of them into {DOUBTFUL!r}; "
                f"{SORTED_FILE} says which went where"
            )
        else:
            lines.append(f"nothing is new in {self.folder}")
        if len(self.new) > len(placed):
            lines.append(f"{len(self.new) - len(placed)} pictures cannot be read: they stay, {SORTED_FILE} says why")
        if self.old:
            lines.append(f"{self.old} pictures are known from an earlier run and stay where that put them")
        if self.elsewhere:
            lines.append(f"{self.elsewhere} of these have another answer now: to have them moved, take a new folder")
        return lines


def _is_doubtful(answer: Answer) -> bool:
    return answer.is_none or (isinstance(answer, SetAnswer) and len(answer.ranks) > 1)


def _is_same(target: Path, path: str) -> bool:
    """Whether a file, or what a link leads to, is the picture."""
    try:
        return filecmp.cmp(target, path, shallow=False)
    except OSError:
        return False


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Let an error name the place that cannot be written."""
    try:
        yield
    except OSError as error:
        raise NotSortedError(f"{path} cannot be written: {error.strerror or error}.") from error
