#!/usr/bin/env python3
"""Name pictures with the classifier in this folder; it needs numpy, pillow and onnxruntime, and nothing else.

    python classify.py photo.jpg
    python classify.py photos --format csv --top_k 3 > answers.csv
    python classify.py photos --threshold 0.5      # "none of these" below this probability

Folders are read with all folders below them: a file is a picture by its extension, or else by its content. Standard
output holds the answer alone; where a picture cannot be read, its row says why. What was left out is counted at the
end, on standard error. Beside this file lie the classifier (`model.onnx`; `model.pt2` needs torch instead of
onnxruntime), its classes (`classes.json`) and how pictures are prepared for it (`preprocessing.json`).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np
import PIL.Image
from PIL import ImageOps


with suppress(ImportError):  # HEIC pictures can be read where it is installed
    import pillow_heif

    pillow_heif.register_heif_opener()


PICTURES_AT_A_TIME = 8  # in 8 bits the answers depend on it, a little: numbers are scaled by the largest of a batch


class UnreadableError(Exception):
    """A picture that cannot be read; the message says why."""


# --- which files are pictures ------------------------------------------------------------------------------------


def list_files(sources: Iterable[str], formats: list[str], left_out: Counter[str]) -> Iterator[str]:
    """Files as they are given, and in folders, in the order of their names, what is a picture.

    Args:
        sources: files and folders.
        formats: that are opened, as Pillow names them.
        left_out: counts what else there is, by reason.
    """
    registered = PIL.Image.registered_extensions()
    extensions = {ending for ending, name in registered.items() if name in PIL.Image.OPEN}
    extensions |= {".heic", ".heif", ".hif", ".avif"}
    for source in sources:
        if not os.path.isdir(source):
            yield source
            continue
        for path in walk(Path(source), set(), left_out):
            if path.suffix.lower() in extensions or begins_as_picture(path, formats):
                yield str(path)
            else:
                left_out[f"no picture: {path.suffix.lower() or 'without extension'}"] += 1


def walk(folder: Path, read: set[str], left_out: Counter[str]) -> Iterator[Path]:
    """All files below a folder without hidden ones; links are followed, but no folder is read twice."""
    try:
        here = os.path.realpath(folder)
        if here in read:
            return
        read.add(here)
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        left_out[f"folder {folder} cannot be opened: {error.strerror or error}"] += 1
        return
    for entry in entries:
        path, name = folder / entry.name, entry.name.lower()
        is_litter = name in ("thumbs.db", "desktop.ini", "__macosx", ".ds_store") or name.startswith("._")
        if is_litter:
            continue
        if name.startswith("."):
            left_out["hidden"] += 1
        elif os.path.isdir(path):
            yield from walk(path, read, left_out)
        elif os.path.isfile(path) or not os.path.exists(path):  # a link that leads nowhere is a file that is not there
            yield path
        else:
            left_out["neither a file nor a folder"] += 1


def begins_as_picture(path: Path, formats: list[str]) -> bool:
    """Whether a file's content is that of a picture."""
    try:
        with open(path, "rb") as file:
            PIL.Image.open(file, formats=formats)
    except Exception:  # whatever a format's header makes its decoder stumble over
        return False
    return True


# --- from files to pixel values ----------------------------------------------------------------------------------


