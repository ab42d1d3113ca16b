"""Are new pictures still of the kind that an adapter was trained on? A test with a stated rate of false alarms.

    peft-mmrl monitor my-adapter new-photos --output_dir monitoring
    peft-mmrl monitor my-adapter new-photos --reference photos --output_dir monitoring    # photos known to be right

The reference is what training has kept of its pictures (`reference.safetensors` in the folder of the run), or
`--reference`, at least 20 pictures. New pictures come in the order of their files' times, of `--order name`, or,
listed in a table, of its `--time_column`. With each one evidence grows or shrinks that they are of another kind:
farther from the reference in the features of frozen CLIP, darker, with less contrast, less sharp, or the opposite.
If they are of the same kind it raises an alarm in at most `--false_alarms` of all calls. The output folder gets
`monitor.json` and a page to open in a browser, `monitor.html`, with the pictures that drive it.

For a cron job the exit code says what was found: 0, nothing; 3, an alarm. It is 1 where something is wrong with the
pictures or the adapter, 2 with the command line. Launchers of several processes (torchrun) have codes of their own:
there `alarm` in monitor.json says it.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from statistics import mean

from accelerate.utils import broadcast_object_list

from ..data import Preprocessing
from ..data.streams import ORDERS, ordered_files, ordered_table
from ..data.tables import is_table
from ..data.wording import first_few
from ..monitoring.monitor_page import write_findings
from ..monitoring.watching import check_enough, watch
from ..scoring.held_out import Confidence
from ..scoring.listing import Listing, list_pictures
from ..scoring.reference import Reference, seeing
from ..scoring.sightings import as_reference, look_at
from ..scoring.unlabelled import load_classifier
from ..training import make_accelerator
from ..training.run_folder import RunFolder, writing
from . import arguments as cli
from .console import clear_errors, command_line, going_on


ALARM = 3  # exit code


@command_line()
def main(args: argparse.Namespace) -> None:
    """Look, test, report."""
    with clear_errors():
        cli.check_arguments(args)
        folder = RunFolder(args.output_dir)
        folder.check("monitoring", overwrite=args.overwrite_output_dir, own=["monitor.html", "monitor.json"])
        given = {f"the pictures ({place})": place for place in args.pictures}
        others = {"the adapter": args.adapter, "--reference": args.reference, "--base_model": args.base_model}
        folder.check_inputs({}, {**given, **others})
        accelerator = make_accelerator(mixed_precision=args.mixed_precision)
        shared = [stream_of(args) if accelerator.is_main_process else None]
        stream, left_out = broadcast_object_list(shared)[0] if accelerator.num_processes > 1 else shared[0]
        model, image_processor = load_classifier(args.adapter, args.base_model)
        preprocessing = Preprocessing.of(model, image_processor)
        reference, confidence = None, None
        if args.reference is None:
            reference = Reference.load(args.adapter)
            reference.check_fits(seeing(model, preprocessing))
            check_enough(reference, f"the reference of {args.adapter}")
            confidence = mean_confidence(args.adapter)
        elif not os.path.exists(args.reference):
            raise FileNotFoundError(f"--reference: there is no folder {args.reference}.")
        run = {"kind": "monitoring", "adapter": args.adapter, "pictures": args.pictures, "reference": args.reference}
        run |= {"order": args.time_column or args.order, "false_alarms": args.false_alarms, "seed": args.seed}
        model.to(accelerator.device)
        ask = {"batch_size": args.batch_size, "num_workers": args.num_workers}
        if reference is None:
            known = look_at(model, image_processor, list_pictures([args.reference]), accelerator, **ask)
            reference = as_reference(list(known), model, image_processor)
            check_enough(reference, f"--reference {args.reference}")
            confidence = None
        folder.start(run, accelerator)

    with going_on(lambda: "Nothing was changed: repeat the command."):
        paths = Listing(path for path, _ in stream)
        seen = list(look_at(model, image_processor, paths, accelerator, **ask))
        times = [time for (_, time), one in zip(stream, seen, strict=True) if one.error is None]
        known = [one for one in seen if one.error is None]
        notes = [*left_out]
        if unread := [one for one in seen if one.error is not None]:
            notes.append(f"{len(unread)} pictures cannot be read: {first_few([one.path for one in unread])}")
        if not known:
            sys.exit(f"error: there is no picture that can be read in {', '.join(args.pictures)}.")
        found = watch(
            reference,
            known,
            times,
            model.classes,
            false_alarms=args.false_alarms,
            confidence=confidence,
            seed=args.seed,
        )
        if accelerator.is_main_process:
            with folder.finish(run) as new, writing(folder.path):
                write_findings(new, found, notes, Path(args.adapter).name, preprocessing.decode)
    if accelerator.is_main_process:
        print("\n".join([*notes, found.words, f"open {args.output_dir / 'monitor.html'} in a browser"]))
    accelerator.wait_for_everyone()  # a launcher ends the others when one leaves with a code
    accelerator.end_training()
    if found.alarm_at is not None:
        sys.exit(ALARM)


def stream_of(args: argparse.Namespace) -> tuple[list[tuple[str, str]], list[str]]:
    """The new pictures in their order, with what that is, and lines on what was left out.

    Raises:
        ValueError: a table without `--time_column` or the other way round; no pictures.
        OSError: something is not there.
    """
    missing = [place for place in args.pictures if not os.path.exists(place)]
    if missing:
        raise FileNotFoundError(f"There is no file or folder {first_few(missing)}.")
    tables = [place for place in args.pictures if is_table(Path(place))]
    if tables and (len(args.pictures) > 1 or args.time_column is None):
        raise ValueError(f"The table {tables[0]} must be given alone, and with --time_column.")
    if args.time_column is not None and not tables:
        raise ValueError(f"--time_column {args.time_column} is that of a table (.csv, .jsonl), and none is given.")
    if tables:
        return ordered_table(Path(tables[0]), args.time_column, args.image_column), []
    listing = list_pictures(args.pictures)
    if not len(listing):
        raise ValueError(f"There are no pictures in {', '.join(args.pictures)}.")
    return ordered_files(list(listing), args.order), listing.describe_left_out()


def mean_confidence(adapter: str) -> float | None:
    """Mean probability of the answers to pictures that were not trained on; None: there were none."""
    try:
        return mean(Confidence.load(adapter).largest)
    except (OSError, ValueError):  # of no weight here: it is shown, and tests nothing
        return None


def parse_args(argv: list[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line."""
    parser = cli.make_parser(__doc__, prog)
    parser.add_argument("adapter", help="folder of the run, or with --reference any adapter")
    parser.add_argument("pictures", nargs="+", metavar="picture_or_folder", help="new pictures, or a table of them")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--overwrite_output_dir", action="store_true", help="replace findings that are there")
    parser.add_argument("--reference", help="folder of pictures of the right kind, in place of what training has kept")
    parser.add_argument("--false_alarms", type=float, default=0.01, help="rate, at most (%(default)s)")
    parser.add_argument("--order", choices=ORDERS, default="time", help="of the files (%(default)s)")
    parser.add_argument("--time_column", help="of a table: numbers, or dates and times as in 2026-03-31 12:00")
    parser.add_argument("--image_column", help="of a table, where it is not clear")
    parser.add_argument("--seed", type=int, default=0, help="which half of the reference is which (%(default)s)")
    cli.add_scoring_arguments(parser)
    return parser.parse_args(argv)
