"""The signature `step`: one frame of each of several streams, as files, to its map, as a file, and the next state."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from msst_keras.data.images import encode_jpeg
from msst_keras.motion.superpixels import SuperpixelSettings
from msst_keras.serving import checks, decoding
from msst_keras.serving.state import StateFormat
from msst_keras.serving.wire import encode_flow, encode_superpixels

_STATE = "state_bytes"

Spec = tuple[tf.DType, tuple[int | None, ...]]  # of an input: its type and shape, None where a side is free


class Stepper:
    """Decodes rows, moves each stream one frame on, encodes the maps.

    Attributes:
      inputs: the names of what clients send.
      state: the format of states.
    """

    def __init__(
        self,
        model: Any,
        settings: dict,
        windows: dict[str, tuple[int, int, int]],
        motion_size: tuple[int, int] | None,
        superpixels: SuperpixelSettings | None,
    ):
        """Takes the servable, its settings, the shapes of the maps that are kept, and how motion is made."""
        self._model, self._num_frames, self._windows = model, settings["num_frames"], windows
        self._motion_size, self._superpixels = motion_size, superpixels
        inputs = ["frame_bytes"] + ["flow_bytes"] * bool(motion_size) + ["superpixels_bytes"] * bool(superpixels)
        self.inputs = [*inputs, _STATE]

    @property
    def wire(self) -> dict[str, list | None]:
        """What clients are told: "inputs", and "frame_size", what a larger frame may be reduced to before it is sent.

        The model sees no more of a frame than that; None where it sees all of it.
        """
        return {"inputs": self.inputs, "frame_size": None if self._model.needs_frames else list(self.image_size)}

    @property
    def image_size(self) -> tuple[int, int]:
        """Of the network."""
        return self._model.image_size

    def make_example(self) -> dict[str, bytes]:
        """The inputs of a request that starts a stream: a grey frame that does not move."""
        files = {"frame_bytes": encode_jpeg(np.full((*self.image_size, 3), 128, np.uint8)), _STATE: b""}
        if self._motion_size:
            files["flow_bytes"] = encode_flow(np.zeros((*self._motion_size, 2), np.float32))
            if self._superpixels:
                labels = np.zeros((*self._motion_size, self._superpixels.num_levels), np.int32)
                files["superpixels_bytes"] = encode_superpixels(labels)
        return {name: files[name] for name in self.inputs}

    def set_fingerprint(self, fingerprint: str) -> None:
        """Ties the states to a model."""
        self.state = StateFormat(fingerprint, self._num_frames, self._windows)

    def step(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """The signature; see `export`."""
        inputs = {name: checks.check_shape(inputs[name], name, (None,)) for name in self.inputs}
        inputs = checks.check_rows(inputs)
        states = self.state.check(inputs.pop(_STATE))
        with tf.control_dependencies([states]):
            files = {name: tf.identity(value) for name, value in inputs.items()}
        rows = tf.map_fn(self._decode, files, fn_output_signature=self._decoded_specs(), parallel_iterations=2)
        if self._superpixels:
            rows["superpixels"] = checks.check_superpixels(rows["superpixels"], self._superpixels.max_regions)
        maps = self._model.encode_checked(**rows)
        kept = self.state.unpack(states, maps)
        saliency = self._model.fuse_checked(maps | kept)
        levels = tf.cast(tf.round(saliency * 255), tf.uint8)
        encoded = tf.map_fn(tf.io.encode_png, levels, fn_output_signature=tf.TensorSpec((), tf.string))
        return {"saliency_bytes": encoded, _STATE: self.state.pack(kept)}

    def _decoded_specs(self) -> dict[str, tf.TensorSpec]:
        specs = {"frame": tf.TensorSpec((*self._model.image_size, 3), tf.float32)}
        size = self._motion_size
        if size is None:
            return specs
        if self._model.needs_frames:
            specs["prior_frame"] = tf.TensorSpec((*size, 3), tf.float32)
        specs["flow"] = tf.TensorSpec((*size, 2), tf.float32)
        if self._superpixels:
            specs["superpixels"] = tf.TensorSpec((*size, self._superpixels.num_levels), tf.int32)
        return specs

    def _decode(self, files: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One row, reduced to what the model sees: rows of frames of any sizes then fit together."""
        frame = decoding.decode_frame(files["frame_bytes"])[None]
        decoded = {"frame": self._model.resize(frame, self._model.image_size)[0]}
        size = self._motion_size  # not by :=, which AutoGraph cannot transform
        if size is None:
            return decoded
        if self._model.needs_frames:
            decoded["prior_frame"] = self._model.resize(frame, size)[0]
        decoded["flow"] = decoding.decode_flow(files["flow_bytes"], size)
        if self._superpixels:
            levels = self._superpixels.num_levels
            decoded["superpixels"] = decoding.decode_superpixels(files["superpixels_bytes"], size, levels)
        return decoded


def make_describe(asset: dict) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """The signature `describe`: the model's settings, so that a client needs an address and nothing else."""
    text = json.dumps(asset)

    def describe(client_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """The settings, once for each row."""
        client_bytes = checks.check_shape(client_bytes, "client_bytes", (None,))
        return {"settings_bytes": tf.fill(tf.shape(client_bytes), text)}

    return describe
