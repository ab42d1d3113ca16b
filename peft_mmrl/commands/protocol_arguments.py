"""What the protocols' commands share: arguments, and the runs that they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..auto import load_clip
from ..data.benchmarks import BENCHMARKS, BenchmarkData, load_benchmark, load_copy
from ..protocols.comparison import report
from ..protocols.readable import check_pictures_of_runs
from ..protocols.runs import Run, check_split, complete, read_scores
from ..protocols.tasks import Results, check_all_classes_occur, check_classes
from ..training import BASELINES, PAPER_METHODS, TrainingSettings, make_accelerator, paper_settings
from ..training.run_folder import RunFolder
from ..tuner.names import describe_equal_names
from .arguments import DEFAULT_BASE_MODEL, make_parser
from .console import going_on


Loaders = Mapping[str, Callable[[], BenchmarkData]]  # data sets beside the benchmarks, by name
SCHEDULE = ("epochs", "batch_size", "learning_rate")


def make_protocol_parser(description: str, prog: str | None, default_output_dir: Path) -> argparse.ArgumentParser:
    """A parser with the arguments of all protocols."""
    parser = make_parser(description, prog)
    group = parser.add_argument_group("data")
    group.add_argument("--data_dir", type=Path, default=Path("data"), help="folder of the data sets' folders (data)")
    group.add_argument("--split_dir", type=Path, help="take the few-shot pictures of earlier runs: their --output_dir")
    group.add_argument(
        "--on_bad_image",
        choices=("error", "skip"),
        default="error",
        help="pictures that are missing or can't be read: none is trained or tested (error), or the others are, and "
        "the results are marked as not comparable (skip)",
    )
    group = parser.add_argument_group("methods (MMRL unless one is given)")
    group.add_argument(
        "--method", nargs="+", choices=PAPER_METHODS, default=[], help="one or both of the papers' methods"
    )
    group.add_argument("--baseline", nargs="+", choices=BASELINES, default=[], help="what a user would pick instead")
    group.add_argument(
        "--decision",
        action="store_true",
        help="beside the papers' way let MMRL and MMRL++ also answer by a decision fitted on the same pictures, and "
        "test all classes together where some are new",
    )
    group.add_argument("--base_model", help=f"a CLIP: Hub id or folder ({DEFAULT_BASE_MODEL})")
    group.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of sampling and training (1 2 3)")
    group.add_argument("--epochs", type=int, help="in place of the papers'")
    group.add_argument("--batch_size", type=int, help="in place of the papers'")
    group.add_argument("--learning_rate", type=float, help="in place of the papers'")
    group.add_argument("--mixed_precision", choices=("no", "fp16", "bf16"), help="that of `accelerate config`")
    group = parser.add_argument_group("output")
    group.add_argument(
        "--output_dir", type=Path, default=default_output_dir, help="finished runs in it are not repeated"
    )
    group.add_argument("--save_adapters", action="store_true", help="keep what every run has trained")
    return parser


def load_data(names: Sequence[str], data_dir: Path, others: Loaders) -> list[BenchmarkData]:
    """Load data sets by name.

    Args:
        names: of benchmarks, or of `others`; `NAME=SOURCE` reads a data set from the Hub or a folder of `datasets`.
        data_dir: see `load_benchmark`.
        others: further data sets.

    Raises:
        OSError, ValueError: see `load_benchmark`.
    """
    data = []
    for name, source in (text.partition("=")[::2] for text in names):
        if name in (before.name for before in data):
            raise ValueError(f"The data set {name!r} is named twice.")
        if source:
            data.append(load_copy(name, source))
        else:
            data.append(others[name]() if name in others else load_benchmark(name, data_dir))
    return data


def run_protocol(args: argparse.Namespace, runs: Sequence[Run], score: Callable[..., Results]) -> None:
    """Do what is missing of planned runs, and report all of them.

    Args:
        args: from `make_protocol_parser`.
        runs: from `plan_runs`.
        score: one of `peft_mmrl.protocols.tasks`.
    """
    with going_on(lambda: "Finished runs are kept: to go on, repeat the command."):
        keep = {"split_dir": args.split_dir, "save_adapters": args.save_adapters}
        report(runs, complete(runs, score, args.output_dir, **keep), args.output_dir)


def _data_folders(args: argparse.Namespace) -> dict[str, Any]:
    """Folders of pictures, by what names them: copies that are named, and those of the benchmarks in `--data_dir`."""
    names = args.datasets if "datasets" in args else [args.source, *args.targets]
    copies = {name: source for name, _, source in (text.partition("=") for text in names) if source}
    folders = {benchmark.folder for benchmark in BENCHMARKS.values()}
    return copies | {f"--data_dir with {folder}:": args.data_dir / folder for folder in folders}


def plan_runs(
    protocol: str,
    args: argparse.Namespace,
    sources: Sequence[BenchmarkData],
    shots: Sequence[int],
    targets: Sequence[BenchmarkData] = (),
) -> list[Run]:
    """All runs that the arguments ask for, checked before the first one begins.

    Args:
        protocol: one of `peft_mmrl.training.presets.PROTOCOLS`.
        args: from `make_protocol_parser`.
        sources: data sets that are trained on.
        shots: numbers of pictures of each class.
        targets: data sets that are tested besides.

    Raises:
        OSError, ValueError: data, settings, base model or a folder of an earlier run do not fit.
    """
    folder = RunFolder(args.output_dir)
    folder.check(protocol, overwrite=True, own=["results.txt", "results.json", "results.png"])
    folder.check_inputs(_data_folders(args), {"--base_model": args.base_model})

    def check_all_classes() -> None:
        for data in sources:
            check_classes(data, protocol)
        for data in targets:
            check_all_classes_occur(data, "test")

    check_all_classes()
    accelerator = make_accelerator(TrainingSettings(), mixed_precision=args.mixed_precision)
    methods = [*args.method, *args.baseline] or [PAPER_METHODS[0]]
    given = {name: getattr(args, name) for name in SCHEDULE if getattr(args, name) is not None}
    runs = [
        Run(
            protocol,
            data,
            method,
            count,
            paper_settings(method, protocol, data.name, seed, **{**data.settings, **given}),
            str(args.base_model or data.base_model or DEFAULT_BASE_MODEL),
            accelerator.mixed_precision,
            tuple(target.name for target in targets),
            decision=args.decision and (protocol == "base-to-new" or method in PAPER_METHODS),
        )
        for data in sources
        for method in dict.fromkeys(methods)
        for count in dict.fromkeys(shots)
        for seed in dict.fromkeys(args.seeds)
    ]
    incomplete = check_pictures_of_runs(runs, targets, args.on_bad_image, args.split_dir, accelerator)
    runs = [replace(run, incomplete=incomplete) for run in runs]
    check_all_classes()
    for run in runs:
        read_scores(run, args.output_dir)
        check_split(run, args.output_dir, args.split_dir)
    for data in sources:
        if equal := describe_equal_names(data.class_names):
            accelerator.print(
                f"{data.title} has classes of one name: {equal}. As in the papers each counts as a class of its own; "
                "only the linear probe can tell them apart."
            )
    for base_model in {run.base_model for run in runs}:
        load_clip(base_model)
    return runs
