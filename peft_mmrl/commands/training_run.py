"""The folder of a training run: what is checked before it is written to, and what is in it at the end."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ..data import TrainingData
from ..hub.card import write_card
from ..reports import summary, write_report
from ..scoring.labelled import Predictions
from ..scoring.threshold import Threshold
from ..training import Epoch, TrainingSettings, num_views
from ..training.checkpoints import find_checkpoint
from ..tuner.peft_model import PeftModelForZeroShotImageClassification


RUN_FILE, CHECKPOINT, REPORT = "run.json", "checkpoint", "report"
MEASURED = ("accuracy", "zero_shot_accuracy", "mean_recall", "zero_shot_mean_recall")  # of an epoch


def check_output_dir(folder: Path, kind: str, *, resume_from: Path | None = None, overwrite: bool = False) -> None:
    """Refuse a folder in which something would be lost.

    Args:
        folder: where the run will write.
        kind: of run, "training" or "evaluation": one is never replaced by the other.
        resume_from: checkpoint that the run goes on from; where it is one of this folder, all is well.
        overwrite: what is there may be replaced.

    Raises:
        ValueError: a file, a folder with other things in it, or a run that is neither resumed nor overwritten.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output_dir {folder} is a file.")
    is_own = resume_from is not None and resume_from.parent.resolve() == folder.resolve()
    if is_own or not folder.exists() or not any(folder.iterdir()):
        return
    found = (read_run(folder) or {}).get("kind")
    if found != kind:
        what = f"the {found} of another script" if found else "other things"
        raise ValueError(f"--output_dir {folder} is not empty, it holds {what}: choose another folder.")
    if not overwrite:
        go_on = "go on with --resume_from_checkpoint latest, " if kind == "training" else ""
        raise ValueError(
            f"--output_dir {folder} holds a run already: {go_on}replace it with --overwrite_output_dir, or choose "
            "another folder."
        )


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


def describe_run(
    args: argparse.Namespace, settings: TrainingSettings, data: TrainingData, accelerator: Accelerator
) -> dict[str, Any]:
    """What makes a training run's result what it is, as JSON."""
    names = ("method", "base_model", "template", "cached_views")
    run = {"kind": "training", **{name: getattr(args, name) for name in names}, **asdict(settings)}
    run |= {"mixed_precision": accelerator.mixed_precision, "processes": accelerator.num_processes}
    run |= {"classes": data.class_names, "split": {name: part["path"][:] for name, part in data.parts().items()}}
    return json.loads(json.dumps(run))


def read_run(folder: Path) -> dict[str, Any] | None:
    """What a run wrote about itself when it started; None where there is none."""
    path = folder / RUN_FILE
    return json.loads(path.read_text()) if path.is_file() else None


def start_run(folder: Path, run: dict[str, Any], accelerator: Accelerator, *, resume_from: Path | None = None) -> None:
    """Write what a run is, in an empty folder.

    Args:
        folder: its output folder, see `check_output_dir`.
        run: what makes its result what it is, see `describe_run`.
        accelerator: the main process writes.
        resume_from: the checkpoint that the run goes on from.

    Raises:
        ValueError: that checkpoint belongs to another run.
        OSError: the processes do not see the same folder.
    """
    if resume_from is not None:
        before = read_run(resume_from.parent) or {}
        changed = [name for name in run if before.get(name) != run[name]]
        if changed:
            raise ValueError(
                f"--resume_from_checkpoint: {resume_from} belongs to another run, with another value of "
                f"{', '.join(changed)}. Repeat that run's arguments, or start a new one."
            )
    accelerator.wait_for_everyone()  # all have read what is about to be replaced
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir() if resume_from is None else ():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        (folder / RUN_FILE).write_text(json.dumps(run, indent=2) + "\n")
    accelerator.wait_for_everyone()
    if read_run(folder) != run:
        raise OSError(f"--output_dir {folder} must be a folder that all machines share.")


class Plan:
    """What a run is about to do, in numbers; `str` gives a line that says it.

    Args:
        model: the model that is trained, on its device.
        data: its pictures.
        settings: hyper-parameters.
        cached_views: views of each picture to compute once, as the user asks for them, see `num_views`.
        accelerator: says how many processes share the pictures.
    """

    def __init__(
        self,
        model: PeftModelForZeroShotImageClassification,
        data: TrainingData,
        settings: TrainingSettings,
        cached_views: int | None,
        accelerator: Accelerator,
    ) -> None:
        self.data = data
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
    folder: Path,
    model: PeftModelForZeroShotImageClassification,
    data: TrainingData,
    run: dict[str, Any],
    history: list[dict[str, float]],
    predictions: Predictions | None,
    repo_id: str | None = None,
) -> list[str]:
    """Save the adapter with its card, and what there is to say about validation pictures.

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
    """
    model.save_pretrained(folder)
    lines = [f"{folder} holds the adapter; without pictures to validate with nothing is known of its accuracy"]
    if predictions is not None:
        threshold = Threshold.choose(predictions.probabilities, predictions.labels)
        threshold.save(folder)
        report = folder / REPORT
        metrics = write_report(
            report,
            predictions,
            data.validation,
            title=folder.resolve().name,
            settings={name: value for name, value in run.items() if name not in ("classes", "split")},
            history=history,
            split=run["split"],
            threshold=asdict(threshold),
        )
        write_card(
            folder,
            model,
            data=data.source,
            metrics={"accuracy": predictions.accuracy, "mean_recall": predictions.mean_recall},
            zero_shot={"accuracy": predictions.zero_shot_accuracy, "mean_recall": predictions.zero_shot_mean_recall},
            per_class=metrics["per_class"],
            eval_data=data.validation_source,
            repo_id=repo_id,
            training={"epochs": len(history), **{name: run[name] for name in ("batch_size", "learning_rate", "seed")}},
            pictures=[report / "per_class.png", report / "reliability.png"],
        )
        page = report / "report.html"
        lines = [*summary(metrics), str(threshold), f"{folder} holds the adapter; open {page} in a browser"]
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)  # nothing is left to go on with
    return lines
