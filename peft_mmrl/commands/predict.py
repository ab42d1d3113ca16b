"""Name pictures with a trained adapter.

    peft-mmrl predict my-adapter photo.jpg
    peft-mmrl predict my-adapter photos --format csv --top_k 3 > answers.csv
    peft-mmrl predict my-adapter photos --classes axolotl newt              # beside the trained classes
    accelerate launch -m peft_mmrl predict my-adapter photos --format jsonl > answers.jsonl    # all GPUs, machines
    torchrun --nproc_per_node 4 -m peft_mmrl predict my-adapter photos --format jsonl > answers.jsonl   # one CPU

Folders are read with all folders below them, as many pictures as there are: a file is a picture by its extension, or
else by its content. They are listed once, before the first answer. Standard output holds the answer alone; it is
complete, and the exit code 0, also where some pictures cannot be read: their rows say why. What was left out is
counted at the end, on standard error.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from typing import TextIO

from ..data import Preprocessing
from ..data.progress import progress_bar
from ..scoring.answers import WRITERS, Answer
from ..scoring.listing import share_listing
from ..scoring.threshold import Threshold
from ..scoring.unlabelled import load_classifier, predict_pictures
from ..training import make_accelerator
from . import arguments as cli
from .console import CLOSED_PIPE, clear_errors, command_line, in_utf8, silence


def main(args: argparse.Namespace, output: TextIO | None = None) -> None:
    """Load, name, write to a stream: standard output unless one is given, which then holds nothing else."""
    answers = in_utf8(sys.stdout) if output is None else output
    with command_line(), redirect_stdout(sys.stderr):  # whatever libraries print
        try:
            write_answers(args, answers)
            answers.flush()
        except BrokenPipeError:  # `| head`: nobody reads on
            silence(answers)
            sys.exit(CLOSED_PIPE)


def write_answers(args: argparse.Namespace, output: TextIO) -> None:
    """Load, name, write."""
    with clear_errors():
        cli.check_arguments(args)
        accelerator = make_accelerator(mixed_precision=args.mixed_precision)
        cli.check_precision(accelerator)
        threshold = read_threshold(args) if args.threshold is not None else 0.0
        model, image_processor = load_classifier(args.adapter, args.base_model, args.classes)
    for note in cli.notes_on_equal_names(model.peft_config[model.active_adapter].classes):
        print(f"note: {note}", file=sys.stderr)
    listing = share_listing(args.pictures, accelerator)
    top_k = min(args.top_k, len(model.classes))
    answers = predict_pictures(
        model.to(accelerator.device),
        image_processor,
        listing,
        accelerator,
        batch_size=args.batch_size,
        top_k=top_k,
        threshold=threshold,
        num_workers=args.num_workers,
    )
    if accelerator.is_main_process:
        counts = Counts(answers)
        answers = progress_bar(counts, desc="predicting", unit=" pictures", total=len(listing))
        WRITERS[args.format](answers, top_k, output)
        notes = [f"there are no pictures in {', '.join(args.pictures)}"] if not len(listing) else []
        if counts.unread:
            reasons = ", ".join(f"{reason} ({count})" for reason, count in counts.unread.most_common())
            notes.append(f"{counts.unread.total()} of {len(listing)} pictures cannot be read: {reasons}")
        notes += listing.describe_left_out()
        if counts.beyond:
            notes.append(Preprocessing.of(model, image_processor).warning(counts.beyond))
        print("".join(f"{note}\n" for note in notes), end="", file=sys.stderr)
    else:
        for _ in answers:  # the main process needs this one's share
            pass
    accelerator.end_training()


class Counts:
    """Answers, counted as they pass by what there is to say of them in the end.

    Args:
        answers: of pictures.
    """

    def __init__(self, answers: Iterable[Answer]) -> None:
        self.answers = answers
        self.beyond = 0  # have values beyond what the adapter was trained on
        self.unread: Counter[str] = Counter()  # cannot be read, by reason

    def __iter__(self) -> Iterator[Answer]:
        for answer in self.answers:
            self.beyond += answer.is_beyond
            if answer.error is not None:
                self.unread[answer.error] += 1
            yield answer


def read_threshold(args: argparse.Namespace) -> float:
    """The threshold that is given, or the adapter's own."""
    if args.threshold != "saved":
        return args.threshold
    saved = Threshold.load(args.adapter)
    print(saved, file=sys.stderr)
    if args.classes:
        print("warning: the threshold was chosen without the names in --classes", file=sys.stderr)
    return saved.threshold


def number_or_saved(value: str) -> float | str:
    """A value of --threshold."""
    return value if value == "saved" else float(value)


def parse_args(argv: list[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line."""
    parser = cli.make_parser(__doc__, prog)
    parser.add_argument("adapter", help="folder, or name on the Hub")
    parser.add_argument("pictures", nargs="+", metavar="picture_or_folder")
    parser.add_argument("--format", choices=WRITERS, default="table", help="of the answer (%(default)s)")
    parser.add_argument("--top_k", type=int, default=1, help="classes per picture, the likeliest first (%(default)s)")
    parser.add_argument("--classes", nargs="+", default=[], metavar="NAME", help="new names beside the adapter's own")
    parser.add_argument(
        "--threshold",
        nargs="?",
        const="saved",
        type=number_or_saved,
        help='answer "none of these" below this probability; without a number: the one that training chose',
    )
    cli.add_scoring_arguments(parser)
    return parser.parse_args(argv)
