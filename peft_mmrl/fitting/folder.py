"""The folder of a run: what is checked before it is written to, and what a run says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME

from ..data import PictureSource, TrainingData
from ..hub.card import CARD_FILE
from ..scoring.held_out import CONFIDENCE_FILE
from ..scoring.reference import REFERENCE_FILE
from ..training.checkpoints import find_checkpoint, is_checkpoint, read_progress
from ..training.run_folder import CHECKPOINT, RunFolder
from ..tuner.decision import DECISION_FILE
from .options import FitOptions


def check_output_dir(options: FitOptions, resume_from: Path | None) -> RunFolder:
    """The folder of a training run, in which nothing is lost by it.

    Args:
        options: of the run; its output folder.
        resume_from: checkpoint that the run goes on from; where it is one of this folder, all is well.

    Raises:
        ValueError: a run or other things that are there would be lost, or pictures and the folder lie in each other.
    """
    folder = RunFolder(options.output_dir)
    if resume_from is None or resume_from.parent.resolve() != folder.path.resolve():
        own = [CARD_FILE, CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME, DECISION_FILE, CONFIDENCE_FILE, REFERENCE_FILE]
        checkpoint = folder.path / CHECKPOINT
        has_checkpoint = is_checkpoint(checkpoint)
        advice = "go on with --resume_from_checkpoint latest, " if has_checkpoint else ""
        own += [] if has_checkpoint else [CHECKPOINT]
        folder.check("training", overwrite=options.overwrite_output_dir, advice=advice, own=own)
    others = {
        "--class_names": options.class_names,
        "--base_model": options.base_model,
        "--unknown_dir": options.unknown_dir,
    }
    check_inputs(folder, options.pictures, options.validation, others)
    return folder


def check_inputs(
    folder: RunFolder, pictures: PictureSource, validation: PictureSource | None, others: Mapping[str, Any]
) -> None:
    """Raise a ValueError where pictures, or other things that are read, and the folder of a run lie in each other.

    Args:
        folder: of the run.
        pictures, validation: to train on and to take the figures from.
        others: further files and folders, by argument.
    """
    places = {"--train_dir": pictures.folder, "--dataset_name": pictures.dataset_name}
    others = {"--train_file": pictures.file, **others}
    if validation is not None:
        places["--eval_dir"], others["--eval_file"] = validation.folder, validation.file
    folder.check_inputs(places, others)


def checkpoint_to_resume(value: str | None, output_dir: Path | None) -> Path | None:
    """The checkpoint that `--resume_from_checkpoint` means: "latest" is that of the output folder.

    Raises:
        OSError: there is none.
        ValueError: there is no output folder.
    """
    if value is None:
        return None
    if output_dir is None:
        raise ValueError("--resume_from_checkpoint goes on with a run of an output folder, and there is none.")
    folder = output_dir / CHECKPOINT if value == "latest" else Path(value)
    try:
        find_checkpoint(folder)
    except OSError as error:
        raise FileNotFoundError(f"--resume_from_checkpoint {value}: {error}") from error
    return folder


def describe_run(options: FitOptions, data: TrainingData, accelerator: Accelerator) -> dict[str, Any]:
    """What makes a training run's result what it is, as JSON."""
    names = ("method", "base_model", "template", "cached_views", "quick", "decision", "balance", "shots")
    run = {"kind": "training", **{name: getattr(options, name) for name in names}, **asdict(options.settings)}
    run |= {"mixed_precision": accelerator.mixed_precision, "processes": accelerator.num_processes}
    run |= {"classes": data.class_names, "split": {name: part["path"][:] for name, part in data.parts().items()}}
    return json.loads(json.dumps(run, default=str))


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
