"""The layers between the streams and the saliency map: time, size, and the ConvLSTM of Eq. 4.

None of them needs to know height and width before a clip arrives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

Shape = tuple[int | None, ...]  # None: a side that is not known when the graph is made


@keras.saving.register_keras_serializable(package="msst_keras")
class ConvLSTM2D(keras.layers.ConvLSTM2D):
    """Keras's ConvLSTM2D, "same" padding and last output only, for any height and width, also unknown ones.

    Keras makes the initial state from the size the layer was built with, and so allows that size alone. Here nothing
    depends on it; the numbers are the same. The T steps stand in the graph one by one, which takes less time than
    Keras's loop; before the first step, whose state is 0, there is no recurrent convolution.

    Input (B, T, H, W, C), T known; output (B, H, W, filters) in (-1, 1): the hidden state behind step T.

    Args:
        filters: Channels of the state, at least 1.
        kernel_size: Odd, since an even kernel would move the maps by half a pixel at every step.
        **layer_options: name, dtype, trainable.

    Raises:
        ValueError: A size is not as said.
    """

    def __init__(self, filters: int, kernel_size: int, **layer_options: Any):
        for argument, value in {"filters": filters, "kernel_size": kernel_size}.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{argument} of ConvLSTM2D must be a positive whole number, found {value!r}.")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size of ConvLSTM2D must be odd, found {kernel_size}.")
        unknown = set(layer_options) - {"name", "dtype", "trainable"}
        if unknown:
            raise ValueError(f"ConvLSTM2D takes name, dtype and trainable alone, found {', '.join(sorted(unknown))}.")
        super().__init__(filters, kernel_size, padding="same", **layer_options)

    def build(self, sequences_shape: Shape) -> None:
        """Makes the weights, for inputs of every height and width."""
        batch, time, *_, channels = sequences_shape
        super().build((batch, time, 1, 1, channels))
        # Keras's specs would hold every later call to the size of the first.
        self.input_spec = self.cell.input_spec = None

    def call(self, sequences: KerasTensor, training: bool = False) -> KerasTensor:
        """The state behind the last step, see the class."""
        cell, frames = self.cell, ops.unstack(sequences, axis=1)
        # A convolution for each gate, over the frame and the state together: to take the gates of one convolution apart
        # would copy more than a small convolution computes.
        kernel = ops.concatenate([cell.kernel, cell.recurrent_kernel], axis=2)
        kernels, biases = ops.split(kernel, 4, axis=-1), ops.split(cell.bias, 4)
        of_first_step = ops.split(cell.kernel, 4, axis=-1)
        hidden = carry = None
        if len(frames) == 1:  # no step would have a recurrent convolution, and its kernel no gradient
            hidden = ops.zeros_like(ops.repeat(frames[0][..., :1], self.filters, axis=-1))
        for frame in frames:
            seen = frame if hidden is None else ops.concatenate([frame, hidden], axis=-1)
            enter, keep, new, leave = (
                ops.conv(seen, weights, padding="same") + bias
                for weights, bias in zip(of_first_step if hidden is None else kernels, biases, strict=True)
            )
            new = cell.recurrent_activation(enter) * cell.activation(new)
            carry = new if carry is None else cell.recurrent_activation(keep) * carry + new
            hidden = cell.recurrent_activation(leave) * cell.activation(carry)
        return hidden

    def compute_output_shape(self, sequences_shape: Shape) -> Shape:
        """(B, H, W, filters)."""
        batch, _, height, width, _ = sequences_shape
        return (batch, height, width, self.filters)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, not the many of Keras's own layer."""
        config = keras.layers.Layer.get_config(self)
        return {**config, "filters": self.filters, "kernel_size": self.kernel_size[0]}


@keras.saving.register_keras_serializable(package="msst_keras")
class MergeTime(keras.layers.Layer):
    """(B, T, H, W, C) -> (B * T, H, W, C)."""

    def call(self, inputs: KerasTensor) -> KerasTensor:
        """(B, T, H, W, C) -> (B * T, H, W, C)."""
        _, _, *image_shape = ops.shape(inputs)
        return ops.reshape(inputs, (-1, *image_shape))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The number of images is not known."""
        return (None, *input_shape[2:])


@keras.saving.register_keras_serializable(package="msst_keras")
class SplitTime(keras.layers.Layer):
    """(B * T, H, W, C) -> (B, T, H, W, C), T being `num_frames`."""

    def __init__(self, num_frames: int, **layer_options: Any):
        super().__init__(**layer_options)
        self.num_frames = num_frames

    def call(self, inputs: KerasTensor) -> KerasTensor:
        """(B * T, H, W, C) -> (B, T, H, W, C)."""
        _, *image_shape = ops.shape(inputs)
        return ops.reshape(inputs, (-1, self.num_frames, *image_shape))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The number of clips is not known."""
        return (None, self.num_frames, *input_shape[1:])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "num_frames": self.num_frames}


