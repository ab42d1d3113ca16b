"""How long a training step and the evaluation of an image take, beside what one would do without this package.

    peft-mmrl benchmark                                        # `make bench`: a few minutes on one core
    peft-mmrl benchmark --classes 10 50 100 500 1000 --batch_sizes 4 32 --dtypes fp32 bf16   # hours
    peft-mmrl benchmark --device cuda --classes 10 100 1000 --batch_sizes 32 --dtypes bf16

Compared on one random CLIP (speed does not depend on the weights), in turn, so that a noisy machine hits all alike:
  mmrl      this package, one training step (forward and backward)
  cached    the same step on cached views (`peft_mmrl.training.cached_views.CachedViews`): adapted layers only
  textbook  what the papers' code does: a second pass through frozen CLIP, prompts padded to 77 tokens, all layers
  lora      PEFT's LoRA, r 4 on the query, key and value projections of both encoders, cross entropy
  forward   the bare forward pass of the images through frozen CLIP, no text
  layers    the encoder layers that a step seems to need: trunk and frozen upper layers forward, adapted layers with K
            more tokens forward and backward
Evaluation is of batches of 32; the column "decision" says how many times as long it takes with one (`fit_decision`).
With --export it is what `peft-mmrl export` writes that is timed instead, in 32 and 8 bits, beside the model.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from ..data.progress import progress_bar
from ..export.formats import check_format
from ..training.run_folder import write_json
from . import arguments as cli
from .benchmark_steps import EVALUATION_BATCH, MODELS, STEPS, Setting
from .console import clear_errors, command_line


def seconds(run: Callable[[], None], device: str) -> float:
    """Wall time of one call."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_rss() -> float:
    """Peak memory of this process in GiB."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux `getrusage` counts the process that started this one, too
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) / 2**20
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def peak_memory(args: argparse.Namespace, method: str, num_classes: int, batch_size: int, dtype: str) -> float:
    """Peak memory in GiB of two steps, on a CPU measured in a process of its own."""
    if args.device == "cuda":
        before = torch.cuda.memory_allocated()  # the models whose steps are timed
        run = Setting(args, num_classes, batch_size, dtype).step(method)
        torch.cuda.reset_peak_memory_stats()
        run(), run()
        return (torch.cuda.max_memory_allocated() - before) / 2**30
    command = [
        sys.executable,
        "-m",
        "peft_mmrl",
        "benchmark",
        "--only_memory",
        method,
        "--model",
        args.model,
        "--threads",
        str(args.threads),
    ]
    command += ["--classes", str(num_classes), "--batch_sizes", str(batch_size), "--dtypes", dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def measure(args: argparse.Namespace, num_classes: int, batch_size: int, dtype: str) -> dict:
    """Median seconds of interleaved runs, ratios and peak memory of one setting."""
    setting = Setting(args, num_classes, batch_size, dtype)
    methods = [method for method in args.methods if method != "textbook" or num_classes <= args.max_textbook_classes]
    runs = {method: setting.step(method) for method in methods}
    runs["evaluation"] = setting.evaluation()
    runs["evaluation with a decision"] = setting.evaluation(with_decision=True)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(args.repeats + 1):
        for name, run in runs.items():
            elapsed = seconds(run, args.device)
            if repeat:  # the first is a warm-up
                times[name].append(elapsed)
    medians = {name: median(values) for name, values in times.items()}
    result = {"classes": num_classes, "batch_size": batch_size, "dtype": dtype, "seconds": medians}
    result["ratio_to_mmrl"] = {name: medians[name] / medians["mmrl"] for name in methods}
    result["evaluation_seconds_per_image"] = medians["evaluation"] / EVALUATION_BATCH
    result["decision_ratio"] = medians["evaluation with a decision"] / medians["evaluation"]
    if "cached" in methods:
        result["cached_view_mib"] = setting.view_mib
    if args.memory:
        measured = [method for method in methods if method not in ("forward", "layers")]
        result["peak_gib"] = {method: peak_memory(args, method, num_classes, batch_size, dtype) for method in measured}
    return result


def measure_export(args: argparse.Namespace, num_classes: int, batch_size: int) -> dict[str, dict[str, float]]:
    """Median seconds per image and MB of the model in fp32 and of what is exported of it, runs interleaved; with the
    same decision on all sides."""
    setting = Setting(args, num_classes, batch_size, "fp32")
    times: dict[str, list[float]] = {}
    with TemporaryDirectory() as folder:
        exported, runs = setting.exported(Path(folder))
        for repeat in range(args.repeats + 1):
            for name, run in runs.items():
                elapsed = seconds(run, args.device)
                if repeat:  # the first is a warm-up
                    times.setdefault(name, []).append(elapsed)
    return {
        name: {"seconds_per_image": median(values) / batch_size, "megabytes": exported[name]}
        for name, values in times.items()
    }


def print_export(found: dict[str, dict[str, float]], setting: str) -> None:
    """A line for the model, and one for each export of it."""
    model = found["predict"]["seconds_per_image"]
    for name, values in found.items():
        speed = values["seconds_per_image"]
        print(
            f"{setting}, {name}: {values['megabytes']:.0f} MB, {speed:.3f} s per image, {model / speed:.2f} x as fast"
        )


def print_table(results: list[dict], methods: list[str]) -> None:
    """A line per setting: seconds of this package's step, and how many times as long the others take."""
    others = [method for method in methods if method != "mmrl"]
    print(f"\n{'classes':>8}{'batch':>6}{'':>6}{'mmrl s':>9}" + "".join(f"{name:>10}" for name in others), end="")
    print(f"{'eval s/img':>12}{'decision':>10}  peak GiB")
    for result in results:
        print(f"{result['classes']:>8}{result['batch_size']:>6}{result['dtype']:>6}", end="")
        print(f"{result['seconds']['mmrl']:>9.2f}", end="")
        for name in others:
            ratio = result["ratio_to_mmrl"].get(name)
            print(f"{'-' if ratio is None else f'{ratio:.2f}x':>10}", end="")
        memory = ", ".join(f"{name} {value:.1f}" for name, value in result.get("peak_gib", {}).items())
        print(f"{result['evaluation_seconds_per_image']:>12.3f}{result['decision_ratio']:>9.2f}x  {memory}")


