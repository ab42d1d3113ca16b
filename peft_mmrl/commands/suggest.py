"""Which pictures to label next, so that few labels go far.

    peft-mmrl suggest my-adapter new-photos                          # twenty of them, as CSV
    peft-mmrl suggest my-adapter new-photos --number 50 --output next.csv

Of pictures without labels those are chosen that the adapter is not sure of and that stand for many others, as many of
each class, going by what they are taken for; none of them is nearly equal to another or to one that was trained on.
Each row has the path, the adapter's guess, how probable that is, and the rank: label the first ones first. The adapter
must be the folder of its run, which knows what it was trained on (`reference.safetensors`). Needs the extra `app`.

With --quick a run on a few labels takes seconds, so label, train, ask again. `examples/label_curves.py` shows what
choosing saves against random choice.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TextIO

import torch

from ..data import Preprocessing
from ..projects.extra import from_extra
from ..projects.suggestions import suggest
from ..scoring.listing import share_listing
from ..scoring.reference import Reference, seeing
from ..scoring.sightings import Sighting, look_at
from ..scoring.unlabelled import load_classifier
from ..training import make_accelerator
from ..training.run_folder import writing
from ..tuner.names import name_keys
from . import arguments as cli
from .console import clear_errors, command_line, in_utf8
from .predict import check_pictures_given


SUGGESTION_COLUMNS = ("path", "guess", "probability", "rank")
ADVICE_ON_RUN = "train it here, and name the folder of that run"


def main(args: argparse.Namespace) -> None:
    """Look, choose, write."""
    rows_to = in_utf8(sys.stdout)
    with command_line(), redirect_stdout(sys.stderr):
        with clear_errors():
            cli.check_arguments(args)
            check_pictures_given(args.pictures)
            if args.output is not None and args.output.exists():
                raise ValueError(f"--output {args.output} is there already: name another file.")
            if args.output is not None and not args.output.parent.is_dir():
                raise ValueError(f"--output {args.output} cannot be written: there is no folder {args.output.parent}.")
            from_extra("skactiveml.pool")
            reference = Reference.load(args.adapter, ADVICE_ON_RUN)
            accelerator = make_accelerator(mixed_precision=args.mixed_precision)
            model, image_processor = load_classifier(args.adapter, args.base_model)
            reference.check_fits(seeing(model, Preprocessing.of(model, image_processor)), ADVICE_ON_RUN)
            model.to(accelerator.device)
            listing = share_listing(args.pictures, accelerator)
        ask = {"batch_size": args.batch_size, "num_workers": args.num_workers}
        seen = list(look_at(model, image_processor, listing, accelerator, **ask))
        if accelerator.is_main_process:
            known = [one for one in seen if one.error is None]
            unread = Counter(one.error for one in seen if one.error is not None)
            if not known:
                sys.exit(f"error: there is no picture that can be read in {', '.join(args.pictures)}.")
            rows = choose(known, reference, model.classes, args.number)
            if args.output is None:
                SUGGESTION_WRITERS[args.format](rows, rows_to)
                rows_to.flush()
            else:
                with (
                    clear_errors(),
                    writing(args.output),
                    open(args.output, "x", encoding="utf-8", newline="") as file,
                ):
                    SUGGESTION_WRITERS[args.format](rows, file)
            notes = listing.describe_left_out()
            if unread:
                reasons = ", ".join(f"{reason} ({count})" for reason, count in unread.most_common())
                notes.insert(0, f"{unread.total()} of {len(listing)} pictures cannot be read: {reasons}")
            if len(rows) < min(args.number, len(known)):
                notes.append(f"{len(rows)} pictures are suggested: the others are nearly equal to these, or known")
            print("".join(f"{note}\n" for note in notes), end="", file=sys.stderr)
        accelerator.end_training()


def choose(seen: list[Sighting], reference: Reference, classes: list[str], number: int) -> list[dict[str, Any]]:
    """The rows of what is suggested.

    Args:
        seen: pictures that can be read.
        reference: what was trained on.
        classes: that the guesses are among.
        number: how many to choose.
    """
    place_of = {key: place for place, key in enumerate(name_keys(classes, None))}
    place = [place_of[key] for key in name_keys(reference.class_names, None)]
    labels = torch.tensor(place)[reference.labels]
    features = torch.stack([one.feature for one in seen])
    guesses, margins = [one.label for one in seen], [one.margin for one in seen]
    chosen = suggest(reference.features, labels, features, guesses, margins, number)
    found = [seen[row] for row in chosen]
    return [
        {"path": one.path, "guess": classes[one.label], "probability": round(one.probability, 6), "rank": rank}
        for rank, one in enumerate(found, start=1)
    ]


def write_csv(rows: Iterable[dict[str, Any]], file: TextIO) -> None:
    """A header, and a row per picture."""
    writer = csv.DictWriter(file, SUGGESTION_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def write_json_lines(rows: Iterable[dict[str, Any]], file: TextIO) -> None:
    """A line with an object per picture."""
    file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_table(rows: Iterable[dict[str, Any]], file: TextIO) -> None:
    """Lines for people: the guess, and the path."""
    file.writelines(f"{row['probability']:6.1%} {row['guess']:20}  {row['path']}\n" for row in rows)


SUGGESTION_WRITERS: dict[str, Callable[[Iterable[dict[str, Any]], TextIO], None]] = {
    "csv": write_csv,
    "jsonl": write_json_lines,
    "table": write_table,
}


def parse_args(argv: list[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line."""
    parser = cli.make_parser(__doc__, prog)
    parser.add_argument("adapter", help="folder of its run")
    parser.add_argument("pictures", nargs="+", metavar="picture_or_folder", help="without labels")
    parser.add_argument("--number", type=int, default=20, help="of pictures to choose (%(default)s)")
    parser.add_argument("--format", choices=SUGGESTION_WRITERS, default="csv", help="of the answer (%(default)s)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="new file for the answer (standard output)")
    cli.add_scoring_arguments(parser)
    return parser.parse_args(argv)
