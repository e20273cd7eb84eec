"""The state of a stream, which the client holds: the maps of the last T - 1 frames as a string of bytes.

A model server has no memory of its own, so any replica may answer and a restart loses no stream. The string begins
with a token that ties it to one model; that of another one is refused instead of giving a map of nonsense.
"""

from __future__ import annotations

import math

import tensorflow as tf

from msst_keras.serving.checks import check_finite, refuse_unless

# The paper's network leaves a few numbers a cell, which go as they are. The light one leaves 64 features a cell, thirty
# times as much: they go as float16, whose rounding is far below a grey level of the map.
_MAX_EXACT_CHANNELS = 8


class StateFormat:
    """Packs and unpacks the maps of T - 1 frames.

    Attributes:
      num_bytes: of a state.
    """

    def __init__(self, fingerprint: str, num_frames: int, shapes: dict[str, tuple[int, int, int]]):
        """Takes the model's token, T, and (h, w, C) of each of the maps that are kept."""
        self._token = f"msst state {fingerprint}\n".encode()
        self._num_past = num_frames - 1
        self._shapes = dict(sorted(shapes.items()))
        self._types = {
            name: tf.float32 if shape[-1] <= _MAX_EXACT_CHANNELS else tf.float16 for name, shape in shapes.items()
        }
        sizes = [self._types[name].size * self._num_past * math.prod(shape) for name, shape in self._shapes.items()]
        self._sizes, self.num_bytes = sizes, len(self._token) + sum(sizes)

    def check(self, states: tf.Tensor) -> tf.Tensor:
        """Returns states, string (B,), each of which is empty or of this model and whole."""
        starts = tf.strings.length(states) == 0
        right = tf.strings.length(states) == self.num_bytes
        right &= tf.strings.substr(states, 0, len(self._token)) == self._token
        sentence = (
            "state_bytes must be what this very model answered before, whole, or empty to start a stream; "
            "the state of another model or version is of no use to it"
        )
        return refuse_unless(starts | right, sentence, states)

    def unpack(self, states: tf.Tensor, current: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The maps of T frames: those of the states, and the current ones.

        Args:
          states: string (B,), checked; an empty one starts a stream, and the current frame stands for those before it.
          current: float32 (B, h, w, C) of each name.

        Returns:
          float32 (B, T, h, w, C) of each name.
        """
        starts = tf.strings.length(states) == 0
        blank = self._token + bytes(sum(self._sizes))
        states = tf.where(starts, tf.fill(tf.shape(states), blank), states)
        windows, position = {}, len(self._token)
        for (name, shape), size in zip(self._shapes.items(), self._sizes, strict=True):
            now = current[name][:, None]
            if self._num_past:
                raw = tf.io.decode_raw(tf.strings.substr(states, position, size), tf.uint8)
                raw = tf.reshape(raw, (-1, self._num_past, *shape, self._types[name].size))
                past = tf.cast(tf.bitcast(raw, self._types[name]), tf.float32)
                past = check_finite(past, "state_bytes")
                repeated = tf.repeat(now, self._num_past, axis=1)
                now = tf.concat([tf.where(starts[:, None, None, None, None], repeated, past), now], axis=1)
            windows[name], position = now, position + size
        return windows

    def pack(self, windows: dict[str, tf.Tensor]) -> tf.Tensor:
        """The states, string (B,), of the last T - 1 of T frames' maps, float32 (B, T, h, w, C) of each name."""
        rows = tf.shape(next(iter(windows.values())))[0]
        if not self._num_past:
            return tf.fill([rows], self._token)
        parts = []
        for name in self._shapes:
            past = tf.cast(windows[name][:, 1:], self._types[name])
            parts.append(tf.reshape(tf.bitcast(past, tf.uint8), (rows, -1)))
        # TensorFlow has no inverse of decode_raw; a serialized tensor ends with its bytes.
        size = sum(self._sizes)
        serialized = tf.map_fn(tf.io.serialize_tensor, tf.concat(parts, axis=1), fn_output_signature=tf.string)
        return self._token + tf.strings.substr(serialized, -size, size)
