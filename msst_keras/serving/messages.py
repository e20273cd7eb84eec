"""The messages of TensorFlow Serving's API that our client and the warm-up file use, without TensorFlow.

`tensorflow-serving-api` has them all, but needs TensorFlow, whose import takes seconds, and every one of its messages
is bound to a release of protobuf. These few are built here from a table; fields and numbers are those of
https://github.com/tensorflow/serving (tensorflow_serving/apis: predict.proto, model.proto, prediction_log.proto) and of
tensorflow/core/framework/tensor.proto. Unlisted fields survive, as protobuf has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

UINT8, STRING = 4, 7  # of the numbers of types in a Tensor

_PACKAGE = "msst"
_TYPES = {
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,  # also an enum's
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
}
# A map is a repeated message of key and value.
_MESSAGES = {
    "Int64Value": [("value", 1, "int64")],
    "ModelSpec": [
        ("name", 1, "string"), ("version", 2, "Int64Value"), ("signature_name", 3, "string"),
        ("version_label", 4, "string"),
    ],
    "Dimension": [("size", 1, "int64")],
    "Shape": [("dim", 2, "*Dimension")],
    "Tensor": [("dtype", 1, "int32"), ("tensor_shape", 2, "Shape"), ("string_val", 8, "*bytes")],
    "NamedTensor": [("key", 1, "string"), ("value", 2, "Tensor")],
    "PredictRequest": [("model_spec", 1, "ModelSpec"), ("inputs", 2, "*NamedTensor")],
    "PredictResponse": [("outputs", 1, "*NamedTensor"), ("model_spec", 2, "ModelSpec")],
    "PredictLog": [("request", 1, "PredictRequest")],
    "PredictionLog": [("predict_log", 6, "PredictLog")],
}  # fmt: skip


def build_messages(table: Mapping[str, list[tuple[str, int, str]]]) -> dict[str, Any]:
    """The classes of messages: name -> fields, each its name, number and type ("*" before it where it is repeated).

    They are made while the program runs, so no type checker can know them.
    """
    file = descriptor_pb2.FileDescriptorProto(name="msst_serving.proto", package=_PACKAGE, syntax="proto3")
    for message, fields in table.items():
        described = file.message_type.add(name=message)
        for name, number, kind in fields:
            field = described.field.add(name=name, number=number)
            field.label = field.LABEL_REPEATED if kind.startswith("*") else field.LABEL_OPTIONAL
            kind = kind.removeprefix("*")
            if kind in _TYPES:
                field.type = _TYPES[kind]
            else:
                field.type, field.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()  # of our own: TensorFlow's messages lie in the default one
    pool.Add(file)
    find = pool.FindMessageTypeByName
    return {name: message_factory.GetMessageClass(find(f"{_PACKAGE}.{name}")) for name in table}


_CLASSES = build_messages(_MESSAGES)
Tensor = _CLASSES["Tensor"]
PredictRequest = _CLASSES["PredictRequest"]
PredictResponse = _CLASSES["PredictResponse"]
PredictionLog = _CLASSES["PredictionLog"]


def write_request(name: str, version: int | str | None, signature: str, inputs: Mapping[str, bytes]) -> Any:
    """A PredictRequest of one row of strings.

    Args:
      name: of the model on the server.
      version: a number, a label, or None for the newest.
      signature: its name.
      inputs: the string of each input.
    """
    request = PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = name, signature
    if isinstance(version, int):
        request.model_spec.version.value = version
    elif version is not None:
        request.model_spec.version_label = version
    for key, value in inputs.items():
        tensor = request.inputs.add(key=key).value
        tensor.dtype = STRING
        tensor.tensor_shape.dim.add(size=1)
        tensor.string_val.append(value)
    return request


def read_response(response: Any) -> dict[str, bytes]:
    """The string of each output of a PredictResponse of one row.

    Raises:
      ValueError: an output of something else.
    """
    found = {}
    for output in response.outputs:
        if output.value.dtype != STRING or len(output.value.string_val) != 1:
            raise ValueError(f"the server's output {output.key} is not one string; is this a model of `msst export`?")
        found[output.key] = output.value.string_val[0]
    return found
