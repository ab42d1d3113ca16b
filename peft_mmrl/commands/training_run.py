"""The folder of a training run: what is checked before it is written to, and what is in it at the end."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME

from ..data import TrainingData, save_trained_on
from ..hub.card import CARD_FILE, write_card
from ..reports import summary, write_report
from ..scoring.labelled import Predictions
from ..scoring.rungs import describe_rungs, rungs
from ..scoring.threshold import THRESHOLD_FILE, Threshold
from ..training import Epoch, TrainingSettings, describe_mirroring, look_at_mirrored, num_views
from ..training.checkpoints import find_checkpoint, is_checkpoint, read_progress
from ..training.run_folder import CHECKPOINT, RunFolder, writing
from ..tuner.decision import DECISION_FILE
from ..tuner.peft_model import PeftModelForZeroShotImageClassification


REPORT = "report"
MEASURED = ("accuracy", "zero_shot_accuracy", "mean_recall", "zero_shot_mean_recall")  # of an epoch


def check_output_dir(args: argparse.Namespace, resume_from: Path | None) -> RunFolder:
    """The folder of a training run, in which nothing is lost by it.

    Args:
        args: the command line.
        resume_from: checkpoint that the run goes on from; where it is one of this folder, all is well.

    Raises:
        ValueError: a run or other things that are there would be lost, or pictures and the folder lie in each other.
    """
    folder = RunFolder(args.output_dir)
    if resume_from is None or resume_from.parent.resolve() != folder.path.resolve():
        own = [CARD_FILE, CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME, DECISION_FILE, THRESHOLD_FILE]
        checkpoint = folder.path / CHECKPOINT
        has_checkpoint = is_checkpoint(checkpoint)
        advice = "go on with --resume_from_checkpoint latest, " if has_checkpoint else ""
        own += [] if has_checkpoint else [CHECKPOINT]
        folder.check("training", overwrite=args.overwrite_output_dir, advice=advice, own=own)
    check_inputs(folder, args)
    return folder


def check_inputs(folder: RunFolder, args: argparse.Namespace) -> None:
    """Raise a ValueError where pictures, or other things that are read, and the folder of a run lie in each other.

    Args:
        folder: of the run.
        args: with those of `add_data_arguments` and `add_method_arguments`.
    """
    pictures = {f"--{name}": getattr(args, name) for name in ("train_dir", "eval_dir", "dataset_name")}
    others = {f"--{name}": getattr(args, name) for name in ("train_file", "eval_file", "class_names", "base_model")}
    folder.check_inputs(pictures, others)


def checkpoint_to_resume(value: str | None, output_dir: Path) -> Path | None:
    """The checkpoint that `--resume_from_checkpoint` means: "latest" is that of the output folder.

    Raises:
        OSError: there is none.
    """
    if value is None:
        return None
    folder = output_dir / CHECKPOINT if value == "latest" else Path(value)
    try:
        find_checkpoint(folder)
    except OSError as error:
        raise FileNotFoundError(f"--resume_from_checkpoint {value}: {error}") from error
    return folder


def decides(args: argparse.Namespace) -> bool:
    """Whether a decision is fitted.

    Raises:
        ValueError: `--quick` is nothing else, but it is not to be fitted, or there is a training to go on with.
    """
    decision = args.preset is None if args.decision is None else args.decision
    if args.quick and not decision:
        given = "--no_decision" if args.decision is False else "--preset decides as the papers do and"
        raise ValueError(f"--quick fits the decision alone: {given} leaves nothing (--decision fits one).")
    if args.quick and args.resume_from_checkpoint is not None:
        raise ValueError("--quick does not train: there is nothing that --resume_from_checkpoint could go on with.")
    return decision


def choose_flip(
    args: argparse.Namespace,
    model: PeftModelForZeroShotImageClassification,
    data: TrainingData,
    processor: Any,
    accelerator: Accelerator,
    resume_from: Path | None,
) -> bool:
    """Whether to mirror pictures, where nobody said: as before where a run goes on, else as the pictures show.

    What they show is added to the notes on them.
    """
    if args.quick:
        return False
    if resume_from is not None:
        return bool(read_progress(resume_from).run.get("flip"))
    found = look_at_mirrored(model, data.train, processor, accelerator, args.num_workers)
    flip = found is not None and found.is_harmless
    data.notes.append(f"{describe_mirroring(found)}; {'--no_flip' if flip else '--flip'} overrules")
    return flip


def describe_run(
    args: argparse.Namespace, settings: TrainingSettings, data: TrainingData, accelerator: Accelerator
) -> dict[str, Any]:
    """What makes a training run's result what it is, as JSON."""
    names = ("method", "base_model", "template", "cached_views", "quick")
    run = {"kind": "training", **{name: getattr(args, name) for name in names}, **asdict(settings)}
    run["decision"] = decides(args)
    run |= {"mixed_precision": accelerator.mixed_precision, "processes": accelerator.num_processes}
    run |= {"classes": data.class_names, "split": {name: part["path"][:] for name, part in data.parts().items()}}
    return json.loads(json.dumps(run))


