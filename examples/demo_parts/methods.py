"""What the demo compares: MMRL, MMRL++ and what a user would pick instead, trained on the same few pictures.

Every method ends as one matrix of logits, pictures x ten digits, from which `score` reads all accuracies.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import DatasetDict
from digits import CLASS_NAMES, TEMPLATE, load_digits
from peft import LoraConfig, PeftModel, get_peft_model
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms.v2 import InterpolationMode, RandomAffine
from transformers import CLIPModel, CLIPProcessor, get_cosine_schedule_with_warmup

import peft_mmrl
from peft_mmrl.data import sample_shots
from peft_mmrl.data.progress import progress_bar


DEMO_CLIP = Path(__file__).parents[1] / "demo_clip"
# Name of a split -> the trained digits.
DIGIT_SPLITS = {
    "0-4": range(5),
    "5-9": range(5, 10),
    "even": range(0, 10, 2),
    "odd": range(1, 10, 2),
}


@dataclass
class Pictures:
    """Processed pictures (N, 3, 32, 32) and their digits (N,)."""

    pixels: torch.Tensor
    digits: torch.Tensor

    def select(self, indices: Iterable[int]) -> Pictures:
        """Some of them."""
        indices = torch.tensor(list(indices))
        return Pictures(self.pixels[indices], self.digits[indices])


@dataclass
class Task:
    """One few-shot problem: `shots` pictures of each trained digit; validation pictures are none of them."""

    trained: list[int]
    shots: Pictures
    validation: Pictures
    test: Pictures


@dataclass
class Settings:
    """How a method is trained. `lr`, `epochs` and `config` were chosen by `tune_demo.py` on validation pictures."""

    lr: float
    epochs: int
    config: dict = field(default_factory=dict)
    batch_size: int = 4


SETTINGS = {
    "mmrl": Settings(lr=5e-3, epochs=50, config={"reg_weight": 0.5}),
    "mmrl++": Settings(lr=5e-3, epochs=50, config={"reg_weight": 3.0}),
    "lora": Settings(lr=1e-3, epochs=25),
    "linear probe": Settings(lr=0, epochs=0, config={"C": 10.0}),
}


def load_clip() -> tuple[CLIPModel, CLIPProcessor]:
    """The demo's pretrained CLIP, loaded like any CLIP."""
    return CLIPModel.from_pretrained(DEMO_CLIP), CLIPProcessor.from_pretrained(DEMO_CLIP)


def load_pictures(processor: CLIPProcessor, data: DatasetDict | None = None) -> dict[str, Pictures]:
    """All handwritten digits, processed once: splits `train` and `test`."""
    data = load_digits() if data is None else data
    return {
        name: Pictures(
            processor(images=list(split["image"]), return_tensors="pt").pixel_values, torch.tensor(split["label"])
        )
        for name, split in data.items()
    }


def make_task(pictures: dict[str, Pictures], split: str, shots: int, seed: int) -> Task:
    """Sample the shots of all ten digits, then keep those of the trained ones (the field's protocol)."""
    trained, pool = list(DIGIT_SPLITS[split]), pictures["train"]
    chosen = sample_shots(pool.digits.tolist(), shots, random.Random(seed))
    rest = sorted(set(range(len(pool.digits))) - set(chosen))
    return Task(
        trained=trained,
        shots=pool.select(index for index in chosen if int(pool.digits[index]) in trained),
        validation=pool.select(rest),
        test=pictures["test"],
    )


def score(logits: torch.Tensor, digits: torch.Tensor, trained: list[int]) -> dict[str, float]:
    """Accuracies in percent: `base` (trained digits among themselves), `new` (the others among themselves), their
    harmonic mean `h`, and `all` ten together."""
    accuracies = {}
    new = [digit for digit in range(10) if digit not in trained]
    for name, classes in {"base": trained, "new": new, "all": range(10)}.items():
        classes = torch.tensor(list(classes))
        shown = torch.isin(digits, classes)
        predicted = classes[logits[shown][:, classes].argmax(dim=1)]
        accuracies[name] = 100 * (predicted == digits[shown]).float().mean().item()
    base, new_accuracy = accuracies["base"], accuracies["new"]
    h = 2 * base * new_accuracy / (base + new_accuracy) if base + new_accuracy else 0.0
    return {"base": base, "new": new_accuracy, "h": h, "all": accuracies["all"]}


