"""EfficientNet-Lite: its shapes, its norms trained, frozen and folded, and ImageNet's classes where the package is."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from skimage import data

from msst_keras.model import efficientnet_lite
from msst_keras.model.backbones import PYRAMID_BACKBONES, build_backbone, build_pyramid
from msst_keras.model.efficientnet_lite import VARIANTS, list_blocks
from msst_keras.model.layers import fold_batch_norm, fold_batch_norms
from msst_keras.model.packages import find_package_file
from msst_keras.model.torch_files import read_torch_file

PYRAMID_CHANNELS = {"efficientnet_lite0": (24, 40, 112, 320), "efficientnet_lite2": (24, 48, 120, 352)}


def randomise(model, seed=0):
    """Weights and statistics that no layer leaves as they are."""
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = (weight.shape for weight in layer.weights)
            layer.set_weights([
                generator.uniform(0.5, 1.5, gamma), generator.normal(0, 0.2, beta), generator.normal(0, 0.2, mean),
                generator.uniform(0.5, 2, variance),
            ])  # fmt: skip


@pytest.mark.parametrize("backbone", PYRAMID_BACKBONES)
def test_a_pyramid_has_every_stride_and_the_channels_of_its_variant(backbone):
    model = build_pyramid(backbone)
    outputs = model(np.zeros((1, 64, 96, 3), np.float32))
    shapes = [tuple(output.shape) for output in outputs]
    expected = [
        (1, 64 // stride, 96 // stride, channels)
        for stride, channels in zip((4, 8, 16, 32), PYRAMID_CHANNELS[backbone], strict=True)
    ]
    assert shapes == expected
    assert len(build_pyramid(backbone, last_stride=16).output) == 3


def test_the_parameters_are_those_of_the_published_networks():
    """Counted without classifier and head: 4.652 M and 6.092 M of which the head and classifier are the difference."""
    for backbone, total in (("efficientnet_lite0", 4_652_008), ("efficientnet_lite2", 6_092_072)):
        model = build_pyramid(backbone)
        learned = sum(np.prod(weight.shape) for weight in model.trainable_weights)
        last = PYRAMID_CHANNELS[backbone][-1]
        head = last * 1280 + 2 * 1280 + 1280 * 1000 + 1000
        assert learned + head == total


def test_a_folded_norm_is_computed_by_hand():
    kernel = np.ones((1, 1, 1, 2), np.float32)
    statistics = [np.array(values, np.float32) for values in ([2, 3], [1, -1], [4, 5], [3, 8])]
    folded, bias = fold_batch_norm(kernel, statistics, 1.0, "norm")  # 2 / sqrt(4) = 1, 3 / sqrt(9) = 1
    np.testing.assert_allclose(folded.ravel(), [1, 1])
    np.testing.assert_allclose(bias, [1 - 4, -1 - 5])


@pytest.mark.parametrize("backbone", PYRAMID_BACKBONES)
def test_folded_and_frozen_norms_give_the_same_features(backbone):
    frozen, folded = (build_pyramid(backbone, width=0.25, batch_norm=norm) for norm in ("frozen", "folded"))
    randomise(frozen)
    fold_batch_norms(frozen, folded)
    image = np.random.default_rng(1).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    for expected, found in zip(frozen(image, training=True), folded(image), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
        assert np.std(expected) > 0
    assert not frozen.get_layer("block1_project_norm").trainable


@pytest.mark.parametrize("backbone", PYRAMID_BACKBONES)
def test_a_cell_of_stride_16_is_the_last_of_four_of_stride_8(backbone):
    """Where TensorFlow's "same" puts the windows at even sizes; the other backbones have the first of the four."""
    coarse, fine = (build_backbone(backbone, 4, output_stride, 1 / 8) for output_stride in (16, 8))
    randomise(coarse)
    fine.set_weights(coarse.get_weights())
    image = np.random.default_rng(0).uniform(0, 255, (1, 96, 64, 4)).astype(np.float32)
    (middle, last), (fine_middle, fine_last) = coarse(image), fine(image)
    np.testing.assert_allclose(middle, fine_middle, atol=1e-4 * np.abs(middle).max())
    np.testing.assert_allclose(last, fine_last[:, 1::2, 1::2], atol=1e-4 * np.abs(last).max())
    assert np.std(last) > 1e-3
    assert np.abs(last - fine_last[:, ::2, ::2]).max() > 0.1 * np.std(last)


