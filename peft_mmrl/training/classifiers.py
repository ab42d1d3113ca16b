"""MMRL, MMRL++ and what a user would pick instead, trained alike and asked alike."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import datasets
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy, normalize
from transformers import CLIPModel
from transformers.modeling_outputs import ImageClassifierOutput

from ..data import Preprocessing
from ..scoring.labelled import score
from ..tuner.config import MMRLConfig
from ..tuner.decision import Decision
from ..tuner.names import match_keys, name_keys
from ..tuner.tokenization import PromptTokenizer
from ..tuner.towers.backbones import backbone_of
from ..tuner.validation import as_templates
from .frozen import FrozenFeatures
from .inputs import augmented
from .loop import train
from .settings import TrainingSettings


@dataclass(frozen=True)
class Transfer:
    """How a classifier scores classes of another data set or part than it was trained on.

    Args:
        template: prompt template(s) of these classes.
        beta: MMRL++: weight of a layer's own tokens (beta) there; None: as trained.
        trained: so many of them, the first, are those that were trained, in the same order; all others count as new,
            whatever their names.
    """

    template: str | list[str]
    beta: float | None = None
    trained: int = 0


class Classifier(Protocol):
    """What `fit_classifier` gives."""

    def logits(
        self, dataset: datasets.Dataset, class_names: list[str], transfer: Transfer | None = None
    ) -> torch.Tensor:
        """Scores (N, C) of N pictures among C classes, trained ones or others, fp32.

        Args:
            dataset: N pictures.
            class_names: C names.
            transfer: how to score others than the trained classes; None: classes are trained ones by their names.
        """

    def save(self, folder: Path) -> None:
        """Write what was trained, if anything."""


class MMRLClassifier:
    """MMRL or MMRL++, through `get_peft_model`. It decides as in the papers unless it has a `decision`."""

    decision: Decision | None = None

    def __init__(self, clip: CLIPModel, processor: Any, accelerator: Accelerator, config: MMRLConfig) -> None:
        self.model = get_peft_model(clip, config)
        self.processor, self.accelerator = processor, accelerator
        self.preprocessing = Preprocessing.of(config, processor)

    def fit(self, train_set: datasets.Dataset, class_names: list[str], settings: TrainingSettings) -> None:
        self._bind(class_names)
        train(self.model, augmented(train_set, self.preprocessing, settings), settings, self.accelerator)

    def with_decision(
        self, train_set: datasets.Dataset, class_names: list[str], features: str = "adapted"
    ) -> MMRLClassifier:
        """The same model, not trained again, with a decision fitted on the pictures that it was trained on.

        Args:
            train_set, class_names: as they were trained on.
            features: see `fit_decision` of the model.
        """
        self._bind(class_names)
        given = self.model, train_set, self.processor.image_processor, self.accelerator
        frozen = FrozenFeatures.of(*given, with_mirrored=False)
        other = copy.copy(self)
        other.decision = frozen.fit_decision(self.model, features)
        return other

    def _bind(self, class_names: list[str], **how: Any) -> None:
        self.model.set_classes(class_names, self.processor, allow_duplicates=True, **how)  # as in ImageNet's names

    def logits(
        self, dataset: datasets.Dataset, class_names: list[str], transfer: Transfer | None = None
    ) -> torch.Tensor:
        how, decision = {}, self.decision
        if transfer is not None:
            seen = [position < transfer.trained for position in range(len(class_names))]
            how = {"template": transfer.template, "seen": seen}
            if decision is not None and not any(seen):  # then the prompts that it was fitted with play no part
                conditions = {name: value for name, value in decision.fitted_for.items() if name != "template"}
                decision = replace(decision, fitted_for=conditions)
        self._bind(class_names, **how)
        self.model.eval()
        self.model.decision = decision
        config = self.model.peft_config["default"]
        beta = config.beta
        if transfer is not None and transfer.beta is not None:
            config.beta = transfer.beta
        try:
            with warnings.catch_warnings():  # without a decision it is the papers' way that is asked for
                warnings.filterwarnings("ignore", "Trained and new classes compete")
                return score(self._forward, dataset, self.preprocessing, self.accelerator)
        finally:
            config.beta = beta

    def _forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=pixel_values).logits

    def save(self, folder: Path) -> None:
        if self.accelerator.is_main_process:
            self.model.decision = self.decision
            self.model.save_pretrained(folder)


class UntrainedClassifier(MMRLClassifier):
    """A decision without training: the adapter keeps its first weights, and its layers are not run."""

    def fit(self, train_set: datasets.Dataset, class_names: list[str], settings: TrainingSettings) -> None:
        self.model.to(self.accelerator.device)
        self.decision = self.with_decision(train_set, class_names, "frozen").decision


class ZeroShotClassifier(MMRLClassifier):
    """Frozen CLIP: an untrained adapter, disabled."""

    def fit(self, train_set: datasets.Dataset, class_names: list[str], settings: TrainingSettings) -> None:
        self.model.to(self.accelerator.device)

    def _forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        with self.model.disable_adapter():
            return super()._forward(pixel_values)

    def save(self, folder: Path) -> None:
        """Nothing was trained."""


class PromptedCLIP(torch.nn.Module):
    """CLIP as a classifier: cosine similarity of images and class prompts, trained with cross entropy.

    Args:
        clip: a CLIP, also one with a PEFT adapter.
        tokenizer: the base model's.
        templates: prompt templates, whose text features are averaged.
    """

    def __init__(self, clip: torch.nn.Module, tokenizer: Any, templates: list[str]) -> None:
        super().__init__()
        self.clip, self.tokenizer, self.templates = clip, tokenizer, templates
        self.class_names: list[str] = []

    def image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Normalised (B, d)."""
        return normalize(self.clip.get_image_features(pixel_values=pixel_values).pooler_output, dim=-1)

    def text_features(self, class_names: list[str], templates: list[str] | None = None) -> torch.Tensor:
        """Normalised (C, d), with other templates where they are given."""
        features = []
        for template in templates or self.templates:
            prompts = [template.replace("{}", name) for name in class_names]
            inputs = self.tokenizer(prompts, padding=True, return_tensors="pt").to(self.clip.device)
            features.append(normalize(self.clip.get_text_features(**inputs).pooler_output, dim=-1))
        return normalize(torch.stack(features).mean(dim=0), dim=-1)

    def logits(self, pixel_values: torch.Tensor, text_features: torch.Tensor) -> torch.Tensor:
        """(B, C)."""
        return self.clip.logit_scale.exp() * self.image_features(pixel_values) @ text_features.T

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> ImageClassifierOutput:
        """Logits (B, C) among `class_names` and their cross entropy."""
        logits = self.logits(pixel_values, self.text_features(self.class_names))
        return ImageClassifierOutput(loss=cross_entropy(logits.float(), labels), logits=logits)


