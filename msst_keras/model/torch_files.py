"""Reads arrays from a `.pth` file of PyTorch's old format (before 1.6), without PyTorch.

Such a file is a row of pickles (protocol 2), and behind them the storages:

    119547037146038801333356                  the magic number
    1001                                      the version of the format
    {"little_endian": True, ...}              the machine that wrote it
    OrderedDict(name -> tensor)               a tensor: storage key, offset, shape, strides (both counted in elements)
    [key, ...]                                the storages in the order of what follows
    int64 count, count numbers                once for every key

The format has no checksum. No code of the file is run (see `torch_pickles`).
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from msst_keras.model.torch_pickles import Pickle, Storage, Tensor, show, take

_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickle of 119547037146038801333356
_VERSION = 1001
_MAX_BYTES = 2**30  # the file is read at once; ImageNet networks that are worth having here are a fiftieth of it


def read_torch_file(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the tensors of a state dict, saved by PyTorch before 1.6 or with `_use_new_zipfile_serialization=False`.

    Memory stays below six times the file's size and a quarter of a gigabyte; usually it is twice the file's size.

    Args:
        path: A `.pth` file.

    Returns:
        Name -> array of float32, float64 or int64 in the shape that the file gives (kernels are out, in, height,
        width), in the file's order. Arrays are read-only, and where the file shares a storage, views of one another.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file is of another format (also PyTorch's newer one, a zip archive), cut, damaged, larger than
            1 GiB, or holds something else than a dictionary of such tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected a PyTorch weights file at {path}, found none; check the path.")
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise ValueError(
            f"{path} has {size} bytes, more than the {_MAX_BYTES} that are read of a PyTorch weights file."
        )
    with path.open("rb") as opened:
        file = io.BytesIO(opened.read(size))
    if file.getvalue().startswith(b"PK\x03\x04"):
        raise ValueError(
            f"{path} is of PyTorch's zip format, which is not read here; save it again with torch.save(..., "
            "_use_new_zipfile_serialization=False)."
        )
    try:
        return _read(file)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"{path} cannot be read as a PyTorch weights file of the old format ({error}); get or save it again."
        ) from error


def _read(file: io.BytesIO) -> dict[str, np.ndarray]:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("it does not begin with the format's magic number")
    if (version := Pickle(file).load()) != _VERSION:
        raise ValueError(f"expected version {_VERSION} of the format, found {show(version)}")
    machine = Pickle(file).load()
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError("expected a file of a little-endian machine")
    pickle = Pickle(file)
    tensors = pickle.load()
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ValueError(f"expected a dictionary of tensors alone, found {show(tensors)}")
    storages = _read_storages(file, pickle.storages)
    return {name: _place(name, tensor, storages[tensor.storage.key]) for name, tensor in tensors.items()}


def _read_storages(file: io.BytesIO, announced: Mapping[str, Storage]) -> dict[str, np.ndarray]:
    """Storage key -> one-dimensional array; `announced` gives the Storage of every key."""
    keys = Pickle(file).load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError(f"expected a list of storage keys, found {show(keys)}")
    if len(set(keys)) != len(keys) or set(keys) != set(announced):
        raise ValueError("the listed storages are not those that the tensors lie in")
    storages = {}
    for key in keys:
        storage = announced[key]
        count = np.frombuffer(take(file, 8, f"storage {show(key)}"), "<i8")[0]
        if count != storage.size:
            raise ValueError(f"storage {show(key)} should hold {storage.size} numbers and says that it has {count}")
        dtype = np.dtype(storage.dtype)
        numbers = np.frombuffer(take(file, count.item() * dtype.itemsize, f"storage {show(key)}"), dtype)
        storages[key] = numbers.astype(dtype.newbyteorder("="), copy=False)
    if rest := len(file.getbuffer()) - file.tell():
        raise ValueError(f"behind its last storage there are {rest} bytes too many")
    return storages


def _place(name: str, tensor: Tensor, storage: np.ndarray) -> np.ndarray:
    """The tensor as a view of its storage, once it is sure that it lies inside and is not larger."""
    _, offset, shape, strides = tensor
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if offset > storage.size or (0 not in shape and (last >= storage.size or math.prod(shape) > storage.size)):
        raise ValueError(
            f"tensor {show(name)} of shape {show(shape)}, strides {show(strides)} and offset {show(offset)} does "
            f"not fit its storage of {storage.size} numbers"
        )
    if 0 in shape:
        return np.empty(shape, storage.dtype)
    strides = tuple(
        stride * storage.itemsize if length > 1 else 0 for length, stride in zip(shape, strides, strict=True)
    )
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, strides, writeable=False)