def test_a_cell_is_centred_on_the_last_pixel_that_it_stands_for():
    """The centroid of what a cell sees, from the gradient of a network whose kernels are alike everywhere."""
    model = build_pyramid("efficientnet_lite0", width=1 / 16)
    for layer in model.layers:
        if layer.name == "pixels" or isinstance(layer, keras.layers.BatchNormalization) or not layer.weights:
            continue
        axes = 2 if "depthwise" in layer.name else 3
        layer.set_weights([np.full(weight.shape, 1 / np.prod(weight.shape[:axes])) for weight in layer.weights])
    image = tf.Variable(np.full((1, 1024, 1024, 3), 127.1, np.float32))  # small, so that ReLU6 is linear
    for number, stride in ((1, 8), (3, 32)):
        cell = 512 // stride
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(model(image)[number][0, cell, cell])
        seen = np.asarray(tape.gradient(value, image), np.float64)[0].sum(axis=(1, 2))
        assert seen.min() >= 0 and not seen[0] and not seen[-1]
        assert (seen * np.arange(1024)).sum() / seen.sum() == pytest.approx(512 + stride - 1, abs=0.01)


def test_trained_norms_follow_the_batch_and_a_frozen_stride_does_not():
    model = build_pyramid("efficientnet_lite0", width=0.25, frozen_stride=8)
    before = {layer.name: layer.get_weights() for layer in model.layers}
    image = np.random.default_rng(1).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    model(image, training=True)
    strides = np.cumprod([2] + [stride for _, stride, _, _ in list_blocks(VARIANTS["efficientnet_lite0"])])[1:]
    checked = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            block = layer.name.split("_")[0]
            frozen = block == "stem" or strides[int(block.removeprefix("block"))] <= 8
            moved = not np.array_equal(layer.moving_mean, before[layer.name][2])
            assert moved != frozen, layer.name
            checked += frozen
    assert checked > 5
    assert all("stem" not in weight.path and "block0" not in weight.path for weight in model.trainable_weights)


def test_other_arguments_are_refused():
    with pytest.raises(ValueError, match="batch_norm must be one of trained, frozen, folded, found 'none'"):
        build_pyramid("efficientnet_lite0", width=0.25, batch_norm="none")
    with pytest.raises(ValueError, match="needs a backbone that is a pyramid, .*found 'vgg16'"):
        build_pyramid("vgg16")
    with pytest.raises(ValueError, match="Pre-trained weights need width 1"):
        build_pyramid("efficientnet_lite0", width=0.5, weights="imagenet")


@pytest.mark.parametrize("backbone", PYRAMID_BACKBONES)
def test_imagenet_weights_know_photographs(backbone):
    """Through the file's own head and classifier: 285 is the Egyptian cat, 967 espresso."""
    try:
        path = find_package_file(VARIANTS[backbone].distribution, ".pth")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    arrays, model = read_torch_file(path), build_backbone(backbone, output_stride=16, weights="imagenet")
    assert len(model.output) == 2
    model = build_pyramid(backbone, weights="imagenet")
    for picture, label in ((data.chelsea(), 285), (data.coffee(), 967)):
        image = np.asarray(keras.ops.image.resize(picture[None].astype(np.float32), (224, 224), antialias=True))
        features = np.asarray(model(image)[-1])
        head = features @ arrays["_conv_head.weight"][:, :, 0, 0].T
        scale = arrays["_bn1.weight"] / np.sqrt(arrays["_bn1.running_var"] + 1e-3)
        head = np.clip((head - arrays["_bn1.running_mean"]) * scale + arrays["_bn1.bias"], 0, 6).mean((1, 2))
        assert (head @ arrays["_fc.weight"].T + arrays["_fc.bias"]).argmax() == label


PARTS = ("weight", "bias", "running_mean", "running_var")