class LoraClassifier:
    """PEFT's LoRA on the attention projections of both encoders."""

    def __init__(self, clip: CLIPModel, processor: Any, accelerator: Accelerator, templates: list[str]) -> None:
        targets = backbone_of(clip).attention_projections
        config = LoraConfig(r=4, lora_alpha=8, target_modules=list(targets))
        self.model = PromptedCLIP(get_peft_model(clip, config), processor.tokenizer, templates)
        self.image_processor, self.accelerator = processor.image_processor, accelerator

    def fit(self, train_set: datasets.Dataset, class_names: list[str], settings: TrainingSettings) -> None:
        self.model.class_names = class_names
        train(self.model, augmented(train_set, self.image_processor, settings), settings, self.accelerator)

    @torch.no_grad()
    def logits(
        self, dataset: datasets.Dataset, class_names: list[str], transfer: Transfer | None = None
    ) -> torch.Tensor:
        text_features = self.model.text_features(class_names, transfer and as_templates(transfer.template))
        return score(
            lambda pixels: self.model.logits(pixels, text_features), dataset, self.image_processor, self.accelerator
        )

    def save(self, folder: Path) -> None:
        if self.accelerator.is_main_process:
            self.model.clip.save_pretrained(folder)


class LinearProbeClassifier:
    """Logistic regression on frozen image features; classes that were not trained keep zero-shot's answer.

    All scores are log-probabilities, so that both kinds of classes can compete. Trained classes of one name (ImageNet
    has two such pairs) are told apart by their order.
    """

    def __init__(self, clip: CLIPModel, processor: Any, accelerator: Accelerator, templates: list[str]) -> None:
        self.model = PromptedCLIP(clip, processor.tokenizer, templates).eval().to(accelerator.device)
        self.prompt_tokenizer = PromptTokenizer(processor, clip.config.text_config)
        self.image_processor, self.accelerator = processor.image_processor, accelerator

    def fit(self, train_set: datasets.Dataset, class_names: list[str], settings: TrainingSettings) -> None:
        from sklearn.linear_model import LogisticRegression

        features, labels = self._features(train_set).numpy(), train_set["label"][:]
        self.class_names, self.columns = class_names, {label: at for at, label in enumerate(sorted(set(labels)))}
        self.probe = LogisticRegression(C=10.0, max_iter=5000).fit(features, labels)

    def _features(self, dataset: datasets.Dataset) -> torch.Tensor:
        return score(self.model.image_features, dataset, self.image_processor, self.accelerator)

    @torch.no_grad()
    def logits(
        self, dataset: datasets.Dataset, class_names: list[str], transfer: Transfer | None = None
    ) -> torch.Tensor:
        text_features = self.model.text_features(class_names, transfer and as_templates(transfer.template)).cpu()
        features = self._features(dataset)
        scores = (self.model.clip.logit_scale.exp().cpu() * features @ text_features.T).log_softmax(dim=1)
        probe = torch.from_numpy(self.probe.predict_log_proba(features.numpy())).float()
        if transfer is None:
            keys = (name_keys(names, self.prompt_tokenizer) for names in (class_names, self.class_names))
            places = match_keys(*keys)
        else:
            places = range(transfer.trained)
        for position, label in enumerate(places):
            if label in self.columns:
                scores[:, position] = probe[:, self.columns[label]]
        return scores

    def save(self, folder: Path) -> None:
        """A probe is no adapter: it is fitted again in a moment."""


