"""Pretrain the demo's small CLIP on drawn glyphs and their captions.

    python examples/pretrain_demo_clip.py

draws 17,000 glyphs of 5,100 concepts (digits, letters, Greek letters, signs, an open vocabulary) in the
fonts that matplotlib ships, trains a `CLIPModel` of 1.1 million parameters and its tokenizer from scratch,
and saves them in fp16 (2.3 MB) with a processor to examples/demo_clip. Nothing is downloaded. It takes about
14 minutes on one CPU core. The handwritten digits of `digits.py` are never trained on; at the end the saved
model classifies them zero-shot.
"""

import argparse
import random
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from demo_parts.augment import IMAGE_MEAN, IMAGE_STD, augment
from demo_parts.captions import CONTEXT_LENGTH, Caption, attribute_bits, train_tokenizer, write_caption
from demo_parts.glyphs import Concept, Glyph, draw_glyphs, list_fonts, list_glyphs
from digits import CLASS_NAMES, IMAGE_SIZE, TEMPLATE, load_digits
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    get_cosine_schedule_with_warmup,
)
from transformers.image_utils import PILImageResampling

from peft_mmrl.data.progress import progress_bar


# Share of each group of concepts in a batch. Digits stay one subject among many: with more of them, few-shot
# adaptation has less to gain.
GROUP_SHARES = {"digit": 0.15, "letter": 0.40, "sign": 0.25, "other": 0.20}
TOKENIZER_CAPTIONS = 100_000
CAPTIONS_PER_GLYPH = 8  # at most, which keeps small runs short
WARMUP_STEPS = 100


class GlyphSampler:
    """Draws a group by its share, then a concept of the group, then a glyph of the concept, uniformly."""

    def __init__(self, glyphs: list[Glyph], rng: random.Random) -> None:
        self.rng = rng
        groups: dict[str, dict[Concept, list[int]]] = {group: defaultdict(list) for group in GROUP_SHARES}
        for index, glyph in enumerate(glyphs):
            groups[glyph.concept.group][glyph.concept].append(index)
        self.groups = {group: list(concepts.values()) for group, concepts in groups.items() if concepts}
        self.shares = [GROUP_SHARES[group] for group in self.groups]

    def sample(self, size: int) -> list[int]:
        """Indices of `size` glyphs."""
        chosen = self.rng.choices(list(self.groups.values()), self.shares, k=size)
        return [self.rng.choice(self.rng.choice(concepts)) for concepts in chosen]


