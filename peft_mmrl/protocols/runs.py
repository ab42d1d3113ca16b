"""Runs of a protocol, each in a folder of its own: what is finished is not repeated, what is missing is done."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from accelerate import PartialState

from ..auto import load_clip
from ..data import load_split, sample_few_shot, save_split
from ..data.benchmarks import BenchmarkData
from ..training import PAPER_METHODS, Classifier, TrainingSettings, fit_classifier, make_accelerator
from ..training.run_folder import FILES, RUN_FILE, UNFINISHED, RunFolder, read_json, write_json, writing
from .tasks import Results


SPLIT_FILE, RESULT_FILE, ADAPTER_FOLDER = "split.json", "result.json", "adapter"


@dataclass(frozen=True)
class Run:
    """One training run of a protocol.

    Args:
        protocol: its name.
        data: what is trained on.
        method: one of `peft_mmrl.training.METHODS`.
        shots: pictures of each class.
        settings: hyper-parameters, with the run's seed.
        base_model: Hub id or folder.
        mixed_precision: of training and tests, see `Accelerator`.
        targets: names of further data sets that are tested.
        incomplete: of which data sets, by name, not all pictures could be used, and how many were.
        decision: whether what was trained also answers by a decision fitted on the same pictures, and whether all
            classes compete, where the protocol has classes that were not trained.
    """

    protocol: str
    data: BenchmarkData
    method: str
    shots: int
    settings: TrainingSettings
    base_model: str
    mixed_precision: str = "no"
    targets: tuple[str, ...] = field(default=())
    incomplete: Mapping[str, str] = field(default_factory=dict)
    decision: bool = False

    @property
    def seed(self) -> int:
        """Seed of sampling and training."""
        return self.settings.seed

    def folder(self, output_dir: Path) -> Path:
        """Where the run's files are."""
        return output_dir / self.data.name / self.method / f"shots_{self.shots}" / f"seed_{self.seed}"

    def description(self) -> dict[str, Any]:
        """What makes the result what it is, as JSON."""
        data = {"dataset": self.data.name, "template": self.data.template, "classes": self.data.class_names}
        sizes = {"train_pictures": len(self.data.train), "test_pictures": len(self.data.test)}
        names = {
            name: getattr(self, name)
            for name in ("protocol", "method", "shots", "base_model", "mixed_precision", "targets")
        }
        marks = {name: value for name in ("incomplete", "decision") if (value := getattr(self, name))}
        return json.loads(json.dumps({**names, **data, **sizes, **marks, **asdict(self.settings)}))


def decided(method: str) -> str:
    """What the results are called that a method reaches by its decision."""
    return f"{method}-decision"


def read_scores(run: Run, output_dir: Path) -> Results | None:
    """The scores of a finished run, by method and by `decided` method; None where it is not finished.

    Raises:
        ValueError: its folder holds something else, or a run with other settings.
    """
    folder = run.folder(output_dir)
    before, asked = read_json(folder / RUN_FILE), run.description()
    if before is None:
        if folder.exists() and any(folder.iterdir()):
            raise ValueError(f"{folder} is not empty and holds no run: choose another --output_dir.")
        return None
    names = sorted((asked.keys() | before.keys()) - {FILES})
    changed = [name for name in names if asked.get(name) != before.get(name)]
    if changed:
        name = changed[0]
        raise ValueError(
            f"{folder} holds a run with another value of {', '.join(changed)} ({name}: {before.get(name)!r} there, "
            f"{asked.get(name)!r} now): repeat its arguments, or choose another --output_dir."
        )
    result = read_json(folder / RESULT_FILE)
    if result is None:
        return None
    by_decision = {decided(run.method): result["decision"]} if "decision" in result else {}
    return {run.method: result["scores"], **by_decision}


