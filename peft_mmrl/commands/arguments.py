"""What the commands share: arguments, what they mean, and which are refused."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType

from ..auto import DEFAULT_BASE_MODEL
from ..data import PictureSource
from ..scoring.confidence import as_share
from ..training import TrainingSettings, paper_settings
from ..training.presets import PROTOCOLS, REG_WEIGHT
from ..tuner.names import describe_equal_names
from ..tuner.validation import FITS, as_number, as_positive_int, as_whole


def make_parser(description: str, prog: str | None = None) -> argparse.ArgumentParser:
    """A parser whose help shows a description as it is written.

    Args:
        description: docstring of the command's module.
        prog: how the command is called; None: the name of the script that runs.
    """
    formatter = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(prog=prog, description=description, formatter_class=formatter)


NOT_NEGATIVE = partial(as_whole, low=0)
CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "alpha": partial(as_number, low=0, high=1),
    "batch_size": as_positive_int,
    "batch_sizes": as_positive_int,
    "beta": partial(as_number, low=0, high=1),
    "cached_views": NOT_NEGATIVE,
    "checkpointing_steps": as_positive_int,
    "classes": as_positive_int,
    "coverage": as_share,
    "crop_scale": partial(as_number, low=0.01, high=1),
    "epochs": as_positive_int,
    "false_alarms": as_share,
    "folds": NOT_NEGATIVE,
    "gradient_accumulation_steps": as_positive_int,
    "label_smoothing": partial(as_number, low=0, below=1),
    "learning_rate": partial(as_number, low=0),
    "max_textbook_classes": NOT_NEGATIVE,
    "num_workers": NOT_NEGATIVE,
    "number": as_positive_int,
    "port": partial(as_whole, low=1, high=65535),
    "reg_weight": partial(as_number, low=0),
    "repeats": as_positive_int,
    "risk": as_share,
    "seed": partial(as_whole, low=0, high=2**32 - 1),
    "seeds": partial(as_whole, low=0, high=2**32 - 1),
    "shots": as_positive_int,
    "text_layers": NOT_NEGATIVE,
    "threads": as_positive_int,
    "threshold": partial(as_number, low=0, high=1),
    "top_k": as_positive_int,
    "validation_fraction": partial(as_number, low=0, high=1),
    "vision_layers": NOT_NEGATIVE,
    "zero_shot_weight": partial(as_number, low=0, high=1),
}


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse numbers that mean nothing, before a command does anything.

    Args:
        args: the command line of any command; what is None or a word was not given as a number.

    Raises:
        ValueError: names the argument.
    """
    for name, check in CHECKS.items():
        given = getattr(args, name, None)
        for value in given if isinstance(given, list) else [given]:
            if isinstance(value, int | float):
                check(f"--{name}", value)


def check_tracker(name: str | None) -> None:
    """Refuse a tracker that would log nothing.

    Args:
        name: one of Accelerate's, "all" for those that are installed; None: no tracker.

    Raises:
        ValueError: there is no such tracker.
        ImportError: it is not installed, or for "all" none is.
    """
    if name is None:
        return
    installed = [str(tracker) for tracker in get_available_trackers()]
    if name not in LoggerType.list():
        raise ValueError(f"--with_tracking must be one of {', '.join(LoggerType.list())}, got {name!r}.")
    if (name != "all" and name not in installed) or not installed:
        needed = "a tracker, tensorboard say," if name == "all" else name
        raise ImportError(
            f"--with_tracking {name}: install {needed} with pip; installed are {', '.join(installed) or 'none'}."
        )


