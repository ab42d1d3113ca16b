"""A [`FrozenClassifier`] as a file: ONNX, ONNX in 8 bits, or a program of `torch.export`.

PyTorch's ONNX exporter and onnxruntime come with `pip install "peft_mmrl[export]"`; they are imported where they run.
"""

from __future__ import annotations

import warnings
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import torch

from .frozen_classifier import FrozenClassifier


MODEL_FILES = {"onnx": "model.onnx", "torch": "model.pt2"}
LARGEST = 2**40  # of constants that are computed beforehand: all
NEEDED_FOR_ONNX = ("onnx", "onnxscript", "onnxruntime")


def check_format(name: str, int8: bool) -> None:
    """Refuse what cannot be written here.

    Raises:
        ValueError: 8 bits in another format than ONNX.
        ImportError: a package is missing.
    """
    if int8 and name != "onnx":
        raise ValueError(f"--int8 is for --format onnx, got --format {name}.")
    missing = [package for package in NEEDED_FOR_ONNX if find_spec(package) is None]
    if name == "onnx" and missing:
        raise ImportError(f'--format onnx needs {", ".join(missing)}: pip install "peft_mmrl[export]".')


def write_model(classifier: FrozenClassifier, folder: Path, name: str, int8: bool = False) -> Path:
    """Write a classifier, for batches of any size.

    Args:
        classifier: on the CPU.
        folder: which is there.
        name: "onnx" or "torch".
        int8: ONNX with the weights of the encoder's linear layers in 8 bits, and their inputs as they come.

    Returns:
        the file; beside it lies a second one where ONNX is larger than 2 GB.
    """
    path = folder / MODEL_FILES[name]
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad(), warnings.catch_warnings(), redirect_stdout(StringIO()):  # the exporter talks to developers
        warnings.simplefilter("ignore")
        program = torch.export.export(classifier, (classifier.example,), dynamic_shapes={"pixel_values": {0: batch}})
        if name == "torch":
            torch.export.save(program, path)
            return path
        names = {"input_names": ["pixel_values"], "output_names": ["probabilities"]}
        onnx_program = torch.onnx.export(program, (), dynamo=True, verbose=False, **names)
    from onnxscript.optimizer import fold_constants

    # weights of the layers that run twice are transposed at every call otherwise, and are not quantised
    fold_constants(onnx_program.model, input_size_limit=LARGEST, output_size_limit=LARGEST)
    onnx_program.save(path)
    if int8:
        _quantise(path)
    return path


def _quantise(path: Path) -> None:
    """Write an ONNX file's encoder in 8 bits in its place. The last product stays: a decision's numbers are large."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(path, load_external_data=False).graph
    products = [node.name for node in graph.node if node.op_type in ("MatMul", "Gemm")]
    exact = path.with_name(f"exact-{path.name}")
    path.rename(exact)
    # unsigned weights: without VNNI the sums of signed ones overflow on x86
    how = {"weight_type": QuantType.QUInt8, "per_channel": False, "op_types_to_quantize": ["MatMul", "Gemm"]}
    quantize_dynamic(exact, path, nodes_to_exclude=products[-1:], **how)
    exact.unlink()
