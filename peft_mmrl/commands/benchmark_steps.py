"""The training steps that `benchmark` compares, each on the same random CLIP."""

from __future__ import annotations

import argparse
import copy
import random
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from torch.utils.data import default_collate
from transformers import CLIPConfig, CLIPModel

from .. import MMRLConfig
from ..export.classify import load_model
from ..export.formats import write_model
from ..export.frozen_classifier import FrozenClassifier
from ..training.cached_views import CachedViews
from ..tuner.config import adapted_layers
from ..tuner.decision import Decision
from ..tuner.textbook import textbook_forward, textbook_weights


BOS, EOS, A_PHOTO_OF_A, FULL_STOP = 49406, 49407, [320, 1125, 539, 320], 269
CONTEXT = 77
EVALUATION_BATCH = 32
MODELS = {"ViT-B/16": 16, "ViT-B/32": 32}
STEPS = ("mmrl", "cached", "textbook", "lora", "forward", "layers")


def tokenizer(texts: list[str]) -> dict[str, list[list[int]]]:
    """Stands in for CLIP's tokenizer, which would have to be downloaded: names of one to three random tokens."""
    rows = []
    for text in texts:
        prompt = text.startswith("a photo of a ")
        name = random.Random(text.removeprefix("a photo of a ").removesuffix("."))
        words = [name.randrange(1000, 40000) for _ in range(name.choice([1, 1, 2, 2, 3]))]
        rows.append([BOS, *(A_PHOTO_OF_A if prompt else []), *words, *([FULL_STOP] if prompt else []), EOS])
    return {"input_ids": rows}


