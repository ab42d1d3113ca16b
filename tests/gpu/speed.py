"""How fast it is: training steps beside the textbook's and LoRA's, and pictures per second of prediction."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from checks import Place
from peft import get_peft_model
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPProcessor

from peft_mmrl import MMRLConfig
from peft_mmrl.commands import benchmark
from peft_mmrl.scoring.unlabelled import load_classifier, predict_pictures
from peft_mmrl.training import make_accelerator


DEMO_CLIP = Path(__file__).parents[2] / "examples" / "demo_clip"


def steps(place: Place) -> Iterator[dict]:
    """Seconds and peak memory of a training step, setting by setting: `peft_mmrl.commands.benchmark`."""
    model, methods = (
        ("ViT-B/32", ["mmrl", "lora"]) if place.tiny else ("ViT-B/16", ["mmrl", "cached", "textbook", "lora"])
    )
    arguments = ["--device", place.device, "--model", model, "--methods", *methods]
    args = benchmark.parse_args(
        [*arguments, "--repeats", "1"] if place.tiny else [*arguments, "--repeats", "5", "--memory"]
    )
    settings = [(2, 1)] if place.tiny else [(10, 4), (100, 4), (100, 32), (500, 4), (1000, 32)]
    for dtype in ("fp32",) if place.tiny else ("fp32", "bf16"):
        for num_classes, batch_size in settings:
            yield benchmark.measure(args, num_classes, batch_size, dtype)
            if place.device == "cuda":
                torch.cuda.empty_cache()


def write_adapter(place: Place) -> Path:
    """An untrained adapter for a random CLIP, ViT-B/16 unless tiny, with the demo's tokenizer."""
    processor = CLIPProcessor.from_pretrained(DEMO_CLIP)
    config = CLIPConfig.from_pretrained(DEMO_CLIP)
    if not place.tiny:
        text = {key: getattr(config.text_config, key) for key in ("vocab_size", "max_position_embeddings")}
        text |= {"bos_token_id": config.text_config.bos_token_id, "eos_token_id": config.text_config.eos_token_id}
        config = CLIPConfig(text_config=text, vision_config={"patch_size": 16}, projection_dim=512)
        processor.image_processor.size = {"shortest_edge": 224}
        processor.image_processor.crop_size = {"height": 224, "width": 224}
    base, adapter = place.folder / "speed-clip", place.folder / "speed-adapter"
    CLIPModel(config).save_pretrained(base)
    processor.save_pretrained(base)
    model = get_peft_model(CLIPModel.from_pretrained(base), MMRLConfig())
    model.set_classes(["zero", "one", "two"], processor)
    model.save_pretrained(adapter)
    return adapter


def write_pictures(folder: Path, count: int) -> Path:
    """JPEG files of 500 x 375, as most data sets have them."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    for index in range(count):
        coarse = Image.fromarray(generator.integers(0, 255, (24, 32, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{index:05}.jpg", quality=90)
    return folder


def prediction(place: Place) -> Iterator[dict]:
    """Pictures per second of `peft-mmrl predict`, with processes that read them."""
    count = 8 if place.tiny else 1024
    pictures = write_pictures(place.folder / "pictures", count)
    accelerator = make_accelerator(cpu=place.device == "cpu", mixed_precision="bf16")
    model, image_processor = load_classifier(write_adapter(place))
    model.to(accelerator.device)
    for workers in (0, 1) if place.tiny else (0, 4, 8, 16):
        options = {"batch_size": 4 if place.tiny else 64, "num_workers": workers}
        start = time.perf_counter()
        answers = list(predict_pictures(model, image_processor, [pictures], accelerator, **options))
        seconds = time.perf_counter() - start
        if len(answers) != count or any(answer.error for answer in answers):
            raise RuntimeError(f"{len(answers)} of {count} pictures were answered")
        yield {"workers": workers, "pictures_per_second": count / seconds}
