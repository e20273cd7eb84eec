"""ResNet-50 v2 (He et al., "Identity mappings in deep residual networks") to stride 16, without its last stage.

Two networks of that name are in use. They differ in the block of a stage that has the stride, and in the stem. The
weights of one cannot be converted into those of the other, so they are two backbones:

    "resnet50v2"         The first block of a stage has the stride; batch norm and ReLU behind the first convolution, as
                         in the authors' code, Gluon's and the ONNX model zoo's.
    "resnet50v2_keras"   The last block of a stage has the stride; none behind the first convolution, as in
                         keras.applications.ResNet50V2 and TF-slim.

Shapes of "resnet50v2" at output_stride 16, width 1, H x W a multiple of 16:

    layer                                        output
    pixels                                       H    x W    x 3 or 4
    stem (7x7, stride 2), stem_pool (3x3)        H/4  x W/4  x 64
    stage1_block1 to _block3                     H/4  x W/4  x 256
    stage2_block1 to _block4                     H/8  x W/8  x 512
    stage3_block1_preact                         H/8  x W/8  x 512     -> middle
    stage3_block1 to _block6                     H/16 x W/16 x 1024
    post                                         H/16 x W/16 x 1024    -> last

A block is _preact, ReLU, then _conv1 (1x1), _conv2 (3x3, with the stride), _conv3 (1x1), added to the block's input or,
in the first block of a stage, to the _shortcut (1x1) of what comes behind _preact and ReLU. Middle is what the block
that goes on to stride 16 reads: half as coarse as VGG16's, because ground truth reduced to 16-pixel cells loses small
objects, and without more work, since the map is there. Output stride 8 takes that block's stride away and doubles the
dilation of the 3x3 convolutions behind it, so every second cell has the value of stride 16.

Frozen batch norm. A step has one or two clips, whose statistics say nothing about a video. So the norms keep ImageNet's
statistics and are then affine maps: folded into the convolution before them, or, behind a sum, a `ChannelAffine`. They
can be trained like any weight. Without pre-trained weights nothing normalises, so the last
convolution of each block begins small, by the number of blocks, and the sums keep their size.

Alignment. A symmetric padding would centre cell k of stride s on pixel k * s, half a cell off from the pixels it stands
for, k * s to k * s + s - 1. The stem shifts its windows by CELL_OFFSET pixels: 1.5 pixels off the centre of a cell of
stride 8 and 2.5 off that of 16, the least that both can be. Away from the rim this moves the features of the trained
network and does not change them.

Files. Kernels are (out, in, height, width), of any float type; those of the first convolution take R, G, B, normalised
by .485/.456/.406 and .229/.224/.225 (`layers.IMAGENET_MEAN` and `_STD`), as Gluon, torchvision and the ONNX model zoo
have it. A .npz of Gluon's names fits "resnet50v2", for which Keras has no weights:

    ANY_batchnorm0_*, ANY_conv0_weight, ANY_batchnorm1_*                pixels, stem; ANY is Gluon's prefix
    ANY_stageS_batchnormN_gamma, _beta, _running_mean, _running_var     three norms a block
    ANY_stageS_convN_weight                                             three a block; the fourth is the shortcut
    ANY_stage4_batchnorm0_*                                             post, if it is there
"""

from __future__ import annotations

import functools
import math
import re
from typing import Any

import keras
import numpy as np

from msst_keras.model.layers import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ChannelAffine,
    first_initializer,
    pixels,
    scale_channels,
    set_layers,
)
from msst_keras.model.network import Network
from msst_keras.model.weights import KERAS_PIXELS, Arrays, Pair, download, fold, freeze_norm, read_keras_norm, read_npz

STAGES = ((64, 3), (128, 4), (256, 6))  # channels inside a block (four times as many at its end), blocks
NUM_BLOCKS = sum(num_blocks for _, num_blocks in STAGES)
CELL_OFFSET = 5  # pixels from k * stride to the centre of cell k: 3 by the stem, one cell of 2 by its pooling
# Where the strides to 8 and to 16 lie, (stage, block).
FIRST_BLOCKS = ((2, 1), (3, 1))
LAST_BLOCKS = ((1, 3), (2, 4))
_GLUON_EPSILON = 1e-5


