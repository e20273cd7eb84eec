"""What the backbones share: scaled channel counts, an affine map per channel, convolutions with their batch norms."""

from __future__ import annotations

import math

import keras
import numpy as np

from msst_keras.model.options import BATCH_NORMS

# The prior, 0..1, spans the range of a colour channel beside R, G, B. It is not centred: where nothing moves it is 0,
# as is the border that padded convolutions see.
PRIOR_SCALE = 255.0
# Mean and standard deviation of ImageNet's R, G, B, 0..255: torchvision's and Gluon's .485/.456/.406, .229/.224/.225.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
# Of the average of the statistics: the last 20 batches or so, since a light training has a few thousand steps in all.
NORM_MOMENTUM = 0.95
NORM_EPSILON = 1e-3


def scale_channels(channels: int, width: float, minimum: int = 4) -> int:
    """Channels of a layer of a network of relative width `width`: rounded to nearest, halves up, at least `minimum`.

    Raises:
        ValueError: The width is not a positive number.
    """
    if not (isinstance(width, int | float) and 0 < width < math.inf):
        raise ValueError(f"width must be a positive number, 1.0 for the network of the paper, found {width!r}.")
    return max(minimum, math.floor(width * channels + 0.5))


def first_initializer(channels: int, kernel_size: int, std: float | None):
    """He normal for RGB; with the prior (4 channels) a Gaussian of `std`, He's sqrt(2 / fan in) if None (section 4.1).

    The paper names a Gaussian and no size; He's lets the pre-trained layers behind see features of a usual size.
    """
    if channels == 3:
        return "he_normal"
    return keras.initializers.RandomNormal(stddev=std or math.sqrt(2 / (kernel_size**2 * channels)))


def pixels(image, name: str = "pixels"):
    """Image (B, H, W, 3 or 4), R, G, B in 0..255 and the prior in 0..1, to about unit size, by ImageNet's statistics.

    In float32 under every policy: bfloat16 has no room for 0..255 with a mean subtracted.
    """
    prior = image.shape[-1] - 3
    scale = tuple(1 / std for std in IMAGENET_STD) + (PRIOR_SCALE / IMAGENET_STD[1],) * prior
    offset = tuple(-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)) + (0.0,) * prior
    return ChannelAffine(scale, offset, learned=False, dtype="float32", name=name)(image)


@keras.saving.register_keras_serializable(package="msst_keras")
class ChannelAffine(keras.layers.Layer):
    """x * scale + offset, both per channel: what a batch norm is once its statistics are frozen.

    Input and output (..., C).

    Args:
        scale, offset: Initial values, one number or one per channel.
        learned: Whether training may change them. Also where not, they are weights, so that a checkpoint holds them.
        **layer_options: name, dtype, trainable.
    """

    def __init__(self, scale=1.0, offset=0.0, learned: bool = True, **layer_options):
        super().__init__(**layer_options)
        self._initial, self._learned = (scale, offset), learned

    def build(self, input_shape):
        self.scale, self.offset = (
            self.add_weight(
                shape=input_shape[-1:],
                initializer=keras.initializers.Constant(value),
                trainable=self._learned,
                name=name,
            )
            for name, value in zip(("scale", "offset"), self._initial, strict=True)
        )

    def call(self, inputs):
        return inputs * self.scale + self.offset

    def get_config(self):
        scale, offset = self._initial
        return {**super().get_config(), "scale": scale, "offset": offset, "learned": self._learned}


def set_layers(model: keras.Model, layers: dict, first: str, source: str) -> None:
    """Gives layers of a backbone their weights.

    Args:
        model: A backbone.
        layers: Layer name -> (kernel, bias) or (scale, offset), made for RGB. These layers get an attribute
            `is_loaded`, so that a training can tell them from the others.
        first: The first convolution's name. In a model of 4 channels it is left as it is (section 4.1), and so is what
            happens to the prior in front of it.
        source: Where the weights came from, for the error.

    Raises:
        ValueError: An array has another shape than its weight.
    """
    prior = model.input_shape[-1] - 3
    for name, arrays in layers.items():
        layer = model.get_layer(name)
        if prior and name == first:
            continue
        arrays = [np.asarray(array, np.float32) for array in arrays]
        if prior and name == "pixels":
            arrays = [np.append(array, weight[3:]) for array, weight in zip(arrays, layer.get_weights(), strict=True)]
        for weight, array in zip(layer.weights, arrays, strict=True):
            if tuple(weight.shape) != array.shape:
                raise ValueError(
                    f"{source}: expected a {weight.name} {tuple(weight.shape)} for {name}, found {array.shape}."
                )
        layer.set_weights(arrays)
        layer.is_loaded = True


def normalized_convolution(
    x,
    filters: int | None,
    kernel_size: int,
    name: str,
    batch_norm: str,
    activation: str | None = "relu6",
    kernel_initializer=None,
    **options,
):
    """A convolution with padding "same" (depthwise if `filters` is None), its batch norm, and an activation.

    Args:
        x: Input tensor (B, H, W, C).
        filters: Channels of the output; None for a depthwise convolution.
        kernel_size: Its side.
        name: Of the convolution; the batch norm is NAME_norm.
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


def fold_batch_norm(kernel: np.ndarray, statistics: list[np.ndarray], epsilon: float) -> list[np.ndarray]:
    """A convolution and the batch norm behind it as one convolution: [kernel, bias].

    Args:
        kernel: (h, w, in, out), or (h, w, channels, 1) of a depthwise convolution, float32.
        statistics: gamma, beta, mean, variance of the norm, (out,) or (channels,) each.
        epsilon: Of the norm.
    """
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in statistics)
    scale = gamma / np.sqrt(variance + epsilon)
    depthwise = kernel.shape[-1] == 1 and kernel.shape[-2] == len(scale) > 1
    folded = kernel * (scale[:, None] if depthwise else scale)
    return [folded.astype(np.float32), (beta - mean * scale).astype(np.float32)]


def fold_batch_norms(source: keras.Model, target: keras.Model) -> None:
    """Gives `target`, the same network built with batch_norm="folded", the weights of `source`, its norms folded in.

    Nested models are followed by their names.

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
            norm = theirs[f"{layer.name}_norm"]
            layer.set_weights(fold_batch_norm(other.get_weights()[0], norm.get_weights(), norm.epsilon))
        elif layer.weights:
            layer.set_weights(other.get_weights())
