"""What a default run promises, and what it keeps: 60 runs on pictures that are here already.

    python examples/promises.py                          # about half an hour on a quiet core
    python examples/promises.py --kinds digits --shots 4 --seeds 1

Each run is `peft_mmrl.fit` with its defaults on a few pictures of five classes, the handwritten digits or letters that
are drawn here. Its promise is the accuracy of the trained adapter with its 90 % interval, from folds over these
pictures. The truth is its accuracy among the same classes on pictures that no run has seen. Beside it stands what the
run is worth against CLIP as it was: among the trained classes, among five that are new, and among all ten.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import datasets
import torch
from demo_parts.glyphs import FONT_DIR, list_fonts
from demo_parts.methods import DEMO_CLIP
from digits import CLASS_NAMES, load_digits
from PIL import Image, ImageDraw, ImageFont

from peft_mmrl.data import PictureSource, sample_shots
from peft_mmrl.fitting import FitOptions, Fitting
from peft_mmrl.metrics.functions import accuracy
from peft_mmrl.scoring.labelled import predict
from peft_mmrl.scoring.rungs import UNTRAINED, rungs
from peft_mmrl.training import TrainingSettings


LETTERS = "ABCDEFGHKR"
LETTERS_DRAWN = {"train": 40, "test": 60}  # of each
SPLITS = {"first": range(5), "last": range(5, 10), "even": range(0, 10, 2), "odd": range(1, 10, 2)}


@dataclass
class World:
    """Pictures of ten classes: a pool to train on, and others to test with."""

    names: list[str]
    train: datasets.Dataset
    test: datasets.Dataset


def handwriting() -> World:
    """Digits; most of those to test with were written by others."""
    parts = load_digits()
    return World(CLASS_NAMES, parts["train"], parts["test"])


def letters() -> World:
    """Capital letters of matplotlib's fonts, turned, moved, and of any size and contrast."""
    rng, names = random.Random(0), [f"letter {letter}" for letter in LETTERS]
    fonts = [font for font in list_fonts() if "cmmi" not in font and "cmex" not in font]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    parts = {}
    for part, count in LETTERS_DRAWN.items():
        labels = [label for label in range(len(LETTERS)) for _ in range(count)]
        pictures = [draw_letter(LETTERS[label], rng.choice(fonts), rng) for label in labels]
        parts[part] = datasets.Dataset.from_dict({"image": pictures, "label": labels}, features=features)
    return World(names, **parts)


def draw_letter(letter: str, font: str, rng: random.Random) -> Image.Image:
    """A picture (32 x 32, grey) of a letter."""
    picture = Image.new("L", (64, 64), 0)
    truetype = ImageFont.truetype(FONT_DIR / f"{font}.ttf", rng.randint(26, 52))
    place = rng.randint(26, 38), rng.randint(26, 38)
    ImageDraw.Draw(picture).text(place, letter, rng.randint(110, 255), truetype, anchor="mm")
    turned = picture.rotate(rng.uniform(-25, 25), Image.Resampling.BICUBIC)
    return turned.resize((32, 32), Image.Resampling.LANCZOS)


WORLDS = {"digits": handwriting, "letters": letters}


def run(world: World, trained: list[int], shots: int, seed: int) -> dict[str, Any]:
    """Train on some classes and test; accuracies are shares."""
    labels = world.train["label"][:]
    chosen = [row for row in sample_shots(labels, shots, random.Random(seed)) if labels[row] in trained]
    settings = TrainingSettings(seed=seed)
    fitting = Fitting(FitOptions(PictureSource(dataset=world.train.select(chosen)), settings, str(DEMO_CLIP)))
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        fitting.prepare()
        fitting.run()
    promised = {rung["model"]: rung for rung in rungs(fitting.predictions)}
    found: dict[str, Any] = {"promised": promised}
    new = [label for label in range(len(world.names)) if label not in trained]
    for part, classes in {"base": trained, "new": new, "all": [*trained, *new]}.items():
        found[part], found[f"zero_shot_{part}"], untrained = test(fitting, world, classes)
        if part == "base":
            found["untrained_base"] = untrained
    return found


@torch.no_grad()
def test(fitting: Fitting, world: World, classes: list[int]) -> tuple[float, float, float]:
    """Accuracies among some classes: of the trained adapter, of CLIP as it was, of the decision without training."""
    names = [world.names[label] for label in classes]
    fitting.model.set_classes(names, fitting.processor)
    labels = world.test["label"][:]
    rows = [row for row, label in enumerate(labels) if label in classes]
    pictures, _ = PictureSource(dataset=world.test.select(rows)).load()
    order = [names.index(name) for name in pictures.features["label"].names]
    truth = torch.tensor([order[label] for label in pictures["label"]])
    given = fitting.model, pictures, fitting.processor, fitting.accelerator
    decision = fitting.model.decision
    found = predict(*given)
    fitting.model.decision = fitting.decision
    untrained = predict(*given, zero_shot=found.zero_shot)
    fitting.model.decision = decision
    answers = found.probabilities, found.zero_shot, untrained.probabilities
    return tuple(accuracy(probabilities.argmax(dim=1), truth) for probabilities in answers)


def all_runs(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The runs that are asked for, each printed when it is done."""
    print(f"{'':30}{'promised':>20}{'true':>7}   against zero-shot: trained, new, all")
    for kind in args.kinds:
        world = WORLDS[kind]()
        for shots in args.shots:
            for split, trained in SPLITS.items():
                for seed in args.seeds:
                    found = run(world, list(trained), shots, seed)
                    found |= {"kind": kind, "shots": shots, "split": split, "seed": seed}
                    rung = found["promised"]["trained"]
                    found["covered"] = rung["low"] <= found["base"] <= rung["high"]
                    rung = found["promised"][UNTRAINED]
                    found["untrained_covered"] = rung["low"] <= found["untrained_base"] <= rung["high"]
                    print(describe(found), flush=True)
                    yield found


def describe(found: dict[str, Any]) -> str:
    """A line on a run."""
    name = f"{found['kind']}, {found['split']}, {found['shots']} pictures, seed {found['seed']}"
    rung = found["promised"]["trained"]
    promised = f"{rung['accuracy']:.1%} ({rung['low']:.0%}-{rung['high']:.0%})"
    gains = "".join(f"{100 * (found[part] - found[f'zero_shot_{part}']):+7.1f}" for part in ("base", "new", "all"))
    return f"{name:32}{promised:>18}{found['base']:7.1%}{'' if found['covered'] else ' !':3}{gains}"


def main(args: argparse.Namespace) -> None:
    """Run, and say how often the promise was kept."""
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    runs = list(all_runs(args))
    kept, kept_untrained = (mean(found[name] for found in runs) for name in ("covered", "untrained_covered"))
    print(
        f"\nthe 90 % interval holds the true accuracy in {kept:.0%} of {len(runs)} runs, that of the decision without "
        f"training in {kept_untrained:.0%}"
    )
    for part in ("base", "new", "all"):
        gains = [100 * (found[part] - found[f"zero_shot_{part}"]) for found in runs]
        print(f"{part:5} against zero-shot: {mean(gains):+.1f} points, at worst {min(gains):+.1f}")
    if args.output is not None:
        args.output.write_text(json.dumps(runs, indent=2) + "\n", encoding="utf-8")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=WORLDS, default=list(WORLDS), help="of pictures (all)")
    parser.add_argument("--shots", type=int, nargs="+", default=[2, 4, 16], help="pictures of each class (2 4 16)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="(1 2 3)")
    parser.add_argument("--output", type=Path, help="JSON file for all figures")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main(parse_args())