def train(
    model: torch.nn.Module, task: Task, settings: Settings, seed: int, description: str, **inputs: torch.Tensor
) -> None:
    """A short Accelerate loop: AdamW, one warm-up epoch, cosine decay, small random shifts of every picture.

    Args:
        model: returns a loss for `pixel_values` and `labels`, or logits (then the loss is their cross entropy).
        task: labels are positions in `task.trained`.
        settings: learning rate, epochs, batch size.
        seed: of batches and augmentation.
        description: for the progress bar.
        inputs: passed to every forward call.
    """
    set_seed(seed)
    accelerator = Accelerator(cpu=True)
    labels = torch.tensor([task.trained.index(digit) for digit in task.shots.digits.tolist()])
    background = float(task.shots.pixels.min())
    augment = RandomAffine(
        degrees=10,
        translate=(0.08, 0.08),
        scale=(0.8, 1.1),
        interpolation=InterpolationMode.BILINEAR,
        fill=background,
    )
    loader = DataLoader(TensorDataset(task.shots.pixels, labels), settings.batch_size, shuffle=True, drop_last=True)
    optimizer = torch.optim.AdamW(
        (parameter for parameter in model.parameters() if parameter.requires_grad), settings.lr, weight_decay=5e-4
    )
    steps = settings.epochs * len(loader)
    scheduler = get_cosine_schedule_with_warmup(optimizer, len(loader), steps)
    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    model.train()
    with progress_bar(total=steps, desc=f"{description:>12}", unit="step", leave=False) as progress:
        for _ in range(settings.epochs):
            for pixels, targets in loader:
                pixels = torch.stack([augment(picture) for picture in pixels])
                output = model(pixel_values=pixels, **inputs, **({} if inputs else {"labels": targets}))
                loss = cross_entropy(output.logits_per_image, targets) if inputs else output.loss
                accelerator.backward(loss)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
                progress.update()
            progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    model.eval()


def train_mmrl(task: Task, method: str, settings: Settings, seed: int) -> PeftModel:
    """MMRL or MMRL++ through `get_peft_model`, on a fresh copy of the demo's CLIP."""
    clip, processor = load_clip()
    set_seed(seed)
    preset = peft_mmrl.MMRLConfig.plus_plus if method == "mmrl++" else peft_mmrl.MMRLConfig
    model = get_peft_model(clip, preset(**settings.config))
    model.set_classes([CLASS_NAMES[digit] for digit in task.trained], processor, template=TEMPLATE)
    train(model, task, settings, seed, method)
    return model


@torch.no_grad()
def mmrl_logits(model: PeftModel, processor: CLIPProcessor, pictures: Pictures) -> torch.Tensor:
    """Logits (N, 10) as the papers decide: trained digits by fused, the others by class logits."""
    model.set_classes(CLASS_NAMES, processor)
    with warnings.catch_warnings():  # `fit_decision` would put them on one scale; here the papers' way is shown
        warnings.filterwarnings("ignore", "Trained and new classes compete")
        return model(pixel_values=pictures.pixels).logits


@torch.no_grad()
def zero_shot_logits(model: PeftModel, processor: CLIPProcessor, pictures: Pictures) -> torch.Tensor:
    """Logits (N, 10) of frozen CLIP: the same model with its adapter disabled."""
    with model.disable_adapter():
        return mmrl_logits(model, processor, pictures)


def prompts(processor: CLIPProcessor, digits: Iterable[int]) -> torch.Tensor:
    """Token ids of the digits' prompts, (C, n)."""
    texts = [TEMPLATE.format(CLASS_NAMES[digit]) for digit in digits]
    return processor.tokenizer(texts, padding=True, return_tensors="pt").input_ids


def lora_logits(task: Task, pictures: Pictures, settings: Settings, seed: int) -> torch.Tensor:
    """PEFT's LoRA (r 4, attention projections of both towers), trained with cross entropy; logits (N, 10)."""
    clip, processor = load_clip()
    set_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "v_proj", "out_proj"])
    model = get_peft_model(clip, config)
    train(model, task, settings, seed, "lora", input_ids=prompts(processor, task.trained))
    with torch.no_grad():
        return model(input_ids=prompts(processor, range(10)), pixel_values=pictures.pixels).logits_per_image


@torch.no_grad()
def linear_probe_logits(task: Task, pictures: Pictures, settings: Settings) -> torch.Tensor:
    """Logistic regression on frozen image features for the trained digits; zero-shot's answer for the others, for
    which a probe has no weights. Both are log-probabilities, so that they can compete; (N, 10)."""
    clip, processor = load_clip()
    scores = clip(input_ids=prompts(processor, range(10)), pixel_values=pictures.pixels).logits_per_image
    scores = scores.log_softmax(dim=1)
    shots, shown = (
        normalize(clip.get_image_features(pixel_values=part.pixels).pooler_output).numpy()
        for part in (task.shots, pictures)
    )
    probe = LogisticRegression(**settings.config, max_iter=5000).fit(shots, task.shots.digits.numpy())
    scores[:, torch.tensor(probe.classes_)] = torch.tensor(probe.predict_log_proba(shown), dtype=scores.dtype)
    return scores