METHODS = ("mmrl", "mmrl++", "zero-shot", "untrained", "lora", "linear-probe")
PAPER_METHODS, BASELINES = METHODS[:2], METHODS[2:]


def mmrl_config(method: str, template: str | list[str] | None, settings: TrainingSettings) -> MMRLConfig:
    """The config of `mmrl` or `mmrl++` with what `settings` says otherwise; `template=None` leaves the default.

    Raises:
        ValueError: another method, or what the config refuses.
    """
    if method not in PAPER_METHODS:
        raise ValueError(f"`method` must be one of {', '.join(PAPER_METHODS)}, got {method!r}.")
    make = MMRLConfig.plus_plus if method == "mmrl++" else MMRLConfig
    return make(**({} if template is None else {"template": template}), **settings.config)


def fit_classifier(
    method: str,
    clip: CLIPModel,
    processor: Any,
    train_set: datasets.Dataset,
    class_names: list[str],
    template: str | list[str],
    settings: TrainingSettings,
    accelerator: Accelerator,
) -> Classifier:
    """Train one of `METHODS`.

    Args:
        method: its name.
        clip: a fresh CLIP, which is changed.
        processor: its processor.
        train_set: pictures whose labels are positions in `class_names`.
        class_names: names as prompts say them.
        template: one prompt template or several.
        settings: hyper-parameters.
        accelerator: from `make_accelerator`.

    Raises:
        ValueError: an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}, got {method!r}.")
    set_seed(settings.seed)
    if method in PAPER_METHODS:
        classifier = MMRLClassifier(clip, processor, accelerator, mmrl_config(method, template, settings))
    elif method in ("zero-shot", "untrained"):
        kind = ZeroShotClassifier if method == "zero-shot" else UntrainedClassifier
        classifier = kind(clip, processor, accelerator, MMRLConfig(template=template))
    else:
        kind = LoraClassifier if method == "lora" else LinearProbeClassifier
        classifier = kind(clip, processor, accelerator, as_templates(template))
    classifier.fit(train_set, class_names, settings)
    return classifier
