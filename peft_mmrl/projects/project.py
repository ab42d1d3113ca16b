"""A project: how it is made or opened, and its classes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from ..auto import DEFAULT_BASE_MODEL
from ..data.folders import is_hidden, is_litter
from ..data.wording import first_few
from ..scoring.file_names import folder_names, safe_name
from ..training.run_folder import writing
from .agreed import follow_class
from .better_names import needs_name, read_better_names, write_better_names
from .moving import move_taken_out
from .opening import copy_classes, find_classes, is_empty, is_project
from .placing import clean_class_name
from .project_folder import AREAS, ClassFolder, ProjectFolder
from .project_settings import ProjectSettings
from .under_training import refuse_while_training


__all__ = ["ClassFolder", "Project"]


class Project(ProjectFolder):
    """A project that is there, see `open`, `create` and `beside`; its pictures are the matter of `intake.py`."""

    @classmethod
    def open(cls, folder: str | os.PathLike[str], base_model: str = DEFAULT_BASE_MODEL) -> Self:
        """The project in a folder, a new one where there is nothing, or one beside a folder of class folders.

        Args:
            folder: whatever a user points at.
            base_model: of a new project.

        Raises:
            ValueError: something else lies there; the message says what to do.
            OSError: it cannot be read or written.
        """
        path = _absolute(folder)
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is a file. Choose a folder.")
        if is_project(path):
            return cls(path)
        if path.name in AREAS and is_project(path.parent):
            return cls(path.parent)
        if is_empty(path):
            return cls.create(path, base_model)
        if all((path / area).is_dir() for area in AREAS):  # somebody has moved a damaged project.json away
            ProjectSettings(base_model).write(path)
            return cls(path)
        return cls.beside(path, base_model)

    @classmethod
    def create(cls, folder: str | os.PathLike[str], base_model: str = DEFAULT_BASE_MODEL) -> Self:
        """A new project in a folder that is empty or not there.

        Raises:
            ValueError: there is something, or it lies in another project.
            OSError: it cannot be written.
        """
        path = _absolute(folder)
        if not is_empty(path):
            raise ValueError(f"{path} is not empty. A new project needs a folder of its own.")
        for parent in path.parents:
            if is_project(parent):
                raise ValueError(f"{path} lies in the project {parent}. A project cannot lie in another one.")
        settings = ProjectSettings(base_model)
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            settings.write(path)
            for area in AREAS:
                (path / area).mkdir(exist_ok=True)
        return cls(path)

    @classmethod
    def beside(cls, pictures: str | os.PathLike[str], base_model: str = DEFAULT_BASE_MODEL) -> Self:
        """The project `<name>-project` beside a folder of class folders, with a copy of its pictures.

        The folder is only read, once: where the project is there already it is opened as it is.

        Raises:
            ValueError: there are no class folders, or something else has the project's name.
            OSError: something cannot be read or written.
        """
        source = _absolute(pictures).resolve()
        target = source.with_name(f"{source.name}-project")
        if is_project(target):
            return cls(target)
        classes = find_classes(source)
        if not is_empty(target):
            raise ValueError(
                f"{target}, where the project belongs, holds other things. Move them, or rename {source}."
            )
        try:
            part = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=source.parent))
        except OSError as error:
            raise OSError(
                f"{target}, where the project belongs, cannot be written: {error.strerror}. Make an empty folder "
                f"elsewhere, open that one, and add the pictures of {source.name} there."
            ) from error
        try:
            project = cls.create(part / target.name, base_model)
            names = copy_classes(source, classes, project.pictures)
            write_better_names(project.folder, {names[name]: name for name in names if needs_name(names[name], name)})
            with writing(target):
                if target.exists():
                    target.rmdir()
                project.folder.rename(target)
        except OSError:
            if not is_project(target):  # else another process was quicker
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return cls(target)

    def add_class(self, name: str) -> str:
        """Make a class.

        Args:
            name: as people say it.

        Returns:
            the name of its folder.

        Raises:
            ValueError: there is such a class, or the name is none.
        """
        name = clean_class_name(name)
        with self.locked():
            folders = self.class_folders()
            better = read_better_names(self.folder, folders)
            self._refuse_same(name, folders)
            folder = self._free_folder(name)
            with writing(self.pictures / folder):
                (self.pictures / folder).mkdir(parents=True)
            if needs_name(folder, name):
                write_better_names(self.folder, {**better, folder: name})
        return folder

    @contextmanager
    def class_of(self, name: str) -> Iterator[str]:
        """The folder of the class that a name means, for putting pictures into it.

        Where there is no such class it is made, and goes again if it got no picture.

        Raises:
            ValueError: the name is none.
        """
        name = clean_class_name(name)
        with self.locked():
            there = self.same_class(name)
            folder = self.add_class(name) if there is None else there
        try:
            yield folder
        finally:
            if there is None:
                self.remove_if_empty(folder)

    def rename_class(self, old: str, new: str) -> str:
        """Give a class's folder another name.

        Its better name for prompts stays, unless it said no more than the old one.

        Returns:
            the name of its folder.

        Raises:
            ValueError: there is no such class, another one has the name, or the name is none.
        """
        new = clean_class_name(new)
        with self.locked():
            source, folders = self.class_folder(old), self.class_folders()
            better = read_better_names(self.folder, folders)
            self._refuse_same(new, [folder for folder in folders if folder != old])
            refuse_while_training(self.folder)
            folder = safe_name(new)
            if folder == old:
                target = source
            else:
                folder = self._free_folder(new, but=old)
                target = self.pictures / folder
                with writing(target):
                    _rename_folder(source, target)
            said = better.pop(old, None)
            if said is not None and safe_name(said) != old and said != new:
                better[folder] = said
            elif needs_name(folder, new):
                better[folder] = new
            write_better_names(self.folder, better)
            move_taken_out(self, old, folder)
            follow_class(self, old, folder)
        return folder

    def remove_class(self, name: str) -> None:
        """Take away the folder of a class that has no pictures left.

        Raises:
            ValueError: there are pictures, or other files.
            OSError: it cannot be taken away.
        """
        with self.locked():
            folder = self.class_folder(name)
            better = read_better_names(self.folder, self.class_folders())
            if self.pictures_in(folder):
                raise ValueError(f"{name!r} has pictures: take them out first, or move them to another class.")
            self.refuse_other_files(name)
            for place, _, files in os.walk(folder, topdown=False):
                for file in filter(is_litter, files):
                    Path(place, file).unlink()
                Path(place).rmdir()
            if better.pop(name, None) is not None:
                write_better_names(self.folder, better)

    def remove_if_empty(self, name: str) -> None:
        """Take away a class that is still there and has no pictures.

        Raises:
            ValueError: there are other files.
            OSError: it cannot be taken away.
        """
        with self.locked():
            if not self.pictures_in(self.pictures / name) and name in self.class_folders():
                self.remove_class(name)

    def refuse_other_files(self, name: str) -> None:
        """Raise a ValueError where a class's folder holds more than pictures: it cannot go then."""
        folder, others = self.class_folder(name), []
        self.pictures_in(folder, lambda path, reason: others.append(path.name.encode("utf-8", "replace").decode()))
        if others:
            hidden = " Those whose names begin with a dot are hidden, until your file manager is told to show them."
            raise ValueError(
                f"The folder {folder} holds other files ({first_few(others, 3)}): move them away first."
                + hidden * any(map(is_hidden, others))
            )

    def set_prompt_name(self, name: str, prompt_name: str | None) -> None:
        """Say in other words what a class shows; the folder stays as it is.

        Args:
            name: of the class's folder.
            prompt_name: what prompts say; None: the folder's name.

        Raises:
            ValueError: there is no such class, another one has the name, or the name is none.
        """
        with self.locked():
            self.class_folder(name)
            folders = self.class_folders()
            better = read_better_names(self.folder, folders)
            said = clean_class_name(name if prompt_name is None else prompt_name)
            self._refuse_same(said, [folder for folder in folders if folder != name])
            better.pop(name, None)
            if needs_name(name, said):
                better[name] = said
            write_better_names(self.folder, better)

    def _refuse_same(self, name: str, folders: Iterable[str]) -> None:
        folder = self.same_class(name, folders)
        if folder is not None:
            said = self.prompt_names()[folder]
            both = f"{said!r}" if said == folder else f"{said!r} (in the folder {folder})"
            is_same = (
                "" if name == said else f", and {name!r} is the same: capitals and underscores make no difference"
            )
            raise ValueError(
                f"There is a class {both} already{is_same}. Put the pictures together in one class, or choose a name "
                "that says what is different."
            )

    def _free_folder(self, name: str, but: str | None = None) -> str:
        taken = (
            [entry.name for entry in self.pictures.iterdir() if entry.name != but] if self.pictures.is_dir() else []
        )
        return folder_names([name], taken)[name]


def _rename_folder(source: Path, target: Path) -> None:
    if os.path.lexists(target) and not target.samefile(source):  # the same where capitals make no difference
        raise FileExistsError(f"{target} is there already.")
    source.rename(target)


def _absolute(folder: str | os.PathLike[str]) -> Path:
    text = os.fspath(folder)
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise ValueError(f"{text!r} is no folder.")
    return Path(os.path.abspath(os.path.expanduser(text)))
