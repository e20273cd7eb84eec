"""VGG16-FCN, the paper's backbone (section 3.2).

The five convolutional blocks of VGG16, its last pooling removed, dilated convolutions in the last two blocks, and the
classifier as two convolutions. Shapes at output_stride 16, width 1, H x W a multiple of 16:

    layer                     kernel   dilation   output
    pixels                                        H    x W    x 3 or 4
    block1_conv1, _conv2      3x3      1          H    x W    x 64
    block1_pool               2x2                 H/2  x W/2  x 64
    block2_conv1, _conv2      3x3      1          H/2  x W/2  x 128
    block2_pool               2x2                 H/4  x W/4  x 128
    block3_conv1 to _conv3    3x3      1          H/4  x W/4  x 256
    block3_pool               2x2                 H/8  x W/8  x 256
    block4_conv1 to _conv3    3x3      1          H/8  x W/8  x 512
    block4_pool               2x2                 H/16 x W/16 x 512     -> middle
    block5_conv1 to _conv3    3x3      2          H/16 x W/16 x 512
    fc6                       3x3      6          H/16 x W/16 x 1024
    fc7                       1x1      1          H/16 x W/16 x 1024    -> last

Output stride 8 is DeepLab's: block4_pool has stride 1 too (3x3 there, as DeepLab's: a 2x2 window would shift the map
half a cell).

The paper has "six convolutional blocks", so the last two are block 5 and the former classifier. It is silent about
dropout on fc6 and fc7 (DeepLab: 0.5): there is none here, so a training step needs no random state to be repeated.
"""

from __future__ import annotations

import keras

from msst_keras.model.layers import PRIOR_SCALE, first_initializer, scale_channels, set_layers
from msst_keras.model.weights import read_vgg16

# Dilation of fc6. VGG16's fc6 has a 7x7 window at stride 32; of its taps 0, 3 and 6 are kept, 96 pixels apart, which is
# 6 cells of stride 16 and 12 cells (DeepLab-LargeFOV) of stride 8.
FC6_DILATION = {16: 6, 8: 12}
BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions

# Mean of R, G, B that VGG16 was trained with.
RGB_MEAN = (123.68, 116.779, 103.939)
# Standard deviation of ImageNet's pixels (58.4, 57.1, 57.4), one number because VGG16 knows no other ratio of its
# channels. Dividing by it keeps features near unit size, which Adam at the paper's 1e-3 needs: its first step moved the
# logits of a full He-initialised MSST by 5, and by 4,900 without the division. A ReLU network passes a factor through,
# so biases divided by it give VGG16's features divided by it, exactly.
PIXEL_STD = 58.0


def build_vgg16(
    channels: int, output_stride: int, width: float, first_convolution_std: float | None, name: str
) -> keras.Model:
    """Builds the network without weights; arguments and result as `backbones.build_backbone`."""

    def convolution(x, filters, kernel_size, dilation, layer_name, initializer="he_normal"):
        return keras.layers.Conv2D(
            scale_channels(filters, width),
            kernel_size,
            padding="same",
            dilation_rate=dilation,
            activation="relu",
            kernel_initializer=initializer,
            name=layer_name,
        )(x)

    image = keras.Input((None, None, channels), name="image")
    prior = channels - 3
    # In float32 under every policy: bfloat16 has no room for 0..255 with a mean subtracted.
    x = keras.layers.Normalization(
        mean=RGB_MEAN + (0.0,) * prior,
        variance=(PIXEL_STD**2,) * 3 + ((PIXEL_STD / PRIOR_SCALE) ** 2,) * prior,
        dtype="float32",
        name="pixels",
    )(image)
    first = first_initializer(channels, 3, first_convolution_std)
    for block, (filters, num_convolutions) in enumerate(BLOCKS, start=1):
        for index in range(1, num_convolutions + 1):
            initializer = first if block == index == 1 else "he_normal"
            x = convolution(x, filters, 3, 2 if block == 5 else 1, f"block{block}_conv{index}", initializer)
        if block == 4 and output_stride == 8:
            middle = x = keras.layers.MaxPooling2D(3, strides=1, padding="same", name="block4_pool")(x)
        elif block < 5:
            middle = x = keras.layers.MaxPooling2D(2, padding="same", name=f"block{block}_pool")(x)
    x = convolution(x, 1024, 3, FC6_DILATION[output_stride], "fc6")
    last = convolution(x, 1024, 1, 1, "fc7")
    return keras.Model(image, [middle, last], name=name)


def load_vgg16(model: keras.Model, weights: str) -> None:
    """Loads `weights.read_vgg16(weights)` into a model of `build_vgg16`.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The weights cannot be read or do not fit.
    """
    layers = {name: (kernel, bias / PIXEL_STD) for name, (kernel, bias) in read_vgg16(weights).items()}
    kernel, bias = layers["block1_conv1"]
    layers["block1_conv1"] = kernel[:, :, ::-1], bias  # the file's B, G, R to R, G, B: once here, not once an image
    set_layers(model, layers, "block1_conv1", weights)