def notes_on_equal_names(trained: Sequence[str] | None) -> list[str]:
    """A note where some of an adapter's trained classes have one name, as two pairs of ImageNet's list."""
    equal = describe_equal_names(trained or [])
    return [f"trained classes of one name are scored as one class: {equal}"] if equal else []


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the pictures come from."""
    group = parser.add_argument_group("pictures (one source)")
    group.add_argument("--train_dir", type=Path, help="folder with a sub-folder of pictures per class")
    group.add_argument("--train_file", type=Path, help="CSV or JSON lines with a picture's path and label per row")
    group.add_argument("--dataset_name", help="data set of the Hugging Face Hub, or a folder of `datasets`")
    group.add_argument("--dataset_config_name", help="configuration of --dataset_name, where it has several")
    group.add_argument("--train_split", help="of --dataset_name (train)")
    group.add_argument("--image_column", help="of tables or --dataset_name, where it is not clear")
    group.add_argument("--label_column", help="of tables or --dataset_name, where it is not clear")
    group.add_argument(
        "--group_column",
        help="of --train_file or --dataset_name: pictures of one group (a scene, a person) are never divided between "
        "training and validation",
    )
    group.add_argument("--class_names", type=Path, help="file with better names for prompts, folder,name per line")
    group.add_argument("--shots", type=int, help="pictures of each class to train on (all)")
    group.add_argument("--on_bad_image", choices=("skip", "error"), default="skip", help="pictures that can't be read")
    group.add_argument(
        "--fit",
        choices=FITS,
        help="of pictures that are not square: crop them to their middle, pad or squeeze them (squeeze where most are "
        "far from square, else crop)",
    )
    group = parser.add_argument_group("pictures to take the figures from (folds over the others unless given)")
    group.add_argument("--eval_dir", type=Path, help="folder as --train_dir; classes are matched by name")
    group.add_argument("--eval_file", type=Path, help="file as --train_file")
    group.add_argument("--eval_split", help="of --dataset_name")
    group.add_argument(
        "--validation_fraction",
        type=float,
        default=0.0,
        help="part of each class to hold out in their place (0)",
    )


BESIDE = {  # options that say something of one of these sources alone
    "train_split": ("dataset_name",),
    "eval_split": ("dataset_name",),
    "dataset_config_name": ("dataset_name",),
    "image_column": ("train_file", "dataset_name", "eval_file"),
    "label_column": ("train_file", "dataset_name", "eval_file"),
}


def data_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `load_training_data`.

    Raises:
        ValueError: no source, or more than one, or an option that says nothing of the given ones.
    """
    places = [args.train_dir, args.train_file, args.dataset_name]
    if sum(place is not None for place in places) != 1:
        raise ValueError("Pictures to train on must be given by one of --train_dir, --train_file and --dataset_name.")
    if args.group_column is not None and args.train_dir is not None:
        raise ValueError(
            f"--group_column {args.group_column} is a column of --train_file or --dataset_name. In a folder put the "
            "pictures of a group into a folder of their own inside their class folder."
        )
    for option, sources in BESIDE.items():
        value = getattr(args, option)
        if value is not None and all(getattr(args, source) is None for source in sources):
            known = " or ".join(f"--{source}" for source in sources)
            raise ValueError(f"--{option} {value} says something of {known} alone, which is not given.")
    columns = {name: getattr(args, name) for name in ("image_column", "label_column")}
    config = {"config_name": args.dataset_config_name}
    of_source = {"group_column": args.group_column, **config, **(columns if args.train_dir is None else {})}
    source = PictureSource(args.train_dir, args.train_file, args.dataset_name, args.train_split, **of_source)
    name = args.dataset_name if args.eval_split is not None else None
    places = [args.eval_dir, args.eval_file, name]
    if sum(place is not None for place in places) > 1:
        raise ValueError("Pictures to validate with must be given by one of --eval_dir, --eval_file and --eval_split.")
    validation = None
    if any(place is not None for place in places):
        of_source = {**(config if name is not None else {}), **(columns if args.eval_dir is None else {})}
        validation = PictureSource(*places, args.eval_split, **of_source)
    names = ("class_names", "shots", "validation_fraction", "on_bad_image", "seed")
    return {"source": source, "validation": validation, **{name: getattr(args, name) for name in names}}


def add_method_arguments(parser: argparse.ArgumentParser) -> None:
    """The method and its hyper-parameters."""
    group = parser.add_argument_group("method")
    group.add_argument("--base_model", default=DEFAULT_BASE_MODEL, help="a CLIP: Hub id or folder (%(default)s)")
    group.add_argument("--method", choices=("mmrl", "mmrl++"), default="mmrl", help="mmrl++ makes smaller adapters")
    group.add_argument(
        "--template",
        action="append",
        help='prompt with {} for the class name, "a photo of a {}." unless given; repeat it for several',
    )
    group.add_argument("--reg_weight", type=float, help="how strongly features are held to frozen CLIP's, 0.2 to 7")
    group.add_argument("--alpha", type=float, help="weight of the class feature for trained classes, 0 to 1")


