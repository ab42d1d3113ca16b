"""How well an adapter recognises labelled pictures, beside CLIP without it.

    python examples/evaluate.py my-adapter photos/test --output_dir evaluation    # photos/test/cat/1.jpg, ...
    python examples/evaluate.py my-adapter labels.csv --output_dir evaluation     # columns: image, label
    accelerate launch examples/evaluate.py me/my-adapter beans --split test --output_dir evaluation

Labels are matched by name with the classes that the adapter was trained on. Other classes of the data count as new ones,
which the class feature alone scores. The output folder gets a row per picture (`predictions.csv`), `metrics.json` and a
page to open in a browser (`report.html`).
"""

import argparse

from accelerate import Accelerator
from peft import PeftConfig

from peft_mmrl import cli, runs
from peft_mmrl.data import check_pictures


def main(args: argparse.Namespace) -> None:
    """Read, score, report."""
    with cli.clear_errors():
        runs.check_output_dir(args.output_dir, overwrite=args.overwrite_output_dir)
        accelerator = Accelerator(mixed_precision=args.mixed_precision)
        pictures, notes = cli.picture_source(args).load()
        pictures, bad = check_pictures(pictures, args.on_bad_image, accelerator=accelerator)
        trained = PeftConfig.from_pretrained(args.adapter).classes or []
