"""What a training does, and why it has failed, said to somebody who has only pressed a button."""

from __future__ import annotations


PHASES = {
    "": "Looking at the pictures.",
    "looking": "Seeing how well it works without training.",
    "training": "Learning from your pictures.",
    "fold": "Checking how good it is: learning again without some of the pictures, and asking for those.",
    "writing": "Writing the report.",
}
CHANGED = "Pictures or classes were changed meanwhile, so that it cannot go on. Start a new training."
GONE = "A picture has gone that was there when the training began. Start a new training."
MEMORY = "There is too little memory. Close other programs, then start it again."
WRITING = (
    "The project's folder cannot be written to: see who it belongs to, and that its disk is there. Then start again."
)
NAME = "The name of a class is too long, or has signs that cannot be read. Rename it, then start again."
NEW_PROJECT = "begin a new project from the folder “pictures” of this one, and start a training there."
FAILURES = {  # parts of messages, and what they mean; the first one counts that is found
    "at least two classes": "There must be pictures of at least two classes. Add some, then start a new training.",
    "are the same to the base model": "Two classes have the same name. Rename one, then start a new training.",
    "makes a prompt of": NAME,
    "holds the end-of-text token": NAME,
    "belongs to another run": CHANGED,
    "Another run writes into": "Another training writes into the same folder. Wait until it has ended.",
    "No space left": "The disk is full. Make room, then start it again.",
    "Permission denied": WRITING,
    "Read-only file system": WRITING,
    "there is no such file": GONE,
    "couldn't connect": "The model that recognises pictures is not on this computer yet, and it cannot be fetched, as "
    "there is no connection to the internet. Connect, then start it again.",
    "is not a CLIP that MMRL adapts": "The model that was chosen for this project is of a kind that cannot be trained "
    f"here: {NEW_PROJECT}",
    "The base model": "The model that was chosen for this project is neither on this computer nor on the internet. If "
    f"its folder was moved, move it back and start again; otherwise {NEW_PROJECT}",
    "No such file or directory": GONE,
    "out of memory": MEMORY,
    "llocate memory": MEMORY,  # "can't allocate", "Cannot allocate", "Unable to allocate"
    "The loss is": "The learning went astray: its numbers grew beyond all bounds. Start a new training; should that "
    "end so, too, look for pictures that show nothing.",
}
OUTSIDE = "It was ended from outside: the computer was switched off, say, or had too little memory."
TO_COMMANDS = (" To go on, add --", " There is no checkpoint yet")  # begin what a message says to those who type
ERROR = "error: "


def phase_words(phase: str) -> str:
    """What a run does in a phase.

    Args:
        phase: as the run calls it, "fold 1 of 4", say.
    """
    return PHASES.get(phase.split(" ")[0], PHASES[""])


def why_failed(lines: list[str], way_on: str) -> str:
    """Why a training has failed, and what to do.

    Args:
        lines: the last that it said.
        way_on: a sentence on how it can go on.
    """
    said = [line.partition(ERROR)[2] for line in lines if line.startswith((ERROR, f"peft-mmrl train: {ERROR}"))]
    is_surprise = any(line.startswith("Traceback") for line in lines)
    if not said and not is_surprise:
        return f"{OUTSIDE} {way_on}"
    last = lines[-1] if is_surprise else said[-1]
    known = next((words for part, words in FAILURES.items() if part in last), None)
    if known is not None:
        return known
    for words in TO_COMMANDS:
        last = last.partition(words)[0]
    return f"It ended with an error: {last.rstrip('.')}. {way_on}"
