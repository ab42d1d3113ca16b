"""What holds on a GPU as on a CPU: each check compares two ways to the same numbers, and says how far they are apart.

Models have random weights: ViT-B/16 on a GPU, a tiny one where `tiny` is asked for, which is how the tests run it all
on a CPU.
"""

from __future__ import annotations

import copy
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from peft import PeftModel, get_peft_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import default_collate
from transformers import CLIPConfig, CLIPModel

from peft_mmrl import AutoPeftModelForZeroShotImageClassification, MMRLConfig
from peft_mmrl.commands.benchmark_steps import BOS, EOS, tokenizer
from peft_mmrl.training import TrainingSettings, make_accelerator, train
from peft_mmrl.training.cached_views import CachedViews
from peft_mmrl.tuner.textbook import textbook_forward, textbook_weights


sys.path.append(str(Path(__file__).parents[1]))
from golden import CASES, FIELDS, Case, golden_model, gradients, relative_error


EXACT, CLOSE = 1e-4, 3e-2  # relative: fp32 in another order of sums; half precision beside fp32
CONFIGS = {"mmrl": MMRLConfig(), "mmrl++": MMRLConfig.plus_plus(beta=0.7)}
Step = tuple[torch.Tensor, torch.Tensor]  # loss, all gradients in one row


class CheckError(AssertionError):
    """Two numbers that should be the same are not."""


@dataclass
class Place:
    """Where the checks run.

    Args:
        device: `cuda` or `cpu`.
        tiny: tiny models and few classes.
        folder: for what is written.
    """

    device: str
    tiny: bool
    folder: Path

    def clip(self) -> CLIPModel:
        """A frozen random CLIP, the same at every call."""
        text, vision = {"bos_token_id": BOS, "eos_token_id": EOS}, {"patch_size": 16}
        if self.tiny:
            size = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
            text, vision = text | size, size | {"image_size": 32, "patch_size": 8}
        torch.manual_seed(0)
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=32 if self.tiny else 512)
        with torch.device(self.device):
            return CLIPModel(config).eval().requires_grad_(False)

    def model(self, method: str = "mmrl", num_classes: int = 10) -> PeftModel:
        """That CLIP with an adapter whose weights are those of a start, and bound classes."""
        model = get_peft_model(self.clip(), copy.deepcopy(CONFIGS[method]))
        model.set_classes([f"class {index}" for index in range(num_classes)], tokenizer, allow_duplicates=True)
        return model

    def batch(self, size: int = 4) -> dict[str, torch.Tensor]:
        """Random pictures and their labels."""
        side = 32 if self.tiny else 224
        pixels = torch.randn(size, 3, side, side, generator=torch.Generator().manual_seed(1))
        return {"pixel_values": pixels.to(self.device), "labels": torch.arange(size, device=self.device) % 10}

    def peak_gib(self) -> float:
        """The most memory of the GPU that was held since the last call; 0 on a CPU."""
        if self.device != "cuda":
            return 0.0
        peak = torch.cuda.max_memory_allocated() / 2**30
        torch.cuda.reset_peak_memory_stats()
        return peak


def step(
    model: Callable[..., object], batch: dict[str, torch.Tensor], weights_of: torch.nn.Module, scale: float = 1.0
) -> Step:
    """Loss and gradients of a training step; `scale` keeps those of fp16 from vanishing on the way."""
    weights = [weight for weight in weights_of.parameters() if weight.requires_grad]
    loss = model(**batch).loss.float()
    gradients = torch.autograd.grad(scale * loss, weights)
    return loss.detach(), torch.cat([gradient.flatten() for gradient in gradients]) / scale


def compare(found: Step, expected: Step, limit: float) -> str:
    """Refuse a difference of more than `limit`, relative, and say how large it is."""
    loss, gradient = (relative_error(one, other) for one, other in zip(found, expected, strict=True))
    require(loss < limit, f"loss differs by {loss:.1e}, more than {limit:.0e}")
    # A gradient is a difference of large numbers: half precision has three digits of them at most.
    require(gradient < limit * 10, f"gradients differ by {gradient:.1e}, more than {limit * 10:.0e}")
    return f"loss {loss:.0e}, gradients {gradient:.0e}"


