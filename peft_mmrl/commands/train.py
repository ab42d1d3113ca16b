"""Adapt CLIP to your own pictures with MMRL or MMRL++.

    peft-mmrl train --train_dir photos --output_dir my-adapter        # photos/cat/1.jpg, photos/dog/7.png
    peft-mmrl train --train_file labels.csv --output_dir my-adapter   # columns: image, label
    accelerate launch -m peft_mmrl train --dataset_name AI-Lab-Makerere/beans --output_dir my-adapter \\
        --mixed_precision bf16
    accelerate launch -m peft_mmrl train --train_dir train --eval_dir test --output_dir my-adapter \\
        --push_to_hub --hub_model_id me/my-adapter

The same script runs on a CPU, on one or several GPUs and on several machines (`accelerate config`). The output folder
gets the adapter with its model card, and in `report` a page to open in a browser. The adapter is trained on all
pictures; how good it is is measured in folds: the training is repeated without a part of the pictures, which are then
asked for. `--quick` does not train: it fits how CLIP as it is decides, in a moment.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..fitting import FitOptions, Fitting
from . import arguments as cli
from . import pushing
from .console import clear_errors, command_line, going_on, way_on_from


AS_GIVEN = (  # fields of `FitOptions` that are arguments of the same name
    *("base_model", "method", "template", "fit", "class_names", "shots", "validation_fraction", "on_bad_image"),
    *("quick", "folds", "balance", "unknown_dir", "cached_views", "num_workers", "mixed_precision"),
    *("output_dir", "overwrite_output_dir", "resume_from_checkpoint", "checkpointing_steps"),
)


@command_line()
def main(args: argparse.Namespace) -> None:
    """Check everything, train, take the figures, write."""
    with clear_errors():
        cli.check_arguments(args)
        options = fit_options(args)
        cli.check_tracker(args.with_tracking)
        fitting = Fitting(options)
        is_main = fitting.accelerator.is_main_process
        repo_id = pushing.check(args) if is_main else None
        fitting.prepare()

    with going_on(lambda: way_on_from(fitting.checkpoint)):
        fitting.run()
        lines = fitting.save(repo_id)
    if is_main:
        failure = pushing.push(args.output_dir, repo_id, args.private) if repo_id is not None else None
        print("\n".join(lines))
        if failure is not None:
            sys.exit(f"error: {failure}")


def fit_options(args: argparse.Namespace) -> FitOptions:
    """What the command line asks for.

    Raises:
        ValueError: names what does not go together.
    """
    sources = cli.data_arguments(args)
    return FitOptions(
        sources["source"],
        cli.training_settings(args),
        validation=sources["validation"],
        flip_as_seen=args.flip is None and args.preset is None,
        decision=args.preset is None if args.decision is None else args.decision,
        tracker=args.with_tracking,
        **{name: getattr(args, name) for name in AS_GIVEN},
    )


def parse_args(argv: list[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line."""
    parser = cli.make_parser(__doc__, prog)
    cli.add_data_arguments(parser)
    cli.add_method_arguments(parser)
    cli.add_schedule_arguments(parser)
    cli.add_decision_arguments(parser)
    group = parser.add_argument_group("run")
    group.add_argument("--output_dir", type=Path, required=True, help="for the adapter and its report")
    group.add_argument("--overwrite_output_dir", action="store_true", help="replace a run that is there")
    group.add_argument("--resume_from_checkpoint", help='go on with an interrupted run: "latest" or a checkpoint')
    group.add_argument("--checkpointing_steps", type=int, help="write a checkpoint after so many steps (each epoch)")
    group.add_argument("--num_workers", type=int, default=0, help="further processes that read pictures (%(default)s)")
    group.add_argument(
        "--cached_views",
        type=int,
        help="views of each picture that are computed once; 0: none (8 on a CPU, where that pays)",
    )
    group.add_argument(
        "--folds",
        type=int,
        help="the figures come from so many trainings without a part of the pictures; 0: no figures (4, or as many as "
        "the smallest class has pictures; 2 where they would take more than half an hour)",
    )
    group.add_argument(
        "--unknown_dir", type=Path, help='folder of pictures of other classes: how many would not be "none of these"?'
    )
    group.add_argument("--with_tracking", nargs="?", const="all", help="log to tensorboard, trackio, wandb, ...")
    pushing.add_arguments(parser.add_argument_group("Hugging Face Hub"))
    return parser.parse_args(argv)
