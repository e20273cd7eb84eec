"""Reading pre-trained weights: files of arrays, networks of Keras, and batch norms folded into convolutions.

Only arrays are read, never code. The module of a network says what its layers are called in a file.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import h5py
import keras
import numpy as np

# (kernel, bias) of a convolution, or (scale, offset) of a `layers.ChannelAffine`.
Pair = tuple[np.ndarray, np.ndarray]

# Pixels as keras.applications prepares them for its networks of the second generation: 0..255 to -1..1.
KERAS_PIXELS = np.full(3, 1 / 127.5), np.full(3, -1.0)
# What a file of weights may unpack to: VGG16 with its three dense layers has 553 million bytes.
MAX_UNPACKED = 1 << 30
# h5py raises RuntimeError and TypeError too, where an address in the file leads nowhere or to a thing of another kind.
_UNREADABLE = (OSError, KeyError, ValueError, EOFError, RuntimeError, TypeError, zipfile.BadZipFile, zlib.error)


def read_layers(path: Path, names: Collection[str]) -> dict[str, Pair]:
    """Reads kernel and bias of each layer of a file that Keras 2 or 3 wrote, or of a .npz file.

    Args:
        path: FILE.h5, FILE.weights.h5, FILE.keras, or FILE.npz with arrays LAYER/kernel and LAYER/bias.
        names: Names of the layers, by which the files of Keras are searched.

    Returns:
        Layer name -> (kernel, bias).

    Raises:
        ValueError: The file cannot be read, or has other arrays than one kernel and one bias of a layer.
    """
    try:
        arrays = list(_list_npz(path) if path.suffix == ".npz" else _list_hdf5(path, names))
    except _UNREADABLE as error:
        raise ValueError(f"{path} cannot be read as a {path.suffix} weights file ({error}); save it again.") from error
    return _pair(arrays, path)


def read_npz(weights: str | os.PathLike) -> dict[str, np.ndarray]:
    """All arrays of a .npz file.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It is no .npz file, or cannot be read.
    """
    path = Path(weights)
    if path.suffix != ".npz":
        raise ValueError(f'weights must be "none", "imagenet" or a file ending in .npz, found {weights}.')
    if not path.is_file():
        raise FileNotFoundError(f"Expected a weights file at {path}, found none; check the path.")
    try:
        check_unpacked_size(path)
        with np.load(path) as archive:
            return {name: archive[name] for name in archive.files}
    except _UNREADABLE as error:
        raise ValueError(f"{path} cannot be read as a .npz weights file ({error}); save it again.") from error


def download(weights: str, backbone: str, application: str) -> keras.Model:
    """The network of keras.applications with its ImageNet weights.

    Raises:
        ValueError: `weights` are not "imagenet", or the download failed.
    """
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


class Arrays:
    """The arrays of a file behind a prefix of their names; a missing one is an error that names it.

    Args:
        arrays: Name -> array.
        prefix: What the names begin with.
        path: The file, for errors.
        listed_in: The module that lists the names, for errors.
    """

    def __init__(self, arrays: dict[str, np.ndarray], prefix: str, path: str | os.PathLike, listed_in: str):
        self._arrays, self._prefix, self._path, self._listed_in = arrays, prefix, path, listed_in

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self._arrays

    def numbers(self, pattern: str) -> list[int]:
        """The numbers that the group of `pattern` matches in the names, in ascending order."""
        return sorted(int(match[1]) for name in self._arrays if (match := re.fullmatch(pattern, name)))

    def __call__(self, name: str, num_axes: int) -> np.ndarray:
        """The array of this name, which must have so many axes, as float32."""
        name = self._prefix + name
        if name not in self._arrays:
            raise ValueError(
                f"{self._path}: expected an array {name}, found none; give a file with the names that "
                f"{self._listed_in} lists."
            )
        array = self._arrays[name]
        if array.ndim != num_axes or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(
                f"{self._path}: expected finite floats with {num_axes} axes in {name}, found {array.dtype} "
                f"{array.shape}, perhaps not finite; save the file again."
            )
        return array.astype(np.float32)

    def kernel(self, name: str) -> np.ndarray:
        """A kernel that is stored (out, in, height, width), as (height, width, in, out)."""
        return self(name, 4).transpose(2, 3, 1, 0)


def freeze_norm(
    gamma: np.ndarray | float, beta: np.ndarray | float, mean: np.ndarray, variance: np.ndarray, epsilon: float
) -> Pair:
    """A batch norm with fixed statistics as (scale, offset)."""
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, beta - mean * scale


def fold(kernel: np.ndarray, norm: Pair | None = None) -> Pair:
    """A convolution without bias and the norm behind it, if any, as (kernel, bias)."""
    if norm is None:
        return kernel, np.zeros(kernel.shape[-1], np.float32)
    scale, offset = norm
    return kernel * scale, offset


def read_keras_norm(source: keras.Model, name: str) -> Pair:
    """A batch norm of a Keras model as (scale, offset)."""
    layer = source.get_layer(name)
    gamma, beta, mean, variance = layer.get_weights()
    return freeze_norm(gamma, beta, mean, variance, layer.epsilon)


def check_unpacked_size(path: str | os.PathLike) -> None:
    """Looks at what a .npz or .keras file says that it unpacks to, before anything of it is unpacked.

    Raises:
        ValueError: More than MAX_UNPACKED bytes, or more than its packed size explains.
    """
    with zipfile.ZipFile(path) as archive:
        total = sum(info.file_size for info in archive.infolist())
        packed = sum(info.compress_size for info in archive.infolist())
    if total > MAX_UNPACKED or total > 64 * packed + (64 << 20):  # weights hardly shrink
        raise ValueError(f"{path}: unpacks to {total} bytes from {packed}, which weights do not; fetch the file again.")


def _list_npz(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    check_unpacked_size(path)
    with np.load(path) as archive:
        yield from ((name.rpartition("/")[0], archive[name]) for name in archive.files)


def _list_hdf5(path: Path, names: Collection[str]) -> Iterator[tuple[str, np.ndarray]]:
    source: Path | io.BytesIO = path
    if path.suffix == ".keras":
        check_unpacked_size(path)
        with zipfile.ZipFile(path) as archive:
            source = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(source, "r") as file:
        yield from _walk(file, "", names)


def _walk(group: h5py.Group, layer: str, names: Collection[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (layer name, array) of an HDF5 group. Keras 2 names a layer by its group, Keras 3 by an attribute."""
    for name in group:
        if name.startswith("optimizer"):  # its moments bear the layers' names too
            continue
        if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
            raise ValueError(f"{group.file.filename}: {group.name}/{name} is a link to another file; save it whole.")
        item = group[name]
        if isinstance(item, h5py.Dataset):
            _check_dataset(item)
            if layer:
                yield layer, item[()]
            continue
        known = [candidate for candidate in (name, item.attrs.get("name")) if candidate in names]
        yield from _walk(item, known[0] if known else layer, names)


def _check_dataset(dataset: h5py.Dataset) -> None:
    """Refuses an HDF5 array that lies in other files, or that is far larger than what is stored of it."""
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"the array {dataset.name} lies in another file; give a file that holds its weights itself")
    size = dataset.size * dataset.dtype.itemsize
    if size > MAX_UNPACKED or size > 64 * dataset.id.get_storage_size() + (64 << 20):
        raise ValueError(f"the array {dataset.name} unpacks to {size} bytes, which weights do not; save it again")


def _pair(arrays: Iterable[tuple[str, np.ndarray]], path: Path) -> dict[str, Pair]:
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
                "give the file of a single network."
            )
        layers[layer] = pair[0], pair[1]
    return layers