def require(condition: bool, message: str) -> None:
    """Raise unless it holds; `assert` would be gone under `python -O`."""
    if not condition:
        raise CheckError(message)


def golden_numbers(place: Place) -> str:
    """Outputs, loss terms and gradients of the papers' own code."""
    worst = {"outputs": 0.0, "gradients": 0.0}
    for name in CASES:
        case = Case(name)
        model = golden_model(case).to(place.device)
        pixels, labels = (case.golden[key].to(place.device) for key in ("pixel_values", "labels"))
        output = model(pixel_values=pixels, labels=labels)
        output.loss.backward()
        for field, golden in FIELDS.items():
            error = relative_error(output[field].cpu(), case.golden[f"out.{golden}"])
            if not golden.endswith("_reg"):  # differences of nearly equal numbers
                worst["outputs"] = max(worst["outputs"], error)
        for weight, gradient in gradients(model.cpu()).items():
            worst["gradients"] = max(worst["gradients"], relative_error(gradient, case.golden[f"grad.{weight}"]))
    require(worst["outputs"] < EXACT and worst["gradients"] < 10 * EXACT, f"too far: {worst}")
    return ", ".join(f"{what} {error:.0e}" for what, error in worst.items())


def short_cuts(place: Place) -> str:
    """A step against the textbook, which runs whole layers on padded prompts."""
    rows = tokenizer([f"a photo of a class {index}." for index in range(10)])["input_ids"]
    padded = torch.tensor([row + [EOS] * (77 - len(row)) for row in rows], device=place.device)
    clip, batch, notes = place.clip(), place.batch(), []

    def textbook(model: PeftModel, config: MMRLConfig, **batch: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(**textbook_forward(clip, config, textbook_weights(model), padded, **batch))

    for method, config in CONFIGS.items():
        model = place.model(method)
        expected = step(partial(textbook, model, config), batch, model)
        notes.append(f"{method}: {compare(step(model, batch, model), expected, EXACT)}")
    return "; ".join(notes)


def compiled(place: Place) -> str:
    """torch.compile, with Inductor on a GPU."""
    model, batch = place.model("mmrl++"), place.batch()
    fast = torch.compile(model, backend="eager" if place.tiny else "inductor")
    note = compare(step(fast, batch, model), step(model, batch, model), 10 * EXACT)
    model.eval()
    with torch.no_grad():
        pixels = batch["pixel_values"]
        error = relative_error(fast(pixel_values=pixels).logits, model(pixel_values=pixels).logits)
    require(error < 10 * EXACT, f"logits differ by {error:.1e}")
    return f"{note}, logits {error:.0e}"


def flash_kernel(place: Place) -> str:
    """PyTorch's flash kernel against plain attention, in bf16; the profiler says that it ran."""
    model, batch = place.model(), place.batch()
    with torch.autocast(place.device, torch.bfloat16):
        with sdpa_kernel(SDPBackend.MATH):
            expected = step(model, batch, model)
        kernels = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
        with sdpa_kernel(kernels, set_priority=True), torch.profiler.profile() as profile:
            found = step(model, batch, model)
    ran = [event.key for event in profile.key_averages() if "flash_attention" in event.key]
    require(bool(ran), "no kernel of that name ran")
    return compare(found, expected, CLOSE)


def half_precision(place: Place) -> str:
    """Autocast in bf16 and fp16 beside fp32, and a scaled step of the optimizer in fp16."""
    model, batch = place.model(), place.batch()
    expected, notes = step(model, batch, model), []
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast(place.device, dtype):
            found = step(model, batch, model, scale=2.0**12)
        notes.append(f"{str(dtype).removeprefix('torch.')}: {compare(found, expected, CLOSE)}")
    scaler = torch.amp.GradScaler(place.device)
    optimizer = torch.optim.AdamW((weight for weight in model.parameters() if weight.requires_grad), 1e-3)
    losses = [scaled_step(model, batch, optimizer, scaler) for _ in range(10)]
    require(losses[-1] < losses[0], f"the loss does not fall in fp16: {losses}")
    return "; ".join(notes)


def scaled_step(
    model: PeftModel,
    batch: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> float:
    """One optimizer step in fp16 with a scaled loss; returns the loss."""
    with torch.autocast(batch["labels"].device.type, torch.float16):
        loss = model(**batch).loss
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    return loss.item()


def cached_views(place: Place) -> str:
    """A step on kept states of the frozen half against one on pictures."""
    model, batch = place.model(), place.batch()
    items = [{"pixel_values": pixels, "labels": label} for pixels, label in zip(*batch.values(), strict=True)]
    views = default_collate(list(CachedViews(model, items, views=1)))
    kept = {name: part.to(place.device) for name, part in views.items()}
    return compare(step(model, kept, model), step(model, batch, model), EXACT)


def gradient_checkpointing(place: Place) -> str:
    """The same step with fewer activations kept."""
    model, batch = place.model(), place.batch(16 if place.device == "cuda" else 4)
    step(model, batch, model)  # fills the caches
    place.peak_gib()
    expected, plain = step(model, batch, model), place.peak_gib()
    model.gradient_checkpointing_enable()
    found, less = step(model, batch, model), place.peak_gib()
    require(less < plain or place.device == "cpu", f"peak memory {less:.2f} GiB, {plain:.2f} GiB without")
    return f"{compare(found, expected, EXACT)}; peak {less:.2f} GiB, {plain:.2f} without"


def many_classes(place: Place) -> str:
    """A training step and a prediction among 21,000 classes."""
    num_classes = 300 if place.tiny else 21_000
    place.peak_gib()
    model, batch = place.model(num_classes=num_classes), place.batch()
    loss, gradient = step(model, batch, model)
    training = place.peak_gib()
    model.eval()
    with torch.no_grad():
        logits = model(pixel_values=batch["pixel_values"]).logits
    require(logits.shape == (4, num_classes), f"logits are {tuple(logits.shape)}")
    require(all(part.isfinite().all() for part in (loss, gradient, logits)), "not all numbers are finite")
    return f"{num_classes} classes; peak {training:.2f} GiB in training, {place.peak_gib():.2f} in prediction"


def loading(place: Place) -> str:
    """Adapters loaded onto the device in every way give the saved model's logits there."""
    model, pixels = place.model().eval(), place.batch()["pixel_values"]
    base, adapter = place.folder / "clip", place.folder / "adapter"
    place.clip().save_pretrained(base)
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(adapter)
    ways = {
        "device_map": lambda: AutoPeftModelForZeroShotImageClassification.from_pretrained(
            adapter, device_map={"": place.device}
        ),
        "a base on the device": lambda: PeftModel.from_pretrained(place.clip(), adapter),
        "low_cpu_mem_usage": lambda: PeftModel.from_pretrained(place.clip(), adapter, low_cpu_mem_usage=True),
        "to(device)": lambda: PeftModel.from_pretrained(CLIPModel.from_pretrained(base), adapter).to(place.device),
    }
    with torch.no_grad():
        expected = model(pixel_values=pixels).logits
        for way, load in ways.items():
            loaded = load().eval()
            devices = {parameter.device.type for parameter in loaded.parameters()}
            require(devices == {place.device}, f"{way}: on {devices}")
            error = relative_error(loaded(pixel_values=pixels).logits, expected)
            require(error < EXACT, f"{way}: logits differ by {error:.1e}")
    shutil.rmtree(base)
    return ", ".join(ways)


def training_loop(place: Place) -> str:
    """The loop of `peft-mmrl train`, in bf16."""
    batch = place.batch(8)
    items = [
        {"pixel_values": pixels.cpu(), "labels": int(label)} for pixels, label in zip(*batch.values(), strict=True)
    ]
    settings = TrainingSettings(epochs=5, batch_size=4, learning_rate=2e-3)
    accelerator = make_accelerator(settings, cpu=place.device == "cpu", mixed_precision="bf16")
    model = place.model()
    history = train(model, items, settings, accelerator)
    require(model.device.type == place.device, f"the model is on {model.device}")
    first, last = history[0]["loss"], history[-1]["loss"]
    require(last < first, f"the loss does not fall: {first:.3f} to {last:.3f}")
    return f"loss {first:.2f} to {last:.2f}"


CHECKS = (
    golden_numbers,
    short_cuts,
    flash_kernel,
    half_precision,
    cached_views,
    gradient_checkpointing,
    many_classes,
    loading,
    training_loop,
    compiled,
)
