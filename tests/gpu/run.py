"""What is to be tried where there is a GPU, in at most eight minutes on one card: checks, training steps, prediction.

    make gpu                                  # or: python tests/gpu/run.py
    python tests/gpu/run.py --device cpu      # the same at a tiny size, which shows that the script itself works

It runs in a bare clone, with any Python (3.11 or newer) that has a PyTorch for the GPU, and downloads nothing.
Libraries which that Python lacks, or has in too old a version, can be laid into a folder as wheels (`make gpu-wheels`;
--wheels names the folder). They are unpacked beside the results; PyTorch stays that of the machine.

It prints a table, and writes it with the card's name into results.json as it goes. Without a GPU it says so and ends.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import tomllib
import traceback
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path


ROOT = Path(__file__).parents[2]


def version_numbers(version: str) -> tuple[int, ...]:
    """2.11.0+cu126 -> (2, 11, 0)."""
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])


def oldest_versions(extra: str | None = None) -> dict[str, str]:
    """The libraries that the package needs, and those of an extra, with the oldest version of each that it takes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *(project["optional-dependencies"][extra] if extra else [])]
    return dict(requirement.replace("_", "-").split(">=") for requirement in needed)


def is_lacking(name: str, oldest: dict[str, str]) -> bool:
    """Whether this Python has no such library, or only an older version than is needed."""
    try:
        return version_numbers(metadata.version(name)) < version_numbers(oldest.get(name, "0"))
    except metadata.PackageNotFoundError:
        return True


def unpack_wheels(wheels: Path, target: Path) -> list[str]:
    """Unpack wheels (zip files) of what is lacking into a folder in front of the path; returns their names."""
    oldest, unpacked = oldest_versions("examples"), []  # with tokenizers, which belongs to transformers
    for wheel in sorted(wheels.glob("*.whl")):
        name = wheel.name.partition("-")[0].replace("_", "-")
        if is_lacking(name, oldest):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(target)
            unpacked.append(name)
    sys.path.insert(0, str(target))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(target), os.environ.get("PYTHONPATH", "")])
    importlib.invalidate_caches()
    return unpacked


def has_gpu() -> bool:
    """Whether PyTorch finds a GPU; without PyTorch, whether the driver does."""
    try:
        import torch
    except ImportError:
        return shutil.which("nvidia-smi") is not None
    return torch.cuda.is_available()


class Results:
    """What was found, printed and written as it goes."""

    def __init__(self, path: Path, head: dict) -> None:
        self.path, self.content = path, {**head, "checks": [], "steps": [], "prediction": []}
        print(", ".join(f"{name} {value}" for name, value in head.items()), flush=True)

    def add(self, part: str, row: dict, line: str) -> None:
        """Keep a row of a part, and print it as `line`."""
        self.content[part].append(row)
        self.path.write_text(json.dumps(self.content, indent=2))
        print(line, flush=True)

    @property
    def failed(self) -> bool:
        """Whether anything did not work."""
        return any("error" in row for part in ("checks", "steps", "prediction") for row in self.content[part])


def run_checks(
    results: Results, place: object, checks: tuple[Callable, ...], is_time_left: Callable[[], bool]
) -> None:
    """Each check, whatever becomes of the others."""
    for check in checks:
        name, start = check.__name__.replace("_", " "), time.perf_counter()
        row = {"name": name}
        if is_time_left():
            try:
                row["found"] = check(place)
            except Exception as error:  # any: the next check is another
                traceback.print_exc()
                row["error"] = f"{type(error).__name__}: {error}"
        else:
            row["left out"] = "no time left"
        row["seconds"] = round(time.perf_counter() - start, 1)
        said = "FAILED " + row["error"] if "error" in row else row.get("found", "left out: no time left")
        results.add("checks", row, f"{name:24}{row['seconds']:>7.1f} s  {said}")


def run_rows(
    results: Results, part: str, rows: Callable, line: Callable[[dict], str], is_time_left: Callable[[], bool]
) -> None:
    """Measure row by row while there is time."""
    try:
        for row in rows:
            results.add(part, row, line(row))
            if not is_time_left():
                print(f"{part}: the rest is left out, no time left")
                return
    except Exception as error:  # any: the next part is another
        traceback.print_exc()
        results.add(part, {"error": f"{type(error).__name__}: {error}"}, f"{part} FAILED {error}")


def step_line(row: dict) -> str:
    """A setting of the benchmark: milliseconds of our step, the others as multiples, peak memory."""
    ratios = "".join(f"{name:>10} {ratio:5.2f}x" for name, ratio in row["ratio_to_mmrl"].items() if name != "mmrl")
    memory = "".join(f", {name} {gib:.1f}" for name, gib in row.get("peak_gib", {}).items())
    setting = f"{row['classes']:>6} classes, batch {row['batch_size']:>2}, {row['dtype']}"
    return (
        f"{setting}: mmrl {1000 * row['seconds']['mmrl']:7.1f} ms{ratios}{'; peak GiB' + memory[1:] if memory else ''}"
    )


def prediction_line(row: dict) -> str:
    """Pictures per second with a number of workers."""
    return f"predict, {row['workers']:>2} workers: {row['pictures_per_second']:7.0f} pictures/s"


def main(args: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    start = time.perf_counter()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    sys.path[:0] = [str(ROOT)]
    unpacked = unpack_wheels(args.wheels, args.output_dir / "libraries")
    if args.device == "cuda" and not has_gpu():
        print("There is no GPU here that PyTorch can use: nothing was tried.")
        return 0
    oldest = oldest_versions()
    lacking = [f"{name}>={version}" for name, version in oldest.items() if is_lacking(name, oldest)]
    if lacking:
        print(f"This Python lacks {', '.join(lacking)}: lay wheels of them into {args.wheels} (`make gpu-wheels`).")
        return 1

    import torch

    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    import checks
    import speed

    card = torch.cuda.get_device_name() if args.device == "cuda" else platform.processor() or platform.machine()
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "peft", "accelerate")}
    head = {"device": card, "python": platform.python_version(), **versions, "unpacked": unpacked}
    results = Results(args.output_dir / "results.json", head)

    def is_time_left() -> bool:
        return time.perf_counter() - start < 60 * args.minutes

    with tempfile.TemporaryDirectory() as folder:
        place = checks.Place(args.device, args.device == "cpu", Path(folder))
        run_checks(results, place, checks.CHECKS, is_time_left)
        run_rows(results, "prediction", speed.prediction(place), prediction_line, is_time_left)
        run_rows(results, "steps", speed.steps(place), step_line, is_time_left)
    print(f"{time.perf_counter() - start:.0f} s; wrote {results.path}")
    return int(results.failed)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: at a tiny size")
    parser.add_argument("--minutes", type=float, default=7, help="begin nothing new after so many (%(default)s)")
    parser.add_argument("--wheels", type=Path, default=ROOT / "outputs/gpu-wheels", help="folder of wheels")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "outputs/gpu")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(parse_args()))
