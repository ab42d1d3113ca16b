"""An adapter together with its base model: one folder for a machine without network."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from peft.utils import CONFIG_NAME

from ..auto import AutoPeftModelForZeroShotImageClassification
from ..data.preprocessing import ImageProcessor
from ..scoring.unlabelled import base_tokenizer, check_base, load_image_processor, read_config
from ..tuner.loading import BUNDLED_BASE
from ..tuner.peft_model import PeftModelForZeroShotImageClassification
from ..tuner.tokenization import PromptTokenizer
from .card import CARD_FILE, bundled_card
from .upload import ADAPTER_FILES


REPORT_FILES = ("report/*",)


@dataclass
class Bundle:
    """All that an adapter needs to name pictures.

    Args:
        adapter: its folder on this machine.
        model: it and its base model, in the floating-point type of the base model's config.
        image_processor: of both.
        tokenizer: of the base model; None: it has none.
    """

    adapter: Path
    model: PeftModelForZeroShotImageClassification
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
        return cls(
            adapter=Path(adapter if os.path.isdir(adapter) else snapshot_download(os.fspath(adapter))),
            model=AutoPeftModelForZeroShotImageClassification.from_pretrained(adapter, config=config, dtype="auto"),
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
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        config |= {"base_model_name_or_path": BUNDLED_BASE, "revision": None}
        (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        card = folder / CARD_FILE
        if card.is_file():
            card.write_text(bundled_card(card.read_text(encoding="utf-8"), name), encoding="utf-8")
        self.model.unload().save_pretrained(base)
        self.image_processor.save_pretrained(base)
        if self.tokenizer is not None:
            self.tokenizer.tokenizer.save_pretrained(base)
