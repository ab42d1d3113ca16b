"""The command line: `peft-mmrl NAME ...`, which is also `python -m peft_mmrl NAME ...`."""

from __future__ import annotations

import argparse
from importlib import import_module


COMMANDS = {
    "app": "a page to drop pictures on, train, try and improve, without writing code",
    "train": "adapt CLIP to your own pictures",
    "predict": "name pictures with a trained adapter",
    "evaluate": "how well an adapter recognises labelled pictures, beside CLIP without it",
    "bundle": "one folder with adapter and base model, for a machine without network",
    "export": "write an adapter as a classifier that runs without PyTorch",
    "suggest": "which pictures to label next",
    "monitor": "whether new pictures are still of the kind that an adapter was trained on",
    "push": "upload a trained adapter to the Hugging Face Hub",
    "convert": "turn a checkpoint of the papers' own code into an adapter",
    "base-to-new": "the papers' protocol: train on half of a data set's classes, test both halves",
    "few-shot": "the papers' protocol: train on 1 to 16 pictures of each class",
    "cross-dataset": "the papers' protocol: train on one data set, test others",
    "benchmark": "how long training steps take, beside LoRA and the papers' code",
}


def main(argv: list[str] | None = None) -> None:
    """Run a command.

    Args:
        argv: its name and its arguments; None: those of this process.
    """
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:{width}}  {what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="peft-mmrl",
        usage="%(prog)s COMMAND ...",
        description="MMRL and MMRL++ for CLIP.",
        epilog=f"commands:\n{listed}\n\n`peft-mmrl COMMAND --help` says more. Several GPUs or machines: "
        "`accelerate launch -m peft_mmrl COMMAND ...`.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    command = import_module(f".{given.command.replace('-', '_')}", __package__)
    command.main(command.parse_args(given.arguments, prog=f"peft-mmrl {given.command}"))
