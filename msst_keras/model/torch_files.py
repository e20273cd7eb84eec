"""Reads arrays from a `.pth` file of PyTorch's old format (before 1.6), without PyTorch.

Such a file is a row of pickles (protocol 2), and behind them the storages:

    119547037146038801333356                  the magic number
    1001                                      the version of the format
    {"little_endian": True, ...}              the machine that wrote it
    OrderedDict(name -> tensor)               a tensor: storage key, offset, shape, strides (both counted in elements)
    [key, ...]                                the storages in the order of what follows
    int64 count, count numbers                once for every key

The format has no checksum. Nothing of Python's unpickler is used: a pickle is a program that may call anything, and
here a machine with the two dozen instructions that such a file needs runs it. It builds dictionaries, lists, tuples,
strings and whole numbers, and refuses every other instruction and every class that is not listed below.
"""

from __future__ import annotations

import io
import math
import os
import pickletools
import reprlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

_MAGIC = 119547037146038801333356
_VERSION = 1001
_MAX_BYTES = 2**30  # the file is read at once; ImageNet networks that are worth having here are a fiftieth of it
_MAX_INSTRUCTIONS = 10**6  # of a pickle, each of which may make an object; the network of 100 layers has 12,000
_MAX_AXES = 32

_DICT = "collections.OrderedDict"
_TENSOR = "torch._utils._rebuild_tensor_v2"
_STORAGES = {"torch.FloatStorage": "<f4", "torch.DoubleStorage": "<f8", "torch.LongStorage": "<i8"}


class _Class(NamedTuple):
    """A class or function that the pickle names. It is only ever compared by name."""

    name: str


class _Storage(NamedTuple):
    key: str
    dtype: str
    count: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch_file(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the tensors of a state dict, saved by PyTorch before 1.6 or with `_use_new_zipfile_serialization=False`.

    Memory stays below three times the file's size and a quarter of a gigabyte.

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


def _read(file):
    if _Pickle(file).load() != _MAGIC:
        raise ValueError("it does not begin with the format's magic number")
    if (version := _Pickle(file).load()) != _VERSION:
        raise ValueError(f"expected version {_VERSION} of the format, found {_show(version)}")
    machine = _Pickle(file).load()
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError("expected a file of a little-endian machine")
    pickle = _Pickle(file)
    tensors = pickle.load()
    if not isinstance(tensors, dict) or not all(isinstance(value, _Tensor) for value in tensors.values()):
        raise ValueError(f"expected a dictionary of tensors alone, found {_show(tensors)}")
    storages = _read_storages(file, pickle.storages)
    return {name: _place(name, tensor, storages[tensor.storage.key]) for name, tensor in tensors.items()}


def _read_storages(file, announced):
    """Storage key -> one-dimensional array; `announced` gives the _Storage of every key."""
    keys = _Pickle(file).load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError(f"expected a list of storage keys, found {_show(keys)}")
    if len(set(keys)) != len(keys) or set(keys) != set(announced):
        raise ValueError("the listed storages are not those that the tensors lie in")
    storages = {}
    for key in keys:
        storage = announced[key]
        count = np.frombuffer(_take(file, 8, f"storage {_show(key)}"), "<i8")[0]
        if count != storage.count:
            raise ValueError(f"storage {_show(key)} should hold {storage.count} numbers and says that it has {count}")
        dtype = np.dtype(storage.dtype)
        numbers = np.frombuffer(_take(file, count.item() * dtype.itemsize, f"storage {_show(key)}"), dtype)
        storages[key] = numbers.astype(dtype.newbyteorder("="), copy=False)
    if rest := len(file.getbuffer()) - file.tell():
        raise ValueError(f"behind its last storage there are {rest} bytes too many")
    return storages


def _take(file, count, what):
    content = file.read(count)
    if len(content) != count:
        raise ValueError(f"it ends inside {what}: {len(content)} of {count} bytes are there")
    return content


def _place(name, tensor, storage):
    """The tensor as a view of its storage, once it is sure that it lies inside and is not larger."""
    _, offset, shape, strides = tensor
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if offset > storage.size or (0 not in shape and (last >= storage.size or math.prod(shape) > storage.size)):
        raise ValueError(
            f"tensor {_show(name)} of shape {_show(shape)}, strides {_show(strides)} and offset {_show(offset)} does "
            f"not fit its storage of {storage.size} numbers"
        )
    if 0 in shape:
        return np.empty(shape, storage.dtype)
    strides = tuple(stride * storage.itemsize for stride in strides)
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, strides, writeable=False)


