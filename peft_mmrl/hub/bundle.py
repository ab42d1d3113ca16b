"""An adapter together with its base model: one folder for a machine without network."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from transformers import AutoConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from ..auto import AutoPeftModelForZeroShotImageClassification
from ..data.preprocessing import ImageProcessor
from ..scoring.unlabelled import base_tokenizer, check_base, load_image_processor, read_config
from ..tuner.loading import BUNDLED_BASE, name_bundled_base
from ..tuner.peft_model import PeftModelForZeroShotImageClassification
from ..tuner.tokenization import PromptTokenizer
from .card import CARD_FILE, bundled_card
from .upload import ADAPTER_FILES


REPORT_FILES = ("report/*",)
FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}  # of safetensors


@dataclass
class Bundle:
    """All that an adapter needs to name pictures.

    Args:
        adapter: its folder on this machine.
        model: it and its base model, in the floating-point type of the base model's files.
        dtype: in which the base model's config says that it is loaded.
        image_processor: of both.
        tokenizer: of the base model; None: it has none.
    """

    adapter: Path
    model: PeftModelForZeroShotImageClassification
    dtype: torch.dtype | None
    image_processor: ImageProcessor
    tokenizer: PromptTokenizer | None

    @classmethod
    def of(cls, adapter: str | os.PathLike[str], base_model: str | None = None) -> Bundle:
        """Load an adapter and its base model, which shows that they fit, and write nothing.

        Args:
            adapter: folder or Hub id.
            base_model: Hub id or folder, where the one that the adapter names is not reachable.

        Raises:
            OSError: adapter, base model or image processor cannot be found.
            ValueError: not an adapter of this kind, or one that does not fit the base model.
        """
        config = read_config(adapter)
        if base_model is not None:
            config.base_model_name_or_path, config.revision = base_model, None
        check_base(config)
        base, revision = config.base_model_name_or_path, config.revision
        dtype = stored_dtype(base, revision) or "auto"
        return cls(
            adapter=_folder_of(adapter),
            model=AutoPeftModelForZeroShotImageClassification.from_pretrained(adapter, config=config, dtype=dtype),
            dtype=AutoConfig.from_pretrained(base, revision=revision).dtype,
            image_processor=load_image_processor(adapter, config),
            tokenizer=base_tokenizer(config),
        )

    def save(self, folder: str | os.PathLike[str], name: str, report: bool = False) -> None:
        """Write all of it, with the files that lie beside the adapter, into a folder that may be moved anywhere.

        The base model lies in `base` there. The adapter's config names it by that, so that no place of this machine
        is in the folder. The model is its plain base model afterwards.

        Args:
            folder: an empty one.
            name: what the card calls it.
            report: whether the report of the training goes along, which shows some of its pictures.
        """
        folder = Path(folder)
        base = folder / BUNDLED_BASE
        base.mkdir(parents=True)
        for pattern in ADAPTER_FILES + (REPORT_FILES if report else ()):
            for path in self.adapter.glob(pattern):
                copy = folder / path.relative_to(self.adapter)
                copy.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, copy)
        name_bundled_base(folder)
        card = folder / CARD_FILE
        if card.is_file():
            card.write_text(bundled_card(card.read_text(encoding="utf-8"), name), encoding="utf-8")
        clip = self.model.unload()
        clip.save_pretrained(base)
        clip.config.dtype = self.dtype
        clip.config.save_pretrained(base)
        self.image_processor.save_pretrained(base)
        if self.tokenizer is not None:
            self.tokenizer.tokenizer.save_pretrained(base)


def _folder_of(adapter: str | os.PathLike[str]) -> Path:
    if os.path.isdir(adapter):
        return Path(adapter)
    return Path(snapshot_download(os.fspath(adapter), allow_patterns=[*ADAPTER_FILES, *REPORT_FILES]))


def stored_dtype(base_model: str, revision: str | None = None) -> torch.dtype | None:
    """The floating-point type of a base model's safetensors files, which its config may name otherwise.

    Args:
        base_model: Hub id or folder.
        revision: of its repository.

    Returns:
        None: there are no such files, or they hold several.
    """
    for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME):
        path = cached_file(base_model, name, revision=revision, _raise_exceptions_for_missing_entries=False)
        if path is None:
            continue
        if name == SAFE_WEIGHTS_INDEX_NAME:
            first = min(json.loads(Path(path).read_text(encoding="utf-8"))["weight_map"].values())
            path = cached_file(base_model, first, revision=revision)
        with safe_open(path, framework="pt") as file:
            found = {FLOATS.get(file.get_slice(key).get_dtype()) for key in file.keys()} - {None}  # noqa: SIM118
        return found.pop() if len(found) == 1 else None
    return None
