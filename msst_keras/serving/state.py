"""The state of a stream, which the client holds: the maps of the last T - 1 frames as a string of bytes.

A model server has no memory of its own, so any replica may answer and a restart loses no stream. The string begins
with a token that ties it to one model; that of another one is refused instead of giving a map of nonsense. A PNG
follows, because it goes to the server and back with every frame: each channel of each frame's maps in whole levels
between its lowest and highest value, one below the other, and behind them these two values.
"""

from __future__ import annotations

import math

import tensorflow as tf

from msst_keras.serving.checks import check_finite, refuse_unless

# The paper's network leaves a few maps, which are all that is known of a frame: 16 bits. The light one leaves 32
# features a cell, of which many go into each value behind them: 8 bits change its saliency by .1 of a grey level.
_MAX_FINE_CHANNELS = 8
_PNG_HEADER_BYTES = 33
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"


class StateFormat:
    """Packs and unpacks the maps of T - 1 frames."""

    def __init__(self, fingerprint: str, num_frames: int, shapes: dict[str, tuple[int, int, int]]):
        """Takes the model's token, T, and (h, w, C) of each of the maps that are kept."""
        self._num_past = num_frames - 1
        self._shapes = dict(sorted(shapes.items()))
        is_fine = all(shape[-1] <= _MAX_FINE_CHANNELS for shape in shapes.values())
        self._type = tf.uint16 if is_fine else tf.uint8
        self._width = max((width for _, width, _ in shapes.values()), default=1)
        num_channels = self._num_past * sum(shape[-1] for shape in shapes.values())
        self._num_range_rows = math.ceil(num_channels * 8 / self._type.size / self._width)
        num_rows = self._num_past * sum(height * channels for height, _, channels in shapes.values())
        self._size = num_rows + self._num_range_rows, self._width
        self._start, self._blank = f"msst state 2 {fingerprint}\n".encode(), b""
        if num_channels:
            blank = tf.io.encode_png(tf.zeros((*self._size, 1), self._type)).numpy()
            self._start, self._blank = self._start + blank[:_PNG_HEADER_BYTES], blank[_PNG_HEADER_BYTES:]
        # What PNG makes of noise: a byte for the filter of each row, and less than a hundredth for blocks.
        self._max_bytes = len(self._start) + 1024 + self._size[0] * (self._width * self._type.size + 1) * 101 // 100
        self._png_start = len(self._start) - _PNG_HEADER_BYTES

    def check(self, states: tf.Tensor) -> tf.Tensor:
        """Returns states, string (B,), each of which is empty or of this model and whole."""
        starts = tf.strings.length(states) == 0
        right = tf.strings.length(states) <= self._max_bytes
        right &= tf.strings.substr(states, 0, len(self._start)) == self._start
        if self._blank:
            right &= tf.strings.substr(bytes(len(_PNG_END)) + states, -len(_PNG_END), len(_PNG_END)) == _PNG_END
        else:
            right &= tf.strings.length(states) == len(self._start)
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
        windows = {name: current[name][:, None] for name in self._shapes}
        if not self._blank:
            return windows
        starts = tf.strings.length(states) == 0
        states = tf.where(starts, tf.fill(tf.shape(states), self._start + self._blank), states)
        past = self._decode(tf.strings.substr(states, self._png_start, self._max_bytes))
        for name, now in windows.items():
            repeated = tf.repeat(now, self._num_past, axis=1)
            before = tf.where(starts[:, None, None, None, None], repeated, check_finite(past[name], "state_bytes"))
            windows[name] = tf.concat([before, now], axis=1)
        return windows

    def pack(self, windows: dict[str, tf.Tensor]) -> tf.Tensor:
        """The states, string (B,), of the last T - 1 of T frames' maps, float32 (B, T, h, w, C) of each name."""
        rows = tf.shape(next(iter(windows.values())))[0]
        if not self._blank:
            return tf.fill([rows], self._start)
        images, ranges = [], []
        for name, (height, width, channels) in self._shapes.items():
            maps = windows[name][:, 1:]
            lowest = tf.reduce_min(maps, axis=(2, 3), keepdims=True)
            step = (tf.reduce_max(maps, axis=(2, 3), keepdims=True) - lowest) / self._type.max
            levels = tf.round((maps - lowest) / tf.maximum(step, 1e-30))
            # As float32: of transposing bytes oneDNN complains on the server's standard error.
            levels = tf.transpose(tf.clip_by_value(levels, 0, self._type.max), (0, 1, 4, 2, 3))
            planes = tf.reshape(tf.cast(levels, self._type), (rows, self._num_past * channels * height, width))
            images.append(tf.pad(planes, [[0, 0], [0, 0], [0, self._width - width]]))
            ranges.append(tf.reshape(tf.concat([lowest, step], axis=2), (rows, -1)))
        bits = tf.reshape(tf.bitcast(tf.concat(ranges, axis=1), self._type), (rows, -1))
        bits = tf.pad(bits, [[0, 0], [0, self._num_range_rows * self._width - tf.shape(bits)[1]]])
        images.append(tf.reshape(bits, (rows, self._num_range_rows, self._width)))
        pixels = tf.concat(images, axis=1)[..., None]
        encoded = tf.map_fn(tf.io.encode_png, pixels, fn_output_signature=tf.TensorSpec((), tf.string))
        return self._start[: self._png_start] + encoded

    def _decode(self, encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        """The maps, float32 (B, T - 1, h, w, C) of each name, of PNGs, string (B,)."""
        pixels = tf.map_fn(
            lambda png: tf.ensure_shape(tf.io.decode_png(png, 1, self._type), (*self._size, 1)),
            encoded,
            fn_output_signature=tf.TensorSpec((*self._size, 1), self._type),
            parallel_iterations=2,
        )[..., 0]
        bits = tf.reshape(pixels[:, -self._num_range_rows :], (-1, self._num_range_rows * self._width))
        maps, row, place, part = {}, 0, 0, 4 // self._type.size
        for name, (height, width, channels) in self._shapes.items():
            num_rows, num_parts = self._num_past * channels * height, self._num_past * 2 * channels * part
            levels = tf.reshape(pixels[:, row : row + num_rows, :width], (-1, self._num_past, channels, height, width))
            ranges = tf.reshape(bits[:, place : place + num_parts], (-1, self._num_past, 2, 1, channels, part))
            lowest, step = tf.unstack(tf.bitcast(ranges, tf.float32), axis=2)
            levels = tf.transpose(tf.cast(levels, tf.float32), (0, 1, 3, 4, 2))
            maps[name] = lowest[:, :, None] + levels * step[:, :, None]
            row, place = row + num_rows, place + num_parts
        return maps
