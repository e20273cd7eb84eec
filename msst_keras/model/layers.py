"""What the backbones share: channel counts by width, an affine map per channel, convolutions with batch norms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from msst_keras.model.options import BATCH_NORMS

# The prior, 0..1, spans the range of a colour channel beside R, G, B. It is not centred: where nothing moves it is 0,
# as is the border that padded convolutions see.
PRIOR_SCALE = 255.0
# Mean and standard deviation of ImageNet's R, G, B, 0..255: torchvision's and Gluon's .485/.456/.406, .229/.224/.225.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
# A batch norm averages its statistics over about the last 20 batches, since a light training has a few thousand steps.
NORM_MOMENTUM = 0.95
NORM_EPSILON = 1e-3
# Up to so many channels TensorFlow multiplies whole rows in a fraction of the time that it takes pixel by pixel.
_FEW_CHANNELS = 8


def scale_channels(channels: int, width: float, minimum: int = 4) -> int:
    """Channels of a layer of a network of relative width `width`: rounded to nearest, halves up, at least `minimum`.

    Raises:
        ValueError: The width is not a positive number.
    """
    if not (isinstance(width, int | float) and 0 < width < math.inf):
        raise ValueError(f"width must be a positive number, 1.0 for the network of the paper, found {width!r}.")
    return max(minimum, math.floor(width * channels + 0.5))


def first_initializer(channels: int, kernel_size: int, std: float | None) -> str | keras.initializers.Initializer:
    """He normal for RGB; with the prior (4 channels) a Gaussian of `std`, He's sqrt(2 / fan in) if None (section 4.1).

    The paper names a Gaussian and no size; He's lets the pre-trained layers behind see features of a usual size.
    """
    if channels == 3:
        return "he_normal"
    return keras.initializers.RandomNormal(stddev=std or math.sqrt(2 / (kernel_size**2 * channels)))


def pixels(
    image: keras.KerasTensor, means: Sequence[float] = IMAGENET_MEAN, stds: Sequence[float] = IMAGENET_STD
) -> keras.KerasTensor:
    """Image (B, H, W, 3 or 4), R, G, B in 0..255 and the prior in 0..1, to about unit size, by ImageNet's statistics.

    In float32 under every policy: bfloat16 has no room for 0..255 with a mean subtracted.
    """
    prior = image.shape[-1] - 3
    scale = tuple(1 / std for std in stds) + (PRIOR_SCALE / stds[1],) * prior
    offset = tuple(-mean / std for mean, std in zip(means, stds, strict=True)) + (0.0,) * prior
    return ChannelAffine(scale, offset, learned=False, dtype="float32", name="pixels")(image)


@keras.saving.register_keras_serializable(package="msst_keras")
class ChannelAffine(keras.layers.Layer):
    """x * scale + offset, both per channel: what a batch norm is once its statistics are frozen.

    Input and output (..., C).

    Args:
        scale, offset: Initial values, one number or one per channel.
        learned: Whether training may change them. They are weights in either case, so that a checkpoint holds them.
        **layer_options: name, dtype, trainable.
    """

    def __init__(
        self,
        scale: float | Sequence[float] = 1.0,
        offset: float | Sequence[float] = 0.0,
        learned: bool = True,
        **layer_options: Any,
    ):
        super().__init__(**layer_options)
        self._initial, self._learned = (scale, offset), learned

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the two weights, of as many values as the input has channels."""
        self.scale, self.offset = (
            self.add_weight(
                shape=input_shape[-1:],
                initializer=keras.initializers.Constant(value),
                trainable=self._learned,
                name=name,
            )
            for name, value in zip(("scale", "offset"), self._initial, strict=True)
        )

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """The inputs (..., C) times the scale plus the offset."""
        *axes, width, channels = ops.shape(inputs)
        if not axes or channels > _FEW_CHANNELS:
            return inputs * self.scale + self.offset
        scale, offset = (ops.tile(weight, (width,)) for weight in (self.scale, self.offset))
        rows = ops.reshape(inputs, (*axes, width * channels)) * scale + offset
        return ops.reshape(rows, (*axes, width, channels))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same layer again."""
        scale, offset = self._initial
        return {**super().get_config(), "scale": scale, "offset": offset, "learned": self._learned}


def set_layers(model: keras.Model, layers: Mapping[str, Sequence[np.ndarray]], first: str, source: str) -> None:
    """Gives layers of a backbone their weights.

    Args:
        model: A backbone.
        layers: Layer name -> (kernel, bias) or (scale, offset), made for RGB. These layers get an attribute
            `is_loaded`, so that a training can tell them from the others.
        first: The first convolution's name. In a model of 4 channels it is left as it is (section 4.1), and the scale
            and offset of the prior are too.
        source: Where the weights came from, for the error.

    Raises:
        ValueError: An array has another shape than its weight, or numbers that are not finite in float32.
    """
    prior = model.input_shape[-1] - 3
    for name, arrays in layers.items():
        layer = model.get_layer(name)
        if prior and name == first:
            continue
        with np.errstate(over="ignore"):  # what overflows is refused below
            values = [np.asarray(array, np.float32) for array in arrays]
        if prior and name == "pixels":
            values = [np.append(array, weight[3:]) for array, weight in zip(values, layer.get_weights(), strict=True)]
        for weight, array in zip(layer.weights, values, strict=True):
            if tuple(weight.shape) != array.shape:
                raise ValueError(
                    f"{source}: expected a {weight.name} {tuple(weight.shape)} for {name}, found {array.shape}."
                )
            if not np.isfinite(array).all():
                raise ValueError(
                    f"{source}: the {weight.name} for {name} has numbers that are not finite in float32; get or save "
                    "the file again."
                )
        layer.set_weights(values)
        layer.is_loaded = True


def normalized_convolution(
    x: keras.KerasTensor,
    filters: int | None,
    kernel_size: int,
    name: str,
    batch_norm: str,
    activation: str | None = "relu6",
    kernel_initializer: str | keras.initializers.Initializer | None = None,
    **options: Any,
) -> keras.KerasTensor:
    """A convolution with padding "same" (depthwise if `filters` is None), its batch norm, and an activation.

    Args:
        x: Input tensor (B, H, W, C).
        filters: Channels of the output; None for a depthwise convolution.
        kernel_size: Its side.
        name: Name of the convolution; the batch norm is called NAME_norm.
        batch_norm: One of BATCH_NORMS. "folded" has a bias in place of the norm (see `fold_batch_norms`).
        activation: Name of an activation, or None.
        kernel_initializer: None for He normal.
        **options: strides, dilation_rate.

    Returns:
        Tensor (B, ceil(H / stride), ceil(W / stride), filters or C).
    """
    if batch_norm not in BATCH_NORMS:
        raise ValueError(f"batch_norm must be one of {', '.join(BATCH_NORMS)}, found {batch_norm!r}.")
    folded = batch_norm == "folded"
    options |= {"padding": "same", "use_bias": folded, "name": name}
    if folded:
        options["activation"] = activation
    if filters is None:
        # He's for the values that a channel reads; Keras's own would count all channels.
        std = math.sqrt(2 / kernel_size**2)
        initializer = kernel_initializer or keras.initializers.RandomNormal(stddev=std)
        x = keras.layers.DepthwiseConv2D(kernel_size, depthwise_initializer=initializer, **options)(x)
    else:
        initializer = kernel_initializer or "he_normal"
        x = keras.layers.Conv2D(filters, kernel_size, kernel_initializer=initializer, **options)(x)
    if folded:
        return x
    x = keras.layers.BatchNormalization(
        momentum=NORM_MOMENTUM, epsilon=NORM_EPSILON, trainable=batch_norm == "trained", name=f"{name}_norm"
    )(x)
    return keras.layers.Activation(activation, name=f"{name}_{activation}")(x) if activation else x


def check_norm(where: str, num_channels: int, statistics: Sequence[np.ndarray]) -> None:
    """Refuses gamma, beta, mean and variance that are no batch norm of so many channels.

    Args:
        where: What the error begins with: the file, and the norm's name there.
        num_channels: What the layer in front of the norm gives.
        statistics: gamma, beta, mean, variance.

    Raises:
        ValueError: An array has another shape than (num_channels,), or a variance is below 0 or no number.
    """
    if any(np.shape(array) != (num_channels,) for array in statistics):
        found = ", ".join(str(np.shape(array)) for array in statistics)
        raise ValueError(
            f"{where}: expected gamma, beta, mean and variance of {num_channels} channels, found {found}; give the "
            "file of this network."
        )
    if not (statistics[3] >= 0).all():
        raise ValueError(f"{where}: expected variances from 0 up, found {statistics[3].min()}; get the file again.")


def fold_batch_norm(
    kernel: np.ndarray, statistics: Sequence[np.ndarray], epsilon: float, where: str
) -> list[np.ndarray]:
    """Makes one convolution of a convolution and the batch norm behind it: [kernel, bias].

    Args:
        kernel: (h, w, in, out), or (h, w, channels, 1) of a depthwise convolution, float32.
        statistics: gamma, beta, mean, variance of the norm, (out,) or (channels,) each.
        epsilon: What the norm adds to its variances.
        where: What an error begins with: the file or network, and the norm's name there.

    Raises:
        ValueError: See `check_norm`.
    """
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in statistics)
    depthwise = kernel.shape[-1] == 1 and gamma.size > 1
    check_norm(where, kernel.shape[-2 if depthwise else -1], (gamma, beta, mean, variance))
    scale = gamma / np.sqrt(variance + epsilon)
    folded = kernel * (scale[:, None] if depthwise else scale)
    return [folded.astype(np.float32), (beta - mean * scale).astype(np.float32)]


def fold_batch_norms(source: keras.Model, target: keras.Model) -> None:
    """Copies the weights of `source` into `target`, the same network built with batch_norm="folded".

    The batch norms of `source` are folded into its convolutions. Nested models are found by their names.

    Raises:
        ValueError: The two are different networks.
    """
    theirs = {layer.name: layer for layer in source.layers}
    for layer in target.layers:
        if layer.name not in theirs:
            if layer.weights:
                raise ValueError(f"The network {source.name} has no layer {layer.name}; build both alike.")
            continue
        other = theirs[layer.name]
        if isinstance(layer, keras.Model):
            fold_batch_norms(other, layer)
        elif f"{layer.name}_norm" in theirs and len(layer.weights) == 2 and len(other.weights) == 1:
            norm, where = theirs[f"{layer.name}_norm"], f"The network {source.name}, {layer.name}_norm"
            layer.set_weights(fold_batch_norm(other.get_weights()[0], norm.get_weights(), norm.epsilon, where))
        elif layer.weights:
            layer.set_weights(other.get_weights())
