"""Warm-up requests: a server runs them before it takes others, so that nobody waits for what the first request costs.

They lie in the model's folder at `assets.extra/tf_serving_warmup_requests`, a TFRecord file of PredictionLog. A server
ignores a file that lies elsewhere without a word, and does not serve a version with a request that fails: so all of
them are run here, by name as a server does it, before a version appears.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto

from msst_keras.serving.messages import PredictionLog, Tensor
from msst_keras.serving.step import Spec, Stepper

_TIMES = 2  # each, because a second request still costs up to 4 times what later ones do
FILE_NAME = Path("assets.extra") / "tf_serving_warmup_requests"


def write(path: Path, shapes: Mapping[str, Mapping[str, Spec]], stepper: Stepper) -> None:
    """Writes requests of one row for every signature into a SavedModel's folder; of `step` also one in mid-stream.

    Each stands there twice, in turn.

    All of them are run, in a session of their own as a server has one.

    Raises:
      tf.errors.OpError: a request fails.
    """
    requests = []
    for signature, inputs in shapes.items():
        if signature != "step":
            blank = {name: _blank(name, dtype, shape, stepper.image_size) for name, (dtype, shape) in inputs.items()}
            requests.append((signature, blank))
    first = {name: np.array([value], object) for name, value in stepper.make_example().items()}
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        model = _load(session, path)
        later = first | {"state_bytes": _run(session, model, "step", first)["state_bytes"]}
        for signature, inputs in [*requests, ("step", later)]:
            _run(session, model, signature, inputs)
    requests += [("step", first), ("step", later)]
    (path / FILE_NAME).parent.mkdir()
    with tf.io.TFRecordWriter(str(path / FILE_NAME)) as file:
        for signature, inputs in requests * _TIMES:
            log = PredictionLog()
            log.predict_log.request.model_spec.signature_name = signature
            for name, value in inputs.items():
                tensor = Tensor.FromString(_make_proto(value).SerializeToString())
                log.predict_log.request.inputs.add(key=name, value=tensor)
            file.write(log.SerializeToString())


def read(path: Path) -> list[tuple[str, dict[str, np.ndarray]]]:
    """The requests of a SavedModel's folder: signature and inputs."""
    requests = []
    for record in tf.data.TFRecordDataset(str(path / FILE_NAME)).as_numpy_iterator():
        request = PredictionLog.FromString(record).predict_log.request
        inputs = {
            entry.key: tf.make_ndarray(TensorProto.FromString(entry.value.SerializeToString()))
            for entry in request.inputs
        }
        requests.append((request.model_spec.signature_name, inputs))
    return requests


def _run(
    session: tf.compat.v1.Session, model: Any, signature: str, inputs: dict[str, np.ndarray | TensorProto]
) -> dict[str, np.ndarray]:
    """The outputs of a signature of a loaded model."""
    described = model.signature_def[signature]
    fetches = {name: output.name for name, output in described.outputs.items()}
    arrays = {
        described.inputs[name].name: tf.make_ndarray(value) if isinstance(value, TensorProto) else value
        for name, value in inputs.items()
    }
    return session.run(fetches, arrays)


def _load(session: tf.compat.v1.Session, path: Path) -> Any:
    """Loads a SavedModel's graph; TensorFlow would have other code load it otherwise, and says so."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        return tf.compat.v1.saved_model.loader.load(session, ["serve"], str(path))
    finally:
        logger.setLevel(level)


def _make_proto(value: np.ndarray | TensorProto) -> TensorProto:
    return value if isinstance(value, TensorProto) else tf.make_tensor_proto(value)


def _blank(name: str, dtype: tf.DType, shape: tuple[int | None, ...], image_size: tuple[int, int]) -> TensorProto:
    """One row of noughts; a frame of the network's size, and that as `frame_size`."""
    if dtype == tf.string:
        return tf.make_tensor_proto([b"warm-up"])
    if name == "frame_size":
        return tf.make_tensor_proto([image_size], dtype)
    sides = list(shape[1:])
    if None in sides:
        sides[-3:-1] = image_size
    # A constant tensor is one number and a shape, whatever its size.
    return tf.make_tensor_proto(0, dtype, [1, *sides])
