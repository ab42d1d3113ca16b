"""Loads base models, alone or together with the adapter that names them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name
from peft import PeftConfig, PeftModel
from peft.auto import _BaseAutoPeftModel
from transformers import AutoConfig, AutoModel, AutoProcessor, PreTrainedModel, ProcessorMixin

from .tuner.config import MMRLConfig
from .tuner.loading import locate_base
from .tuner.peft_model import PeftModelForZeroShotImageClassification
from .tuner.towers.backbones import BACKBONES


DEFAULT_BASE_MODEL = "openai/clip-vit-base-patch16"


class AutoPeftModelForZeroShotImageClassification(_BaseAutoPeftModel):
    """`from_pretrained(adapter)` gives a [`PeftModelForZeroShotImageClassification`] on the adapter's own base model.

    Example:

        ```py
        >>> from peft_mmrl import AutoPeftModelForZeroShotImageClassification

        >>> model = AutoPeftModelForZeroShotImageClassification.from_pretrained("my-adapter")
        ```
    """

    _target_class = AutoModel
    _target_peft_class = PeftModelForZeroShotImageClassification

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        adapter_name: str = "default",
        is_trainable: bool = False,
        config: PeftConfig | None = None,
        revision: str | None = None,
        **kwargs: Any,
    ) -> PeftModelForZeroShotImageClassification:
        """Load base model and adapter.

        Unlike PEFT's version this never resizes embeddings for a tokenizer that lies beside the adapter: CLIPModel
        has no method for it.

        Args:
            pretrained_model_name_or_path: folder or Hub repository of the adapter.
            adapter_name: name under which the adapter is loaded.
            is_trainable: whether the adapter can be trained further.
            config: the adapter's config, where it is loaded already.
            revision: revision of the adapter's repository.
            kwargs: for the loading of both models, as in PEFT.

        Raises:
            ValueError: not an MMRL adapter, or one whose config names no base model.
        """
        kwargs.pop("import_allowlist", None)  # nothing that the config names is imported
        subfolder = kwargs.pop("subfolder", None)
        if config is None:
            config = PeftConfig.from_pretrained(
                pretrained_model_name_or_path, revision=revision, subfolder=subfolder, **kwargs
            )
        check_is_mmrl(config, pretrained_model_name_or_path)
        locate_base(config, pretrained_model_name_or_path, subfolder)
        if not config.base_model_name_or_path:
            raise ValueError(
                f"The adapter in {pretrained_model_name_or_path} names no base model. Load that yourself and call "
                "`PeftModel.from_pretrained(base_model, adapter)`."
            )
        base_model = cls._target_class.from_pretrained(
            config.base_model_name_or_path, revision=config.revision, **kwargs
        )
        return PeftModel.from_pretrained(
            base_model,
            pretrained_model_name_or_path,
            adapter_name=adapter_name,
            is_trainable=is_trainable,
            config=config,
            revision=revision,
            **({} if subfolder is None else {"subfolder": subfolder}),
            **kwargs,
        )


def check_is_mmrl(config: PeftConfig, adapter: str | os.PathLike[str]) -> None:
    """Raise a ValueError where the config that was read of an adapter is of another method."""
    if not isinstance(config, MMRLConfig):
        raise ValueError(f"{adapter} holds a {config.peft_type} adapter, not an MMRL one.")


def load_clip(name: str) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A base model, its weights in fp32, and its processor.

    Args:
        name: Hub id or folder.

    Raises:
        OSError: there is none of that name.
        ValueError: MMRL does not adapt such a model.
    """
    try:
        kind = AutoConfig.from_pretrained(name).model_type
    except OSError as error:
        raise OSError(
            f"The base model {name!r} can't be loaded: it must be the name of a CLIP on the Hugging Face Hub, or a "
            f"folder with one. {error}"
        ) from error
    supported = [model_cls.config_class.model_type for model_cls in BACKBONES]
    if kind not in supported:
        raise ValueError(
            f"The base model {name!r} is not a CLIP that MMRL adapts: its model type is {kind!r}, not one of "
            f"{', '.join(supported)}."
        )
    # the files' own dtype may be fp16, which does not train
    return AutoModel.from_pretrained(name, dtype=torch.float32), AutoProcessor.from_pretrained(name)


def is_at_hand(name: str) -> bool:
    """Whether a base model lies on this computer, so that loading it fetches nothing large.

    Args:
        name: Hub id or folder.
    """
    if os.path.isdir(name):
        return True
    cached = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model") / "snapshots"
    return any(cached.glob("*/*model*.safetensors")) or any(cached.glob("*/*model*.bin"))  # a link when it is whole
