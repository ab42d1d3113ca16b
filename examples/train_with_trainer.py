"""Adapt CLIP to your own pictures with transformers' Trainer: all of `TrainingArguments` are options.

    python examples/train_with_trainer.py --train_dir photos --output_dir my-adapter --num_train_epochs 20
    accelerate launch examples/train_with_trainer.py --train_dir train --eval_dir test --output_dir my-adapter \\
        --eval_strategy epoch --save_strategy epoch --load_best_model_at_end --metric_for_best_model accuracy --bf16

It saves the adapter with its decision. A report, results on the model card and what "none of these" needs come
from train.py.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from peft import get_peft_model
from transformers import EvalPrediction, HfArgumentParser, Trainer, TrainingArguments, set_seed

from peft_mmrl import FitDecisionCallback
from peft_mmrl.auto import load_clip
from peft_mmrl.commands import arguments as cli
from peft_mmrl.commands.console import clear_errors, command_line
from peft_mmrl.data import PictureDataset, choose_preprocessing, load_training_data
from peft_mmrl.data.progress import is_watched
from peft_mmrl.fitting import check_inputs
from peft_mmrl.hub.upload import check_can_push, plain_errors
from peft_mmrl.training import (
    FrozenFeatures,
    TrainingSettings,
    augmented,
    check_joined,
    describe_mirroring,
    mmrl_config,
)
from peft_mmrl.training.run_folder import RunFolder
from peft_mmrl.tuner.tokenization import PromptTokenizer


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Share of pictures whose class has the largest logit."""
    return {"accuracy": float(np.mean(prediction.predictions.argmax(axis=-1) == prediction.label_ids))}


@command_line()
def main(arguments: TrainingArguments, args: argparse.Namespace) -> None:
    """Check everything, train, save."""
    push, arguments.push_to_hub = arguments.push_to_hub, False  # Trainer would upload local paths, too
    with clear_errors():
        check_joined(PartialState().num_processes)
        cli.check_arguments(args)
        args.seed = arguments.seed
        sources = cli.data_arguments(args)
        others = {"--class_names": args.class_names, "--base_model": args.base_model}
        check_inputs(RunFolder(arguments.output_dir), sources["source"], sources["validation"], others)
        smoothing, arguments.label_smoothing_factor = arguments.label_smoothing_factor, 0.0  # MMRL smooths in its loss
        changes = {**cli.config_changes(args), "label_smoothing": smoothing}
        config = mmrl_config(args.method, args.template, TrainingSettings(config=changes))
        repo_id = arguments.hub_model_id or Path(arguments.output_dir).resolve().name
        if push and PartialState().is_main_process:
            repo_id = check_can_push(repo_id, private=arguments.hub_private_repo, token=arguments.hub_token)
        clip, processor = load_clip(args.base_model)
        tokenizer = PromptTokenizer(processor, clip.config.text_config)
        data = load_training_data(accelerator=PartialState(), tokenizer=tokenizer, **sources)
        preprocessing = choose_preprocessing(data, processor, args.fit, PartialState())
        for name, value in preprocessing.config.items():
            setattr(config, name, value)
        set_seed(arguments.seed)
        model = get_peft_model(clip, config)
        model.set_classes(data.class_names, processor)
    if PartialState().is_main_process:
        print("\n".join([*data.notes, f"{len(data.train)} pictures of {len(data.class_names)} classes"]))
    trainer = Trainer(
        model,
        arguments,
        eval_dataset=data.validation and PictureDataset(data.validation, preprocessing),
        compute_metrics=accuracy,
        callbacks=[FitDecisionCallback(PictureDataset(data.train, preprocessing))],  # of the pictures as they are
    )
    frozen = FrozenFeatures.of(model, data.train, processor, trainer.accelerator)
    mirroring = frozen.judge_mirroring()
    trainer.accelerator.print(describe_mirroring(mirroring))
    settings = TrainingSettings(flip=mirroring is not None and mirroring.is_harmless)
    trainer.train_dataset = augmented(data.train, preprocessing, settings)
    trainer.train(resume_from_checkpoint=arguments.resume_from_checkpoint)
    trainer.save_model()
    trainer.accelerator.print(
        f"trained for {trainer.state.global_step} steps and fitted a decision; the adapter with both is in "
        f"{arguments.output_dir}. To name pictures: peft-mmrl predict {arguments.output_dir} photo.jpg"
    )
    if push and trainer.is_world_process_zero():
        with clear_errors(), plain_errors(repo_id):  # the adapter is saved by now
            model.push_to_hub(repo_id, private=arguments.hub_private_repo, token=arguments.hub_token)


def parse_args(argv: list[str] | None = None) -> tuple[TrainingArguments, argparse.Namespace]:
    """The command line."""
    parser = HfArgumentParser(
        TrainingArguments, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    # else Trainer refuses --bf16 on a CPU, runs a copy in each of its processes, and fills logs with states of a bar
    parser.set_defaults(use_cpu=not torch.accelerator.is_available(), disable_tqdm=not is_watched())
    cli.add_data_arguments(parser)
    cli.add_method_arguments(parser)
    return parser.parse_args_into_dataclasses(argv)


if __name__ == "__main__":
    main(*parse_args())
