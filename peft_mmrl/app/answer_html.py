"""The answer to a picture, as HTML."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from ..data.wording import counted, in_words, percent
from .words import note


if TYPE_CHECKING:
    from ..projects.picture_answers import PictureAnswer, Ranks

MOST_BARS = 5
BY_NAME = "by name"  # in place of a number
ALONE = "By the names of the classes alone, without your pictures"


def answer_html(answer: PictureAnswer) -> str:
    """What a picture shows, how sure that is, and what CLIP says to it without the project's pictures."""
    if not answer.ranks:
        return f'<p class="figure">{escape(answer.words)}</p>'
    notes = "".join(note(escape(words)) for words in answer.notes)
    alone = ""
    if answer.ranks != answer.zero_shot:  # else there are no pictures that could make a difference
        alone = f"<h3>{ALONE}</h3>{_bars(answer.zero_shot, 'other', answer.by_name)}"
    return f'<p class="answer">{_sentence(answer)}</p>{_bars(answer.ranks, "", answer.by_name)}{notes}{alone}'


def is_doubtful(answer: PictureAnswer) -> bool:
    """Whether somebody should say what it is."""
    return bool(answer.ranks) and len(answer.likely) != 1


def view_name(token: str) -> str:
    """What people call the map of a token: "main view" (class token), "added view 1" (representation token)."""
    return token.replace("class token", "main view").replace("token", "added view")


def _sentence(answer: PictureAnswer) -> str:
    if answer.is_none:
        less_sure = "it is less sure than with most of your own pictures"
        return f"This may be <b>none of your classes</b>: {less_sure}. The likeliest:"
    names = [f"<b>{escape(name)}</b>" for name in answer.likely]
    if len(names) == 1 and answer.likely[0] in answer.by_name:
        return f"This looks like {names[0]}, by its name alone: how sure that is cannot be said."
    if len(names) == 1:
        return f"This is {names[0]}, {escape(percent(answer.ranks[0][1]))} sure."
    return f"This is one of these: {in_words(names)}."


def _bars(ranks: Ranks, kind: str, by_name: frozenset[str]) -> str:
    """Bars with their numbers, but for those that nobody has checked, and those that such a one leaves over."""
    rows = ""
    for name, share in ranks[:MOST_BARS]:
        number = BY_NAME if name in by_name else "" if ranks[0][0] in by_name else escape(percent(share))
        look = f"{kind} unchecked" if name in by_name else kind
        rows += f'<span class="name">{escape(name)}</span><span class="bar">'
        rows += f'<i class="{look}" style="width:{100 * share:.1f}%"></i></span><span>{number}</span>'
    more = len(ranks) - MOST_BARS
    rest = note(f"… and {counted(more, 'less likely one')}") if more > 0 else ""
    return f'<div class="answers">{rows}</div>{rest}'