def sample(run: Run, split_dir: Path | None = None) -> dict[str, datasets.Dataset]:
    """The pictures of a run: parts `train` and, where the data set has one, `validation`.

    Args:
        run: says how many and with which seed.
        split_dir: output folder of earlier runs, whose split files are read; None: they are drawn.

    Raises:
        OSError: there is no split file of this data set, number of shots and seed.
        ValueError: a split file names pictures that there are not.
    """
    parts = {"train": run.data.train, "validation": run.data.validation}
    parts = {name: part for name, part in parts.items() if part is not None}
    if split_dir is not None:
        pattern = f"{run.data.name}/*/shots_{run.shots}/seed_{run.seed}/{SPLIT_FILE}"
        found = sorted(split_dir.glob(pattern))  # the same for all methods
        if not found:
            raise FileNotFoundError(f"--split_dir: there is no {split_dir / pattern}.")
        return load_split(found[0], parts)
    labels = {name: part["label"][:] for name, part in parts.items()}
    chosen = sample_few_shot(labels["train"], labels.get("validation", []), run.shots, run.seed)
    return {name: parts[name].select(rows) for name, rows in zip(("train", "validation"), chosen, strict=True) if rows}


def check_split(run: Run, output_dir: Path, split_dir: Path | None) -> None:
    """Raise a ValueError where a run's folder tells of other pictures than those that it would be trained on.

    Args:
        run: a run, finished or interrupted or neither.
        output_dir: where its folder is.
        split_dir: see `sample`.
    """
    path = run.folder(output_dir) / SPLIT_FILE
    before = read_json(path)
    if before is None and split_dir is None:
        return
    asked = {name: part["path"][:] for name, part in sample(run, split_dir).items()}
    if before not in (None, asked):
        raise ValueError(
            f"{path} holds other pictures than this call would train on: repeat --split_dir and --data_dir of the "
            "earlier call, or choose another --output_dir."
        )


def complete(
    runs: Sequence[Run],
    score: Callable[..., Results],
    output_dir: Path,
    *,
    split_dir: Path | None = None,
    save_adapters: bool = False,
) -> list[Results]:
    """Do the runs that are not finished.

    Args:
        runs: all runs, as `plan_runs` has checked them.
        score: one of `peft_mmrl.protocols.tasks`: data set, pictures to train on and a function that trains -> scores.
        output_dir: where each run has a folder.
        split_dir: see `sample`.
        save_adapters: keep what every run has trained.

    Returns:
        the scores of each run, as `read_scores` gives them.
    """
    results = []
    RunFolder(output_dir).start({"kind": runs[0].protocol}, PartialState())
    for number, run in enumerate(runs, start=1):
        scores = read_scores(run, output_dir)
        if scores is None:
            accelerator = make_accelerator(run.settings, mixed_precision=run.mixed_precision)
            title = f"{run.data.title}, {run.method}, {run.shots} shots, seed {run.seed}"
            if accelerator.is_main_process:
                print(f"run {number} of {len(runs)}: {title}", file=sys.stderr)
            folder, parts = RunFolder(run.folder(output_dir)), sample(run, split_dir)
            folder.start(run.description(), accelerator)
            is_main = accelerator.is_main_process
            if is_main:
                with writing(folder.path / SPLIT_FILE):
                    save_split(folder.path / SPLIT_FILE, parts)
            with folder.finish(run.description()) if is_main else nullcontext():
                keep = folder.path / UNFINISHED / ADAPTER_FOLDER if save_adapters else None
                scores = score(run.data, parts["train"], partial(_fit, run, accelerator, keep))
                if is_main:
                    result = {"scores": scores[run.method]}
                    if decided(run.method) in scores:
                        result["decision"] = scores[decided(run.method)]
                    write_json(folder.path / UNFINISHED / RESULT_FILE, result)
            accelerator.wait_for_everyone()
        results.append(scores)
    return results


def _fit(
    run: Run, accelerator: Any, keep: Path | None, train: datasets.Dataset, names: list[str], template: str
) -> dict[str, Classifier]:
    """What is asked, by the name that its results get; what is kept has the decision, where there is one."""
    clip, processor = load_clip(run.base_model)
    classifier = fit_classifier(run.method, clip, processor, train, names, template, run.settings, accelerator)
    fitted = {run.method: classifier}
    if run.decision and run.method in PAPER_METHODS:
        fitted[decided(run.method)] = classifier = classifier.with_decision(train, names)
    if keep is not None:
        with writing(keep):
            classifier.save(keep)
    return fitted
