"""Reads what `torch.save` wrote without running anything that the file names.

A pickle can name any function of the machine and have it called. Here every name but those that rebuild a plain
tensor becomes a stand-in that takes what it is given and does nothing, so an optimizer, a scheduler or an attack is
read alike: as data. torch's own `weights_only=True` refuses such files.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import torch


DTYPES = {
    f"{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # of files as torch wrote them before 1.6


class Inert(dict):
    """Stands in for every class, function and container that a file names; it keeps items, all else is dropped."""

    __hash__, __eq__ = object.__hash__, object.__eq__  # it may be a key

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    append = extend = add = __setstate__


def _rebuild_tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Any:
    """What a file's tensor is: a view of a storage. torch refuses views beyond its end."""
    return storage.as_strided(size, stride, offset) if isinstance(storage, torch.Tensor) else Inert()


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


REBUILDERS = {
    "_rebuild_tensor": _rebuild_tensor,
    "_rebuild_tensor_v2": _rebuild_tensor,
    "_rebuild_parameter": _rebuild_parameter,
    "_rebuild_parameter_with_state": _rebuild_parameter,
}


class _Unpickler(pickle.Unpickler):
    """Reads dense tensors and plain containers; all else is `Inert`.

    Args:
        file: the pickle.
        storage: called with key, dtype and number of elements; gives the storage as a flat tensor.
    """

    def __init__(self, file: BinaryIO, storage: Callable[[str, torch.dtype, int], torch.Tensor]) -> None:
        super().__init__(file)
        self.storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if module == "torch._utils" and name in REBUILDERS:
            rebuild = REBUILDERS[name]
            return lambda *args: rebuild(*args)  # a file can write to what it gets
        return Inert

    def persistent_load(self, saved_id: Any) -> Any:
        _, dtype, key, _, count, *_ = saved_id  # "storage", class, key, device, number of elements
        return self.storage(key, dtype, count) if isinstance(dtype, torch.dtype) else Inert()


def load_inert(path: str | os.PathLike[str]) -> Any:
    """Read a file of `torch.save`, in either of its formats, onto the CPU.

    Returns:
        what was saved: dense tensors and plain containers as they are, everything else as [`Inert`].

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is no such file, or damaged.
    """
    with open(path, "rb") as file:
        try:
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    return _load_archive(archive)
            file.seek(0)
            return _load_legacy(file)
        except Exception as error:  # a damaged file shows as almost any error
            raise ValueError(f"{path} cannot be read as a file of `torch.save`: {error}") from error


def _load_archive(archive: zipfile.ZipFile) -> Any:
    (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
    root = pickled.removesuffix("data.pkl")
    if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
        raise ValueError("it was written on a big-endian machine")
    storages: dict[str, torch.Tensor] = {}

    def storage(key: str, dtype: torch.dtype, count: int) -> torch.Tensor:
        if key not in storages:
            name = f"{root}data/{key}"
            if archive.getinfo(name).file_size != count * dtype.itemsize:
                raise ValueError(f"{name} does not have the {count} elements that it should")
            storages[key] = _flat(archive.read(name), dtype)
        return storages[key]

    with archive.open(pickled) as file:
        return _Unpickler(file, storage).load()


def _load_legacy(file: BinaryIO) -> Any:
    """Four pickles (magic number, version, machine, content) and a fifth of keys; then the storages in their order."""
    size, storages = os.fstat(file.fileno()).st_size, {}

    def storage(key: str, dtype: torch.dtype, count: int) -> torch.Tensor:
        if not 0 <= count * dtype.itemsize <= size:
            raise ValueError(f"a storage of {count} elements is larger than the file")
        return storages.setdefault(key, torch.empty(count, dtype=dtype))

    def read() -> Any:
        return _Unpickler(file, storage).load()

    if read() != LEGACY_MAGIC:
        raise ValueError("it does not start as one")
    _, machine, content, keys = read(), read(), read(), read()
    if not machine["little_endian"]:
        raise ValueError("it was written on a big-endian machine")
    if set(keys) != set(storages):
        raise ValueError("its list of storages is not that of its tensors")
    for key in keys:
        flat = storages[key]
        if int.from_bytes(file.read(8), "little") != len(flat):
            raise ValueError(f"the storage {key} does not have the {len(flat)} elements that it should")
        data = file.read(len(flat) * flat.dtype.itemsize)
        flat.copy_(_flat(data, flat.dtype))
    return content


def _flat(data: bytes, dtype: torch.dtype) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
