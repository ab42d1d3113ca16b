"""Loads an adapter together with the base model that its config names."""

from __future__ import annotations

import os
from typing import Any

from peft import PeftConfig, PeftModel
from peft.auto import _BaseAutoPeftModel
from transformers import AutoModel

from .config import MMRLConfig
from .peft_model import PeftModelForZeroShotImageClassification


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
        if not isinstance(config, MMRLConfig):
            raise ValueError(f"{pretrained_model_name_or_path} holds a {config.peft_type} adapter, not an MMRL one.")
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