def lite_arrays(model):
    """A file's arrays with the weights of a small network, by the names that such a file has."""
    arrays = {}
    for layer in model.layers:
        block, _, part = layer.name.partition("_")
        if part in ("norm", "") and block != "stem" or not layer.weights:
            continue
        theirs = "_conv_stem" if block == "stem" else f"_blocks.{block[5:]}._{part.split('_')[0]}_conv"
        if layer.name.endswith("_norm"):
            number = {"norm": 0, "expand": 0, "depthwise": 1, "project": 2}[part.split("_")[0]]
            prefix = "" if block == "stem" else f"_blocks.{block[5:]}."
            arrays |= dict(zip((f"{prefix}_bn{number}.{kind}" for kind in PARTS), layer.get_weights(), strict=True))
        else:
            kernel = layer.get_weights()[0]
            kernel = kernel.swapaxes(2, 3) if part == "depthwise" else kernel
            arrays[f"{theirs}.weight"] = kernel.transpose(3, 2, 0, 1)
    return arrays


@pytest.fixture(scope="module")
def small_file():
    model = build_pyramid("efficientnet_lite0", width=1 / 16)
    randomise(model)
    return model, lite_arrays(model)


def load(arrays, monkeypatch, batch_norm="trained"):
    monkeypatch.setattr(efficientnet_lite, "read_torch_file", lambda path: arrays)
    model = build_pyramid("efficientnet_lite0", width=1 / 16, batch_norm=batch_norm)
    efficientnet_lite.load_efficientnet_lite(model, "lite.pth")
    return model


def test_a_file_of_its_names_gives_its_weights(small_file, monkeypatch):
    source, arrays = small_file
    for expected, found in zip(source.get_weights(), load(arrays, monkeypatch).get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("batch_norm", ["trained", "folded"])
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "_blocks.3._se_reduce.weight",
            None,
            "lite.pth is an EfficientNet with squeeze-and-excite, such as B0 ",
        ),
        (
            "_blocks.16._bn1.bias",
            None,
            "lite.pth is an EfficientNet of more than 16 blocks .it has '_blocks.16",
        ),
        ("_bn0.running_var", lambda array: -array, "lite.pth: _bn0: expected variances from 0 up, found -"),
        (
            "_blocks.2._bn1.running_mean",
            lambda array: array[:1],
            r"lite.pth: _blocks.2._bn1: expected .* of 24 chan",
        ),
        (
            "_blocks.2._bn0.weight",
            lambda array: array[:-1],
            "lite.pth: _blocks.2._bn0: expected gamma, beta, mean",
        ),
        (
            "_conv_stem.weight",
            lambda array: array[0],
            "lite.pth: expected finite floats with 4 axes in _conv_stem",
        ),
        (
            "_bn0.bias",
            lambda array: array * np.nan,
            "lite.pth: expected finite floats with 1 axes in _bn0.bias",
        ),
        (
            "_bn0.bias",
            lambda array: array.astype(np.int64),
            "lite.pth: expected finite floats .* _bn0.bias, found in",
        ),
    ],
)
def test_a_file_that_is_not_of_this_network_is_refused(small_file, monkeypatch, name, change, message, batch_norm):
    arrays = dict(small_file[1])
    arrays[name] = change(arrays[name]) if change else np.zeros(4, np.float32)
    with pytest.raises(ValueError, match=message):
        load(arrays, monkeypatch, batch_norm)


@pytest.mark.parametrize(
    ("index", "values", "message"),
    [
        (0, [1], r"net, c_norm: expected gamma, .* of 2 channels, found \(1,\), \(2,\), \(2,\), \(2,\)"),
        (2, [1, 2, 3], r"net, c_norm: expected gamma, .* found \(2,\), \(2,\), \(3,\), \(2,\)"),
        (3, [1, -0.5], "net, c_norm: expected variances from 0 up, found -0.5"),
        (3, [1, np.nan], "net, c_norm: expected variances from 0 up, found nan"),
    ],
)
def test_a_norm_that_does_not_fit_is_not_folded(index, values, message):
    statistics = [np.ones(2, np.float32) for _ in range(4)]
    statistics[index] = np.array(values, np.float32)
    with pytest.raises(ValueError, match=message):
        fold_batch_norm(np.ones((1, 1, 3, 2), np.float32), statistics, 1.0, "net, c_norm")


def test_pixels_are_those_that_the_weights_were_trained_on():
    """(x - 127) / 128; the prior, 0..1, spans a colour channel."""
    model = build_pyramid("efficientnet_lite0", channels=4, width=1 / 16)
    image = np.array([127 + 128, 127, 127 - 64, 0.5], np.float32).reshape(1, 1, 1, 4)
    np.testing.assert_allclose(np.ravel(model.get_layer("pixels")(image)), [1, 0, -0.5, 127.5 / 128], atol=1e-6)
