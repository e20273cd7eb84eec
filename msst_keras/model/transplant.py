"""ImageNet weights of ResNet-50 v2 and MobileNetV2, their batch norms folded, as layers of our networks.

    backbone             "imagenet"                          a file
    resnet50v2           none: Keras has another network     .npz of Gluon's names, batch norms apart
    resnet50v2_keras     keras.applications.ResNet50V2       none
    mobilenetv2          keras.applications.MobileNetV2      .npz of numbered convolutions, batch norms folded

Kernels in a file are (out, in, height, width), of any float type; those of the first convolution take R, G, B,
normalised by .485/.456/.406 and .229/.224/.225 (`layers.IMAGENET_MEAN` and `_STD`), as Gluon, torchvision and the ONNX
model zoo have it. Only arrays are read, never code.

    ANY_batchnorm0_*, ANY_conv0_weight, ANY_batchnorm1_*                ResNet: pixels, stem; ANY is Gluon's prefix
    ANY_stageS_batchnormN_gamma, _beta, _running_mean, _running_var     three norms a block
    ANY_stageS_convN_weight                                             three a block; the fourth is the shortcut
    ANY_stage4_batchnorm0_*                                             post, if it is there
    conv_N_weight, conv_N_bias                                          MobileNet: N counts upwards, not by one
"""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from pathlib import Path

import keras
import numpy as np

from msst_keras.model import mobilenetv2, resnet50v2
from msst_keras.model.layers import IMAGENET_MEAN, IMAGENET_STD, set_layers

_GLUON_EPSILON = 1e-5
# Pixels as keras.applications prepares them for both networks: 0..255 to -1..1.
_KERAS_PIXELS = np.full(3, 1 / 127.5), np.full(3, -1.0)


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
    arrays = _read_npz(weights)
    prefixes = [match[1] for name in arrays if (match := re.fullmatch(r"(.*?)conv0_weight", name))]
    prefix = min(prefixes, key=len, default="")
    set_layers(model, _fold_gluon(_Arrays(arrays, prefix, weights)), "stem", weights)


def load_resnet50v2_keras(model: keras.Model, weights: str) -> None:
    """Loads keras.applications.ResNet50V2 into "resnet50v2_keras".

    Raises:
        ValueError: The download failed, or the weights are a file.
    """
    source = _download(weights, "resnet50v2_keras", "ResNet50V2")
    layers = {"pixels": _KERAS_PIXELS, "stem": source.get_layer("conv1_conv").get_weights()}
    for stage, (_, num_blocks) in enumerate(resnet50v2.STAGES, start=1):
        for block in range(1, num_blocks + 1):
            ours, theirs = f"stage{stage}_block{block}", f"conv{stage + 1}_block{block}"
            layers[f"{ours}_preact"] = _keras_norm(source, f"{theirs}_preact_bn")
            if block == 1:
                layers[f"{ours}_shortcut"] = source.get_layer(f"{theirs}_0_conv").get_weights()
            for index in (1, 2):
                kernel = source.get_layer(f"{theirs}_{index}_conv").get_weights()[0]
                layers[f"{ours}_conv{index}"] = _fold(kernel, _keras_norm(source, f"{theirs}_{index}_bn"))
            layers[f"{ours}_conv3"] = source.get_layer(f"{theirs}_3_conv").get_weights()
    layers["post"] = _keras_norm(source, "conv5_block1_preact_bn")
    set_layers(model, layers, "stem", weights)


def load_mobilenetv2(model: keras.Model, weights: str) -> None:
    """Loads keras.applications.MobileNetV2 ("imagenet") or a file of folded convolutions into "mobilenetv2".

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The weights cannot be read, lack arrays or do not fit, or the download failed.
    """
    names = ["stem", "block0_depthwise", "block0_project"]
    for block in range(1, len(mobilenetv2.BLOCKS)):
        names += [f"block{block}_{part}" for part in ("expand", "depthwise", "project")]
    if weights == "imagenet":
        layers = _fold_keras_mobilenet(_download(weights, "mobilenetv2", "MobileNetV2"), names)
    else:
        layers = _order_convolutions(_Arrays(_read_npz(weights), "", weights), names, weights)
    set_layers(model, layers, "stem", weights)


class _Arrays:
    """The arrays of a file behind a prefix; a missing one is an error that names it."""

    def __init__(self, arrays, prefix, path):
        self._arrays, self._prefix, self._path = arrays, prefix, path

    def __contains__(self, name):
        return self._prefix + name in self._arrays

    def numbers(self, pattern):
        """The numbers that `pattern`'s group takes among the names, upwards."""
        return sorted(int(match[1]) for name in self._arrays if (match := re.fullmatch(pattern, name)))

    def __call__(self, name, num_axes):
        name = self._prefix + name
        if name not in self._arrays:
            raise ValueError(
                f"{self._path}: expected an array {name}, found none; give a file with the names that "
                "msst_keras/model/transplant.py lists."
            )
        array = self._arrays[name]
        if array.ndim != num_axes or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(
                f"{self._path}: expected finite floats with {num_axes} axes in {name}, found {array.dtype} "
                f"{array.shape}, perhaps not finite; save the file again."
            )
        return array.astype(np.float32)

    def kernel(self, name):
        return self(name, 4).transpose(2, 3, 1, 0)

    def norm(self, name):
        """A batch norm of Gluon as (scale, offset)."""
        values = (self(f"{name}_{kind}", 1) for kind in ("gamma", "beta", "running_mean", "running_var"))
        return _freeze(*values, _GLUON_EPSILON)


