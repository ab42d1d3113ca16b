"""What an exported classifier needs beside its graph, so that `classify.py` answers as `peft-mmrl predict` does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from PIL import Image

from ..data.pictures import FORMATS, GROUND, STRAY, PictureError
from ..data.preprocessing import FLAT, LONGEST, Preprocessing
from ..hub.card import CARD_FILE, PICTURES, write_card
from ..scoring.answers import NONE_OF_THESE
from ..scoring.confidence import accuracy_interval
from ..scoring.unlabelled import answers_of
from ..tuner.peft_model import PeftModelForZeroShotImageClassification
from ..tuner.validation import is_hub_id
from .classify import PICTURES_AT_A_TIME, Classifier, UnreadableError
from .formats import MODEL_FILES, NEEDED_FOR_ONNX
from .frozen_classifier import FrozenClassifier


SCRIPT = "classify.py"


def portable_settings(preprocessing: Preprocessing) -> dict[str, Any]:
    """All that `classify.py` must know to prepare pictures alike, as JSON has it.

    Raises:
        ValueError: an image processor that resizes otherwise than to a short side or to a height and a width.
    """
    processor = preprocessing.image_processor

    def does(step: str) -> bool:
        return bool(getattr(processor, f"do_{step}", None))

    resize = None
    if does("resize"):
        size = processor.size
        resize = [size.height, size.width] if size.height and size.width else size.shortest_edge
        if not resize or size.longest_edge:
            raise ValueError(
                f"The image processor resizes to {size}, and can be exported where it resizes to a short side or to a "
                "height and a width."
            )
    resample = getattr(processor, "resample", None)  # 0 is NEAREST
    return {
        "fit": preprocessing.fit,
        "value_range": preprocessing.config["value_range"],
        "size": list(preprocessing.size),
        "resize": resize,
        "crop": [processor.crop_size.height, processor.crop_size.width] if does("center_crop") else None,
        "canvas": list(preprocessing.canvas),
        "resample": int(Image.Resampling.BICUBIC if resample is None else resample),
        "rescale": processor.rescale_factor if does("rescale") else 1.0,
        "mean": list(processor.image_mean) if does("normalize") else [0.0] * 3,
        "std": list(processor.image_std) if does("normalize") else [1.0] * 3,
        "padding": list(preprocessing.ground),
        "ground": GROUND,
        "formats": list(FORMATS),
        "longest": LONGEST,
        "stray": STRAY,
        "slack": FLAT,
    }


def classes_content(classifier: FrozenClassifier, rule: Mapping[str, float], words: Sequence[str]) -> dict[str, Any]:
    """Content of `classes.json`.

    Args:
        classifier: whose classes they are.
        rule: when to answer otherwise than with the likeliest class: arguments of `predict_pictures`.
        words: on what the rule aims at.
    """
    return {
        "classes": classifier.classes,
        "threshold": rule.get("threshold", 0.0),
        "set_threshold": rule.get("set_threshold"),
        "none_of_these": NONE_OF_THESE,
        "aim": list(words),
    }


def copy_card(
    adapter: str | os.PathLike[str], model: PeftModelForZeroShotImageClassification, folder: str | os.PathLike[str]
) -> None:
    """Lay an adapter's card and its pictures into a folder; where it has none, a card is written.

    Args:
        adapter: its folder or Hub repository.
        model: the model with it.
        folder: where to.
    """
    source = Path(adapter)
    if not source.is_dir():
        source = Path(snapshot_download(os.fspath(adapter), allow_patterns=[CARD_FILE, f"{PICTURES}/*"]))
    if not (source / CARD_FILE).is_file():
        write_card(folder, model, name=source.resolve().name)
        return
    shutil.copyfile(source / CARD_FILE, Path(folder, CARD_FILE))
    if (source / PICTURES).is_dir():
        shutil.copytree(source / PICTURES, Path(folder, PICTURES))


def measure_agreement(
    folder: str | os.PathLike[str],
    model: PeftModelForZeroShotImageClassification,
    preprocessing: Preprocessing,
    paths: Sequence[str],
    rule: Mapping[str, float],
) -> dict[str, Any]:
    """How alike an exported classifier and the model answer, pictures read by `classify.py` there and as ever here.

    Args:
        folder: that was exported.
        model: that it was made of, with the same classes.
        preprocessing: how pictures are prepared for it.
        paths: of pictures; what cannot be read is left out.
        rule: that it was exported with, see `classes_content`.

    Returns:
        number of `pictures`; of those with the `same_answer`, be it a class, a set of them or "none of these", its
        `share` with a 90 % interval from `low` to `high`; of those with the `same_likeliest` class; and
        `largest_difference` of any probability.

    Raises:
        ValueError: none can be read.
    """
    classifier = Classifier(Path(folder), torch.get_num_threads())
    order = [model.classes.index(name) for name in classifier.names]
    same_answer, same_likeliest, pictures, largest = 0, 0, 0, 0.0
    for start in range(0, len(paths), PICTURES_AT_A_TIME):
        names, read = [], []
        for path in paths[start : start + PICTURES_AT_A_TIME]:
            try:
                read.append((torch.from_numpy(classifier.read(path)), preprocessing(path)))
                names.append(path)
            except (UnreadableError, PictureError):
                continue
        if not read:
            continue
        here, there = (torch.stack(pixels) for pixels in zip(*read, strict=True))
        found = classifier.run(here.numpy())
        with torch.no_grad():
            expected = model(pixel_values=there.to(model.device)).logits.float().softmax(dim=1).cpu()
        answers = answers_of(names, model.classes, expected, **rule)
        for path, shares, answer in zip(names, found, answers, strict=True):
            ranks = classifier.ranks(shares)
            same_likeliest += ranks[0][0] == answer.ranks[0][0]
            same_answer += classifier.answer(path, ranks, None)["label"] == answer.as_row(1)["label"]
        pictures += len(read)
        largest = max(largest, (torch.from_numpy(found) - expected[:, order]).abs().max().item())
    if not pictures:
        raise ValueError("None of the pictures to compare on can be read.")
    low, high = accuracy_interval(same_answer, pictures)
    return {
        "pictures": pictures,
        "same_answer": same_answer,
        "share": same_answer / pictures,
        "low": low,
        "high": high,
        "same_likeliest": same_likeliest,
        "largest_difference": largest,
    }


def agreement_in_words(agreement: Mapping[str, Any]) -> str:
    """What `measure_agreement` gives, as a sentence."""
    pictures, same = agreement["pictures"], agreement["same_likeliest"]
    return (
        f"{agreement['same_answer']} of {pictures} pictures have the same answer as from predict "
        f"({agreement['share']:.1%}; with 90% certainty {agreement['low']:.1%} to {agreement['high']:.1%}), "
        f"{same} ({same / pictures:.1%}) the same likeliest class; "
        f"probabilities differ by {agreement['largest_difference']:.4f} at most"
    )


def begin_card(folder: Path, file: str, int8: bool, agreement: Mapping[str, Any] | None) -> None:
    """Let the card begin with how the exported classifier is run, and how alike it answers.

    Args:
        folder: that was exported, with the adapter's card in it.
        file: name of the classifier.
        int8: in 8 bits.
        agreement: from `measure_agreement`; None: it was not measured.
    """
    runtime = "onnxruntime" if file == MODEL_FILES["onnx"] else "torch"
    words = (
        f"\n## Exported{' in 8 bits' if int8 else ''}\n\n"
        f"`python {SCRIPT} PICTURES` names pictures. It needs Python with numpy, pillow and {runtime}, and no "
        f"network: `{file}` is the adapter below with its base model. What stands there was measured before the "
        "export.\n"
    )
    if agreement is not None:
        words += f"Compared with it, {agreement_in_words(agreement)}.\n"
    path = folder / CARD_FILE
    card = path.read_text(encoding="utf-8")
    start = card.find("\n---\n", 3) + len("\n---\n") if card.startswith("---\n") else 0  # behind the metadata
    path.write_text(card[:start] + words + card[start:], encoding="utf-8")


def facts_of(
    classifier: FrozenClassifier,
    model: PeftModelForZeroShotImageClassification,
    model_file: Path,
    int8: bool,
    agreement: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Content of `export.json`: what the classifier is, how large, and how alike it answers. No paths of this machine.

    Args:
        classifier: that was written.
        model: that it was made of.
        model_file: what was written.
        int8: in 8 bits.
        agreement: from `measure_agreement`; None: not measured.
    """
    base = model.active_peft_config.base_model_name_or_path
    files = model_file.parent.glob(f"{model_file.name}*")  # a large ONNX file has a second one
    return {
        "base_model": base if is_hub_id(base) else None,
        "classes": len(classifier.classes),
        "decision": classifier.decides_by,
        "file": model_file.name,
        "int8": int8,
        "bytes": sum(path.stat().st_size for path in files),
        "agreement": agreement,
        "made_with": {name: _version(name) for name in ("peft_mmrl", "torch", "transformers", *NEEDED_FOR_ONNX)},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
