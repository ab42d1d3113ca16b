"""Few-shot learning: train on 1 to 16 pictures of each class, test all classes.

    python examples/few_shot.py --datasets digits --shots 1 4 16 --seeds 1            # embedded pictures, some minutes
    python examples/few_shot.py --data_dir data --method mmrl mmrl++                  # the papers' eleven data sets
    accelerate launch examples/few_shot.py --data_dir data --datasets dtd --shots 16 --baseline linear-probe lora

Data, folders and reports are as `base_to_new.py` describes them; the picture shows accuracy over shots.
"""

import argparse
from pathlib import Path

import digits

from peft_mmrl import protocols
from peft_mmrl.commands import arguments as cli
from peft_mmrl.commands import protocol_arguments
from peft_mmrl.data.benchmarks import BENCHMARKS, VARIANTS


DATASETS = [name for name in BENCHMARKS if name not in VARIANTS]


def main(args: argparse.Namespace) -> None:
    """Check everything, do what is missing, report."""
    with cli.clear_errors():
        data = protocol_arguments.load_data(args.datasets, args.data_dir, digits.BENCHMARKS)
        runs = protocol_arguments.plan_runs("few-shot", args, data, args.shots)
    results = protocols.complete(runs, protocols.few_shot, args)
    protocols.report(runs, results, args.output_dir)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = protocol_arguments.make_parser(__doc__, Path("outputs/few_shot"))
    parser.add_argument("--datasets", nargs="+", default=DATASETS, help=f"{', '.join(DATASETS)} (all); digits")
    parser.add_argument(
        "--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="pictures of each class (1 2 4 8 16)"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    main(parse_args())
