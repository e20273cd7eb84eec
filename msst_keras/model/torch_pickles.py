"""The pickles of PyTorch's weights files, read by a machine that knows a few harmless instructions.

Nothing of Python's unpickler is used: a pickle is a program that may call anything. The machine here runs the two
dozen instructions of which a dictionary of tensors is made. It builds dictionaries, lists, tuples, strings and whole
numbers, and refuses every other instruction and every class that is not listed below.
"""

from __future__ import annotations

import pickletools
import reprlib
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple, TypeVar

T = TypeVar("T")
_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
_MAX_INSTRUCTIONS = 10**6  # of a pickle, each of which may make an object; the network of 100 layers has 12,000
_MAX_AXES = 32

_DICT = "collections.OrderedDict"
_TENSOR = "torch._utils._rebuild_tensor_v2"
_STORAGES = {"torch.FloatStorage": "<f4", "torch.DoubleStorage": "<f8", "torch.LongStorage": "<i8"}


class _Class(NamedTuple):
    """A class or function that the pickle names. It is only ever compared by name."""

    name: str


class Storage(NamedTuple):
    """`size` numbers of `dtype` ("<f4", "<f8", "<i8") that lie elsewhere in the file."""

    key: str
    dtype: str
    size: int


class Tensor(NamedTuple):
    """Where an array lies in its storage. Offset and strides count numbers, not bytes; none is negative."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Pickle:
    """Runs one pickle of a file: a stack, marks on it, and a memo.

    Attributes:
        storages: Key -> every storage that the pickle named, once it has run.
    """

    def __init__(self, file: BinaryIO):
        self.storages: dict[str, Storage] = {}
        self._file = file
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> object:
        """Runs instructions up to STOP and returns what is left on the stack; the file then stands behind them.

        Raises:
            ValueError: The pickle is cut, does something that no weights file needs, or does not add up.
        """
        try:
            for _ in range(_MAX_INSTRUCTIONS):
                code = _OPCODES.get(take(self._file, 1, "a pickle").decode("latin-1"))
                if code is None or code.name not in (*_INSTRUCTIONS, "STOP"):
                    raise ValueError(f"byte {self._file.tell() - 1} is no instruction of a weights file")
                argument = code.arg.reader(self._file) if code.arg and code.name != "GLOBAL" else None
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

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if self._marks and len(self._stack) <= self._marks[-1]:
            raise IndexError
        return self._stack.pop()

    def _pop_tuple(self, count: int) -> tuple[Any, ...]:
        return tuple(reversed([self._pop() for _ in range(count)]))

    def _mark(self, _: object) -> None:
        self._marks.append(len(self._stack))

    def _pop_marked(self) -> tuple[Any, ...]:
        start = self._marks.pop()
        values = tuple(self._stack[start:])
        del self._stack[start:]
        return values

    def _top(self, kind: type[T]) -> T:
        value = self._stack[-1]
        if not isinstance(value, kind):
            raise ValueError(f"expected a {kind.__name__} before byte {self._file.tell()}, found {show(value)}")
        return value

    def _memoize(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _append(self, values: tuple[Any, ...]) -> None:
        self._top(list).extend(values)

    def _set_items(self, values: tuple[Any, ...]) -> None:
        if len(values) % 2 or not all(isinstance(key, str) for key in values[::2]):
            raise ValueError(f"expected names and values before byte {self._file.tell()}, found {show(values)}")
        self._top(dict).update(zip(values[::2], values[1::2], strict=True))

    def _build(self, _: object) -> None:
        """Drops what is set on an OrderedDict: the versions of the layers, which say nothing of the arrays."""
        self._pop()
        self._top(dict)

    def _global(self, _: object) -> None:
        # Not by pickletools, which would undo escapes: PyTorch's names have none.
        name = ".".join(take_line(self._file) for _ in range(2))
        if name not in (_DICT, _TENSOR, *_STORAGES):
            raise ValueError(f"it wants {show(name)}, which no file of float32, float64 and int64 tensors needs")
        self._push(_Class(name))

    def _persistent(self, _: object) -> None:
        match self._pop():
            case ("storage", _Class(name), str(key), str(), int(count), None) if name in _STORAGES and count >= 0:
                storage = Storage(key, _STORAGES[name], count)
            case other:
                raise ValueError(f"expected a storage before byte {self._file.tell()}, found {show(other)}")
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {show(key)} is described in two ways")
        self._push(storage)

    def _reduce(self, _: object) -> None:
        match self._pop_tuple(2):
            case _Class(name), () if name == _DICT:
                self._push({})
            case _Class(name), (Storage() as storage, int(offset), tuple(shape), tuple(strides), bool(), dict()) if (
                name == _TENSOR
                and len(shape) == len(strides) <= _MAX_AXES
                and all(isinstance(value, int) and value >= 0 for value in (offset, *shape, *strides))
            ):
                self._push(Tensor(storage, offset, shape, strides))
            case other:
                raise ValueError(f"expected a tensor before byte {self._file.tell()}, found {show(other)}")


def take(file: BinaryIO, count: int, what: str) -> bytes:
    """Reads `count` bytes of `what`; a ValueError if the file ends before."""
    content = file.read(count)
    if len(content) != count:
        raise ValueError(f"it ends inside {what}: {len(content)} of {count} bytes are there")
    return content


def take_line(file: BinaryIO) -> str:
    """Reads a line of ASCII; a ValueError if the file ends before it does."""
    line = file.readline()
    if not line.endswith(b"\n"):
        raise ValueError("it ends inside a name")
    return line[:-1].decode("ascii")


def show(value: object) -> str:
    """A short representation, also of values that contain themselves or one another a thousand times."""
    shortener = reprlib.Repr()
    shortener.maxlevel, shortener.maxstring, shortener.maxlong = 2, 60, 40
    return shortener.repr(value)


_INSTRUCTIONS: dict[str, Callable[[Pickle, Any], None]] = {
    "PROTO": lambda pickle, _: None,
    "NONE": lambda pickle, _: pickle._push(None),
    "NEWTRUE": lambda pickle, _: pickle._push(True),
    "NEWFALSE": lambda pickle, _: pickle._push(False),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"), Pickle._push),
    "EMPTY_TUPLE": lambda pickle, _: pickle._push(()),
    "TUPLE1": lambda pickle, _: pickle._push(pickle._pop_tuple(1)),
    "TUPLE2": lambda pickle, _: pickle._push(pickle._pop_tuple(2)),
    "TUPLE3": lambda pickle, _: pickle._push(pickle._pop_tuple(3)),
    "MARK": Pickle._mark,
    "TUPLE": lambda pickle, _: pickle._push(pickle._pop_marked()),
    "EMPTY_LIST": lambda pickle, _: pickle._push([]),
    "APPEND": lambda pickle, _: pickle._append(pickle._pop_tuple(1)),
    "APPENDS": lambda pickle, _: pickle._append(pickle._pop_marked()),
    "EMPTY_DICT": lambda pickle, _: pickle._push({}),
    "SETITEM": lambda pickle, _: pickle._set_items(pickle._pop_tuple(2)),
    "SETITEMS": lambda pickle, _: pickle._set_items(pickle._pop_marked()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), Pickle._memoize),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda pickle, index: pickle._push(pickle._memo[index])),
    "GLOBAL": Pickle._global,
    "BINPERSID": Pickle._persistent,
    "REDUCE": Pickle._reduce,
    "BUILD": Pickle._build,
}
