"""Adapt CLIP to your own pictures with MMRL or MMRL++.

    peft-mmrl train --train_dir photos --output_dir my-adapter        # photos/cat/1.jpg, photos/dog/7.png
    peft-mmrl train --train_file labels.csv --output_dir my-adapter   # columns: image, label
    accelerate launch -m peft_mmrl train --dataset_name AI-Lab-Makerere/beans --output_dir my-adapter \\
        --mixed_precision bf16
    accelerate launch -m peft_mmrl train --train_dir train --eval_dir test --output_dir my-adapter \\
        --push_to_hub --hub_model_id me/my-adapter

The same script runs on a CPU, on one or several GPUs and on several machines (`accelerate config`). The output folder
gets the adapter with its model card, and in `report` a page to open in a browser.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from accelerate.utils import set_seed
from peft import get_peft_model

from ..auto import load_clip
from ..data import choose_preprocessing, load_training_data
from ..hub.upload import check_can_push, push_folder
from ..reports import check_can_draw
from ..scoring.labelled import predict
from ..training import make_accelerator, mmrl_config, train, training_pictures
from . import arguments as cli
from . import training_run as runs


def main(args: argparse.Namespace) -> None:
    """Check everything, train, evaluate, write."""
    with cli.clear_errors():
        check_can_draw()
        settings = cli.training_settings(args)
        cli.check_tracker(args.with_tracking)
        resume_from = runs.checkpoint_to_resume(args.resume_from_checkpoint, args.output_dir)
        runs.check_output_dir(
            args.output_dir, "training", resume_from=resume_from, overwrite=args.overwrite_output_dir
        )
        accelerator = make_accelerator(
            settings, mixed_precision=args.mixed_precision, log_with=args.with_tracking, project_dir=args.output_dir
        )
        cli.check_precision(accelerator)
        repo_id = None
        if args.push_to_hub and accelerator.is_main_process:
            repo_id = check_can_push(args.hub_model_id or args.output_dir.resolve().name)
        data = load_training_data(accelerator=accelerator, **cli.data_arguments(args))
        clip, processor = load_clip(args.base_model)
        settings.config |= choose_preprocessing(data, processor, args.fit, accelerator).config
        set_seed(settings.seed)
        model = get_peft_model(clip, mmrl_config(args.method, args.template, settings)).to(accelerator.device)
        model.set_classes(data.class_names, processor)
        run = runs.describe_run(args, settings, data, accelerator)
        runs.start_run(args.output_dir, run, accelerator, resume_from=resume_from)

    plan = runs.Plan(model, data, settings, args.cached_views, accelerator)
    accelerator.print("\n".join([*data.notes, str(plan)]))
    score = partial(predict, model, data.validation, processor, accelerator, num_workers=args.num_workers)
    before = after = None
    if data.validation is not None:
        before = after = score()
        accelerator.print(
            f"zero-shot accuracy on {len(before.labels)} pictures: {before.zero_shot_accuracy:.1%}, "
            f"mean recall of classes: {before.zero_shot_mean_recall:.1%}"
        )

    def validate(record: dict[str, float]) -> None:
        nonlocal after
        if before is not None:
            after = score(zero_shot=before.zero_shot)
            record |= {name: getattr(after, name) for name in runs.MEASURED}
        accelerator.print(runs.epoch_line(record))
        accelerator.log(record, step=record["epoch"])

    if args.with_tracking:
        plain = {name: value for name, value in run.items() if isinstance(value, int | float | str)}
        accelerator.init_trackers("peft_mmrl", config=plain)
    with cli.resumable():
        history = train(
            model,
            training_pictures(model, data.train, processor, settings, plan.views),
            settings,
            accelerator,
            on_epoch=validate,
            checkpoint_dir=args.output_dir / runs.CHECKPOINT,
            checkpointing_steps=args.checkpointing_steps,
            num_workers=args.num_workers,
            resume_from=resume_from,
        )
    if before is not None and after is before:  # the run that was resumed had finished its last epoch
        after = score(zero_shot=before.zero_shot)
    accelerator.end_training()
    if accelerator.is_main_process:
        print("\n".join(runs.write_results(args.output_dir, model, data, run, history, after, repo_id)))
        if repo_id is not None:
            push_folder(args.output_dir, repo_id)


def parse_args(argv: list[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line."""
    parser = cli.make_parser(__doc__, prog)
    cli.add_data_arguments(parser)
    cli.add_method_arguments(parser)
    cli.add_schedule_arguments(parser)
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
    group.add_argument("--with_tracking", nargs="?", const="all", help="log to tensorboard, trackio, wandb, ...")
    group.add_argument("--push_to_hub", action="store_true")
    group.add_argument("--hub_model_id", help="me/my-adapter (your own, named as the output folder)")
    return parser.parse_args(argv)