class _Pickle:
    """Runs one pickle of a file: a stack, marks on it, and a memo."""

    def __init__(self, file):
        self.storages: dict[str, _Storage] = {}
        self._file, self._stack, self._marks, self._memo = file, [], [], {}

    def load(self):
        """Runs instructions up to STOP and returns what is left on the stack.

        Raises:
            ValueError: The pickle is cut, does something that no weights file needs, or does not add up.
        """
        try:
            for _ in range(_MAX_INSTRUCTIONS):
                code = pickletools.code2op.get(_take(self._file, 1, "a pickle").decode("latin-1"))
                if code is None or code.name not in _INSTRUCTIONS:
                    raise ValueError(f"byte {self._file.tell() - 1} is no instruction of a weights file")
                argument = code.arg.reader(self._file) if code.arg else None
                if code.name == "STOP":
                    break
                _INSTRUCTIONS[code.name](self, argument)
            else:
                raise ValueError(f"its pickle has more than {_MAX_INSTRUCTIONS} instructions")
        except (IndexError, KeyError) as error:
            raise ValueError(f"its pickle asks for what is not there before byte {self._file.tell()}") from error
        if len(self._stack) != 1 or self._marks:
            raise ValueError("its pickle does not leave one value")
        return self._stack.pop()

    def _push(self, value):
        self._stack.append(value)

    def _pop(self):
        if self._marks and len(self._stack) <= self._marks[-1]:
            raise IndexError
        return self._stack.pop()

    def _pop_tuple(self, count):
        return tuple(reversed([self._pop() for _ in range(count)]))

    def _mark(self, _):
        self._marks.append(len(self._stack))

    def _pop_marked(self):
        start = self._marks.pop()
        values = tuple(self._stack[start:])
        del self._stack[start:]
        return values

    def _top(self, kind):
        value = self._stack[-1]
        if not isinstance(value, kind):
            raise ValueError(f"expected a {kind.__name__} before byte {self._file.tell()}, found {_show(value)}")
        return value

    def _memoize(self, index):
        self._memo[index] = self._stack[-1]

    def _append(self, values):
        self._top(list).extend(values)

    def _set_items(self, values):
        if len(values) % 2 or not all(isinstance(key, str) for key in values[::2]):
            raise ValueError(f"expected names and values before byte {self._file.tell()}, found {_show(values)}")
        self._top(dict).update(zip(values[::2], values[1::2], strict=True))

    def _build(self, _):
        """Drops what is set on an OrderedDict: the versions of the layers, which say nothing of the arrays."""
        self._pop()
        self._top(dict)

    def _global(self, names):
        name = names.replace(" ", ".")
        if name not in (_DICT, _TENSOR, *_STORAGES):
            raise ValueError(f"it wants {_show(name)}, which no file of float32, float64 and int64 tensors needs")
        self._push(_Class(name))

    def _persistent(self, _):
        match self._pop():
            case ("storage", _Class(name), str(key), str(), int(count), None) if name in _STORAGES and count >= 0:
                storage = _Storage(key, _STORAGES[name], count)
            case other:
                raise ValueError(f"expected a storage before byte {self._file.tell()}, found {_show(other)}")
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {_show(key)} is described in two ways")
        self._push(storage)

    def _reduce(self, _):
        match self._pop_tuple(2):
            case _Class(name), () if name == _DICT:
                self._push({})
            case _Class(name), (_Storage() as storage, int(offset), tuple(shape), tuple(strides), bool(), dict()) if (
                name == _TENSOR
                and len(shape) == len(strides) <= _MAX_AXES
                and all(isinstance(value, int) and value >= 0 for value in (offset, *shape, *strides))
            ):
                self._push(_Tensor(storage, offset, shape, strides))
            case other:
                raise ValueError(f"expected a tensor before byte {self._file.tell()}, found {_show(other)}")


def _show(value):
    """A short representation, also of values that contain themselves or one another a thousand times."""
    shortener = reprlib.Repr()
    shortener.maxlevel, shortener.maxstring, shortener.maxlong = 2, 60, 40
    return shortener.repr(value)


_INSTRUCTIONS = {
    "PROTO": lambda pickle, _: None,
    "STOP": None,
    "NONE": lambda pickle, _: pickle._push(None),
    "NEWTRUE": lambda pickle, _: pickle._push(True),
    "NEWFALSE": lambda pickle, _: pickle._push(False),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"), _Pickle._push),
    "EMPTY_TUPLE": lambda pickle, _: pickle._push(()),
    "TUPLE1": lambda pickle, _: pickle._push(pickle._pop_tuple(1)),
    "TUPLE2": lambda pickle, _: pickle._push(pickle._pop_tuple(2)),
    "TUPLE3": lambda pickle, _: pickle._push(pickle._pop_tuple(3)),
    "MARK": _Pickle._mark,
    "TUPLE": lambda pickle, _: pickle._push(pickle._pop_marked()),
    "EMPTY_LIST": lambda pickle, _: pickle._push([]),
    "APPEND": lambda pickle, _: pickle._append(pickle._pop_tuple(1)),
    "APPENDS": lambda pickle, _: pickle._append(pickle._pop_marked()),
    "EMPTY_DICT": lambda pickle, _: pickle._push({}),
    "SETITEM": lambda pickle, _: pickle._set_items(pickle._pop_tuple(2)),
    "SETITEMS": lambda pickle, _: pickle._set_items(pickle._pop_marked()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Pickle._memoize),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda pickle, index: pickle._push(pickle._memo[index])),
    "GLOBAL": _Pickle._global,
    "BINPERSID": _Pickle._persistent,
    "REDUCE": _Pickle._reduce,
    "BUILD": _Pickle._build,
}