def build_resnet50v2(
    channels: int,
    output_stride: int,
    width: float,
    first_convolution_std: float | None,
    name: str,
    keras_layout: bool = False,
) -> keras.Model:
    """Builds the network without weights; arguments and result as `backbones.build_backbone`."""
    strided_blocks = LAST_BLOCKS if keras_layout else FIRST_BLOCKS
    image = keras.Input((None, None, channels), name="image")
    # Zeros around the stem's windows, symmetric (3, 3), and its pooling's, (1, 1), all moved to the far side.
    x = keras.layers.ZeroPadding2D(((0, 6), (0, 6)), dtype="float32", name="stem_pad")(pixels(image))
    x = keras.layers.Conv2D(
        scale_channels(64, width),
        7,
        strides=2,
        activation=None if keras_layout else "relu",
        kernel_initializer=first_initializer(channels, 7, first_convolution_std),
        name="stem",
    )(x)
    x = keras.layers.ZeroPadding2D(((0, 2), (0, 2)), name="stem_pool_pad")(x)
    x = keras.layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)
    dilation = 1
    for stage, (filters, num_blocks) in enumerate(STAGES, start=1):
        for block in range(1, num_blocks + 1):
            to_last = (stage, block) == strided_blocks[1]
            stride = 2 if (stage, block) in strided_blocks and not (to_last and output_stride == 8) else 1
            prefix = f"stage{stage}_block{block}"
            preact = _activate(x, f"{prefix}_preact")
            if to_last:
                middle = preact
            x = _block(x, preact, scale_channels(filters, width), stride, dilation, block == 1, prefix)
            if to_last and output_stride == 8:
                dilation = 2
    return keras.Model(image, [middle, _activate(x, "post")], name=name)


