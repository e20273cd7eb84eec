"""MobileNetV2 (Sandler et al. 2018) to stride 16: the backbone for a live video on a CPU.

Shapes at output_stride 16, width 1, H x W a multiple of 16:

    layer                        dilation   output
    pixels                                  H    x W    x 3 or 4
    stem (3x3, stride 2)                    H/2  x W/2  x 32
    block0                       1          H/2  x W/2  x 16
    block1, block2               1          H/4  x W/4  x 24
    block3 to block5             1          H/8  x W/8  x 32
    block6_expand                           H/8  x W/8  x 192    -> middle
    block6 to block9             1          H/16 x W/16 x 64
    block10 to block12           1          H/16 x W/16 x 96
    block13                      1          H/16 x W/16 x 160
    block14, block15             2          H/16 x W/16 x 160
    block16                      2          H/16 x W/16 x 320    -> last

A block is _expand (1x1, six times the channels), _depthwise (3x3), both with ReLU6, and _project (1x1, linear), plus
its input where stride and channels stay. The last stride is taken away and the blocks behind it dilated, as DeepLab
does; output stride 8 does the same with the one before, so every second cell of it has the value of stride 16. Middle
is the widest map of stride 8, which the network has anyway. Last is the linear 320 channels, as DeepLab's, not the 1280
that the classifier sees: reading those would cost a branch more than the whole network costs.

Batch norm is folded into the convolutions: see `resnet50v2` for why it is frozen, and for the alignment, which is the
same here.

Files. A .npz of numbered convolutions, batch norms folded: conv_N_weight (out, in, height, width) and conv_N_bias, of
any float type; N counts upwards, not by one. The first convolution takes R, G, B, normalised by `layers.IMAGENET_MEAN`
and `_STD`, as torchvision and the ONNX model zoo have it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from msst_keras.model.layers import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    first_initializer,
    pixels,
    scale_channels,
    set_layers,
)
from msst_keras.model.network import Network
from msst_keras.model.weights import KERAS_PIXELS, Arrays, Pair, download, fold, read_keras_norm, read_npz

# Of each block: channels at its end, stride in the classifier.
BLOCKS = (
    (16, 1), (24, 2), (24, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1), (64, 1),
    (96, 1), (96, 1), (96, 1), (160, 2), (160, 1), (160, 1), (320, 1),
)  # fmt: skip
EXPANSION = 6
CELL_OFFSET = 5  # pixels from k * stride to the centre of cell k: 1 by the stem, one cell of 4 by block3
NUM_SUMS = 10  # blocks that are added to their input


def build_mobilenetv2(
    channels: int, output_stride: int, width: float, first_convolution_std: float | None, name: str
) -> keras.Model:
    """Builds the network without weights; arguments and result as `backbones.build_backbone`."""
    image = keras.Input((None, None, channels), name="image")
    x = keras.layers.ZeroPadding2D(((0, 2), (0, 2)), dtype="float32", name="stem_pad")(pixels(image))
    x = keras.layers.Conv2D(
        scale_channels(32, width),
        3,
        strides=2,
        activation="relu6",
        kernel_initializer=first_initializer(channels, 3, first_convolution_std),
        name="stem",
    )(x)
    reached, dilation = 2, 1
    for block, (filters, stride) in enumerate(BLOCKS):
        if removed := reached * stride > output_stride:
            stride = 1
        reached *= stride
        expanded = x
        if block:
            expanded = _convolution(x, EXPANSION * x.shape[-1], f"block{block}_expand", activation="relu6")
        if block == 6:
            middle = expanded
        inside = _depthwise(expanded, stride, dilation, f"block{block}", shifted=block == 3)
        filters = scale_channels(filters, width)
        added = block and BLOCKS[block][1] == 1 and BLOCKS[block][0] == BLOCKS[block - 1][0]
        # Nothing normalises, so without pre-trained weights what is added to a sum begins small, by their number.
        gain = 1 / NUM_SUMS if added else 1.0
        projected = _convolution(
            inside, filters, f"block{block}_project", kernel_initializer=keras.initializers.VarianceScaling(gain)
        )
        x = keras.layers.Add(name=f"block{block}")([x, projected]) if added else projected
        if removed:
            dilation *= 2
    return keras.Model(image, [middle, x], name=name)


def _convolution(x: keras.KerasTensor, filters: int, name: str, **options: Any) -> keras.KerasTensor:
    return keras.layers.Conv2D(filters, 1, name=name, **{"kernel_initializer": "he_normal", **options})(x)


def _depthwise(x: keras.KerasTensor, stride: int, dilation: int, prefix: str, shifted: bool) -> keras.KerasTensor:
    padding = "same"
    if stride > 1:  # of known sides for any size: "same" would move the window by the size's parity
        sides = ((0, 2), (0, 2)) if shifted else 1
        x, padding = keras.layers.ZeroPadding2D(sides, name=f"{prefix}_pad")(x), "valid"
    return keras.layers.DepthwiseConv2D(
        3,
        strides=stride,
        padding=padding,
        dilation_rate=dilation,
        activation="relu6",
        # He's for the 9 values that a channel reads; Keras's own would count all channels.
        depthwise_initializer=keras.initializers.RandomNormal(stddev=math.sqrt(2 / 9)),
        name=f"{prefix}_depthwise",
    )(x)


def load_mobilenetv2(model: keras.Model, weights: str) -> None:
    """Loads keras.applications.MobileNetV2 ("imagenet") or a file of folded convolutions into "mobilenetv2".

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The weights cannot be read, lack arrays or do not fit, or the download failed.
    """
    names = ["stem", "block0_depthwise", "block0_project"]
    for block in range(1, len(BLOCKS)):
        names += [f"block{block}_{part}" for part in ("expand", "depthwise", "project")]
    if weights == "imagenet":
        layers = _fold_keras_mobilenet(download(weights, "mobilenetv2", "MobileNetV2"), names)
    else:
        arrays = Arrays(read_npz(weights), "", weights, "msst_keras/model/mobilenetv2.py")
        layers = _order_convolutions(arrays, names, weights)
    set_layers(model, layers, "stem", weights)


def _fold_keras_mobilenet(source: keras.Model, names: Sequence[str]) -> dict[str, Pair]:
    layers = {"pixels": KERAS_PIXELS}
    for name in names:
        convolution, norm = "Conv1", "bn_Conv1"
        if name != "stem":
            block, part = name.removeprefix("block").split("_")
            convolution = f"block_{block}_{part}" if block != "0" else f"expanded_conv_{part}"
            norm = f"{convolution}_BN"
        kernel = source.get_layer(convolution).get_weights()[0]
        if name.endswith("depthwise"):  # (3, 3, channels, 1): what the norm scales is the third axis
            kernel, bias = fold(kernel.swapaxes(2, 3), read_keras_norm(source, norm), f"{source.name}: {norm}")
            layers[name] = kernel.swapaxes(2, 3), bias
        else:
            layers[name] = fold(kernel, read_keras_norm(source, norm), f"{source.name}: {norm}")
    return layers


def _order_convolutions(read: Arrays, names: Sequence[str], path: str) -> dict[str, Pair]:
    numbers = read.numbers(r"conv_(\d+)_weight")
    if len(numbers) < len(names):
        raise ValueError(
            f"{path}: expected {len(names)} convolutions or more, conv_N_weight, found {len(numbers)}; give a "
            "file with the names that msst_keras/model/mobilenetv2.py lists."
        )
    std = np.array(IMAGENET_STD)
    layers = {"pixels": (1 / std, -np.array(IMAGENET_MEAN) / std)}
    for name, number in zip(names, numbers, strict=False):  # the last one is the classifier's
        kernel = read.kernel(f"conv_{number}_weight")
        if name.endswith("depthwise"):
            kernel = kernel.swapaxes(2, 3)
        layers[name] = kernel, read(f"conv_{number}_bias", 1)
    return layers


NETWORKS = {"mobilenetv2": Network(build_mobilenetv2, load_mobilenetv2)}
