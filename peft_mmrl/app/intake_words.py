"""What became of dropped files, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from ..data.wording import first_few
from ..projects.folder_intake import FolderIntake
from ..projects.intake import Intake
from .words import classes, note, pictures


MOST_REASONS = 5  # of files that were not taken
MOST_REPORTS = 4  # of drops that came one after the other
MOST_COUNTS = 30  # of classes
NOTHING_FOUND = "There was no picture in it."


def intake_words(intake: Intake, name: str | None = None) -> str:
    """What became of dropped files, as HTML.

    Args:
        intake: of them.
        name: of the class that they were added to, as people say it; None: none.
    """
    to = "" if name is None else f" to “{escape(name)}”"
    return _told(f"{pictures(len(intake.added))} added{to}." if intake.added else "", intake)


def folder_words(intake: FolderIntake, said: Mapping[str, str]) -> str:
    """What became of dropped files that may have come in folders, as HTML.

    Args:
        intake: of them.
        said: how people call the class of each folder.
    """
    if not intake.is_sorted:
        return intake_words(intake, next((said.get(folder, folder) for folder in intake.classes), None))
    counts = [f"{escape(said.get(folder, folder))} {number}" for folder, number in intake.classes.items()]
    head = f"{classes(len(counts))} from the folder: {first_few(counts, MOST_COUNTS)}." if counts else ""
    return _told(head, intake)


def reports(before: Sequence[str], words: str) -> list[str]:
    """What became of dropped files, with what became of those before: the next drop would wipe away what was refused.

    Args:
        before: of the files before, as HTML.
        words: of these.
    """
    return [*before, words][-MOST_REPORTS:]


def refusal_words(error: Exception) -> str:
    """Why none of the dropped files was taken, as HTML."""
    return note(f"<b>Nothing was taken.</b><br>{escape(str(error))}", is_news=True)


def _told(head: str, intake: Intake) -> str:
    lines = [f"<b>{head}</b>"] if head else []
    if intake.refused:
        lines.append(f"<b>{len(intake.refused)} not taken:</b>")
        lines += [f"{escape(name)}: {escape(reason)}" for name, reason in intake.refused[:MOST_REASONS]]
        if len(intake.refused) > MOST_REASONS:
            lines.append(f"… and {len(intake.refused) - MOST_REASONS} more")
    return note("<br>".join(lines or [NOTHING_FOUND]), is_news=True)