def _activate(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return keras.layers.ReLU(name=f"{name}_relu")(ChannelAffine(name=name)(x))


def _block(
    x: keras.KerasTensor, preact: keras.KerasTensor, filters: int, stride: int, dilation: int, first: bool, prefix: str
) -> keras.KerasTensor:
    """One residual block; `first` of its stage, where channels change."""

    def convolution(
        x: keras.KerasTensor, filters: int, kernel_size: int, name: str, **options: Any
    ) -> keras.KerasTensor:
        """One convolution of the block."""
        options = {"kernel_initializer": "he_normal", **options}
        return keras.layers.Conv2D(filters, kernel_size, name=f"{prefix}_{name}", **options)(x)

    if first:
        shortcut = convolution(preact, 4 * filters, 1, "shortcut", strides=stride)
    else:
        shortcut = x[:, ::stride, ::stride] if stride > 1 else x
    x = convolution(preact, filters, 1, "conv1", activation="relu")
    padding = "same"
    if stride > 1:  # symmetric for any size: "same" would move the window by the size's parity
        x, padding = keras.layers.ZeroPadding2D(1, name=f"{prefix}_pad")(x), "valid"
    x = convolution(x, filters, 3, "conv2", strides=stride, padding=padding, dilation_rate=dilation, activation="relu")
    small = keras.initializers.VarianceScaling(2 / NUM_BLOCKS)
    x = convolution(x, 4 * filters, 1, "conv3", kernel_initializer=small)
    return keras.layers.Add(name=prefix)([shortcut, x])


def load_resnet50v2(model: keras.Model, weights: str) -> None:
    """Loads a file of Gluon's names into "resnet50v2", with or without the network's last stage.

    The norm of `post` is the last stage's first; for a file without that stage its statistics are estimated from the
    arrays before it, so that the features come out near unit size and half rectified as behind any other norm.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The weights cannot be read, lack arrays, do not fit, or are "imagenet".
    """
    if weights == "imagenet":
        raise ValueError(
            'The ImageNet weights that Keras downloads are of another ResNet-50 v2: set backbone to "resnet50v2_keras" '
            "for them, or weights to a file with Gluon's names."
        )
    file = read_npz(weights)
    prefixes = [match[1] for name in file if (match := re.fullmatch(r"(.*?)conv0_weight", name))]
    prefix = min(prefixes, key=len, default="")
    arrays = Arrays(file, prefix, weights, "msst_keras/model/resnet50v2.py")
    set_layers(model, _fold_gluon(arrays), "stem", weights)


def load_resnet50v2_keras(model: keras.Model, weights: str) -> None:
    """Loads keras.applications.ResNet50V2 into "resnet50v2_keras".

    Raises:
        ValueError: The download failed, or the weights are a file.
    """
    source = download(weights, "resnet50v2_keras", "ResNet50V2")
    layers = {"pixels": KERAS_PIXELS, "stem": source.get_layer("conv1_conv").get_weights()}
    for stage, (_, num_blocks) in enumerate(STAGES, start=1):
        for block in range(1, num_blocks + 1):
            ours, theirs = f"stage{stage}_block{block}", f"conv{stage + 1}_block{block}"
            layers[f"{ours}_preact"] = read_keras_norm(source, f"{theirs}_preact_bn")
            if block == 1:
                layers[f"{ours}_shortcut"] = source.get_layer(f"{theirs}_0_conv").get_weights()
            for index in (1, 2):
                kernel = source.get_layer(f"{theirs}_{index}_conv").get_weights()[0]
                norm = f"{theirs}_{index}_bn"
                layers[f"{ours}_conv{index}"] = fold(kernel, read_keras_norm(source, norm), f"{source.name}: {norm}")
            layers[f"{ours}_conv3"] = source.get_layer(f"{theirs}_3_conv").get_weights()
    layers["post"] = read_keras_norm(source, "conv5_block1_preact_bn")
    set_layers(model, layers, "stem", weights)


def _fold_gluon(read: Arrays) -> dict[str, Pair]:
    # Behind the pixels' own normalisation there is a batch norm: together one affine map. It must stay in front of the
    # stem, for the zeros around it are zeros behind that norm.
    scale, offset = _read_norm(read, "batchnorm0")
    if scale.shape != (3,):
        raise ValueError(f"{read.where('batchnorm0')}: expected a norm of R, G and B, found {len(scale)} channels.")
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    layers = {
        "pixels": (scale / std, offset - scale * mean / std),
        "stem": _fold(read, read.kernel("conv0_weight"), "batchnorm1"),
    }
    for stage, (_, num_blocks) in enumerate(STAGES, start=1):
        convolutions = 0
        for block in range(1, num_blocks + 1):
            ours, norms = f"stage{stage}_block{block}", f"stage{stage}_batchnorm"
            kernels = []
            for _ in range(4 if block == 1 else 3):
                kernels.append(read.kernel(f"stage{stage}_conv{convolutions}_weight"))
                convolutions += 1
            first_norm = 3 * (block - 1)
            layers[f"{ours}_preact"] = _read_norm(read, f"{norms}{first_norm}")
            layers[f"{ours}_conv1"] = _fold(read, kernels[0], f"{norms}{first_norm + 1}")
            layers[f"{ours}_conv2"] = _fold(read, kernels[1], f"{norms}{first_norm + 2}")
            layers[f"{ours}_conv3"] = fold(kernels[2])
            if block == 1:
                layers[f"{ours}_shortcut"] = fold(kernels[3])
        if (more := f"stage{stage}_conv{convolutions}_weight") in read:
            raise ValueError(
                f"{read.where(more)} is of a bigger ResNet v2, such as ResNet-101; give the file of a ResNet-50 v2."
            )
    has_last_stage = "stage4_batchnorm0_gamma" in read
    layers["post"] = _read_norm(read, "stage4_batchnorm0") if has_last_stage else _estimate_norm(read)
    return layers


def _estimate_norm(read: Arrays) -> Pair:
    """(scale, offset) that bring what leaves stage 3 to mean 0 and variance 1 per channel, by the file alone.

    What enters the stage's last block has the statistics of that block's first norm. Added to it is a convolution of
    ReLU(u), where u, behind the block's last norm, has mean beta and standard deviation |gamma|: taken as Gaussian, and
    all as independent.
    """
    beta, gamma = (read(f"stage3_batchnorm17_{kind}", 1) for kind in ("beta", "gamma"))
    ratio = beta / np.maximum(np.abs(gamma), 1e-12)
    density, share = np.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi), (1 + np.vectorize(math.erf)(ratio / 2**0.5)) / 2
    mean = beta * share + np.abs(gamma) * density
    variance = np.maximum((beta**2 + gamma**2) * share + beta * np.abs(gamma) * density - mean**2, 0)
    kernel = read.kernel("stage3_conv18_weight")
    outputs = read("stage3_batchnorm15_running_var", 1).size
    if kernel.shape != (1, 1, beta.size, outputs):
        raise ValueError(
            f"{read.where('stage3_conv18_weight')}: expected a kernel ({outputs}, {beta.size}, 1, 1) beside the norms "
            f"stage3_batchnorm15 and 17, found {kernel.shape[::-1]}; give the file of this network."
        )
    kernel = kernel[0, 0]
    mean = read("stage3_batchnorm15_running_mean", 1) + mean @ kernel
    variance = read("stage3_batchnorm15_running_var", 1) + variance @ kernel**2
    statistics = np.ones_like(mean), np.zeros_like(mean), mean, variance
    return freeze_norm(statistics, _GLUON_EPSILON, read.where("stage3_batchnorm15"))


def _read_norm(read: Arrays, name: str) -> Pair:
    """A batch norm of Gluon as (scale, offset)."""
    statistics = [read(f"{name}_{kind}", 1) for kind in ("gamma", "beta", "running_mean", "running_var")]
    return freeze_norm(statistics, _GLUON_EPSILON, read.where(name))


def _fold(read: Arrays, kernel: np.ndarray, norm: str) -> Pair:
    """A convolution and the norm of this name behind it as (kernel, bias)."""
    return fold(kernel, _read_norm(read, norm), read.where(norm))


NETWORKS = {
    "resnet50v2": Network(build_resnet50v2, load_resnet50v2),
    "resnet50v2_keras": Network(functools.partial(build_resnet50v2, keras_layout=True), load_resnet50v2_keras),
}
