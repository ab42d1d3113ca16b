"""How well an adapter recognises labelled pictures, beside CLIP without it.

    peft-mmrl evaluate my-adapter photos/test --output_dir evaluation    # photos/test/cat/1.jpg, ...
    peft-mmrl evaluate my-adapter photos/test --output_dir evaluation --corruptions
    peft-mmrl evaluate my-adapter labels.csv --output_dir evaluation     # columns: image, label
    accelerate launch -m peft_mmrl evaluate me/my-adapter AI-Lab-Makerere/beans --split test --output_dir evaluation

Labels are matched by name with the classes that the adapter was trained on; all of these compete. Other classes of the
data count as new ones, which the class feature alone scores. The output folder gets a row per picture
(`predictions.csv`), `metrics.json` and a page to open in a browser (`report.html`). With `--corruptions` these also
say how much is still recognised with another light, contrast or colour cast, blurred, noisy, as a poor JPEG, rotated,
cropped and from further away, at three strengths each, beside zero-shot CLIP.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..data import (
    PictureSource,
    Preprocessing,
    beyond_range,
    check_pictures,
    close_names,
    describe_bad,
    match_labels,
    new_class_names,
    note_trained_on,
    read_class_names,
)
from ..reports import summary, write_report
from ..reports.reading import METRICS_FILE, REPORT_FILE
from ..scoring.labelled import predict
from ..scoring.robustness import describe_corruptions, under_corruptions
from ..scoring.unlabelled import base_tokenizer, load_classifier, read_config
from ..training import make_accelerator
from ..training.run_folder import RunFolder, writing
from ..tuner.names import distinct_names
from . import arguments as cli
from .console import clear_errors, command_line, going_on


@command_line()
def main(args: argparse.Namespace) -> None:
    """Read, score, report."""
    with clear_errors():
        cli.check_arguments(args)
        folder = RunFolder(args.output_dir)
        folder.check("evaluation", overwrite=args.overwrite_output_dir, own=[REPORT_FILE, METRICS_FILE])
        others = {"the adapter": args.adapter, "--class_names": args.class_names, "--base_model": args.base_model}
        folder.check_inputs({"the data": args.data}, others)
        accelerator = make_accelerator(mixed_precision=args.mixed_precision)
        config = read_config(args.adapter)
        source = PictureSource.find(
            args.data, args.split, args.image_column, args.label_column, args.dataset_config_name
        )
        source, notes = source.to_test()
        pictures, more = source.load()
        notes += more
        pictures, bad = check_pictures(pictures, args.on_bad_image, accelerator=accelerator)
        tokenizer = base_tokenizer(config, args.base_model)
        folders = pictures.features["label"].names
        empty = source.sub_folders()
        renamed = read_class_names(args.class_names, folders, tokenizer, empty) if args.class_names else {}
        trained = distinct_names(config.classes or [], tokenizer)
        new = new_class_names(pictures, trained, renamed, tokenizer, notes)
        model, image_processor = load_classifier(args.adapter, args.base_model, new)
        pictures, _, missing = match_labels(pictures, [*trained, *new], renamed, tokenizer, notes)
        notes += beyond_range(pictures, Preprocessing.of(model, image_processor), accelerator)
        seen, counts = note_trained_on(pictures, args.adapter, accelerator)
        run = {"kind": "evaluation", "adapter": args.adapter, "data": str(source), "split": source.split, **counts}
        run |= {"corruptions_seed": args.seed} if args.corruptions else {}
        folder.start(run, accelerator)

    notes += [describe_bad(bad)] if bad else []
    notes += cli.notes_on_equal_names(config.classes)
    notes += [f"new classes, on which it was not trained: {', '.join(new)}"] if new else []
    notes += [f"classes without pictures: {', '.join(missing)}"] if missing else []
    mistyped = close_names(new, missing)
    notes += [f"{line}; did you mean that one? Rename the folder, or use --class_names" for line in mistyped]
    accelerator.print("\n".join([*notes, *seen, f"{len(pictures)} pictures, {len(trained) + len(new)} classes"]))
    with going_on(lambda: "Nothing was changed: repeat the command."):
        model.to(accelerator.device)
        found = predict(model, pictures, image_processor, accelerator, args.batch_size, num_workers=args.num_workers)
        corruptions = None
        if args.corruptions:
            scoring = (model, pictures, image_processor, accelerator, args.batch_size, args.num_workers, args.seed)
            corruptions = under_corruptions(*scoring)
        if accelerator.is_main_process:
            with folder.finish(run) as new, writing(folder.path):
                title = Path(args.adapter).name
                metrics = write_report(new, found, pictures, title=title, settings=run, corruptions=corruptions)
    if accelerator.is_main_process:
        lines = summary(metrics) + (describe_corruptions(corruptions) if corruptions else [])
        print("\n".join([*lines, f"open {args.output_dir / 'report.html'} in a browser"]))
    accelerator.end_training()


def parse_args(argv: list[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line."""
    parser = cli.make_parser(__doc__, prog)
    parser.add_argument("adapter", help="folder, or name on the Hub")
    parser.add_argument("data", help="folder with a sub-folder per class, CSV or JSON lines, or a data set of the Hub")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--overwrite_output_dir", action="store_true", help="replace an evaluation that is there")
    parser.add_argument("--split", help="of a data set (test)")
    parser.add_argument("--dataset_config_name", help="configuration of a data set, where it has several")
    parser.add_argument("--image_column", help="where it is not clear")
    parser.add_argument("--label_column", help="where it is not clear")
    parser.add_argument("--class_names", type=Path, help="file with better names for prompts, folder,name per line")
    parser.add_argument("--on_bad_image", choices=("skip", "error"), default="skip", help="unreadable pictures")
    parser.add_argument(
        "--corruptions",
        action="store_true",
        help="also on pictures with another light, contrast, blur, noise and so on (28 times as long)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is random in --corruptions (%(default)s)")
    cli.add_scoring_arguments(parser)
    return parser.parse_args(argv)
