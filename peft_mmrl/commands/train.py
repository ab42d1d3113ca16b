"""Adapt CLIP to your own pictures with MMRL or MMRL++.

    peft-mmrl train --train_dir photos --output_dir my-adapter        # photos/cat/1.jpg, photos/dog/7.png
    peft-mmrl train --train_file labels.csv --output_dir my-adapter   # columns: image, label
    accelerate launch -m peft_mmrl train --dataset_name AI-Lab-Makerere/beans --output_dir my-adapter \\
        --mixed_precision bf16
    accelerate launch -m peft_mmrl train --train_dir train --eval_dir test --output_dir my-adapter \\
        --push_to_hub --hub_model_id me/my-adapter

The same script runs on a CPU, on one or several GPUs and on several machines (`accelerate config`). The output folder
gets the adapter with its model card, and in `report` a page to open in a browser. `--quick` does not train: it fits
how CLIP as it is decides, in a moment.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed
from peft import get_peft_model

from ..auto import load_clip
from ..data import TrainingData, choose_preprocessing, load_training_data
from ..scoring.labelled import Predictions, predict
from ..scoring.rungs import describe_rungs, rungs
from ..training import TrainingSettings, fit_decision, make_accelerator, mmrl_config, train, training_pictures
from ..training.run_folder import CHECKPOINT
from ..tuner.peft_model import PeftModelForZeroShotImageClassification
from ..tuner.tokenization import PromptTokenizer
from . import arguments as cli
from . import pushing, training_run
from .console import clear_errors, command_line, going_on, way_on_from


LARGE_DECISION = 10_000_000  # bytes of a decision, worth to be said


@command_line()
def main(args: argparse.Namespace) -> None:
    """Check everything, train, evaluate, write."""
    with clear_errors():
        cli.check_arguments(args)
        settings, sources = cli.training_settings(args), cli.data_arguments(args)
        mmrl_config(args.method, args.template, settings)  # what it refuses is refused before anything is read
        training_run.decides(args)
        cli.check_tracker(args.with_tracking)
        resume_from = training_run.checkpoint_to_resume(args.resume_from_checkpoint, args.output_dir)
        folder = training_run.check_output_dir(args, resume_from)
        accelerator = make_accelerator(
            settings, mixed_precision=args.mixed_precision, log_with=args.with_tracking, project_dir=args.output_dir
        )
        cli.check_precision(accelerator)
        repo_id = pushing.check(args) if accelerator.is_main_process else None
        clip, processor = load_clip(args.base_model)
        tokenizer = PromptTokenizer(processor, clip.config.text_config)
        data = load_training_data(accelerator=accelerator, tokenizer=tokenizer, **sources)
        settings.config |= choose_preprocessing(data, processor, args.fit, accelerator).config
        set_seed(settings.seed)
        model = get_peft_model(clip, mmrl_config(args.method, args.template, settings)).to(accelerator.device)
        model.set_classes(data.class_names, processor)
        if args.flip is None and args.preset is None:
            settings.flip = training_run.choose_flip(args, model, data, processor, accelerator, resume_from)
        run = training_run.describe_run(args, settings, data, accelerator)
        if resume_from is not None:
            training_run.check_same_run(resume_from, run)
        folder.start(run, accelerator)

    with going_on(partial(way_on_from, folder.path / CHECKPOINT)):
        history, after = fit(args, model, processor, data, settings, accelerator, run, resume_from)
        if accelerator.is_main_process:
            lines = training_run.write_results(folder, model, data, run, history, after, repo_id)
    accelerator.end_training()
    if accelerator.is_main_process:
        failure = pushing.push(folder.path, repo_id, args.private) if repo_id is not None else None
        print("\n".join(lines))
        if failure is not None:
            sys.exit(f"error: {failure}")


def fit(
    args: argparse.Namespace,
    model: PeftModelForZeroShotImageClassification,
    processor: Any,
    data: TrainingData,
    settings: TrainingSettings,
    accelerator: Accelerator,
    run: dict[str, Any],
    resume_from: Path | None,
) -> tuple[list[dict[str, float]], Predictions | None]:
    """Train and say how it goes; returns a record of each epoch, and the answers to validation pictures at the end."""
    plan = training_run.Plan(model, data, settings, args.cached_views, accelerator, args.quick)
    accelerator.print("\n".join([*data.notes, str(plan)]))
    score = partial(predict, model, data.validation, processor, accelerator, num_workers=args.num_workers)
    if training_run.decides(args):
        decide(args, model, data, processor, accelerator)
    before = after = None
    if data.validation is not None:
        before = after = score()
        accelerator.print(
            f"zero-shot accuracy on {len(before.labels)} pictures: {before.zero_shot_accuracy:.1%}, "
            f"mean recall of classes: {before.zero_shot_mean_recall:.1%}"
        )
        if model.decision is not None:
            accelerator.print(describe_rungs(rungs(before)))
    if args.quick:
        return [], before
    if model.decision is not None:  # no weights of the adapter play a part in it: it holds for the trained ones
        model.decision = replace(model.decision, features="adapted")

    def validate(record: dict[str, float]) -> None:
        nonlocal after
        if before is not None:
            after = score(zero_shot=before.zero_shot)
            record |= {name: getattr(after, name) for name in training_run.MEASURED}
        accelerator.print(training_run.epoch_line(record))
        accelerator.log(record, step=record["epoch"])

    if args.with_tracking:
        plain = {name: value for name, value in run.items() if isinstance(value, int | float | str)}
        accelerator.init_trackers("peft_mmrl", config=plain)
    history = train(
        model,
        training_pictures(model, data.train, processor, settings, plan.views),
        settings,
        accelerator,
        on_epoch=validate,
        checkpoint_dir=args.output_dir / CHECKPOINT,
        checkpointing_steps=args.checkpointing_steps,
        num_workers=args.num_workers,
        resume_from=resume_from,
        run=run,
    )
    if before is not None and after is before:  # the run that was resumed had finished its last epoch
        after = score(zero_shot=before.zero_shot)
    if before is not None and model.decision is not None:
        after.untrained = before.probabilities
    return history, after


def decide(
    args: argparse.Namespace,
    model: PeftModelForZeroShotImageClassification,
    data: TrainingData,
    processor: Any,
    accelerator: Accelerator,
) -> None:
    """Fit the decision without training, and say so; where the pictures allow none, training goes on without."""
    try:
        decision = fit_decision(model, data.train, processor, accelerator, args.num_workers, features="frozen")
    except ValueError as error:
        if args.quick:
            sys.exit(f"error: no decision can be fitted: {error}")
        accelerator.print(f"no decision is fitted: {error}")
        return
    size = f" ({decision.nbytes / 1e6:.0f} MB)" if decision.nbytes >= LARGE_DECISION else ""
    accelerator.print(
        f"a decision is fitted on these {len(data.train)} pictures{size} (--no_decision: as the papers do)"
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
    group.add_argument("--with_tracking", nargs="?", const="all", help="log to tensorboard, trackio, wandb, ...")
    pushing.add_arguments(parser.add_argument_group("Hugging Face Hub"))
    return parser.parse_args(argv)