def check_same_run(resume_from: Path, run: dict[str, Any]) -> None:
    """Raise a ValueError where a checkpoint belongs to another run.

    Args:
        resume_from: the checkpoint.
        run: from `describe_run`.
    """
    before = read_progress(resume_from).run
    changed = [name for name in run if before.get(name) != run[name]]
    if changed:
        raise ValueError(
            f"--resume_from_checkpoint: {resume_from} belongs to another run, with another value of "
            f"{', '.join(changed)}. Repeat that run's arguments, or start a new one."
        )


class Plan:
    """What a run is about to do, in numbers; `str` gives a line that says it.

    Args:
        model: the model that is trained, on its device.
        data: its pictures.
        settings: hyper-parameters.
        cached_views: views of each picture to compute once, as the user asks for them, see `num_views`.
        accelerator: says how many processes share the pictures.
        quick: there is no training.
    """

    def __init__(
        self,
        model: PeftModelForZeroShotImageClassification,
        data: TrainingData,
        settings: TrainingSettings,
        cached_views: int | None,
        accelerator: Accelerator,
        quick: bool = False,
    ) -> None:
        self.data, self.quick = data, quick
        self.epoch = Epoch.of(len(data.train), settings, accelerator.num_processes)
        self.epochs = settings.num_epochs(self.epoch.steps)
        self.views = num_views(cached_views, model, len(data.train), self.epochs, accelerator.num_processes)
        self.parameters, _ = model.get_nb_trainable_parameters()

    def __str__(self) -> str:
        counts = self.data.pictures_per_class().values()
        each = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
        parts = [f"{len(self.data.train)} pictures of {len(counts)} classes ({each} each)"]
        if self.data.validation is not None:
            parts.append(f"{len(self.data.validation)} more to validate with")
        if self.quick:
            return "; ".join([*parts, "no training: the decision alone"])
        steps = self.epoch.steps
        parts += [f"{self.epochs} epochs x {steps} steps = {self.epochs * steps} steps", str(self.epoch)]
        parts.append(f"{self.parameters:,} trained parameters")
        if self.views:
            parts.append(f"{self.views} views of each picture, computed once")
        return "; ".join(parts)


def epoch_line(record: dict[str, float]) -> str:
    """A line on an epoch."""
    line = f"epoch {record['epoch']}: loss {record['loss']:.3f}"
    if "accuracy" in record:
        line += f", accuracy {record['accuracy']:.1%} (zero-shot {record['zero_shot_accuracy']:.1%})"
        line += f", mean recall {record['mean_recall']:.1%} ({record['zero_shot_mean_recall']:.1%})"
    return line


def write_results(
    folder: RunFolder,
    model: PeftModelForZeroShotImageClassification,
    data: TrainingData,
    run: dict[str, Any],
    history: list[dict[str, float]],
    predictions: Predictions | None,
    repo_id: str | None = None,
) -> list[str]:
    """Put the adapter with its card, and what there is to say of validation pictures, in the place of an earlier run.

    Args:
        folder: of the run.
        model: the trained model.
        data: its pictures.
        run: from `describe_run`.
        history: from `train`.
        predictions: for the validation pictures; None: there are none.
        repo_id: name of the adapter on the Hub, where it is going to be pushed.

    Returns:
        lines on what was gained and what was lost.

    Raises:
        OSError: something cannot be written; what was there before is whole.
    """
    place, name, facts = folder.path, folder.path.resolve().name, {}
    lines = [f"{place} holds the adapter; without pictures to validate with nothing is known of its accuracy"]
    with folder.finish(run) as new:
        if (place / CARD_FILE).is_file():
            shutil.copyfile(place / CARD_FILE, new / CARD_FILE)  # what people wrote into it stays
        with writing(place / SAFETENSORS_WEIGHTS_NAME):
            model.save_pretrained(new)
            save_trained_on(new, data.facts)
        if predictions is not None:
            threshold = Threshold.choose(predictions.probabilities, predictions.labels)
            with writing(place / REPORT):
                threshold.save(new)
                metrics = write_report(
                    new / REPORT,
                    predictions,
                    data.validation,
                    title=name,
                    settings={key: value for key, value in run.items() if key not in ("classes", "split")},
                    history=history,
                    split=run["split"],
                    threshold=asdict(threshold),
                )
            steps = rungs(predictions)
            facts = {
                "metrics": {"accuracy": predictions.accuracy, "mean_recall": predictions.mean_recall},
                "zero_shot": {
                    "accuracy": predictions.zero_shot_accuracy,
                    "mean_recall": predictions.zero_shot_mean_recall,
                },
                "rungs": steps,
                "per_class": metrics["per_class"],
                "eval_data": data.validation_source,
                "pictures": [new / REPORT / "per_class.png", new / REPORT / "reliability.png"],
            }
            page = place / REPORT / "report.html"
            lines = [
                *summary(metrics),
                describe_rungs(steps),
                str(threshold),
                f"{place} holds the adapter; open {page} in a browser",
            ]
        names = ("batch_size", "learning_rate", "flip", "seed")
        training = {"epochs": len(history), **({} if run["quick"] else {key: run[key] for key in names})}
        with writing(place / CARD_FILE):
            write_card(new, model, data=data.source, repo_id=repo_id, name=name, training=training, **facts)
    shutil.rmtree(place / CHECKPOINT, ignore_errors=True)  # nothing is left to go on with
    return lines
