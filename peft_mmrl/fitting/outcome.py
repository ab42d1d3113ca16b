"""What is in the folder of a run at its end."""

from __future__ import annotations

import shutil
from typing import Any

import datasets
import torch
from peft.utils import SAFETENSORS_WEIGHTS_NAME

from ..data import TrainingData, save_trained_on
from ..hub.card import CARD_FILE, write_card
from ..reports import compute_metrics, rungs_in, summary, training_added, write_report
from ..reports.reading import REPORT, REPORT_FILE
from ..scoring.held_out import CAVEAT, Confidence
from ..scoring.labelled import Predictions
from ..scoring.rungs import describe_rungs
from ..training.run_folder import CHECKPOINT, RunFolder, writing
from ..tuner.peft_model import PeftModelForZeroShotImageClassification
from .why import Why


def describe_results(predictions: Predictions | None) -> list[str]:
    """Lines on what was gained and what was lost, of a run that is not saved."""
    if predictions is None:
        return ["without pictures that were held out nothing is known of its accuracy"]
    metrics = compute_metrics(predictions)
    return [*summary(metrics), describe_rungs(rungs_in(metrics))]


def write_results(
    folder: RunFolder,
    model: PeftModelForZeroShotImageClassification,
    data: TrainingData,
    run: dict[str, Any],
    history: list[dict[str, float]],
    predictions: Predictions | None,
    asked: datasets.Dataset | None,
    why: Why,
    repo_id: str | None = None,
    unknown: torch.Tensor | None = None,
) -> list[str]:
    """Put the adapter with its card, and what pictures say that it was not trained on, in the place of an earlier run.

    Args:
        folder: of the run.
        model: the trained model.
        data: its pictures.
        run: from `describe_run`.
        history: from `train`.
        predictions: for pictures that were not trained on; None: there are none.
        asked: these pictures.
        why: what makes the page on why they are answered so.
        repo_id: name of the adapter on the Hub, where it is going to be pushed.
        unknown: largest probabilities (M,) of pictures of other classes, where such were given.

    Returns:
        lines on what was gained and what was lost.

    Raises:
        OSError: something cannot be written; what was there before is whole.
    """
    place, name, facts = folder.path, folder.path.resolve().name, {}
    lines = [f"{place} holds the adapter; without pictures that were held out nothing is known of its accuracy"]
    with folder.finish(run) as new:
        if (place / CARD_FILE).is_file():
            shutil.copyfile(place / CARD_FILE, new / CARD_FILE)  # what people wrote into it stays
        with writing(place / SAFETENSORS_WEIGHTS_NAME):
            model.save_pretrained(new)
            save_trained_on(new, data.facts)
            why.reference.save(new)
        if predictions is not None:
            confidence = Confidence.of(predictions, model.decision, unknown)
            with writing(place / REPORT):
                confidence.save(new)
                metrics = write_report(
                    new / REPORT,
                    predictions,
                    asked,
                    title=name,
                    settings={key: value for key, value in run.items() if key not in ("classes", "split")},
                    history=history,
                    split=run["split"],
                    confidence=confidence,
                    reasons=why.write(new / REPORT, name, predictions, asked),
                )
            aims = metrics["confidence"]["words"]
            facts = {
                "metrics": {"accuracy": predictions.accuracy, "mean_recall": predictions.mean_recall},
                "zero_shot": {
                    "accuracy": predictions.zero_shot_accuracy,
                    "mean_recall": predictions.zero_shot_mean_recall,
                },
                "rungs": rungs_in(metrics),
                "remarks": [*filter(None, [training_added(metrics)]), *aims, CAVEAT],
                "folds": predictions.folds,
                "per_class": metrics["per_class"],
                "eval_data": data.validation_source,
                "pictures": [new / REPORT / "per_class.png", new / REPORT / "reliability.png"],
            }
            page = place / REPORT / REPORT_FILE
            lines = [
                *summary(metrics),
                describe_rungs(rungs_in(metrics)),
                *aims,
                f"{place} holds the adapter; open {page} in a browser",
            ]
        names = ("batch_size", "learning_rate", "flip", "seed")
        training = {"epochs": len(history), **({} if run["quick"] else {key: run[key] for key in names})}
        with writing(place / CARD_FILE):
            write_card(new, model, data=data.source, repo_id=repo_id, name=name, training=training, **facts)
    shutil.rmtree(place / CHECKPOINT, ignore_errors=True)  # nothing is left to go on with
    return lines