def limit_glyphs(glyphs: list[Glyph], max_glyphs: int | None, rng: random.Random) -> list[Glyph]:
    """About `max_glyphs` random glyphs, the same number of each group; all of them if None."""
    if max_glyphs is None:
        return glyphs
    limited = []
    for group in GROUP_SHARES:
        members = [glyph for glyph in glyphs if glyph.concept.group == group]
        limited += rng.sample(members, min(len(members), max(1, max_glyphs // len(GROUP_SHARES))))
    return limited


def true_attributes(glyph: Glyph, augmented: set[str]) -> int:
    """Bit set of the attributes true of an augmented glyph; an eroded bold font is neither bold nor thin."""
    attributes = set(glyph.attributes) | augmented
    if {"thin", "bold"} <= attributes:
        attributes -= {"thin", "bold"}
    return attribute_bits(attributes)


def match_captions(glyphs: list[Glyph], attributes: list[int], captions: list[Caption]) -> Tensor:
    """Which captions are true of which pictures.

    Args:
        glyphs: The pictures' glyphs. Caption i was written for picture i.
        attributes: Bit set of the attributes true of each picture.
        captions: The captions.

    Returns:
        Boolean (B, B): entry (i, j) tells whether caption j is true of picture i.
    """
    families = {family: index for index, family in enumerate({glyph.concept.family for glyph in glyphs})}
    concepts = {concept: index for index, concept in enumerate({glyph.concept for glyph in glyphs})}
    family = torch.tensor([families[glyph.concept.family] for glyph in glyphs])
    concept = torch.tensor([concepts[glyph.concept] for glyph in glyphs])
    loose = torch.tensor([caption.loose for caption in captions])
    named = torch.tensor([caption.attributes for caption in captions])
    same_concept = concept[:, None] == concept[None]
    same_family = family[:, None] == family[None]
    named_hold = (named[None] & ~torch.tensor(attributes)[:, None]) == 0
    return (same_concept | (same_family & loose[None])) & named_hold


def contrastive_loss(logits: Tensor, matches: Tensor) -> Tensor:
    """CLIP's symmetric loss with several positives.

    Args:
        logits: Scaled cosines (B, B), pictures in rows, captions in columns.
        matches: Boolean (B, B). Each row and each column shares its weight evenly among its positives.
    """
    weights = matches.float()
    loss_image = F.cross_entropy(logits, weights / weights.sum(dim=1, keepdim=True))
    loss_text = F.cross_entropy(logits.T, weights.T / weights.T.sum(dim=1, keepdim=True))
    return (loss_image + loss_text) / 2


def build_model(tokenizer: CLIPTokenizer) -> CLIPModel:
    """A CLIP of 1.13 million parameters with random weights; captions are simple, so most see pictures."""
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": CONTEXT_LENGTH,
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "projection_dim": 64,
        "hidden_act": "gelu",
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "image_size": IMAGE_SIZE,
        "patch_size": 8,
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "projection_dim": 64,
        "hidden_act": "gelu",
    }
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))
    # By default positions start at 7 % of the patches' size, and a short training spends hundreds of steps on
    # telling them apart. Here patches and positions both start with a deviation of about 1.
    embeddings = model.vision_model.embeddings
    torch.nn.init.normal_(embeddings.patch_embedding.weight, std=0.07)
    torch.nn.init.normal_(embeddings.position_embedding.weight, std=1.0)
    return model


def build_processor(tokenizer: CLIPTokenizer) -> CLIPProcessor:
    """The processor that goes with the model: bicubic to 32x32, normalised as `augment` does."""
    image_processor = CLIPImageProcessor(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        resample=PILImageResampling.BICUBIC,
        image_mean=[IMAGE_MEAN] * 3,
        image_std=[IMAGE_STD] * 3,
    )
    return CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer)


def build_optimizer(model: CLIPModel) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    parameters = list(model.parameters())
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim >= 2], "weight_decay": 0.1},
        {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=2e-3, betas=(0.9, 0.98), eps=1e-6)


