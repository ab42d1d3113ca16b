"""The model card of a saved adapter: what it is, how to use it, what it was trained on and how well it does.

A card is metadata, which the Hub reads, and a text between two comments, which is written anew whenever the adapter is
saved. What people write around the text stays, and so does the text itself once somebody has edited it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..tuner.loading import is_beside
from ..tuner.validation import as_number, is_hub_id
from .card_text import LOCAL_BASE, AdapterFacts, RunFacts, card_text, code, without_path


if TYPE_CHECKING:
    from ..tuner.peft_model import PeftModelForZeroShotImageClassification

TASK = "zero-shot-image-classification"
CARD_FILE = "README.md"
PICTURES = "pictures"  # the folder beside the card
NOTE = "written anew whenever the adapter is saved, unless somebody has edited it"
BLOCK = re.compile(r"<!-- peft_mmrl (?P<digest>\w+)[^\n]*-->\n(?P<text>.*)\n<!-- end of peft_mmrl -->", re.DOTALL)


def write_card(
    folder: str | os.PathLike[str],
    model: PeftModelForZeroShotImageClassification,
    *,
    data: str | None = None,
    training: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    zero_shot: Mapping[str, float] | None = None,
    per_class: Sequence[Mapping[str, Any]] = (),
    rungs: Sequence[Mapping[str, Any]] = (),
    remarks: Sequence[str] = (),
    folds: int = 0,
    eval_data: str | None = None,
    license: str | None = None,
    repo_id: str | None = None,
    name: str | None = None,
    pictures: Sequence[str | os.PathLike[str]] = (),
    tags: Iterable[str] = (),
) -> None:
    """Write or update the card of the active adapter, `README.md` in its folder.

    `save_pretrained` writes it with all that the adapter itself knows; a training script knows more. Paths of this
    machine do not get into the card.

    Args:
        folder: where the adapter is saved.
        model: the model with the adapter.
        data: what it was trained on: a data set of the Hub, a folder (whose name alone is shown), or some words.
        training: further settings of the training, by name.
        metrics: results of the adapter by the metric's name, as fractions from 0 to 1.
        zero_shot: the same for the base model without the adapter.
        per_class: for each class `class`, `pictures`, `recall` and `zero_shot_recall`, as in a report's metrics.json.
        rungs: accuracy of each model with its interval, see [`~peft_mmrl.scoring.rungs.rungs`].
        remarks: sentences on the results, in Markdown, a paragraph each.
        folds: number of folds, where each picture of `data` was answered by a model trained without its fold; 0: none.
        eval_data: what the results were measured on, as `data`. None: pictures of `data` that were not trained on, or
            `folds`.
        license: the adapter's licence, as the Hub abbreviates it. None: what the card says already.
        repo_id: name of the adapter on the Hub, where it is or will be there.
        name: of the adapter otherwise. None: the name of its folder.
        pictures: files to show, copied into the folder.
        tags: further tags.

    Raises:
        ValueError: a result that is no fraction, results without data, or two pictures of one name.
        OSError: a picture is missing.
    """
    folder = Path(folder)
    metrics, zero_shot = dict(metrics or {}), dict(zero_shot or {})
    for argument, results in (("metrics", metrics), ("zero_shot", zero_shot)):
        for metric, value in results.items():
            as_number(f"{argument}[{metric!r}]", value, 0, 1)
    if metrics and data is None and eval_data is None:
        raise ValueError(
            "`metrics` need `data` or `eval_data`: results mean nothing without what they were measured on."
        )
    pictures = _check_pictures(pictures)

    adapter = AdapterFacts(model, repo_id or name or folder.resolve().name, is_published=repo_id is not None)
    written = ModelCardData(
        base_model=adapter.base_model,
        datasets=[data] if is_hub_id(data) else None,
        eval_results=_eval_results(metrics, eval_data or data),
        library_name="peft",
        license=license,
        metrics=list(metrics) or None,
        model_name=adapter.name.rpartition("/")[2],
        pipeline_tag=TASK,
        tags=_tags(adapter, tags),
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CARD_FILE
    card = _load(path) if path.exists() else ModelCard("---\n{}\n---\n")
    if card is None:
        return
    run = RunFacts(
        license=license or card.data.license,
        data=data,
        eval_data=eval_data,
        training=dict(training or {}),
        metrics=metrics,
        zero_shot=zero_shot,
        per_class=list(per_class),
        rungs=list(rungs),
        remarks=list(remarks),
        folds=folds,
        pictures=[_copy_picture(picture, folder) for picture in pictures],
    )
    _update(card, written, card_text(adapter, run))
    content = str(card)
    if repo_id is None and is_beside(adapter.config.base_model_name_or_path, folder):
        content = bundled_card(content, adapter.name)
    path.write_text(content, encoding="utf-8")


def published_card(content: str, repo_id: str) -> str:
    """A card as it is uploaded: its code loads the adapter from the Hub, and no base model from this machine's disk.

    Args:
        content: of the file; where somebody has edited the text that is written here, it stays as it is.
        repo_id: name of the adapter on the Hub.
    """
    return _with_other_places(content, repo_id, {r'base = (PeftConfig\.|f").*': f'base = "{LOCAL_BASE}"'})


def bundled_card(content: str, name: str) -> str:
    """A card as it lies in a folder with the base model: its code loads both from there, without network.

    Args:
        content: of the file; where somebody has edited the text that is written here, it stays as it is.
        name: of the folder.
    """
    return _with_other_places(content, name, {"base = .*": 'base = f"{adapter}/base"'})


def _with_other_places(content: str, name: str, base: dict[str, str]) -> str:
    card = ModelCard(content, ignore_metadata_errors=True)
    block = BLOCK.search(card.text)
    if block is None or block["digest"] != _digest(block["text"], card.data):
        return content
    text = block["text"]
    lines = {
        "# `.*`": f"# {code(name.rpartition('/')[2])}",
        "adapter = .*": f"adapter = {json.dumps(name)}",
        "from peft import PeftConfig, PeftModel": "from peft import PeftModel",
    }
    for pattern, line in (lines | base).items():
        text = re.sub(f"^{pattern}$", lambda match, line=line: line, text, count=1, flags=re.MULTILINE)
    _put_text(card, block, text)
    return str(card)


def _check_pictures(pictures: Sequence[str | os.PathLike[str]]) -> list[Path]:
    paths = [Path(picture) for picture in pictures]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"`pictures` must hold files, there is none at {path}.")
    if len({path.name for path in paths}) != len(paths):
        raise ValueError(f"`pictures` must have different file names, got {[str(path) for path in paths]}.")
    return paths


def _copy_picture(picture: Path, folder: Path) -> str:
    """Put a picture beside the card; returns its address in the card."""
    copy = folder / PICTURES / picture.name
    copy.parent.mkdir(exist_ok=True)
    if picture.resolve() != copy.resolve():
        shutil.copyfile(picture, copy)
    return quote(f"{PICTURES}/{picture.name}")


def _eval_results(metrics: Mapping[str, float], data: str | None) -> list[EvalResult] | None:
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=data if is_hub_id(data) else "imagefolder",
            dataset_name=without_path(data),
            metric_type=name,
            metric_value=value,
        )
        for name, value in metrics.items()
    ] or None


def _tags(adapter: AdapterFacts, tags: Iterable[str]) -> list[str]:
    base = [f"base_model:adapter:{adapter.base_model}"] if adapter.base_model else []
    return [*base, "clip", "few-shot", adapter.method.lower(), "peft_mmrl", "transformers", *tags]


def _load(path: Path) -> ModelCard | None:
    """The card that is there; None, with a warning, where it cannot be read: no training is lost for a card."""
    try:
        return ModelCard.load(path, ignore_metadata_errors=True)
    except Exception as error:  # a damaged file shows as almost any error
        warnings.warn(f"{path} stays as it is, its metadata cannot be read: {error}", stacklevel=3)
        return None


def _update(card: ModelCard, written: ModelCardData, text: str) -> None:
    """Bring an existing card up to date, but for what people have written into it."""
    block = BLOCK.search(card.text)
    is_edited = block is not None and block["digest"] != _digest(block["text"], card.data)
    _update_metadata(card.data, written, are_results_old=block is not None and not is_edited)
    if is_edited:
        warnings.warn(
            "README.md was edited by hand: its text stays as it is, also where it is no longer true. Delete the text "
            "between the two comments that name peft_mmrl to have it written anew.",
            stacklevel=3,
        )
        return
    _put_text(card, block, text)


def _put_text(card: ModelCard, block: re.Match[str] | None, text: str) -> None:
    new = f"<!-- peft_mmrl {_digest(text, card.data)}: {NOTE} -->\n{text}\n<!-- end of peft_mmrl -->"
    if block is None:
        card.text = "\n" + f"{card.text.strip()}\n\n{new}\n".lstrip()
    else:
        card.text = card.text.replace(block[0], new)


def _update_metadata(data: ModelCardData, written: ModelCardData, are_results_old: bool) -> None:
    for name in ("base_model", "datasets", "license"):
        setattr(data, name, getattr(written, name) or getattr(data, name))
    data.library_name = written.library_name
    data.pipeline_tag = data.pipeline_tag or written.pipeline_tag
    kept = [tag for tag in data.tags or [] if not tag.startswith("base_model:adapter:")]
    data.tags = sorted({*kept, *written.tags})
    if are_results_old or written.eval_results:  # results of an earlier save say nothing about these weights
        old = {result.metric_type for result in data.eval_results or []}
        data.metrics = [*(name for name in data.metrics or [] if name not in old), *(written.metrics or [])] or None
        data.eval_results = written.eval_results
        data.model_name = written.model_name if written.eval_results else None


def _digest(text: str, data: ModelCardData) -> str:
    """What tells an edited text, or edited results, from those that were written here."""
    content = json.dumps([text.split(), data.to_dict().get("model-index")])
    return hashlib.sha256(content.encode()).hexdigest()[:16]
