"""A run, from a user's pictures to an adapter with its figures."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate.utils import broadcast_object_list, set_seed
from peft import get_peft_model

from ..auto import load_clip
from ..data import Preprocessing, balanced_weights, choose_preprocessing, load_training_data
from ..scoring.labelled import Predictions, predict
from ..scoring.listing import share_listing
from ..scoring.reference import Reference, absolute_paths, seeing
from ..scoring.rungs import describe_rungs, rungs
from ..scoring.unlabelled import largest_probabilities
from ..training import (
    FrozenFeatures,
    describe_mirroring,
    make_accelerator,
    mmrl_config,
    train,
    training_pictures,
)
from ..training.checkpoints import read_progress
from ..training.run_folder import CHECKPOINT
from ..training.under_way import UNDER_WAY_FILE, UnderWay
from ..tuner.decision import Decision
from ..tuner.tokenization import PromptTokenizer
from .folder import check_output_dir, check_same_run, checkpoint_to_resume, describe_run
from .folds import Folds
from .options import FitOptions
from .outcome import describe_results, write_results
from .plan import Plan
from .why import Why


SAFE_ZERO_SHOT_WEIGHT = 1.0  # new classes are scored as CLIP scores them: nothing can be lost there
LARGE_DECISION = 10_000_000  # bytes of a decision, worth to be said
MEASURED = ("accuracy", "zero_shot_accuracy", "mean_recall", "zero_shot_mean_recall")  # of an epoch


class Fitting:
    """A run in the order of its steps: `prepare`, `run`, `save`. What is refused is refused by the first, or before.

    Args:
        options: what is asked for.

    Raises:
        ValueError, OSError: what can be told without reading pictures.
    """

    def __init__(self, options: FitOptions) -> None:
        self.options, self.settings = options, options.settings
        mmrl_config(options.method, options.template, self.settings)
        self.resume_from = checkpoint_to_resume(options.resume_from_checkpoint, options.output_dir)
        self.folder = None if options.output_dir is None else check_output_dir(options, self.resume_from)
        self.accelerator = make_accelerator(
            self.settings,
            mixed_precision=options.mixed_precision,
            log_with=options.tracker,
            project_dir=options.output_dir,
        )
        told = self.folder is not None and self.accelerator.is_main_process
        self.under_way = UnderWay(self.folder.path / UNDER_WAY_FILE if told else None)
        self.history: list[dict[str, float]] = []
        self.predictions: Predictions | None = None  # for pictures that the model was not fitted on
        self.asked: datasets.Dataset | None = None  # these pictures
        self.unknown: torch.Tensor | None = None  # largest probabilities of pictures of other classes

    def prepare(self) -> None:
        """Read and check everything; nothing is changed before it is done.

        Raises:
            ValueError, OSError: pictures, base model or checkpoint do not fit.
        """
        options, settings, accelerator = self.options, self.settings, self.accelerator
        clip, self.processor = load_clip(options.base_model)
        tokenizer = PromptTokenizer(self.processor, clip.config.text_config)
        self.data = load_training_data(accelerator=accelerator, tokenizer=tokenizer, **options.data)
        settings.config |= choose_preprocessing(self.data, self.processor, options.fit, accelerator).config
        if options.balance:
            self.data.notes.append("every class counts the same, however many pictures it has (--balance)")
            settings.config["class_weight"] = balanced_weights(self.data.pictures_per_class())
        if options.decision:
            settings.config.setdefault("zero_shot_weight", SAFE_ZERO_SHOT_WEIGHT)
        set_seed(settings.seed)
        config = mmrl_config(options.method, options.template, settings)
        self.model = get_peft_model(clip, config).to(accelerator.device)
        self.model.set_classes(self.data.class_names, self.processor)
        self.plan = Plan(self.model, self.data, options, accelerator)
        self.frozen = self._look()
        self.decision = self._decide()
        self.run_description = describe_run(options, self.data, accelerator)
        if self.resume_from is not None:
            check_same_run(self.resume_from, self.run_description)
        if self.folder is not None:
            self.folder.start(self.run_description, accelerator)

    def _look(self) -> FrozenFeatures | None:
        """Frozen features of the pictures, where they are needed, be it as the reference; decides on mirroring."""
        options, is_resumed = self.options, self.resume_from is not None
        asks = options.flip_as_seen and not options.quick and not is_resumed
        frozen = None
        if asks or options.decision or self.plan.num_folds or self.folder is not None:
            given = self.model, self.data.train, self.processor, self.accelerator, options.num_workers
            frozen = FrozenFeatures.of(*given, with_mirrored=asks)
        if asks:
            found = frozen.judge_mirroring()
            self.settings.flip = found is not None and found.is_harmless
            overrules = "--no_flip" if self.settings.flip else "--flip"
            self.data.notes.append(f"{describe_mirroring(found)}; {overrules} overrules")
        elif options.flip_as_seen:  # as before where a run goes on
            self.settings.flip = is_resumed and bool(read_progress(self.resume_from).run.get("flip"))
        return frozen

    def run(self) -> None:
        """Say how CLIP does as it is and without training, train, and take the figures."""
        with self.under_way:
            self._run()

    def _run(self) -> None:
        self.under_way.begin("looking", then=1)
        self.say(*self.data.notes, str(self.plan))
        folds = self._make_folds() if self.plan.num_folds else None
        before = self._answer_untrained(folds)
        if self.options.quick:
            self.predictions = before
            self._answer_unknown()
            return
        if self.decision is not None:  # no weights of the adapter play a part in it: it holds for the trained ones
            self.model.decision = replace(self.decision, features="adapted")
        pictures = training_pictures(self.model, self.data.train, self.processor, self.settings, self.plan.views)
        seconds = self._train(pictures, before if folds is None else None)
        if folds is not None:
            self.predictions = self._answer_trained(pictures, folds, seconds)
        self._answer_unknown()

    def _make_folds(self) -> Folds:
        return Folds(self.model, self.data.train, self.frozen, self.plan.folds, self.decision)

    def _decide(self) -> Decision | None:
        """Fit the decision without training; where the pictures allow none, training goes on without."""
        if not self.options.decision:
            return None
        try:
            decision = self.frozen.fit_decision(self.model, features="frozen")
        except ValueError as error:
            if self.options.quick:
                raise ValueError(f"no decision can be fitted: {error}") from error
            self.data.notes.append(f"no decision is fitted: {error}")
            return None
        size = f" ({decision.nbytes / 1e6:.0f} MB)" if decision.nbytes >= LARGE_DECISION else ""
        self.data.notes.append(
            f"a decision is fitted on these {len(self.data.train)} pictures{size} (--no_decision: as the papers do)"
        )
        return decision

    def _answer_untrained(self, folds: Folds | None) -> Predictions | None:
        """How well CLIP does as it is, and with a decision without training, on pictures that are held out."""
        if folds is not None:
            self.asked = folds.asked
            found = folds.predictions()
            where = f"pictures held out in {len(folds)} folds"
        elif self.data.validation is not None:
            self.asked = self.data.validation
            found, where = self._score(), "pictures"
        else:
            if self.options.folds != 0:
                self.say("every class has a single picture, or group of pictures: none can be held out, so no figures")
            return None
        self.say(
            f"zero-shot accuracy on {len(found.labels)} {where}: {found.zero_shot_accuracy:.1%}, "
            f"mean recall of classes: {found.zero_shot_mean_recall:.1%}"
        )
        if never := self.plan.num_folds and self.plan.never_asked:
            self.say(
                f"nothing is known of {', '.join(never)}: a single picture, or group of pictures, is not held out"
            )
        if self.model.decision is not None:
            self.say(describe_rungs(rungs(found)))
        return found

    def _score(self, **known: Any) -> Predictions:
        """The model's answers to validation pictures."""
        given = self.model, self.data.validation, self.processor, self.accelerator
        return predict(*given, num_workers=self.options.num_workers, **known)

    def _train(self, pictures: Any, before: Predictions | None) -> float | None:
        """Train on all pictures.

        Args:
            pictures: what `train` reads.
            before: answers to validation pictures before; None: there are no such.

        Returns:
            seconds that it takes from its beginning to its end; None where nothing was left to do.
        """
        options, accelerator = self.options, self.accelerator

        def validate(record: dict[str, float]) -> None:
            if before is not None:
                self.predictions = self._score(zero_shot=before.zero_shot)
                record |= {name: getattr(self.predictions, name) for name in MEASURED}
            self.say(epoch_line(record))
            accelerator.log(record, step=record["epoch"])

        if options.tracker:
            names = self.run_description.items()
            plain = {name: value for name, value in names if isinstance(value, int | float | str)}
            accelerator.init_trackers("peft_mmrl", config=plain)
        first = 0 if self.resume_from is None else read_progress(self.resume_from).epoch
        if self.resume_from is not None:
            self.say(f"{first} of {self.plan.epochs} epochs are done; folds, if any, begin anew")
        start = time.perf_counter()
        self.under_way.begin("training", 1, then=self.plan.trainings)
        self.history = train(
            self.model,
            pictures,
            self.settings,
            accelerator,
            on_epoch=validate,
            checkpoint_dir=None if options.output_dir is None else options.output_dir / CHECKPOINT,
            checkpointing_steps=options.checkpointing_steps,
            num_workers=options.num_workers,
            resume_from=self.resume_from,
            run=self.run_description,
            on_share=self.under_way.at,
        )
        done = self.plan.epochs - first
        seconds = (time.perf_counter() - start) / done * self.plan.epochs if done else None
        if before is not None:
            if self.predictions is None:  # the run that was resumed had finished its last epoch
                self.predictions = self._score(zero_shot=before.zero_shot)
            if self.model.decision is not None:
                self.predictions.untrained = before.probabilities
        return broadcast_object_list([seconds])[0]

    def _answer_trained(self, pictures: Any, folds: Folds, seconds: float | None) -> Predictions:
        """Answers of folds that are trained as the run was."""
        if seconds is not None and self.plan.limit_folds(seconds):
            folds = self._make_folds()
            self.asked = folds.asked
        self.say(self.plan.describe_folds(seconds))
        settings = replace(self.settings, epochs=self.plan.epochs)
        given = settings, self.processor, self.accelerator, self.options.num_workers, self.under_way
        return folds.predictions(folds.train(pictures, *given))

    def _answer_unknown(self) -> None:
        """Ask for pictures of other classes, where such are given: what would they be called?"""
        if self.options.unknown_dir is None or self.predictions is None:
            return
        listing = share_listing([self.options.unknown_dir], self.accelerator)
        given = self.model.eval(), self.processor, listing, self.accelerator
        self.unknown = largest_probabilities(*given, num_workers=self.options.num_workers)
        self.say(f"{len(self.unknown)} of {len(listing)} pictures in {self.options.unknown_dir} could be asked for")

    def save(self, repo_id: str | None = None) -> list[str]:
        """Write adapter, card and report where that was asked for; the main process does.

        Args:
            repo_id: name of the adapter on the Hub, where it is going to be pushed.

        Returns:
            lines on what was gained and what was lost.

        Raises:
            OSError: something cannot be written; what was there before is whole.
        """
        lines: list[str] = []
        with self.under_way:
            self.under_way.begin("writing")
            if self.accelerator.is_main_process and self.folder is None:
                lines = describe_results(self.predictions)
            elif self.accelerator.is_main_process:
                found = self.run_description, self.history, self.predictions, self.asked
                more = self._why(), repo_id, self.unknown
                lines = write_results(self.folder, self.model, self.data, *found, *more)
            self.accelerator.end_training()
        self.under_way.end()
        return lines

    def _why(self) -> Why:
        """What tells of the answers to pictures: the model, and what its training pictures are like to frozen CLIP."""
        preprocessing, pictures = Preprocessing.of(self.model, self.processor), self.data.train
        reference = Reference(
            paths=absolute_paths(pictures["image"], pictures["path"]),
            features=self.frozen.images,
            measures=self.frozen.measures,
            labels=self.frozen.labels,
            groups=torch.tensor(self.data.groups or range(len(pictures))),
            class_names=self.data.class_names,
            seen_by=seeing(self.model, preprocessing),
        )
        return Why(self.model, preprocessing, pictures, reference, self.accelerator)

    @property
    def checkpoint(self) -> Path | None:
        """Where the run's last state is; None: it is not kept."""
        return None if self.folder is None else self.folder.path / CHECKPOINT

    def say(self, *lines: str) -> None:
        """Print, once for all processes."""
        self.accelerator.print("\n".join(lines))


def epoch_line(record: dict[str, float]) -> str:
    """A line on an epoch."""
    line = f"epoch {record['epoch']}: loss {record['loss']:.3f}"
    if "accuracy" in record:
        line += f", accuracy {record['accuracy']:.1%} (zero-shot {record['zero_shot_accuracy']:.1%})"
        line += f", mean recall {record['mean_recall']:.1%} ({record['zero_shot_mean_recall']:.1%})"
    return line