def _fold_gluon(read):
    # Behind the pixels' own normalisation there is a batch norm: together one affine map. It must stay in front of the
    # stem, for the zeros around it are zeros behind that norm.
    scale, offset = read.norm("batchnorm0")
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    layers = {
        "pixels": (scale / std, offset - scale * mean / std),
        "stem": _fold(read.kernel("conv0_weight"), read.norm("batchnorm1")),
    }
    for stage, (_, num_blocks) in enumerate(resnet50v2.STAGES, start=1):
        convolutions = 0
        for block in range(1, num_blocks + 1):
            ours, norms = f"stage{stage}_block{block}", f"stage{stage}_batchnorm"
            kernels = []
            for _ in range(4 if block == 1 else 3):
                kernels.append(read.kernel(f"stage{stage}_conv{convolutions}_weight"))
                convolutions += 1
            first_norm = 3 * (block - 1)
            layers[f"{ours}_preact"] = read.norm(f"{norms}{first_norm}")
            layers[f"{ours}_conv1"] = _fold(kernels[0], read.norm(f"{norms}{first_norm + 1}"))
            layers[f"{ours}_conv2"] = _fold(kernels[1], read.norm(f"{norms}{first_norm + 2}"))
            layers[f"{ours}_conv3"] = _fold(kernels[2])
            if block == 1:
                layers[f"{ours}_shortcut"] = _fold(kernels[3])
    layers["post"] = read.norm("stage4_batchnorm0") if "stage4_batchnorm0_gamma" in read else _estimate_norm(read)
    return layers


def _estimate_norm(read):
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
    kernel = read.kernel("stage3_conv18_weight")[0, 0]
    mean = read("stage3_batchnorm15_running_mean", 1) + mean @ kernel
    variance = read("stage3_batchnorm15_running_var", 1) + variance @ kernel**2
    return _freeze(1.0, 0.0, mean, variance, _GLUON_EPSILON)


def _fold_keras_mobilenet(source, names):
    layers = {"pixels": _KERAS_PIXELS}
    for name in names:
        convolution, norm = "Conv1", "bn_Conv1"
        if name != "stem":
            block, part = name.removeprefix("block").split("_")
            convolution = f"block_{block}_{part}" if block != "0" else f"expanded_conv_{part}"
            norm = f"{convolution}_BN"
        kernel = source.get_layer(convolution).get_weights()[0]
        if name.endswith("depthwise"):  # (3, 3, channels, 1): what the norm scales is the third axis
            kernel, bias = _fold(kernel.swapaxes(2, 3), _keras_norm(source, norm))
            layers[name] = kernel.swapaxes(2, 3), bias
        else:
            layers[name] = _fold(kernel, _keras_norm(source, norm))
    return layers


def _order_convolutions(read, names, path):
    numbers = read.numbers(r"conv_(\d+)_weight")
    if len(numbers) < len(names):
        raise ValueError(
            f"{path}: expected {len(names)} convolutions or more, conv_N_weight, found {len(numbers)}; give a "
            "file with the names that msst_keras/model/transplant.py lists."
        )
    std = np.array(IMAGENET_STD)
    layers = {"pixels": (1 / std, -np.array(IMAGENET_MEAN) / std)}
    for name, number in zip(names, numbers, strict=False):  # the last one is the classifier's
        kernel = read.kernel(f"conv_{number}_weight")
        if name.endswith("depthwise"):
            kernel = kernel.swapaxes(2, 3)
        layers[name] = kernel, read(f"conv_{number}_bias", 1)
    return layers


def _freeze(gamma, beta, mean, variance, epsilon):
    """A batch norm with fixed statistics as (scale, offset)."""
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, beta - mean * scale


def _fold(kernel, norm=None):
    """A convolution without bias and the norm behind it, if any, as (kernel, bias)."""
    if norm is None:
        return kernel, np.zeros(kernel.shape[-1], np.float32)
    scale, offset = norm
    return kernel * scale, offset


def _keras_norm(source, name):
    layer = source.get_layer(name)
    return _freeze(*layer.get_weights(), layer.epsilon)


def _download(weights, backbone, application):
    if weights != "imagenet":
        raise ValueError(
            f'weights of the backbone {backbone} must be "none" or "imagenet", found {weights}; files with Gluon\'s '
            "names fit resnet50v2."
        )
    try:
        return getattr(keras.applications, application)(
            weights="imagenet", include_top=False, input_shape=(224, 224, 3)
        )
    except Exception as error:  # Keras's downloader raises a bare Exception
        raise ValueError(
            f"The ImageNet weights of {application} could not be downloaded ({error}); pass the path of a file instead."
        ) from error


def _read_npz(weights):
    path = Path(weights)
    if path.suffix != ".npz":
        raise ValueError(f'weights must be "none", "imagenet" or a file ending in .npz, found {weights}.')
    if not path.is_file():
        raise FileNotFoundError(f"Expected a weights file at {path}, found none; check the path.")
    try:
        with np.load(path) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as a .npz weights file ({error}); save it again.") from error