class Setting:
    """One CLIP, number of classes, batch size and precision, and every method's step on it."""

    def __init__(self, args: argparse.Namespace, num_classes: int, batch_size: int, dtype: str) -> None:
        self.device, self.autocast = args.device, dtype == "bf16"
        torch.manual_seed(0)
        config = CLIPConfig(
            vision_config={"patch_size": MODELS[args.model]},
            text_config={"bos_token_id": BOS, "eos_token_id": EOS},
            projection_dim=512,
        )
        with torch.device(self.device):  # where weights are drawn fastest
            self.clip = CLIPModel(config).eval().requires_grad_(False)
        self.pixels = torch.randn(batch_size, 3, 224, 224, device=self.device)
        self.labels = torch.arange(batch_size, device=self.device) % num_classes
        self.names = [f"class {index}" for index in range(num_classes)]
        rows = tokenizer([f"a photo of a {name}." for name in self.names])["input_ids"]
        longest = max(map(len, rows))
        self.input_ids = torch.tensor([row + [EOS] * (longest - len(row)) for row in rows], device=self.device)

    def precision(self) -> torch.autocast | nullcontext:
        """Autocast where asked for."""
        return torch.autocast(self.device, torch.bfloat16) if self.autocast else nullcontext()

    def mmrl_model(self) -> torch.nn.Module:
        """This package's model on a copy of the CLIP."""
        model = get_peft_model(copy.deepcopy(self.clip), MMRLConfig())
        model.set_classes(self.names, tokenizer, allow_duplicates=True)  # random names may be equal
        return model

    def cached_views(self, model: torch.nn.Module) -> CachedViews:
        """One view of each image, on the device."""
        images = [
            {"pixel_values": image, "labels": label} for image, label in zip(self.pixels, self.labels, strict=True)
        ]
        with self.precision():
            return CachedViews(model, images, views=1)

    def step(self, method: str) -> Callable[[], None]:
        """A function that runs one training step of a method."""

        def train(loss: Callable[[], torch.Tensor], model: torch.nn.Module) -> Callable[[], None]:
            def run() -> None:
                with self.precision():
                    value = loss()
                value.backward()
                model.zero_grad()

            return run

        if method == "mmrl":
            model = self.mmrl_model()
            return train(lambda: model(pixel_values=self.pixels, labels=self.labels).loss, model)
        if method == "cached":
            model = self.mmrl_model()
            views = self.cached_views(model)
            self.view_mib = views.nbytes / len(views) / 2**20
            batch = {name: part.to(self.device) for name, part in default_collate(list(views)).items()}
            return train(lambda: model(**batch).loss, model)
        if method == "textbook":
            model = get_peft_model(copy.deepcopy(self.clip), MMRLConfig())
            config, weights = model.peft_config["default"], textbook_weights
            padding = self.input_ids.new_full((len(self.input_ids), CONTEXT - self.input_ids.shape[1]), EOS)
            padded = torch.cat([self.input_ids, padding], dim=1)
            return train(
                lambda: textbook_forward(self.clip, config, weights(model), padded, self.pixels, self.labels)["loss"],
                model,
            )
        if method == "lora":
            lora = LoraConfig(r=4, target_modules=["q_proj", "k_proj", "v_proj"])
            model = get_peft_model(copy.deepcopy(self.clip), lora)
            return train(
                lambda: cross_entropy(
                    model(input_ids=self.input_ids, pixel_values=self.pixels).logits_per_image, self.labels
                ),
                model,
            )
        return self.forward if method == "forward" else self.layers

    def forward(self) -> None:
        """The images through frozen CLIP."""
        with torch.no_grad(), self.precision():
            self.clip.get_image_features(pixel_values=self.pixels)

    def layers(self) -> None:
        """The encoder layers that a step seems to need, on states of the right size."""
        layers, config = self.clip.vision_model.encoder.layers, MMRLConfig()
        adapted = adapted_layers(config.vision_layers, len(layers), "vision_layers")
        size = self.clip.vision_model.embeddings.num_positions
        hidden = torch.randn(len(self.pixels), size, layers[0].embed_dim, device=self.device)
        longer = torch.randn(len(self.pixels), size + config.num_rep_tokens, layers[0].embed_dim, device=self.device)
        longer.requires_grad_()
        with self.precision():
            with torch.no_grad():
                for layer in layers:
                    hidden = layer(hidden, None)
            states = longer
            for index in adapted:
                states = layers[index](states, None)
        states.sum().backward()

    def evaluation(self, with_decision: bool = False) -> Callable[[], None]:
        """A function that scores a batch of 32 images among all classes, with the features of the classes kept."""
        model = self.deciding_model() if with_decision else self.mmrl_model().eval()
        pixels = torch.randn(EVALUATION_BATCH, *self.pixels.shape[1:], device=self.device)

        def run() -> None:
            with torch.no_grad(), self.precision():
                model(pixel_values=pixels)

        return run

    def deciding_model(self) -> torch.nn.Module:
        """The model in eval mode with a decision of any numbers: the time does not depend on them."""
        model = self.mmrl_model().eval()
        shape = len(model.classes), model.get_base_model().config.projection_dim
        model.decision = Decision(torch.zeros(shape), torch.zeros(shape[:1]), torch.zeros(shape), 1.0, 0.0, 0.5)
        return model

    def exported(self, folder: Path) -> tuple[dict[str, float], dict[str, Callable[[], None]]]:
        """The model with a decision, and ONNX of it in 32 and 8 bits: MB, and functions that score the images."""
        model = self.deciding_model()
        classifier = FrozenClassifier(model, tuple(self.pixels.shape[2:]))

        def run() -> None:
            with torch.no_grad():
                model(pixel_values=self.pixels)

        sizes, runs = {"predict": sum(weight.nbytes for weight in model.parameters()) / 1e6}, {"predict": run}
        for name, int8 in (("fp32", False), ("int8", True)):
            (folder / name).mkdir()
            sizes[name] = write_model(classifier, folder / name, "onnx", int8).stat().st_size / 1e6
            session = load_model(folder / name, torch.get_num_threads())
            runs[name] = partial(session, self.pixels.numpy())
        return sizes, runs
