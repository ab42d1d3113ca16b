"""What lies in a project's folder, and the only way from a name in a request to a file of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from ..data.class_names import prompt_names
from ..data.folders import OnSkip, holds_picture, is_hidden, natural_key, walk
from .better_names import find_same, read_better_names
from .placing import find_place, is_plain
from .project_settings import ProjectSettings
from .under_training import ADAPTERS, LOGS


AREAS = ("pictures", "unlabelled", "removed", ADAPTERS)
LOCK_FILE = ".lock"
UNSHOWN = "a name that cannot be shown"
PATIENCE = 60  # seconds to wait for another tab or process


@dataclass(frozen=True)
class ClassFolder:
    """A class.

    Args:
        name: of its folder; what all functions call it.
        prompt_name: how prompts, and people, say it.
        pictures: paths below the project's folder.
    """

    name: str
    prompt_name: str
    pictures: list[str]


class ProjectFolder:
    """A project that is there, as far as it is only looked at.

    Args:
        folder: of the project.

    Raises:
        ValueError: it is damaged, or of a newer version of this program.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).resolve()
        self.pictures, self.unlabelled, self.removed, self.adapters = (self.folder / area for area in AREAS)
        self.cache = self.folder / ".cache"  # may be deleted at any time
        self._lock = FileLock(self.folder / LOCK_FILE, timeout=PATIENCE)
        for name in (*AREAS, LOGS, ".cache", ".cache/incoming"):
            area = self.folder / name
            if area.is_symlink():
                raise ValueError(f"{area} is a link to another place. A project holds its own files: move them here.")
        self.settings  # noqa: B018  # is read, and so checked

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other tabs and processes from changing the project meanwhile.

        Raises:
            OSError: the folder cannot be written to, or somebody else takes too long.
        """
        try:
            self._lock.acquire()
        except Timeout as error:
            raise TimeoutError("Something else is changing this project just now. Try again in a minute.") from error
        except OSError as error:
            raise type(error)(
                f"{self.folder} cannot be written to ({error.strerror or error}): the pictures can be looked at, and "
                "nothing can be changed."
            ) from error
        try:
            yield
        finally:
            self._lock.release()

    @property
    def settings(self) -> ProjectSettings:
        """As they are on the disk.

        Raises:
            ValueError: they are damaged, or of a newer version.
        """
        return ProjectSettings.read(self.folder)

    def set_template(self, template: str | None) -> None:
        """Let prompts be others, `"a photo of a {}, a kind of bird."`; None: the default.

        Raises:
            ValueError: it has no place `{}` for the name.
        """
        with self.locked():
            replace(self.settings, template=template).write(self.folder)

    def path(self, relative: str) -> Path:
        """The file or folder that a name in a request means, whether it is there or not.

        Args:
            relative: below the project's folder, with `/`: "pictures/cat/1.jpg".

        Raises:
            ValueError: it leads elsewhere, is no such name, or leads over a link.
        """
        return find_place(self.folder, relative, AREAS)

    def relative(self, path: Path) -> str:
        """The name of a file for requests: what `path` takes."""
        return path.relative_to(self.folder).as_posix()

    def pictures_in(self, folder: Path, on_skip: OnSkip = lambda path, reason: None) -> list[str]:
        """Pictures below one of the project's folders, in natural order; links are not followed.

        Args:
            folder: which may be missing.
            on_skip: called with what is passed over, and the reason.
        """
        if not folder.is_dir() or folder.is_symlink():
            return []
        found = []
        for path in walk(folder, on_skip, follow_links=False):
            if not holds_picture(path):
                on_skip(path, "not a picture")
            elif not all(map(is_plain, path.relative_to(self.folder).parts)):
                on_skip(path, UNSHOWN)
            else:
                found.append(self.relative(path))
        return sorted(found, key=natural_key)

    def class_folders(self) -> list[str]:
        """Names of the folders of all classes, in natural order."""
        if not self.pictures.is_dir():
            return []
        with os.scandir(self.pictures) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        return sorted((name for name in names if is_plain(name) and not is_hidden(name)), key=natural_key)

    def class_folder(self, name: str) -> Path:
        """The folder of a class.

        Raises:
            ValueError: there is no such class.
        """
        if name not in self.class_folders():
            raise ValueError(f"There is no class {name!r} any more: it was renamed or taken away.")
        return self.path(f"pictures/{name}")

    def classes(self) -> list[ClassFolder]:
        """All classes with their pictures, in natural order."""
        names = self.prompt_names()
        return [ClassFolder(name, said, self.pictures_in(self.pictures / name)) for name, said in names.items()]

    def prompt_names(self) -> dict[str, str]:
        """For each class's folder how prompts say it; a damaged `class_names.csv` counts as none."""
        folders = self.class_folders()
        try:
            better = read_better_names(self.folder, folders)
        except (ValueError, OSError):
            better = {}  # `find_faults` names it
        said = prompt_names([name for name in folders if name not in better])[0] | better
        return {name: said[name] for name in folders}

    def unlabelled_pictures(self) -> list[str]:
        """Pictures of which nobody has said yet what they show."""
        return self.pictures_in(self.unlabelled)

    def removed_pictures(self) -> list[str]:
        """Pictures that were taken out."""
        return self.pictures_in(self.removed)

    def same_class(self, name: str, folders: Iterable[str] | None = None) -> str | None:
        """The folder of the class that a name means to people or to CLIP: capitals make no difference.

        Args:
            name: of a class.
            folders: that come into question; None: all.
        """
        said = self.prompt_names()
        return find_same(name, said if folders is None else {folder: said[folder] for folder in folders})
