"""Transfer: train on one data set, test others as they are, and ImageNet's variants (domain generalisation).

    python examples/cross_dataset.py --source digits --targets digits_inverted --seeds 1      # embedded, some minutes
    python examples/cross_dataset.py --data_dir data --method mmrl mmrl++              # ImageNet to all other 14
    accelerate launch examples/cross_dataset.py --data_dir data --targets imagenetv2 imagenet_r --baseline zero-shot

Data, folders and reports are as `base_to_new.py` describes them. On targets all classes count as new; MMRL++ is tested
with the papers' beta of each.
"""

import argparse
from functools import partial
from pathlib import Path

import digits

from peft_mmrl import protocols
from peft_mmrl.commands import arguments as cli
from peft_mmrl.commands import protocol_arguments
from peft_mmrl.data.benchmarks import BENCHMARKS


TARGETS = [name for name in BENCHMARKS if name != "imagenet"]


def main(args: argparse.Namespace) -> None:
    """Check everything, do what is missing, report."""
    with cli.clear_errors():
        source, *targets = protocol_arguments.load_data([args.source, *args.targets], args.data_dir, digits.BENCHMARKS)
        runs = protocol_arguments.plan_runs("cross-dataset", args, [source], [args.shots], targets)
    results = protocols.complete(runs, partial(protocols.cross_dataset, targets=targets), args)
    protocols.report(runs, results, args.output_dir)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = protocol_arguments.make_parser(__doc__, Path("outputs/cross_dataset"))
    parser.add_argument("--source", default="imagenet", help="data set that is trained on (%(default)s)")
    parser.add_argument("--targets", nargs="+", default=TARGETS, help=f"data sets to test: {', '.join(TARGETS)} (all)")
    parser.add_argument("--shots", type=int, default=16, help="pictures of each class (%(default)s)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main(parse_args())