def train(
    model: CLIPModel,
    tokenizer: CLIPTokenizer,
    glyphs: list[Glyph],
    pictures: np.ndarray,
    steps: int,
    batch_size: int,
    rng: random.Random,
) -> float:
    """Train `model` in place on fresh augmentations and captions.

    Returns:
        Mean loss of the last 50 steps.
    """
    sampler = GlyphSampler(glyphs, rng)
    optimizer = build_optimizer(model)
    schedule = get_cosine_schedule_with_warmup(optimizer, min(WARMUP_STEPS, steps // 2), steps)
    losses = []
    model.set_attn_implementation("eager")  # on a CPU in bf16 plain attention is twice as fast as the fused one
    model.train()
    progress = progress_bar(range(steps), desc="pretraining", mininterval=1)
    for _ in progress:
        indices = sampler.sample(batch_size)
        batch = [glyphs[index] for index in indices]
        pixel_values, augmented = augment(torch.from_numpy(pictures[indices]))
        attributes = [true_attributes(glyph, found) for glyph, found in zip(batch, augmented, strict=True)]
        captions = [write_caption(glyph.concept, attributes[i], rng) for i, glyph in enumerate(batch)]
        texts = [caption.text for caption in captions]
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")

        with torch.autocast("cpu", torch.bfloat16):
            logits = model(pixel_values=pixel_values, **tokens).logits_per_image
        loss = contrastive_loss(logits.float(), match_captions(batch, attributes, captions))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        scale = model.logit_scale.exp().item()
        progress.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}", logit_scale=f"{scale:.1f}", refresh=False)
    return float(np.mean(losses[-50:]))


def save(model: CLIPModel, processor: CLIPProcessor, output_dir: Path) -> None:
    """Save weights in fp16, to keep the repository small; the configuration has them loaded in fp32."""
    model.half().save_pretrained(output_dir)
    model.config.dtype = torch.float32
    model.config.save_pretrained(output_dir)
    # Padding and truncation of the last batch would be saved as the tokenizer's defaults.
    processor.tokenizer.backend_tokenizer.no_padding()
    processor.tokenizer.backend_tokenizer.no_truncation()
    processor.save_pretrained(output_dir)


@torch.no_grad()
def zero_shot_accuracies(folder: Path, split: str = "test") -> dict[str, float]:
    """Zero-shot accuracy on the handwritten digits 0-4 among five, 5-9 among five, and all ten."""
    model, processor = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)
    digits = load_digits()[split]
    texts = [TEMPLATE.format(name) for name in CLASS_NAMES]
    inputs = processor(text=texts, images=list(digits["image"]), padding=True, return_tensors="pt")
    logits = model(**inputs).logits_per_image  # (number of pictures, 10)
    labels = torch.tensor(digits["label"])
    accuracies = {}
    for name, classes in {"0-4": range(5), "5-9": range(5, 10), "0-9": range(10)}.items():
        shown = torch.isin(labels, torch.tensor(classes))
        predicted = logits[shown][:, list(classes)].argmax(dim=1) + classes[0]
        accuracies[name] = (predicted == labels[shown]).float().mean().item()
    return accuracies


def print_accuracies(folder: Path) -> None:
    """Print what the saved model makes of the handwritten test digits."""
    for classes, accuracy in zero_shot_accuracies(folder).items():
        print(f"zero-shot on handwritten digits {classes}: {100 * accuracy:.1f} %")


def main(args: argparse.Namespace) -> None:
    """Draw the glyphs, train tokenizer and model, save them, and classify the handwritten digits."""
    if args.evaluate_only:
        print_accuracies(args.output_dir)
        return
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    if args.threads:
        torch.set_num_threads(args.threads)

    glyphs, pictures = draw_glyphs(limit_glyphs(list_glyphs(list_fonts()), args.max_glyphs, rng))
    print(f"{len(glyphs):,} glyphs of {len({glyph.concept for glyph in glyphs}):,} concepts")

    sampler = GlyphSampler(glyphs, rng)
    examples = [glyphs[i] for i in sampler.sample(min(TOKENIZER_CAPTIONS, CAPTIONS_PER_GLYPH * len(glyphs)))]
    tokenizer = train_tokenizer(
        write_caption(glyph.concept, attribute_bits(glyph.attributes), rng).text for glyph in examples
    )

    model = build_model(tokenizer)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer):,} tokens")
    start = time.perf_counter()
    loss = train(model, tokenizer, glyphs, pictures, args.steps, args.batch_size, rng)
    minutes = (time.perf_counter() - start) / 60
    print(f"loss {loss:.3f}, logit scale {model.logit_scale.exp().item():.2f}, {minutes:.1f} minutes")

    save(model, build_processor(tokenizer), args.output_dir)
    print_accuracies(args.output_dir)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line, or `argv`."""
    parser = argparse.ArgumentParser(description="Pretrain the demo's CLIP on drawn glyphs.")
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "demo_clip")
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    parser.add_argument("--max_glyphs", type=int, default=None, help="draw fewer glyphs, for a quick try")
    parser.add_argument("--evaluate_only", action="store_true", help="only print the accuracies of the saved model")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main(parse_args())
