"""Base-to-new generalisation: train on half of a data set's classes, test both halves.

    peft-mmrl base-to-new --data_dir data --method mmrl mmrl++               # the papers' eleven data sets
    accelerate launch -m peft_mmrl base-to-new --data_dir data --datasets eurosat dtd --baseline zero-shot lora

`--data_dir` holds the data sets as CoOp's instructions lay them out, with the official split files:
https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md. `--datasets dtd=OWNER/NAME` reads a copy from the Hugging
Face Hub (or a folder of `datasets`) in its place, with that copy's splits and class names.

Each run has a folder with its settings, the paths of its few-shot pictures and its result,
DATASET/METHOD/shots_16/seed_1. A finished run is not repeated, so an interrupted call goes on when it is made again.
`results.txt`, `results.json` and `results.png` hold mean and standard deviation over seeds beside the papers' numbers.

The papers never let trained and new classes compete, for which `fit_decision` is made. `--decision` adds "all", the
accuracy among all classes together, for every method, and rows of MMRL and MMRL++ by a decision that is fitted on the
same pictures; the other rows stay as they are.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from .. import protocols
from ..data.benchmarks import TRAINING_BENCHMARKS
from . import protocol_arguments
from .arguments import check_arguments
from .console import clear_errors, command_line


@command_line()
def main(args: argparse.Namespace, others: protocol_arguments.Loaders | None = None) -> None:
    """Check everything, do what is missing, report; `others` are data sets beside the benchmarks."""
    with clear_errors():
        check_arguments(args)
        data = protocol_arguments.load_data(args.datasets, args.data_dir, others or {})
        runs = protocol_arguments.plan_runs("base-to-new", args, data, [args.shots])
    protocol_arguments.run_protocol(args, runs, partial(protocols.base_to_new, with_all=args.decision))


def parse_args(argv: list[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line."""
    parser = protocol_arguments.make_protocol_parser(__doc__, prog, Path("outputs/base_to_new"))
    known = ", ".join(TRAINING_BENCHMARKS)
    parser.add_argument("--datasets", nargs="+", default=TRAINING_BENCHMARKS, help=f"{known} (all)")
    parser.add_argument("--shots", type=int, default=16, help="pictures of each base class (%(default)s)")
    return parser.parse_args(argv)
