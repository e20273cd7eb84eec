"""Reading pre-trained weights: files of arrays, networks of Keras, and batch norms folded into convolutions.

Only arrays are read, never code. The module of a network says what its layers are called in a file.
"""

from __future__ import annotations

import io
import lzma
import os
import re
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import h5py
import keras
import numpy as np

from msst_keras.model.layers import check_norm

# (kernel, bias) of a convolution, or (scale, offset) of a `layers.ChannelAffine`.
Pair = tuple[np.ndarray, np.ndarray]

# Pixels as keras.applications prepares them for its networks of the second generation: 0..255 to -1..1.
KERAS_PIXELS = np.full(3, 1 / 127.5), np.full(3, -1.0)
# What a file of weights may unpack to: VGG16 with its three dense layers has 553 million bytes.
MAX_UNPACKED = 1 << 30
# h5py raises RuntimeError and TypeError too, where an address in the file leads nowhere or to a thing of another kind.
# NumPy reads an array's header as an expression of Python, and asks for the memory that it speaks of.
_UNREADABLE = (
    OSError, LookupError, ValueError, ArithmeticError, EOFError, RuntimeError, TypeError, SyntaxError, MemoryError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip
_MAX_SHOWN = 4  # shapes in an error; a file may have thousands of arrays


def read_layers(path: Path, names: Collection[str]) -> dict[str, Pair]:
    """Reads kernel and bias of each layer of a file that Keras 2 or 3 wrote, or of a .npz file.

    Args:
        path: FILE.h5, FILE.weights.h5, FILE.keras, or FILE.npz with arrays LAYER/kernel and LAYER/bias.
        names: Names of the layers, by which the files of Keras are searched.

    Returns:
        Layer name -> (kernel, bias), float32.

    Raises:
        ValueError: The file cannot be read, or has other arrays than one kernel and one bias of a layer, both floats.
    """
    try:
        arrays = list(_list_npz(path) if path.suffix == ".npz" else _list_hdf5(path, names))
    except _UNREADABLE as error:
        raise ValueError(
            f"{path} cannot be read as a {path.suffix} weights file ({error or type(error).__name__}); save it again."
        ) from error
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
        raise ValueError(
            f"{path} cannot be read as a .npz weights file ({error or type(error).__name__}); save it again."
        ) from error


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

    def where(self, name: str) -> str:
        """The file and the name in it, for errors."""
        return f"{self._path}: {self._prefix}{name}"

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
        if array.ndim == num_axes and array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                values = array.astype(np.float32)
            if np.isfinite(values).all():
                return values
        raise ValueError(
            f"{self._path}: expected finite floats with {num_axes} axes in {name}, found {array.dtype} "
            f"{array.shape}, perhaps not finite; save the file again."
        )

    def kernel(self, name: str) -> np.ndarray:
        """A kernel that is stored (out, in, height, width), as (height, width, in, out)."""
        return self(name, 4).transpose(2, 3, 1, 0)


def freeze_norm(statistics: Sequence[np.ndarray], epsilon: float, where: str) -> Pair:
    """A batch norm with fixed gamma, beta, mean and variance as (scale, offset).

    Raises:
        ValueError: See `layers.check_norm`; the error begins with `where`.
    """
    check_norm(where, np.size(statistics[0]), statistics)
    gamma, beta, mean, variance = statistics
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, beta - mean * scale


def fold(kernel: np.ndarray, norm: Pair | None = None, where: str = "") -> Pair:
    """A convolution without bias and the norm behind it, if any, as (kernel, bias).

    Raises:
        ValueError: The norm has not the channels that the convolution gives; the error begins with `where`.
    """
    if norm is None:
        return kernel, np.zeros(kernel.shape[-1], np.float32)
    scale, offset = norm
    if scale.shape != kernel.shape[-1:]:
        raise ValueError(
            f"{where}: expected a batch norm of the {kernel.shape[-1]} channels that the convolution in front of it "
            f"gives, found one of {len(scale)}; give the file of this network."
        )
    return kernel * scale, offset


def read_keras_norm(source: keras.Model, name: str) -> Pair:
    """A batch norm of a Keras model as (scale, offset)."""
    layer = source.get_layer(name)
    return freeze_norm(layer.get_weights(), layer.epsilon, f"{source.name}: {name}")


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
    total = 0
    with h5py.File(source, "r") as file:
        for layer, dataset in _walk(file, "", names, {_address(file)}):
            total += dataset.size * dataset.dtype.itemsize
            if total > MAX_UNPACKED:
                raise ValueError(f"its arrays unpack to more than {MAX_UNPACKED} bytes, which weights do not")
            yield layer, dataset[()]


def _walk(
    group: h5py.Group, layer: str, names: Collection[str], visited: set[int]
) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yields (layer name, array) of an HDF5 group. Keras 2 names a layer by its group, Keras 3 by an attribute.

    Each thing must lie in the file once: by links to links, a small file would have arrays and groups without end.
    """
    for name in group:
        link, place = group.get(name, getlink=True), f"{group.name.rstrip('/')}/{name}"
        if not isinstance(link, h5py.HardLink):  # a soft one may lead to another file by way of a third
            where = "another file" if isinstance(link, h5py.ExternalLink) else "another place"
            raise ValueError(f"{place} is a link to {where}; save it whole")
        if name.startswith("optimizer"):  # its moments bear the layers' names too
            continue
        item = group[name]
        if (address := _address(item)) in visited:
            raise ValueError(f"{place} lies in the file a second time under another name")
        visited.add(address)
        if isinstance(item, h5py.Dataset):
            _check_dataset(item)
            if layer:
                yield layer, item
            continue
        known = [candidate for candidate in (name, item.attrs.get("name")) if candidate in names]
        yield from _walk(item, known[0] if known else layer, names, visited)


def _address(item: h5py.HLObject) -> int:
    return h5py.h5o.get_info(item.id).addr


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
            shapes = ", ".join(str(array.shape) for array in pair[:_MAX_SHOWN])
            shapes += f" and {len(pair) - _MAX_SHOWN} more" if len(pair) > _MAX_SHOWN else ""
            raise ValueError(
                f"{path}: expected one kernel and one bias of layer {layer}, found arrays of shape {shapes}; "
                "give the file of a single network."
            )
        if any(array.dtype.kind != "f" for array in pair):
            raise ValueError(
                f"{path}: expected floats in kernel and bias of layer {layer}, found {pair[0].dtype} and "
                f"{pair[1].dtype}; save the file again."
            )
        with np.errstate(over="ignore"):  # what overflows is refused by `layers.set_layers`
            layers[layer] = pair[0].astype(np.float32), pair[1].astype(np.float32)
    return layers