@keras.saving.register_keras_serializable(package="msst_keras")
class UpsampleScales(keras.layers.Layer):
    """The upsampling of Eq. 3 and the concatenation of Eq. 2 and 6.

    Maps [(B, h, w, S), ...], one array per scale, finest first, are upsampled bilinearly by `strides`, half-pixel
    centres, and cut to the size of the finest: (B, h * stride, w * stride, S * n), ordered as in Eq. 2: all scales of
    the first stream, then all of the second. Each stride must be a multiple of the first.
    """

    def __init__(self, strides: tuple[int, ...], **layer_options: Any):
        super().__init__(**layer_options)
        self.strides = tuple(strides)

    def call(self, inputs: Sequence[KerasTensor]) -> KerasTensor:
        """The maps of all scales at the size of the finest, see the class."""
        _, height, width, num_streams = ops.shape(inputs[0])
        height, width = height * self.strides[0], width * self.strides[0]
        maps = []
        for scale, stride in zip(inputs, self.strides, strict=True):
            # Two matrix products, not keras.ops.image.resize: that refuses sizes unknown when the graph is made.
            _, rows, columns, _ = ops.shape(scale)
            scale = ops.matmul(_interpolation(rows, stride), ops.transpose(scale, (0, 3, 1, 2)))
            scale = ops.matmul(scale, ops.transpose(_interpolation(columns, stride)))
            maps.append(scale[..., :height, :width])
        maps = ops.reshape(ops.stack(maps, axis=2), (-1, num_streams * len(maps), height, width))
        return ops.transpose(maps, (0, 2, 3, 1))

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        """(B, h * stride, w * stride, S * n)."""
        batch, height, width, num_streams = input_shape[0]
        size = (None if side is None else side * self.strides[0] for side in (height, width))
        assert num_streams is not None, "maps of an unknown number of channels"
        return (batch, *size, num_streams * len(self.strides))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "strides": self.strides}


@keras.saving.register_keras_serializable(package="msst_keras")
class Upsample(keras.layers.Layer):
    """(B, h, w, C) -> (B, h * stride, w * stride, C), bilinear, half-pixel centres, for any size."""

    def __init__(self, stride: int, **layer_options: Any):
        super().__init__(**layer_options)
        self.stride = stride

    def call(self, inputs: KerasTensor) -> KerasTensor:
        """(B, h, w, C) -> (B, h * stride, w * stride, C)."""
        # Two matrix products, for the reason given in `UpsampleScales`; their gradients are products too, where that of
        # TensorFlow's own resize runs on one core.
        _, rows, columns, channels = ops.shape(inputs)
        high, wide = (ops.cast(_interpolation(size, self.stride), inputs.dtype) for size in (rows, columns))
        x = ops.matmul(high, ops.reshape(inputs, (-1, rows, columns * channels)))
        if channels == 1:  # of a single column for each row the general product would take ten times as long
            x = ops.matmul(ops.reshape(x, (-1, rows * self.stride, columns)), ops.transpose(wide))
        else:
            x = ops.matmul(wide, ops.reshape(x, (-1, columns, channels)))
        return ops.reshape(x, (-1, rows * self.stride, columns * self.stride, channels))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(B, h * stride, w * stride, C); sides that are not known stay unknown."""
        batch, *size, channels = input_shape
        return (batch, *(None if side is None else side * self.stride for side in size), channels)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "stride": self.stride}


def _interpolation(num_cells: int | KerasTensor, stride: int) -> KerasTensor:
    """(num_cells * stride, num_cells) float32: the weight of each cell in each pixel, pixels at the rim of one cell."""
    pixels = (ops.cast(ops.arange(num_cells * stride), "float32") + 0.5) / stride - 0.5
    pixels = ops.clip(pixels, 0.0, ops.cast(num_cells - 1, "float32"))
    cells = ops.cast(ops.arange(num_cells), "float32")
    return ops.maximum(1 - ops.abs(pixels[:, None] - cells[None]), 0.0)


@keras.saving.register_keras_serializable(package="msst_keras")
class CropToFrame(keras.layers.Layer):
    """[map (B, at least H, at least W, C), frames (..., H, W, 3)] -> (B, H, W, C): the top left corner of the map."""

    def call(self, inputs: tuple[KerasTensor, KerasTensor]) -> KerasTensor:
        """The top left corner of the map, of the frames' size."""
        maps, frames = inputs
        *_, height, width, _ = ops.shape(frames)
        return maps[:, :height, :width]

    def compute_output_shape(self, input_shape: tuple[Shape, Shape]) -> Shape:
        """(B, H, W, C)."""
        maps, frames = input_shape
        return (maps[0], *frames[-3:-1], maps[-1])