def plot(results: list[dict], path: Path, title: str) -> None:
    """Seconds per training step against the number of classes, one panel per batch size and precision."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = sorted({(result["batch_size"], result["dtype"]) for result in results})
    figure = Figure(figsize=(5.5 * len(panels), 4))
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        shown = [result for result in results if (result["batch_size"], result["dtype"]) == panel]
        for method in STEPS:
            points = [
                (result["classes"], result["seconds"][method]) for result in shown if method in result["seconds"]
            ]
            if points:
                axis.plot(*zip(*sorted(points), strict=True), marker="o", label=method)
        axis.set(xscale="log", yscale="log", xlabel="classes", ylabel="seconds per training step")
        axis.set_title(f"batch {panel[0]}, {panel[1]}")
        axis.grid(alpha=0.3, which="both")
        axis.legend(frameon=False)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


@command_line()
def main(args: argparse.Namespace) -> None:
    """Measure every setting."""
    with clear_errors():
        cli.check_arguments(args)
    torch.set_num_threads(args.threads)
    settings = [(c, b, d) for d in args.dtypes for b in args.batch_sizes for c in args.classes]
    if args.export:
        with clear_errors():
            check_format("onnx", True)
        for num_classes, batch_size, _ in settings:
            found = measure_export(args, num_classes, batch_size)
            print_export(found, f"{args.model}, {num_classes} classes, batch {batch_size}")
        return
    if args.only_memory:
        run = Setting(args, *settings[0]).step(args.only_memory)
        run(), run()
        print(peak_rss())
        return
    args.output_dir.mkdir(parents=True, exist_ok=True)
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {args.threads} thread(s)"
    results: list[dict] = []
    content = {"model": args.model, "device": device, "torch": torch.__version__, "results": results}
    for setting in progress_bar(settings, unit="setting"):
        results.append(measure(args, *setting))
        write_json(args.output_dir / "benchmark.json", content)  # kept if it is stopped
    print(f"{args.model} on {device}; times of the others as multiples of mmrl's")
    print_table(results, args.methods)
    if "cached" in args.methods:
        print(f"cached: every view of an image takes {results[0]['cached_view_mib']:.2f} MiB in fp32, half in bf16")
    plot(results, args.output_dir / "benchmark.png", f"{args.model}, {device}")
    print(f"\nWrote {args.output_dir}/benchmark.json and {args.output_dir}/benchmark.png")


def parse_args(argv: list[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line."""
    parser = cli.make_parser(__doc__, prog)
    parser.add_argument("--model", choices=MODELS, default="ViT-B/16")
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 50, 100])
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[4])
    parser.add_argument("--dtypes", nargs="+", choices=("fp32", "bf16"), default=["fp32"])
    parser.add_argument("--methods", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--repeats", type=int, default=3, help="counted runs of each, after one warm-up")
    parser.add_argument("--max_textbook_classes", type=int, default=500, help="beyond, it takes more than 24 GiB")
    parser.add_argument("--memory", action="store_true", help="also measure peak memory")
    parser.add_argument("--export", action="store_true", help="time exported classifiers beside the model")
    parser.add_argument("--only_memory", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/benchmark"))
    args = parser.parse_args(argv)
    if "mmrl" not in args.methods:
        parser.error("--methods must include mmrl, which the others are compared with")
    return args
