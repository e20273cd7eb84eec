"""A SavedModel answered by TensorFlow's C++ loader, the code that TensorFlow Serving has, reached by ctypes.

It needs the two libraries of a TensorFlow wheel and nothing else of it, so that also a TensorFlow of another version
can be tried: `python cpp_model.py LIBRARIES MODEL REQUESTS ANSWERS` in a process of its own.
"""

from __future__ import annotations

import ctypes
import ssl  # noqa: F401  before TensorFlow's library: it carries another build of the same functions, which crash it
import sys
from pathlib import Path

import numpy as np

from msst_keras.serving.messages import build_messages

_STRING = 7
_TYPES = {1: np.float32, 3: np.int32, 4: np.uint8, 9: np.int64, 10: np.bool_}
_STRING_BYTES = 24
_MESSAGES = build_messages(
    {
        "Dimension": [("size", 1, "int64")],
        "Shape": [("dim", 2, "*Dimension")],
        "TensorInfo": [("name", 1, "string"), ("dtype", 2, "int32"), ("tensor_shape", 3, "Shape")],
        "NamedInfo": [("key", 1, "string"), ("value", 2, "TensorInfo")],
        "Signature": [("inputs", 1, "*NamedInfo"), ("outputs", 2, "*NamedInfo"), ("method_name", 3, "string")],
        "NamedSignature": [("key", 1, "string"), ("value", 2, "Signature")],
        "MetaGraph": [("signature_def", 5, "*NamedSignature")],
    }
)


class ModelError(Exception):
    """What TensorFlow answers in place of outputs.

    Attributes:
      code: TensorFlow's, 3 is INVALID_ARGUMENT.
    """

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class _Buffer(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("free", ctypes.c_void_p)]


class _Output(ctypes.Structure):
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


