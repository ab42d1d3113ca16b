"""Write a trained adapter as a classifier that runs without PyTorch: `python classify.py photos` in its folder.

    peft-mmrl export my-adapter out
    peft-mmrl export my-adapter out --classes axolotl newt              # beside the trained classes
    peft-mmrl export my-adapter out --threshold 0.5                     # "none of these" below; or --risk 0.05
    peft-mmrl export my-adapter out --no_decision                       # the papers' fusion, which takes less time
    peft-mmrl export my-adapter out --int8 --pictures photos            # 8 bits, and how alike it answers on these
    peft-mmrl export my-adapter out --format torch                      # a program of `torch.export`

The classes are fixed, and the text encoder is left out. Beside the graph lie its classes, how pictures are prepared,
the adapter's card and `classify.py`, which needs numpy, pillow and onnxruntime alone and answers as `predict` does:
--classes, --threshold, --risk and --coverage mean here what they mean there. With --pictures the answers of both are
compared, and export.json and README.md there say how alike they are: the answers as they are given, be it a set of
classes or "none of these", and the likeliest classes. In 8 bits that has to be measured: where fewer than 99% of the
likeliest classes or 95% of the answers are the same, nothing is written (--force writes it).

It needs the extra "export" of this package, which brings onnx, onnxscript and onnxruntime.
"""

from __future__ import annotations

import argparse
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..data import Preprocessing
from ..export.classify import __file__ as classify_file
from ..export.export_folder import (
    SCRIPT,
    agreement_in_words,
    begin_card,
    classes_content,
    copy_card,
    facts_of,
    measure_agreement,
    portable_settings,
)
from ..export.formats import MODEL_FILES, check_format, write_model
from ..export.frozen_classifier import FrozenClassifier
from ..scoring.listing import Listing, list_pictures
from ..scoring.unlabelled import load_classifier
from ..training.run_folder import RunFolder, write_json
from . import arguments as cli
from .console import clear_errors, command_line
from .predict import add_aim_arguments, answering_rule, check_pictures_given, resolve_aim


KIND = "export"
SAME_LIKELIEST = 0.99  # share of pictures of which 8 bits must leave the likeliest class the same
SAME_ANSWERS = 0.95  # the same for answers: just at a threshold they turn, which costs the aim next to nothing


@command_line()
def main(args: argparse.Namespace) -> None:
    """Check, load, write."""
    with clear_errors():
        folder, listing = check(args)
        model, image_processor = load_classifier(args.adapter, args.base_model, args.classes)
        if args.no_decision:
            model.decision = None
        rule, words = answering_rule(args, model)
        preprocessing = Preprocessing.of(model, image_processor)
        settings = portable_settings(preprocessing)
        classifier = FrozenClassifier(model, preprocessing.size)
    notes = cli.notes_on_equal_names(model.active_peft_config.classes)
    print("".join(f"{line}\n" for line in [*words, *notes]), end="")
    try:
        with folder.finish({"kind": KIND}) as place:
            model_file = write_model(classifier, place, args.format, args.int8)
            write_json(place / "classes.json", classes_content(classifier, rule, words))
            write_json(place / "preprocessing.json", settings)
            shutil.copyfile(classify_file, place / SCRIPT)
            copy_card(args.adapter, model, place)
            agreement = None
            if listing is not None:
                with clear_errors():
                    agreement = measure_agreement(place, model, preprocessing, listing, rule)
                    say_agreement(agreement, args)
            begin_card(place, model_file.name, args.int8, agreement)
            facts = facts_of(classifier, model, model_file, args.int8, agreement)
            write_json(place / "export.json", facts)
    finally:
        with suppress(OSError):  # it is not empty, unless nothing came of it
            folder.path.rmdir()
    size = f"{facts['bytes'] / 1e6:.1f} MB"
    print(f"Wrote {args.output_dir}: {MODEL_FILES[args.format]} of {size} for {len(classifier.classes)} classes")
    print(f"Name pictures with: python {args.output_dir / SCRIPT} PICTURES")


def check(args: argparse.Namespace) -> tuple[RunFolder, Listing | None]:
    """The folder to write to, and the pictures to compare on; None: there are none.

    Raises:
        ValueError, OSError, ImportError: what was asked for cannot be.
    """
    cli.check_arguments(args)
    check_format(args.format, args.int8)
    if args.int8 and not args.pictures:
        raise ValueError(
            "--int8 changes answers, and how many must be measured: give pictures of the kind that it is for "
            "(--pictures photos)."
        )
    folder = RunFolder(args.output_dir, "the output folder")
    folder.check(KIND, overwrite=args.overwrite_output_dir)
    folder.check_inputs(others={"the adapter": args.adapter, "--base_model": args.base_model})
    if not args.pictures:
        return folder, None
    missing = check_pictures_given(args.pictures)
    if missing:
        raise FileNotFoundError(f"--pictures: there is no {', '.join(missing)}.")
    listing = list_pictures(args.pictures)
    if not len(listing):
        raise ValueError(f"--pictures {' '.join(args.pictures)} holds no pictures.")
    return folder, listing


def say_agreement(agreement: dict[str, Any], args: argparse.Namespace) -> None:
    """Say how alike the answers are.

    Raises:
        ValueError: not alike enough in 8 bits.
    """
    print(agreement_in_words(agreement))
    if not args.int8 or args.force:
        return
    for what, share, enough in (
        ("likeliest classes", agreement["same_likeliest"] / agreement["pictures"], SAME_LIKELIEST),
        ("answers", agreement["share"], SAME_ANSWERS),
    ):
        if share < enough:
            raise ValueError(
                f"in 8 bits {share:.1%} of the {what} are the same, fewer than {enough:.0%}: leave out --int8, or "
                "write it as it is with --force."
            )


def parse_args(argv: list[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line."""
    parser = cli.make_parser(__doc__, prog)
    parser.add_argument("adapter", help="folder, or name on the Hub")
    parser.add_argument("output_dir", type=Path, help="folder to write")
    parser.add_argument("--overwrite_output_dir", action="store_true", help="replace what an export wrote there")
    parser.add_argument("--format", choices=MODEL_FILES, default="onnx", help="of the classifier (%(default)s)")
    parser.add_argument("--classes", nargs="+", default=[], metavar="NAME", help="new names beside the adapter's own")
    parser.add_argument("--no_decision", action="store_true", help="as the papers decide, which takes less time")
    parser.add_argument("--pictures", nargs="+", default=[], metavar="PATH", help="to compare with predict on")
    parser.add_argument("--int8", action="store_true", help="ONNX in 8 bits; needs --pictures")
    parser.add_argument("--force", action="store_true", help="write it in 8 bits however much it differs")
    parser.add_argument("--base_model", help="Hub id or folder, where the one that the adapter names isn't reachable")
    add_aim_arguments(parser)
    args = parser.parse_args(argv)
    args.top_k = 1
    return resolve_aim(args)
