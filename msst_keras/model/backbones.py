"""Fully convolutional ImageNet networks that turn an image into two feature maps (section 3.2).

VGG16-FCN (the paper's): the five convolutional blocks of VGG16, its last pooling removed, dilated convolutions in the
last two blocks, and the classifier as two convolutions. Shapes at output_stride 16, width 1, H x W a multiple of 16:

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

The paper has "six convolutional blocks", so the last two are block 5 and the former classifier. It is silent about
dropout on fc6 and fc7 (DeepLab: 0.5): there is none here, so a training step needs no random state to be repeated.
"""

from __future__ import annotations

import math

import keras

from msst_keras.model import weights as vgg16_weights

BACKBONES = ("vgg16",)

# Both are strides in pixels of both outputs. 16, the default, is the paper read literally: only the last pooling goes.
# 8 is DeepLab's: block4_pool has stride 1 too (3x3 there, as DeepLab's: a 2x2 window would shift the map half a cell).
OUTPUT_STRIDES = (16, 8)
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
# The prior, 0..1, spans the range of a colour channel beside R, G, B. It is not centred: where nothing moves it is 0,
# as is the border that "same" convolutions see.
PRIOR_SCALE = 255.0
# Standard deviation of the Gaussian that re-initialises the first convolution of an image with prior (section 4.1,
# which gives none): He's, sqrt(2 / (3 * 3 * 4)), so that the pre-trained layers behind see features of a usual size.
FIRST_CONVOLUTION_STD = 0.2357


def output_strides(backbone: str = "vgg16", output_stride: int = 16) -> tuple[int, int]:
    """Pixels per cell of the backbone's outputs (middle, last).

    Raises:
        ValueError: Unknown backbone or stride.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}, found {backbone!r}.")
    if output_stride not in OUTPUT_STRIDES:
        raise ValueError(f"output_stride must be one of {OUTPUT_STRIDES}, found {output_stride!r}.")
    return output_stride, output_stride


def scale_channels(channels: int, width: float, minimum: int = 4) -> int:
    """Channels of a layer of a network of relative width `width`: rounded to nearest, halves up, at least `minimum`.

    Raises:
        ValueError: The width is not a positive number.
    """
    if not (isinstance(width, int | float) and 0 < width < math.inf):
        raise ValueError(f"width must be a positive number, 1.0 for the network of the paper, found {width!r}.")
    return max(minimum, math.floor(width * channels + 0.5))


def build_backbone(
    backbone: str = "vgg16",
    channels: int = 3,
    output_stride: int = 16,
    width: float = 1.0,
    weights: str = "none",
    first_convolution_std: float = FIRST_CONVOLUTION_STD,
    name: str = "backbone",
) -> keras.Model:
    """Builds an image -> [middle, last] network of any image size.

    Args:
        backbone: One of BACKBONES.
        channels: 3 for RGB, 4 for RGB and motion prior.
        output_stride: One of OUTPUT_STRIDES.
        width: Multiplies every channel count (see `scale_channels`).
        weights: "none" (He normal), "imagenet", or the path of a VGG16 file (see `weights.read_vgg16`). A file without
            classifier leaves fc6 and fc7 He normal. With 4 channels the first convolution stays Gaussian (section 4.1).
        first_convolution_std: Standard deviation of that Gaussian.
        name: Name of the model.

    Returns:
        A functional model. Input: (B, H, W, channels) float32, R, G, B in 0..255 and the prior in 0..1; the mean and
        all scaling are inside. Outputs: [middle, last], non-negative features: middle behind the fourth pooling
        (B, ceil(H / stride), ceil(W / stride), 512 * width), last behind fc7 (..., 1024 * width), of the strides
        `output_strides` gives, cell k beginning at pixel k * stride.

    Raises:
        ValueError: An argument is none of these, or the weights do not fit.
        FileNotFoundError: The weights file is missing.
    """
    output_strides(backbone, output_stride)
    if channels not in (3, 4):
        raise ValueError(f"channels must be 3 (RGB) or 4 (RGB and motion prior), found {channels!r}.")
    if not 0 < first_convolution_std < math.inf:
        raise ValueError(f"first_convolution_std must be a positive number, found {first_convolution_std!r}.")
    if weights != "none" and width != 1:
        raise ValueError(
            f'Pre-trained weights need width 1, found width {width!r}; set width to 1 or weights to "none".'
        )
    layers = {} if weights == "none" else vgg16_weights.read_vgg16(weights)
    model = _build_vgg16(channels, output_stride, width, first_convolution_std, name)
    _load_vgg16(model, layers, weights)
    return model


def _build_vgg16(channels, output_stride, width, first_convolution_std, name):
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
    first = keras.initializers.RandomNormal(stddev=first_convolution_std) if prior else "he_normal"
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


def _load_vgg16(model, layers, source):
    for name, (kernel, bias) in layers.items():
        layer = model.get_layer(name)
        if name == "block1_conv1":
            if model.input_shape[-1] == 4:
                continue
            kernel = kernel[:, :, ::-1]  # the file's B, G, R to R, G, B: once here instead of once an image
        if kernel.shape != tuple(layer.kernel.shape):
            raise ValueError(
                f"{source}: expected a kernel {tuple(layer.kernel.shape)} for {name}, found {kernel.shape}."
            )
        layer.set_weights([kernel, bias / PIXEL_STD])
