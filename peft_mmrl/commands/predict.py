"""Name pictures with a trained adapter.

    peft-mmrl predict my-adapter photo.jpg
    peft-mmrl predict my-adapter photos --format csv --top_k 3 > answers.csv
    peft-mmrl predict my-adapter photos --classes axolotl newt              # beside the trained classes
    peft-mmrl predict my-adapter photos --threshold 0.5 --sort_into sorted
    accelerate launch -m peft_mmrl predict my-adapter photos --format jsonl > answers.jsonl    # all GPUs, machines
    torchrun --nproc_per_node 4 -m peft_mmrl predict my-adapter photos --format jsonl > answers.jsonl   # one CPU

Folders are read with all folders below them, as many pictures as there are: a file is a picture by its extension, or
else by its content. They are listed once, before the first answer. Standard output holds the answer alone; it is
complete, and the exit code 0, also where some pictures cannot be read: their rows say why. What was left out is
counted at the end, on standard error. Where nothing at all can be read and a path does not exist, the exit code is 1.

With `--coverage 0.9` it answers "cat or fox" where it must, with `--risk 0.05` "none of these"; what it aims at, and
what came of that on pictures that were not trained on, stands on standard error. The probability beside "none of
these" is that of the likeliest class; beside a set, that it is one of them.

`--sort_into DIR` copies the pictures into a folder for each answer, and what is in doubt, sets of several classes and
"none of these", into one for a person, `to check`. Nothing is replaced, a second run adds what is new, and
`sorted.csv` there says what went where. The pictures stay where they are.

With `--explain DIR` pages to open in a browser show for each picture where the class token and the representation
tokens look, what class and representation feature say, and the nearest training pictures, where the adapter's folder
still knows them and they lie on this machine. It is a pass of its own after the answers, which are the same with and
without.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from accelerate import Accelerator

from ..data import Preprocessing
from ..data.preprocessing import ImageProcessor
from ..data.progress import progress_bar
from ..data.wording import first_few
from ..explaining.reasons import explain
from ..explaining.reasons_page import write_reasons
from ..scoring.answers import WRITERS, Answer
from ..scoring.held_out import CAVEAT, RISK, Confidence
from ..scoring.listing import Listing, share_listing
from ..scoring.reference import Reference, seeing
from ..scoring.sorting import NotSortedError, Sorter
from ..scoring.unlabelled import load_classifier, predict_pictures
from ..training import make_accelerator
from ..training.run_folder import RunFolder, writing
from ..tuner.peft_model import PeftModelForZeroShotImageClassification
from . import arguments as cli
from .console import CLOSED_PIPE, clear_errors, command_line, going_on, in_utf8, silence


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
        missing = check_pictures_given(args.pictures)
        sorter = sorter_of(args)
        pages = None if args.explain is None else explaining_folder(args)
        accelerator = make_accelerator(mixed_precision=args.mixed_precision)
        model, image_processor = load_classifier(args.adapter, args.base_model, args.classes)
        rule, words = answering_rule(args, model)
        run = {"kind": "explanation", "adapter": args.adapter, "pictures": args.pictures}
        if pages is not None:
            pages.start(run, accelerator)
    if accelerator.is_main_process:
        print("".join(f"{line}\n" for line in words), end="", file=sys.stderr)
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
        **rule,
        num_workers=args.num_workers,
    )
    nothing_read = False
    if accelerator.is_main_process:
        if sorter is not None:
            answers = sorter.sort(answers, model.classes, args.link)
        counts = Counts(answers)
        answers = progress_bar(counts, desc="predicting", unit=" pictures", total=len(listing))
        try:
            WRITERS[args.format](answers, top_k, output)
        except NotSortedError as error:
            sys.exit(f"error: {error} What was sorted before is in {sorter.table}: to go on, repeat the command.")
        notes = [f"there are no pictures in {', '.join(args.pictures)}"] if not len(listing) else []
        if counts.unread:
            reasons = ", ".join(f"{reason} ({count})" for reason, count in counts.unread.most_common())
            notes.append(f"{counts.unread.total()} of {len(listing)} pictures cannot be read: {reasons}")
        notes += listing.describe_left_out()
        notes += [] if sorter is None else sorter.describe()
        if counts.beyond:
            notes.append(Preprocessing.of(model, image_processor).warning(counts.beyond))
        print("".join(f"{note}\n" for note in notes), end="", file=sys.stderr)
        nothing_read = counts.unread.total() == len(listing)
    else:
        for _ in answers:  # the main process needs this one's share
            pass
    if pages is not None:
        with going_on(lambda: "The answers are complete; nothing in --explain was changed."):
            write_explanation(args, pages, run, model, image_processor, listing, accelerator)
    accelerator.end_training()
    if missing and nothing_read:
        output.flush()
        sys.exit(f"error: nothing could be read, and there is no {first_few(missing)}")


def sorter_of(args: argparse.Namespace) -> Sorter | None:
    """What puts the pictures into folders; None where that was not asked for.

    Raises:
        ValueError: the folder holds other things, or it and the pictures lie in each other.
    """
    if args.sort_into is None:
        if args.link:
            raise ValueError("--link says how --sort_into DIR puts pictures there, which is not given.")
        return None
    sorter = Sorter(args.sort_into)
    sorter.check_apart(args.pictures)
    return sorter


def explaining_folder(args: argparse.Namespace) -> RunFolder:
    """The folder of `--explain`, checked.

    Raises:
        ValueError: something would be lost in it.
    """
    folder = RunFolder(args.explain, "--explain")
    folder.check("explanation", overwrite=args.overwrite_output_dir, own=["explain.jsonl", "explain-1.html"])
    places = {f"the pictures ({place})": place for place in args.pictures}
    folder.check_inputs({}, {**places, "the adapter": args.adapter, "--base_model": args.base_model})
    return folder


def write_explanation(
    args: argparse.Namespace,
    folder: RunFolder,
    run: dict[str, Any],
    model: PeftModelForZeroShotImageClassification,
    image_processor: ImageProcessor,
    listing: Listing,
    accelerator: Accelerator,
) -> None:
    """Why it answers so, as pages and as JSON lines."""
    preprocessing, notes = Preprocessing.of(model, image_processor), []
    try:
        reference = Reference.load(args.adapter)
        reference.check_fits(seeing(model, preprocessing))
    except (OSError, ValueError) as error:  # an adapter from elsewhere: the rest can be shown
        reference, notes = None, [f"note: the nearest training pictures are not shown: {error}"]
    ask = {"batch_size": args.batch_size, "num_workers": args.num_workers}
    reasons = explain(model, preprocessing, listing, accelerator, reference, **ask)
    if not accelerator.is_main_process:
        for _ in reasons:
            pass
        return
    with folder.finish(run) as new, writing(folder.path):
        count = write_reasons(new, reasons, Path(args.adapter).name, preprocessing)
    pages = " to ".join(str(folder.path / f"explain-{number}.html") for number in sorted({1, count}) if count)
    print("\n".join([*notes, f"why: open {pages} in a browser"] if count else notes), file=sys.stderr)


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


def check_pictures_given(paths: list[str]) -> list[str]:
    """Those of the given files and folders that do not exist.

    Raises:
        OSError: none exists.
    """
    missing = [path for path in paths if not os.path.exists(path)]
    if len(missing) == len(paths):
        raise FileNotFoundError(f"There is no file or folder {first_few(missing)}.")
    return missing


def answering_rule(
    args: argparse.Namespace, model: PeftModelForZeroShotImageClassification
) -> tuple[dict[str, float], list[str]]:
    """Thresholds for `predict_pictures`, and lines on what they aim at.

    Raises:
        ValueError, OSError: what is aimed at cannot be, see `Confidence`.
    """
    if args.coverage is not None and args.top_k != 1:
        raise ValueError("--coverage answers with sets of any size and --top_k with a number of classes: give one.")
    if args.coverage is None and args.risk is None:
        return {"threshold": args.threshold or 0.0}, []
    confidence = Confidence.load(args.adapter)
    confidence.check_fits(model)
    if args.coverage is None:
        name, aim, what = "threshold", confidence.for_risk(args.risk), "named rightly"
    else:
        name, aim, what = "set_threshold", confidence.for_coverage(args.coverage), "in their set"
    if aim.threshold is None and args.threshold is None:
        raise ValueError(aim.words)
    if aim.threshold is None:
        return {"threshold": args.threshold}, [f"{aim.words} Every picture is named."]
    return {name: aim.threshold}, [aim.words, f"{what}, by class: {confidence.by_class_in_words(aim.good)}", CAVEAT]


def parse_args(argv: list[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line."""
    parser = cli.make_parser(__doc__, prog)
    parser.add_argument("adapter", help="folder, or name on the Hub")
    parser.add_argument("pictures", nargs="+", metavar="picture_or_folder")
    parser.add_argument("--format", choices=WRITERS, default="table", help="of the answer (%(default)s)")
    parser.add_argument("--top_k", type=int, default=1, help="classes per picture, the likeliest first (%(default)s)")
    parser.add_argument("--sort_into", metavar="DIR", help="copy each picture there, into a folder by its answer")
    parser.add_argument("--link", action="store_true", help="with --sort_into: symbolic links in place of copies")
    parser.add_argument("--classes", nargs="+", default=[], metavar="NAME", help="new names beside the adapter's own")
    parser.add_argument("--explain", metavar="DIR", help="folder for pages that show why it answers so")
    parser.add_argument("--overwrite_output_dir", action="store_true", help="replace pages that are there")
    add_aim_arguments(parser)
    cli.add_scoring_arguments(parser)
    return resolve_aim(parser.parse_args(argv))


def add_aim_arguments(parser: argparse.ArgumentParser) -> None:
    """When to answer otherwise than with the likeliest class, for `answering_rule`."""
    aim = parser.add_mutually_exclusive_group()
    aim.add_argument("--coverage", type=float, help="answer with sets of classes, of which this share (0.9) holds it")
    aim.add_argument(
        "--risk", type=float, help='answer "none of these" so that at most this share (0.05) is named wrongly'
    )
    aim.add_argument(
        "--threshold",
        nargs="?",
        const=True,
        type=float,
        help=f'answer "none of these" below this probability; without a number: as --risk {RISK}, where that can be',
    )


def resolve_aim(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments, where `--threshold` has no number with that of the usual risk."""
    if args.threshold is True:
        args.threshold, args.risk = 0.0, RISK  # where nothing can be said of the risk, all are named
    return args