class PictureReader:
    """Reads pictures as the classifier was trained with them.

    Args:
        settings: content of `preprocessing.json`.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        PIL.Image.init()
        self.formats = [name for name in settings["formats"] if name in PIL.Image.OPEN]
        self.resample = PIL.Image.Resampling(settings["resample"])
        self.beyond = 0  # pictures so far whose values are beyond the range that was trained on

    def __call__(self, path: str) -> np.ndarray:
        """Pixel values (3, height, width) of a picture.

        Raises:
            UnreadableError: there is none, or it cannot be decoded.
        """
        try:
            with open(path, "rb") as file:
                picture, values = self.decode(file)
        except UnreadableError:
            raise
        except FileNotFoundError as error:
            raise UnreadableError("there is no such file") from error
        except (OSError, ValueError) as error:
            raise UnreadableError(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from error
        self.beyond += self.is_beyond(values)
        return self.pixel_values(picture)

    def decode(self, file: BinaryIO) -> tuple[PIL.Image.Image, tuple[float, float] | None]:
        """A picture upright in RGB; and of grey of more than 8 bits from where to where it went."""
        try:
            picture = PIL.Image.open(file, formats=self.formats)
        except PIL.UnidentifiedImageError as error:
            raise UnreadableError(self.why_unidentified(file)) from error
        except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
            raise UnreadableError(f"too large: {error}") from error
        except Exception as error:
            raise UnreadableError(f"damaged: {error}") from error
        try:
            return self.as_rgb(picture)
        except UnreadableError:
            raise
        except MemoryError as error:
            raise UnreadableError("too large for the memory that there is") from error
        except Exception as error:  # decoders raise whatever their format makes them stumble over
            raise UnreadableError(f"damaged: {error}") from error

    def why_unidentified(self, file: BinaryIO) -> str:
        """What a file is that is none of the formats."""
        file.seek(0)
        header = file.read(16)
        brand = header[8:12] if header[4:8] == b"ftyp" else b""
        if not header:
            return "the file is empty"
        if brand[:2] == b"he" or brand in (b"mif1", b"msf1"):
            return "a HEIC picture, which needs `pip install pillow-heif` (or was damaged, where that is installed)"
        if brand in (b"avif", b"avis"):
            return (
                "an AVIF picture that is damaged, or that this build of Pillow cannot decode (`pip install -U pillow`)"
            )
        for name, (_, accepts) in PIL.Image.OPEN.items():
            with suppress(Exception):
                if name not in self.settings["formats"] and accepts is not None and accepts(header) is True:
                    return f"of a format that is not opened ({name}): convert it to PNG or JPEG"
        return "not a picture, or of a format that is not opened"

    def as_rgb(self, picture: PIL.Image.Image) -> tuple[PIL.Image.Image, tuple[float, float] | None]:
        """Decode; transparent pictures are laid on white."""
        picture.load()
        with suppress(Exception):  # damaged EXIF data say nothing about the pixels
            picture = ImageOps.exif_transpose(picture)
        if picture.mode.startswith(("I", "F")):
            numbers = np.asarray(picture)
            grey = PIL.Image.fromarray(self.as_grey(numbers))
            return grey.convert("RGB"), inner_range(numbers, self.settings["stray"])
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            ground = PIL.Image.new("RGBA", picture.size, self.settings["ground"])
            picture = PIL.Image.alpha_composite(ground, picture)
        return picture.convert("RGB"), None

    def as_grey(self, numbers: np.ndarray) -> np.ndarray:
        """Grey of more than 8 bits (H, W) as uint8."""
        if self.settings["value_range"] is not None:
            low, high = self.settings["value_range"]
            scaled = np.nan_to_num((numbers.astype(np.float64) - low) * (255 / (high - low)), posinf=255, neginf=0)
        elif numbers.dtype.kind != "f":
            return (numbers.clip(0, 65535) >> 8).astype(np.uint8)
        else:
            scaled = np.nan_to_num(numbers, posinf=255, neginf=0)
            scaled = scaled * (255 if scaled.max() <= 1 else 1)
        return scaled.clip(0, 255).round().astype(np.uint8)

    def is_beyond(self, values: tuple[float, float] | None) -> bool:
        """Whether grey of more than 8 bits is not what was trained on."""
        if values is None or self.settings["value_range"] is None:
            return values is not None
        low, high = self.settings["value_range"]
        slack = self.settings["slack"] * (high - low)
        return values[0] < low - slack or values[1] > high + slack

    def pixel_values(self, picture: PIL.Image.Image) -> np.ndarray:
        """Resize, crop and normalise a picture in RGB; (3, height, width)."""
        settings = self.settings
        picture = self.arranged(picture)
        if settings["resize"] is not None:
            picture = picture.resize(self.resized(*picture.size), self.resample)
        if settings["crop"] is not None:
            height, width = settings["crop"]
            left, top = offset(picture.width, width), offset(picture.height, height)
            picture = picture.crop((left, top, left + width, top + height))  # black where it is smaller
        numbers = np.asarray(picture, dtype=np.float32) * np.float32(settings["rescale"])
        numbers = (numbers - np.float32(settings["mean"])) / np.float32(settings["std"])
        return numbers.transpose(2, 0, 1)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that a picture is resized to."""
        size = self.settings["resize"]
        if not isinstance(size, int):
            return size[1], size[0]
        long = int(size * max(width, height) / min(width, height))
        return (size, long) if width <= height else (long, size)

    def arranged(self, picture: PIL.Image.Image) -> PIL.Image.Image:
        """A picture of which resizing and cropping leave what `fit` says."""
        fit, size, canvas = (self.settings[name] for name in ("fit", "size", "canvas"))
        if self.settings["crop"] is None:
            return picture if fit == "squeeze" else self.fitted(picture, *size)
        if fit == "crop":
            return picture.crop(self.middle(*picture.size))
        height, width = map(min, size, canvas)
        ground = PIL.Image.new("RGB", (canvas[1], canvas[0]), tuple(self.settings["padding"]))
        corner = round((canvas[1] - width) / 2), round((canvas[0] - height) / 2)
        ground.paste(self.fitted(picture, height, width), corner)
        return ground

    def fitted(self, picture: PIL.Image.Image, height: int, width: int) -> PIL.Image.Image:
        """A picture in another height and width: its middle, squeezed, or on a ground."""
        if self.settings["fit"] == "crop":
            return ImageOps.fit(picture, (width, height), self.resample)
        if self.settings["fit"] == "squeeze":
            return picture.resize((width, height), self.resample)
        scale = min(width / picture.width, height / picture.height)
        inner = tuple(max(1, round(side * scale)) for side in picture.size)
        ground = PIL.Image.new("RGB", (width, height), tuple(self.settings["padding"]))
        ground.paste(picture.resize(inner, self.resample), ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return ground

    def middle(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of the part of a very long picture that is resized."""
        short, is_short = min(width, height), isinstance(self.settings["resize"], int)
        squares = max(0, max(width, height) // short - self.settings["longest"]) // 2 if is_short else 0
        across, down = (squares * short, 0) if width > height else (0, squares * short)
        return across, down, width - across, height - down


def offset(length: int, wanted: int) -> int:
    """Where the middle begins; negative where there is less than what is wanted."""
    return (length - wanted) // 2 if length >= wanted else -((wanted - length) // 2)


def inner_range(numbers: np.ndarray, stray: float) -> tuple[float, float]:
    """Smallest and largest of the finite values, without a share of stray ones on either side."""
    numbers = numbers[np.isfinite(numbers)] if numbers.dtype.kind == "f" else numbers.ravel()
    if not numbers.size:
        raise UnreadableError("it holds no numbers, only NaN and infinity")
    few = round(stray * numbers.size)
    ordered = np.partition(numbers, (few, numbers.size - 1 - few))
    return float(ordered[few]), float(ordered[-1 - few])


# --- from pixel values to answers --------------------------------------------------------------------------------


def load_model(folder: Path, threads: int | None) -> Callable[[np.ndarray], np.ndarray]:
    """The classifier: pixel values (B, 3, height, width) -> probabilities (B, classes)."""
    if (folder / "model.onnx").exists():
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        return lambda pixel_values: session.run(None, {"pixel_values": pixel_values})[0]
    import torch

    torch.set_num_threads(threads or torch.get_num_threads())
    module = torch.export.load(folder / "model.pt2").module()

    def run(pixel_values: np.ndarray) -> np.ndarray:
        with torch.no_grad():  # in PyTorch 2.9 loaded weights ask for gradients
            return module(torch.from_numpy(pixel_values)).numpy()

    return run


class Classifier:
    """What a folder holds: a classifier, its classes, and how pictures are read.

    Args:
        folder: that was exported.
        threads: that compute; None: as many as the machine has cores.
        threshold: "none of these" below this probability; None: as it was exported.
    """

    def __init__(self, folder: Path, threads: int | None = None, threshold: float | None = None) -> None:
        content = {
            name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
            for name in ("classes", "preprocessing")
        }
        classes = content["classes"]
        self.names, self.none = classes["classes"], classes["none_of_these"]
        self.threshold = classes["threshold"] if threshold is None else threshold
        self.set_threshold = classes["set_threshold"] if threshold is None else None
        self.read = PictureReader(content["preprocessing"])
        self.run = load_model(folder, threads)

    def rows(
        self, paths: Iterable[str], top_k: int = 1, batch_size: int = PICTURES_AT_A_TIME
    ) -> Iterator[dict[str, Any]]:
        """A row for each picture, in their order."""
        batch: list[str] = []
        for path in paths:
            batch.append(path)
            if len(batch) == batch_size:
                yield from self.rows_of_batch(batch, top_k)
                batch = []
        if batch:
            yield from self.rows_of_batch(batch, top_k)

    def rows_of_batch(self, paths: list[str], top_k: int) -> Iterator[dict[str, Any]]:
        """Rows of pictures that go through the classifier at once."""
        pixels, errors = [], []
        for path in paths:
            try:
                pixels.append(self.read(path))
                errors.append(None)
            except UnreadableError as error:
                errors.append(str(error))
        found = iter(self.run(np.stack(pixels)) if pixels else ())
        for path, error in zip(paths, errors, strict=True):
            yield self.answer(path, [] if error else self.ranks(next(found)), error, top_k)

    def ranks(self, probabilities: np.ndarray) -> list[tuple[str, float]]:
        """Names and probabilities, the likeliest first."""
        order = np.argsort(-probabilities, kind="stable")
        return [(self.names[index], float(probabilities[index])) for index in order]

    def answer(self, path: str, ranks: list[tuple[str, float]], error: str | None, top_k: int = 1) -> dict[str, Any]:
        """The row of a picture: a set of classes where it was exported so, or else the likeliest ones."""
        if self.set_threshold is not None:
            return self.row_of_set(path, ranks, error)
        return self.row(path, ranks, error, top_k)

    def row(self, path: str, ranks: list[tuple[str, float]], error: str | None, top_k: int) -> dict[str, Any]:
        """The likeliest classes of a picture; "none of these" comes in front of them where it is the answer."""
        count = min(top_k, len(self.names))
        if ranks and ranks[0][1] < self.threshold:
            ranks, count = [(self.none, ranks[0][1]), *ranks], count + 1
        row: dict[str, Any] = {"path": path}
        for rank in range(count):
            suffix = f"_{rank + 1}" if rank else ""
            label, probability = ranks[rank] if ranks else (None, None)
            row |= {f"label{suffix}": label, f"probability{suffix}": probability and round(probability, 6)}
        return row | {"error": error}

    def row_of_set(self, path: str, ranks: list[tuple[str, float]], error: str | None) -> dict[str, Any]:
        """All classes that a picture may be of."""
        kept = [rank for place, rank in enumerate(ranks) if not place or 1 - rank[1] <= self.set_threshold]
        names, probabilities = [name for name, _ in kept], [round(value, 6) for _, value in kept]
        label = " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]])) if names else None
        total = round(sum(probabilities), 6) if names else None
        row = {"path": path, "label": label, "probability": total, "labels": names, "probabilities": probabilities}
        return row | {"error": error}


# --- how answers are written -------------------------------------------------------------------------------------


def as_text(row: dict[str, Any], none: str) -> str:
    """A row for people."""
    if row["error"] is not None:
        return f"cannot be read: {row['error']}"
    suffixes = [name.removeprefix("label") for name in row if name.startswith("label") and name != "labels"]
    ranks = [(row[f"label{suffix}"], row[f"probability{suffix}"]) for suffix in suffixes]
    if ranks[0][0] == none:
        return f"{none} (likeliest: {', '.join(f'{label} {probability:.1%}' for label, probability in ranks[1:])})"
    return "  ".join(f"{probability:6.1%} {label:20}" for label, probability in ranks)


def write(rows: Iterable[dict[str, Any]], how: str, none: str, columns: list[str], file: TextIO) -> None:
    """Write the columns of rows as they come: a table for people, CSV, a JSON array or a JSON object per line."""

    def as_json(row: dict[str, Any]) -> str:
        return json.dumps({name: row[name] for name in columns}, ensure_ascii=False)

    if how == "csv":
        header = [name for name in columns if name not in ("labels", "probabilities")]  # lists have no place in it
        writer = csv.DictWriter(file, header, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    elif how == "json":
        file.write("[")
        for position, row in enumerate(rows):
            file.write((",\n" if position else "\n") + as_json(row))
        file.write("\n]\n")
    else:
        for row in rows:
            text = as_json(row) if how == "jsonl" else f"{as_text(row, none)}  {row['path']}"
            file.write(f"{text}\n")
            file.flush()


def main() -> None:
    """Read, name, write."""
    args = parse_args()
    missing = [path for path in args.pictures if not os.path.exists(path)]
    if len(missing) == len(args.pictures):
        sys.exit(f"error: There is no file or folder {', '.join(missing)}.")
    classifier = Classifier(Path(__file__).resolve().parent, args.threads, args.threshold)
    if classifier.set_threshold is not None and args.top_k != 1:
        sys.exit("error: this classifier answers with sets of any size, and --top_k with a number of classes.")
    left_out: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    named = 0

    def counted(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        nonlocal named
        for row in rows:
            named += row["error"] is None
            errors.update(filter(None, [row["error"]]))
            yield row

    unread = classifier.answer("", [], None, args.top_k)
    paths = list_files(args.pictures, classifier.read.formats, left_out)
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        rows = counted(classifier.rows(paths, args.top_k, args.batch_size))
        write(rows, args.format, classifier.none, list(unread), sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    for what, counts in (("pictures cannot be read", errors), ("files and folders are left out", left_out)):
        if counts:
            reasons = ", ".join(f"{reason} ({count})" for reason, count in counts.most_common())
            print(f"{counts.total()} {what}: {reasons}", file=sys.stderr)
    if classifier.read.beyond:
        print(f"{classifier.read.beyond} pictures hold values beyond those that were trained on", file=sys.stderr)
    if missing and not named:
        sys.exit(f"error: nothing could be read, and there is no {', '.join(missing)}")


def parse_args() -> argparse.Namespace:
    """The command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("pictures", nargs="+", metavar="picture_or_folder")
    parser.add_argument("--format", choices=("table", "csv", "json", "jsonl"), default="table", help="(%(default)s)")
    parser.add_argument("--top_k", type=at_least_one, default=1, help="classes per picture (%(default)s)")
    parser.add_argument("--threshold", type=share, help='"none of these" below this probability (as it was exported)')
    parser.add_argument(
        "--batch_size", type=at_least_one, default=PICTURES_AT_A_TIME, help="pictures at a time (%(default)s)"
    )
    parser.add_argument("--threads", type=at_least_one, help="that compute (one per core)")
    return parser.parse_args()


def at_least_one(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number


def share(text: str) -> float:
    """A number from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1, got {text}")
    return number


if __name__ == "__main__":
    main()
