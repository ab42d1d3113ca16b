"""The answer to a picture, as HTML."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from ..data.wording import in_words
from .words import percent


if TYPE_CHECKING:
    from ..projects.picture_answers import PictureAnswer, Ranks

MOST_BARS = 5
ALONE = "By the names of the classes alone, without your pictures"


def answer_html(answer: PictureAnswer) -> str:
    """What a picture shows, how sure that is, and what CLIP says to it without the project's pictures."""
    if not answer.ranks:
        return f'<p class="figure">{escape(answer.words)}</p>'
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in answer.notes)
    ranks, alone = _bars(answer.ranks, ""), _bars(answer.zero_shot, "other")
    return f'<p class="answer">{_sentence(answer)}</p>{ranks}{notes}<h3>{ALONE}</h3>{alone}'


def is_doubtful(answer: PictureAnswer) -> bool:
    """Whether somebody should say what it is."""
    return bool(answer.ranks) and len(answer.likely) != 1


def _sentence(answer: PictureAnswer) -> str:
    if answer.is_none:
        return "This is probably <b>none of your classes</b>."
    names = [f"<b>{escape(name)}</b>" for name in answer.likely]
    if len(names) == 1:
        return f"This is {names[0]}, {escape(percent(answer.ranks[0][1]))} sure."
    return f"This is one of these: {in_words(names)}."


def _bars(ranks: Ranks, kind: str) -> str:
    rows = "".join(
        f'<span class="name">{escape(name)}</span><span class="bar">'
        f'<i class="{kind}" style="width:{100 * share:.1f}%"></i></span><span>{escape(percent(share))}</span>'
        for name, share in ranks[:MOST_BARS]
    )
    more = len(ranks) - MOST_BARS
    rest = f'<p class="note">… and {more} less likely ones</p>' if more > 0 else ""
    return f'<div class="answers">{rows}</div>{rest}'