class CppModel:
    """A loaded SavedModel.

    Attributes:
      path: of its folder.
      signatures: name -> {"inputs": {name: tensor}, "outputs": {name: tensor}}.
      ranks: name of a signature -> input -> its number of axes.
      dtypes: name of a signature -> input -> NumPy's type, object for strings.
    """

    def __init__(self, path, libraries):
        self.path = path
        framework = ctypes.CDLL(str(Path(libraries) / "libtensorflow_framework.so.2"), ctypes.RTLD_GLOBAL)
        core = ctypes.CDLL(str(Path(libraries) / "libtensorflow_cc.so.2"), ctypes.RTLD_LOCAL)
        self._libraries = core, framework
        self._status = self._call("TF_NewStatus")
        self._graph = self._call("TF_NewGraph")
        options, tags, buffer = self._call("TF_NewSessionOptions"), (ctypes.c_char_p * 1)(b"serve"), _Buffer()
        self._session = self._call(
            "TF_LoadSessionFromSavedModel", options, None, str(path).encode(), tags, 1, self._graph,
            ctypes.byref(buffer), self._status,
        )  # fmt: skip
        self._check(self._status)
        graph = _MESSAGES["MetaGraph"].FromString(ctypes.string_at(buffer.data, buffer.length))
        self.signatures, self.dtypes, self.ranks = {}, {}, {}
        for entry in graph.signature_def:
            if entry.key.startswith("__"):
                continue
            signature = entry.value
            self.signatures[entry.key] = {
                "inputs": {info.key: info.value.name for info in signature.inputs},
                "outputs": {info.key: info.value.name for info in signature.outputs},
            }
            self.ranks[entry.key] = {info.key: len(info.value.tensor_shape.dim) for info in signature.inputs}
            self.dtypes[entry.key] = {info.key: _TYPES.get(info.value.dtype, object) for info in signature.inputs}

    def run(self, signature, inputs):
        """The outputs of a signature: arrays, those of strings of type object; from any thread.

        Raises:
          ModelError: TensorFlow answers with an error.
        """
        names = self.signatures[signature]
        given = [self._output(names["inputs"][name]) for name in inputs]
        tensors = [self._write(np.asarray(value)) for value in inputs.values()]
        wanted = [self._output(name) for name in names["outputs"].values()]
        found, status = (ctypes.c_void_p * len(wanted))(), self._call("TF_NewStatus")
        self._call(
            "TF_SessionRun", self._session, None, (_Output * len(given))(*given),
            (ctypes.c_void_p * len(tensors))(*tensors), len(tensors), (_Output * len(wanted))(*wanted), found,
            len(wanted), None, 0, None, status, result=None,
        )  # fmt: skip
        for tensor in tensors:
            self._call("TF_DeleteTensor", tensor, result=None)
        self._check(status)
        self._call("TF_DeleteStatus", status, result=None)
        return {name: self._read(tensor) for name, tensor in zip(names["outputs"], found, strict=True)}

    def _call(self, name, *arguments, result=ctypes.c_void_p):
        function = getattr(self._libraries[0], name, None) or getattr(self._libraries[1], name)
        function.restype = result
        converted = [ctypes.c_void_p(argument) if isinstance(argument, int) and argument > 2**31 else argument
                     for argument in arguments]  # fmt: skip
        return function(*converted)

    def _check(self, status):
        code = self._call("TF_GetCode", status, result=ctypes.c_int)
        if code:
            raise ModelError(code, self._call("TF_Message", status, result=ctypes.c_char_p).decode(errors="replace"))

    def _output(self, tensor_name):
        name, _, index = tensor_name.partition(":")
        operation = self._call("TF_GraphOperationByName", self._graph, name.encode())
        return _Output(operation, int(index))

    def _write(self, array):
        is_text = array.dtype.kind in "OSU"
        code = _STRING if is_text else next(code for code, kind in _TYPES.items() if array.dtype == kind)
        sides = (ctypes.c_int64 * array.ndim)(*array.shape)
        size = _STRING_BYTES * array.size if is_text else array.nbytes
        tensor = self._call("TF_AllocateTensor", code, sides, array.ndim, ctypes.c_size_t(size))
        data = self._call("TF_TensorData", tensor)
        if not is_text:
            array = np.ascontiguousarray(array)
            ctypes.memmove(data, array.ctypes.data, size) if size else None
            return tensor
        for index, text in enumerate(array.reshape(-1)):
            place = ctypes.c_void_p(data + index * _STRING_BYTES)
            self._call("TF_StringInit", place, result=None)
            self._call("TF_StringCopy", place, bytes(text), ctypes.c_size_t(len(text)), result=None)
        return tensor

    def _read(self, tensor):
        code = self._call("TF_TensorType", tensor, result=ctypes.c_int)
        rank = self._call("TF_NumDims", tensor, result=ctypes.c_int)
        shape = tuple(self._call("TF_Dim", tensor, axis, result=ctypes.c_int64) for axis in range(rank))
        data = self._call("TF_TensorData", tensor)
        if code == _STRING:
            array = np.empty(shape, object)
            for index in range(array.size):
                place = ctypes.c_void_p(data + index * _STRING_BYTES)
                size = self._call("TF_StringGetSize", place, result=ctypes.c_size_t)
                pointer = self._call("TF_StringGetDataPointer", place)
                array.reshape(-1)[index] = ctypes.string_at(pointer, size) if size else b""
        else:
            size = self._call("TF_TensorByteSize", tensor, result=ctypes.c_size_t)
            array = np.frombuffer(ctypes.string_at(data, size), _TYPES[code]).reshape(shape)
        self._call("TF_DeleteTensor", tensor, result=None)
        return array


def main(libraries, model, requests, answers):
    """Answers the requests of a file, {signature/number/input: array}, into another, {signature/number/output: ...}."""
    loaded, asked = CppModel(model, libraries), {}
    with np.load(requests, allow_pickle=True) as file:
        for key in file:
            signature, number, name = key.split("/")
            asked.setdefault((signature, number), {})[name] = file[key]
    found = {}
    for (signature, number), inputs in asked.items():
        for name, value in loaded.run(signature, inputs).items():
            found[f"{signature}/{number}/{name}"] = value
    np.savez(answers, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
