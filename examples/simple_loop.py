"""A training loop to take into your own project: Accelerate, and a folder with a sub-folder of pictures per class.

    python examples/simple_loop.py --train_dir photos --output_dir my-adapter
    accelerate launch examples/simple_loop.py --train_dir photos --output_dir my-adapter      # several GPUs

It trains on the pictures as they are and saves the adapter. Random crops, validation, checkpoints and a report come
with `peft-mmrl train`.
"""

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from peft import get_peft_model
from torch.utils.data import DataLoader
from transformers import CLIPModel, CLIPProcessor, get_cosine_schedule_with_warmup

from peft_mmrl import MMRLConfig, Preprocessing


def main(args: argparse.Namespace) -> None:
    """Train, save."""
    accelerator = Accelerator(mixed_precision=args.mixed_precision)
    set_seed(args.seed)

    clip = CLIPModel.from_pretrained(args.base_model)
    processor = CLIPProcessor.from_pretrained(args.base_model)
    model = get_peft_model(clip, MMRLConfig(template=args.template))  # only adapter weights are trainable

    paths = sorted(args.train_dir.glob("*/*"))
    names = sorted({path.parent.name for path in paths})
    model.set_classes(names, processor)
    preprocess = Preprocessing.of(model, processor)

    def collate(paths: list[Path]) -> dict[str, torch.Tensor]:
        pixel_values = torch.stack([preprocess(path) for path in paths])  # (B, 3, height, width)
        return {
            "pixel_values": pixel_values,
            "labels": torch.tensor([names.index(path.parent.name) for path in paths]),
        }

    loader = DataLoader(paths, args.batch_size, shuffle=True, collate_fn=collate)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=args.learning_rate, weight_decay=5e-4)
    schedule = get_cosine_schedule_with_warmup(optimizer, len(loader), args.epochs * len(loader))
    model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)

    for epoch in range(args.epochs):
        model.train()
        for batch in loader:
            loss = model(**batch).loss
            accelerator.backward(loss)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        accelerator.print(f"epoch {epoch + 1}: loss {loss.item():.3f}")

    model = accelerator.unwrap_model(model)
    model.fit_decision(loader)  # how trained and new classes are decided between
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        model.save_pretrained(args.output_dir)
        print(f"trained on {len(paths)} pictures of {len(names)} classes; the adapter is in {args.output_dir}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_dir", type=Path, required=True, help="photos/cat/1.jpg, photos/dog/7.png, ...")
    parser.add_argument("--output_dir", required=True, help="for the adapter")
    parser.add_argument("--base_model", default="openai/clip-vit-base-patch16")
    parser.add_argument("--template", default="a photo of a {}.")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--mixed_precision", choices=("no", "fp16", "bf16"))
    parser.add_argument("--seed", type=int, default=1)
    main(parser.parse_args())
