"""`project.json`: the few things that a project says of itself."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ..auto import DEFAULT_BASE_MODEL
from ..training.run_folder import read_json, write_json
from ..tuner.validation import as_templates


PROJECT_FILE = "project.json"
PROJECT_VERSION = 1


@dataclass(frozen=True)
class ProjectSettings:
    """What a project says of itself.

    Args:
        base_model: a CLIP: Hub id or folder, which is kept with its full path: a project is opened from anywhere.
        template: prompt with `{}` for the class name; None: the default.

    Raises:
        ValueError: no base model, or a template without a place for the name.
    """

    base_model: str = DEFAULT_BASE_MODEL
    template: str | None = None

    def __post_init__(self) -> None:
        model = self.base_model
        if not isinstance(model, str | os.PathLike) or not os.fspath(model).strip() or "\0" in os.fspath(model):
            raise ValueError(f"A base model is a name or a folder, got {model!r}.")
        model = str(Path(model).resolve()) if Path(model).is_dir() else os.fspath(model)
        object.__setattr__(self, "base_model", model)
        if self.template is not None:
            as_templates(self.template)

    @classmethod
    def read(cls, folder: Path) -> ProjectSettings:
        """Those of a project.

        Raises:
            ValueError: they are damaged, or of a newer version.
            OSError: they cannot be read.
        """
        path = folder / PROJECT_FILE
        damaged = f"{path} is damaged: put back an older copy of it, or move it away. The pictures are whole."
        if path.is_symlink():
            raise ValueError(f"{path} is a link to another place: put the file itself here.")
        try:
            found = read_json(path)
        except ValueError as error:
            raise ValueError(damaged) from error
        version = found.get("version") if isinstance(found, dict) else None
        if isinstance(version, int) and version > PROJECT_VERSION:
            raise ValueError(f"{path} was written by a newer version of peft_mmrl: pip install -U peft_mmrl")
        if version != PROJECT_VERSION:
            raise ValueError(damaged)
        try:
            return cls(**{field.name: found[field.name] for field in fields(cls) if field.name in found})
        except ValueError as error:
            raise ValueError(f"{damaged} ({error})") from error

    def write(self, folder: Path) -> None:
        """Keep them in a project's folder.

        Raises:
            OSError: they cannot be written; the old ones stay.
        """
        write_json(folder / PROJECT_FILE, {"version": PROJECT_VERSION, **asdict(self)})
