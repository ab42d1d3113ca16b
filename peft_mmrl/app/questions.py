"""What the page asks somebody who knows the subject: is this label right, and what is this?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..projects.agreed import is_agreed


if TYPE_CHECKING:
    from ..projects.workbench import Workbench

MOST_KEYS = 9
IN_DOUBT = "in doubt "  # begins the names of pictures that were in doubt when they were tried: they are asked first


@dataclass(frozen=True)
class Question:
    """A picture that is asked about.

    Args:
        picture: below the project's folder.
        lies_in: folder of the class that it is in; None: in none.
        guess: folder of the class that it looks most like; None: that has just gone.
        sure: how sure that is, from 0 to 1; None: it cannot be said, as the class is known by its name alone.
    """

    picture: str
    lies_in: str | None
    guess: str | None
    sure: float | None = None


def answers_to(question: Question, workbench: Workbench, before: Sequence[str] = ()) -> list[str]:
    """Folders of the classes that keys answer: all where there are as many keys, else the likeliest.

    Args:
        question: what is asked.
        workbench: that knows which are likely.
        before: what the keys answered before: where all classes have one they keep it, and new ones come last.
    """
    folders = workbench.project.class_folders()
    if len(folders) <= MOST_KEYS:
        return sorted(folders, key=lambda name: before.index(name) if name in before else len(before))
    ranks = workbench.answer(workbench.project.path(question.picture)).ranks
    likely = [workbench.instant.folder_of(name) for name, _ in ranks]
    first = [name for name in (question.lies_in, question.guess) if name in folders]
    return [*first, *(name for name in likely if name in folders and name not in first)][:MOST_KEYS]


def doubtful_labels(workbench: Workbench) -> list[Question]:
    """Pictures whose class is probably another one, the likeliest first, but for those that were found to be right."""
    instant = workbench.instant
    held = workbench.held_out(instant)  # of the same classes: another tab may change them meanwhile
    if held is None:
        return []
    folders = [one.name for one in instant.classes]
    found = held.mistakes()
    agreed = is_agreed(workbench.project, [held.pictures[one.position] for one in found])
    return [
        Question(held.pictures[one.position], folders[held.labels[one.position]], folders[one.suggested])
        for one, is_right in zip(found, agreed, strict=True)
        if not is_right
    ]


def new_pictures(workbench: Workbench, number: int = 10) -> list[Question]:
    """Pictures without a class: those first that were in doubt when they were tried, then those that teach most.

    Args:
        workbench: that chooses them.
        number: how many at most of the latter.
    """
    project, instant = workbench.project, workbench.instant
    checked = {one.name for one in instant.classes if one.prompt_name not in instant.by_name}

    def ask(picture: str, guess: str | None, sure: float) -> Question:
        return Question(picture, None, guess, sure if guess in checked else None)

    in_doubt = [name for name in project.unlabelled_pictures() if name.split("/")[-1].startswith(IN_DOUBT)]
    questions = []
    for picture in in_doubt:
        ranks = workbench.answer(project.path(picture)).ranks
        if ranks:
            questions.append(ask(picture, instant.folder_of(ranks[0][0]), ranks[0][1]))
    chosen = workbench.suggest(number) if instant.frozen is not None else []
    return questions + [ask(one.picture, one.guess, one.probability) for one in chosen if one.picture not in in_doubt]
