"""Few-shot learning: train on 1 to 16 pictures of each class, test all classes.

    peft-mmrl few-shot --data_dir data --method mmrl mmrl++                  # the papers' eleven data sets
    accelerate launch -m peft_mmrl few-shot --data_dir data --datasets dtd --shots 16 --baseline linear-probe lora

Data, folders and reports are as `base-to-new` describes them; the picture shows accuracy over shots. `--decision` adds
rows of MMRL and MMRL++ by a decision that is fitted on the same pictures.
"""

from __future__ import annotations

import argparse
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
        runs = protocol_arguments.plan_runs("few-shot", args, data, args.shots)
    protocol_arguments.run_protocol(args, runs, protocols.few_shot)


def parse_args(argv: list[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line."""
    parser = protocol_arguments.make_protocol_parser(__doc__, prog, Path("outputs/few_shot"))
    known = ", ".join(TRAINING_BENCHMARKS)
    parser.add_argument("--datasets", nargs="+", default=TRAINING_BENCHMARKS, help=f"{known} (all)")
    parser.add_argument(
        "--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="pictures of each class (1 2 4 8 16)"
    )
    return parser.parse_args(argv)
