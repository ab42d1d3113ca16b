"""Adapt a pretrained CLIP to a few handwritten digits with MMRL and MMRL++, and see what it gains and loses.

    python examples/demo.py                                 # `make demo`, about a minute
    python examples/demo.py --seeds 1 2 3 --split all       # the README's table

The CLIP in examples/demo_clip has seen glyphs drawn from fonts, never handwriting. It is shown 16 handwritten
pictures of each of five digits; then all ten are asked for: of CLIP as it was, of a decision without training, of
MMRL and MMRL++ (with the decision of `fit_decision`, and the papers' way), of LoRA and of a linear probe. Runs on a
CPU, downloads nothing.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from statistics import mean, pstdev

import datasets
import torch
from demo_parts.methods import DEMO_CLIP, DIGIT_SPLITS, SETTINGS, SHOTS, TITLES, Task, fit, load_clip, make_task, score
from demo_parts.picture import draw
from digits import CLASS_NAMES
from peft import PeftModel
from transformers.utils import logging as transformers_logging

from peft_mmrl.scoring.labelled import predict
from peft_mmrl.training import PAPER_METHODS, TrainingSettings, make_accelerator


COLUMNS = {"base": "trained", "new": "new", "h": "H", "all": "all ten"}
Results = dict[str, list[dict[str, float]]]  # method -> scores of each seed


def run_task(task: Task, seed: int, output_dir: Path) -> dict[str, torch.Tensor]:
    """Train every method on a task; returns logits (N, 10) for the test pictures and saves the MMRL adapters."""
    logits = {}
    for method in SETTINGS:
        classifiers = fit(method, task, seed)
        for name, classifier in classifiers.items():
            logits[name] = classifier.logits(task.test, CLASS_NAMES)
        if method in PAPER_METHODS:
            classifiers[method].save(output_dir / method)
    return {name: logits[name] for name in TITLES}


def check_saved_adapter(folder: Path, task: Task, expected: torch.Tensor) -> None:
    """Load a saved adapter onto a fresh CLIP and show that it gives the same answers."""
    clip, processor = load_clip()
    model = PeftModel.from_pretrained(clip, folder)
    model.set_classes(CLASS_NAMES, processor)
    accelerator = make_accelerator(TrainingSettings(), cpu=True)
    answers = predict(model, task.test, processor.image_processor, accelerator).probabilities.argmax(dim=1)
    same = int((answers == expected.argmax(dim=1)).sum())
    print(f"\nLoaded {folder} onto a fresh CLIP: {same} of {len(answers)} answers are the same.")
    if same != len(answers):
        raise SystemExit("The loaded adapter gives other answers.")


def print_table(title: str, results: Results) -> None:
    """Mean (and spread over seeds) of every method's accuracies."""
    print(f"\n{title}")
    print(f"{'':22}" + "".join(f"{name:>13}" for name in COLUMNS.values()))
    for method, seeds in results.items():
        cells = []
        for column in COLUMNS:
            values = [scores[column] for scores in seeds]
            spread = f" ± {pstdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.1f}{spread}")
        print(f"{TITLES[method]:22}" + "".join(f"{cell:>13}" for cell in cells))


def mean_of_splits(tables: list[Results]) -> Results:
    """Mean over splits of what each method reached with each seed."""
    return {
        method: [
            {column: mean(scores[column] for scores in splits) for column in COLUMNS}
            for splits in zip(*(table[method] for table in tables), strict=True)
        ]
        for method in tables[0]
    }


def main(args: argparse.Namespace) -> None:
    """Run the demo."""
    start = time.perf_counter()
    torch.set_num_threads(1)  # the model is tiny: more threads would only wait for each other
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()  # a bar for every small CLIP that is loaded says nothing
    # PEFT 0.21 asks transformers 5.24 for an attribute that has a new name there.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    print(
        f"A CLIP that was pretrained on printed characters is adapted to {args.shots} handwritten pictures of each of "
        "five digits."
    )
    by_split: dict[str, Results] = {}
    for split in DIGIT_SPLITS if args.split == "all" else [args.split]:
        results = by_split[split] = {}
        for seed in args.seeds:
            task = make_task(split, args.shots, seed)
            logits = run_task(task, seed, args.output_dir)
            for method, matrix in logits.items():
                results.setdefault(method, []).append(score(matrix, task.test["label"][:], task.trained))
        print_table(
            f"{args.shots} pictures each of the digits {split}; accuracy in % on {len(task.test)} test digits", results
        )
    if len(by_split) > 1:
        print_table("mean of the splits", mean_of_splits(list(by_split.values())))
    check_saved_adapter(args.output_dir / "mmrl", task, logits["mmrl"])

    metrics = {
        split: {
            method: {column: round(mean(scores[column] for scores in seeds), 2) for column in COLUMNS}
            for method, seeds in results.items()
        }
        for split, results in by_split.items()
    }
    content = metrics if args.split == "all" else metrics[args.split]
    (args.output_dir / "metrics.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    draw(args.output_dir / "demo.png", task, logits, args.shots)
    print(
        f"Wrote {args.output_dir}/metrics.json and {args.output_dir}/demo.png in {time.perf_counter() - start:.0f} s."
    )
    print(f"""
Load the adapter that was just made:

    import peft_mmrl; from peft import PeftModel; from transformers import CLIPModel
    clip = CLIPModel.from_pretrained("{DEMO_CLIP}")
    model = PeftModel.from_pretrained(clip, "{args.output_dir / "mmrl"}")""")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=[*DIGIT_SPLITS, "all"], default="0-4", help="the trained digits")
    parser.add_argument("--shots", type=int, default=SHOTS, help="pictures per trained digit")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/demo"))
    return parser.parse_args(argv)


if __name__ == "__main__":
    main(parse_args())
