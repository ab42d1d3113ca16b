"""Transfer: train on one data set, test others as they are, and ImageNet's variants (domain generalisation).

    peft-mmrl cross-dataset --data_dir data --method mmrl mmrl++              # ImageNet to all other 14
    accelerate launch -m peft_mmrl cross-dataset --data_dir data --targets imagenetv2 imagenet_r --baseline zero-shot

Data, folders and reports are as `base-to-new` describes them. On targets all classes count as new; MMRL++ is tested
with the papers' beta of each. `--decision` adds rows of MMRL and MMRL++ by a decision that is fitted on the same
pictures: it scores new classes by the adapter's class feature and frozen CLIP's together.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from .. import protocols
from ..data.benchmarks import BENCHMARKS
from . import protocol_arguments
from .arguments import check_arguments
from .console import clear_errors, command_line


TARGETS = [name for name in BENCHMARKS if name != "imagenet"]


@command_line()
def main(args: argparse.Namespace, others: protocol_arguments.Loaders | None = None) -> None:
    """Check everything, do what is missing, report; `others` are data sets beside the benchmarks."""
    with clear_errors():
        check_arguments(args)
        source, *targets = protocol_arguments.load_data([args.source, *args.targets], args.data_dir, others or {})
        runs = protocol_arguments.plan_runs("cross-dataset", args, [source], [args.shots], targets)
    protocol_arguments.run_protocol(args, runs, partial(protocols.cross_dataset, targets=targets))


def parse_args(argv: list[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line."""
    parser = protocol_arguments.make_protocol_parser(__doc__, prog, Path("outputs/cross_dataset"))
    parser.add_argument("--source", default="imagenet", help="data set that is trained on (%(default)s)")
    parser.add_argument("--targets", nargs="+", default=TARGETS, help=f"data sets to test: {', '.join(TARGETS)} (all)")
    parser.add_argument("--shots", type=int, default=16, help="pictures of each class (%(default)s)")
    return parser.parse_args(argv)
