"""ResNet-50 v2 (He et al., "Identity mappings in deep residual networks") to stride 16, without its last stage.

There are two of that name in use. They differ in which block of a stage has the stride, and in the stem; no conversion
of weights makes one of the other, so they are two backbones:

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

Frozen batch norm. A step has one or two clips, whose statistics say nothing about a video; so the norms keep ImageNet's
statistics, and are then no more than an affine map: folded into the convolution before it, or, behind a sum, a
`ChannelAffine`. They can be trained as any weight. Without pre-trained weights nothing normalises, so the last
convolution of each block begins small, by the number of blocks, and the sums keep their size.

Alignment. A symmetric padding would centre cell k of stride s on pixel k * s, half a cell off from the pixels it stands
for, k * s to k * s + s - 1. The stem shifts its windows by CELL_OFFSET pixels: 1.5 pixels off the centre of a cell of
stride 8 and 2.5 off that of 16, the least both can be. Behind the rim that changes no feature of the trained network
but its place.
"""

from __future__ import annotations

import keras

from msst_keras.model.layers import ChannelAffine, first_initializer, pixels, scale_channels

STAGES = ((64, 3), (128, 4), (256, 6))  # channels inside a block (four times as many at its end), blocks
NUM_BLOCKS = sum(num_blocks for _, num_blocks in STAGES)
CELL_OFFSET = 5  # pixels from k * stride to the centre of cell k: 3 by the stem, one cell of 2 by its pooling
# Where the strides to 8 and to 16 lie, (stage, block).
FIRST_BLOCKS = ((2, 1), (3, 1))
LAST_BLOCKS = ((1, 3), (2, 4))


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


def _activate(x, name):
    return keras.layers.ReLU(name=f"{name}_relu")(ChannelAffine(name=name)(x))


def _block(x, preact, filters, stride, dilation, first, prefix):
    """One residual block; `first` of its stage, where channels change."""

    def convolution(x, filters, kernel_size, name, **options):
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
