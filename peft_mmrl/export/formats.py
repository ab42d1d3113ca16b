"""A [`FrozenClassifier`] as a file: ONNX, ONNX in 8 bits, or a program of `torch.export`.

PyTorch's ONNX exporter and onnxruntime come with `pip install "peft_mmrl[export]"`; they are imported where they run.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

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
    with torch.no_grad(), _quiet():
        program = torch.export.export(classifier, (classifier.example,), dynamic_shapes={"pixel_values": {0: batch}})
        if name == "torch":
            torch.export.save(program, path)
        elif not int8:
            _write_onnx(program, path)
        else:
            with TemporaryDirectory(dir=folder) as exact:
                _write_onnx(program, Path(exact, path.name))
                _quantise(Path(exact, path.name), path)
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """What exporters say is for their developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    from onnxscript.optimizer import fold_constants

    names = {"input_names": ["pixel_values"], "output_names": ["probabilities"]}
    onnx_program = torch.onnx.export(program, (), dynamo=True, verbose=False, **names)
    # weights of the layers that run twice are transposed at every call otherwise, and are not quantised
    fold_constants(onnx_program.model, input_size_limit=LARGEST, output_size_limit=LARGEST)
    onnx_program.save(path)


def _quantise(exact: Path, path: Path) -> None:
    """Write an ONNX file in 8 bits. The last product stays as it is: a decision's numbers are large."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(exact, load_external_data=False)
    products = [node.name for node in model.graph.node if node.op_type in ("MatMul", "Gemm")]
    del model.graph.value_info[:]  # of weights that were folded, where PyTorch 2.9 leaves the shapes from before
    onnx.save(model, exact)
    quantize_dynamic(
        exact,
        path,
        op_types_to_quantize=["MatMul", "Gemm"],
        weight_type=QuantType.QUInt8,  # without VNNI the sums of signed ones overflow on x86
        nodes_to_exclude=products[-1:],
        use_external_data_format=len(list(exact.parent.iterdir())) > 1,  # as the exporter found it too large
    )
