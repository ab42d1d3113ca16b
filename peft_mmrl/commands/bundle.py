"""Put an adapter and its base model into one folder, for a machine without network.

    peft-mmrl bundle my-adapter bundle
    peft-mmrl predict bundle photos               # there, wherever the folder was copied to

The folder holds the adapter with its decision, `confidence.json` and card, and in `base` the base model with its image
processor and tokenizer. Nothing in it names a place of this machine or tells which pictures were trained on; the
report, which shows some of them, goes along with `--report` only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from accelerate import PartialState
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME

from ..hub.bundle import Bundle
from ..hub.card import CARD_FILE
from ..scoring.held_out import CONFIDENCE_FILE
from ..training.run_folder import RunFolder, writing
from ..tuner.decision import DECISION_FILE
from . import arguments as cli
from .console import clear_errors, command_line


OWN = (CARD_FILE, CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME, DECISION_FILE, CONFIDENCE_FILE, "base/config.json")


@command_line()
def main(args: argparse.Namespace) -> None:
    """Check, load, write."""
    run = {"kind": "bundle"}
    with clear_errors():
        folder = RunFolder(args.output_dir, "the output folder")
        folder.check("bundle", overwrite=args.overwrite_output_dir, own=OWN)
        folder.check_inputs(others={"the adapter": args.adapter, "--base_model": args.base_model})
        bundle = Bundle.of(args.adapter, args.base_model)
        folder.start(run, PartialState())
        with folder.finish(run) as place, writing(folder.path):
            bundle.save(place, folder.path.resolve().name, args.report)
    print(f"{args.output_dir} holds the adapter and its base model: copy it to where it is needed")


def parse_args(argv: list[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line."""
    parser = cli.make_parser(__doc__, prog)
    parser.add_argument("adapter", help="folder, or name on the Hub")
    parser.add_argument("output_dir", type=Path, help="folder to write")
    parser.add_argument("--overwrite_output_dir", action="store_true", help="replace a bundle that is there")
    parser.add_argument("--base_model", help="Hub id or folder, where the one that the adapter names isn't reachable")
    parser.add_argument("--report", action="store_true", help="with the report of the training, and its pictures")
    return parser.parse_args(argv)