def add_schedule_arguments(parser: argparse.ArgumentParser) -> None:
    """How long and how fast to train."""
    group = parser.add_argument_group("schedule")
    group.add_argument(
        "--preset",
        metavar="PROTOCOL[/DATA SET]",
        help="the papers' settings: base-to-new, few-shot or cross-dataset, the first two also for one of their data "
        "sets (few-shot/eurosat); options that are given win",
    )
    group.add_argument("--epochs", type=int, help="passes over the pictures (enough for 200 steps, from 5 to 50)")
    group.add_argument("--batch_size", type=int, help="pictures per step and process (4)")
    group.add_argument("--learning_rate", type=float, help="after one epoch of warm-up (0.001)")
    group.add_argument("--gradient_accumulation_steps", type=int, help="batches per step (1)")
    group.add_argument(
        "--label_smoothing", type=float, help="share of each label spread over all classes, below 1 (0)"
    )
    group.add_argument(
        "--crop_scale",
        type=float,
        help="smallest part of a picture that a random crop keeps (0.5; 0.8 of padded and squeezed ones)",
    )
    group.add_argument(
        "--balance", action="store_true", help="let classes count the same, however many pictures they have"
    )
    flip = group.add_mutually_exclusive_group()
    flip.add_argument(
        "--flip",
        action="store_true",
        default=None,
        help="mirror half of the views (with a --preset, and where the pictures show that it is harmless)",
    )
    flip.add_argument("--no_flip", dest="flip", action="store_false", default=None, help="never mirror pictures")
    group.add_argument("--seed", type=int, default=1)
    group.add_argument("--mixed_precision", choices=("no", "fp16", "bf16"), help="that of `accelerate config`")


def add_decision_arguments(parser: argparse.ArgumentParser) -> None:
    """How trained and new classes are decided between."""
    group = parser.add_argument_group("decision")
    given = group.add_mutually_exclusive_group()
    given.add_argument(
        "--decision",
        action="store_true",
        default=None,
        help="fit on the training pictures how trained and new classes are decided between (without a --preset)",
    )
    given.add_argument(
        "--no_decision",
        dest="decision",
        action="store_false",
        default=None,
        help="decide as the papers do (with a --preset)",
    )
    group.add_argument(
        "--zero_shot_weight",
        type=float,
        help="how a decision scores new classes: 1 as CLIP does (unless given), 0 by the adapter's class feature",
    )
    group.add_argument("--quick", action="store_true", help="no training: the decision alone, fitted in a moment")


def add_scoring_arguments(parser: argparse.ArgumentParser) -> None:
    """How a trained adapter is loaded and run."""
    parser.add_argument("--base_model", help="Hub id or folder, where the one that the adapter names isn't reachable")
    parser.add_argument("--batch_size", type=int, default=32, help="pictures at a time and process (%(default)s)")
    parser.add_argument("--num_workers", type=int, default=0, help="further processes that read pictures (none)")
    parser.add_argument("--mixed_precision", choices=("no", "fp16", "bf16"), help="that of `accelerate config`")


def config_changes(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of the MMRL config that the arguments set."""
    names = ("alpha", "reg_weight", "label_smoothing", "zero_shot_weight")
    return {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}


def training_settings(args: argparse.Namespace) -> TrainingSettings:
    """The settings that the arguments say."""
    names = ("epochs", "batch_size", "learning_rate", "gradient_accumulation_steps", "crop_scale", "flip", "seed")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.preset is None:
        return TrainingSettings(**given, config=config_changes(args))
    protocol, slash, dataset = args.preset.partition("/")
    if protocol not in PROTOCOLS:
        raise ValueError(f"--preset {args.preset}: the protocol must be one of {', '.join(PROTOCOLS)}.")
    if slash and protocol == "cross-dataset":
        raise ValueError(f"--preset {args.preset}: cross-dataset has the same settings for all data sets.")
    if slash and dataset not in REG_WEIGHT:
        raise ValueError(f"--preset {args.preset}: the data set must be one of {', '.join(REG_WEIGHT)}.")
    settings = paper_settings(args.method, protocol, dataset, **given)
    settings.config |= config_changes(args)
    return settings
