from __future__ import annotations

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from msst_keras.model import vgg16 as vgg16_module
from msst_keras.model.backbones import BACKBONES, PYRAMID_BACKBONES, build_backbone, build_pyramid, output_strides
from msst_keras.model.layers import normalized_convolution, scale_channels, set_layers
from msst_keras.model.options import ModelOptions
from msst_keras.model.vgg16 import PIXEL_STD

# Keras 3.15 itself reads and saves weights by a call that NumPy 2.4 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

# Section 3.2: VGG16's five blocks, its last pooling removed, dilated convolutions in the last two blocks.
# layer: (kernel, dilation)
CONVOLUTIONS = {
    "block1_conv1": ((3, 3, 3, 64), 1),
    "block1_conv2": ((3, 3, 64, 64), 1),
    "block2_conv1": ((3, 3, 64, 128), 1),
    "block2_conv2": ((3, 3, 128, 128), 1),
    "block3_conv1": ((3, 3, 128, 256), 1),
    "block3_conv2": ((3, 3, 256, 256), 1),
    "block3_conv3": ((3, 3, 256, 256), 1),
    "block4_conv1": ((3, 3, 256, 512), 1),
    "block4_conv2": ((3, 3, 512, 512), 1),
    "block4_conv3": ((3, 3, 512, 512), 1),
    "block5_conv1": ((3, 3, 512, 512), 2),
    "block5_conv2": ((3, 3, 512, 512), 2),
    "block5_conv3": ((3, 3, 512, 512), 2),
    "fc6": ((3, 3, 512, 1024), 6),
    "fc7": ((1, 1, 1024, 1024), 1),
}
POOLINGS = ["block1_pool", "block2_pool", "block3_pool", "block4_pool"]


@pytest.fixture(scope="module")
def full_backbone():
    return build_backbone()


@pytest.fixture(scope="module")
def vgg16():
    """A VGG16 without classifier, its biases large enough to count beside pixels."""
    keras.utils.set_random_seed(1)
    model = keras.applications.VGG16(weights=None, include_top=False)
    for layer in model.layers:
        if layer.weights:
            layer.bias.assign(np.linspace(-20, 40, layer.filters))
    return model


def as_arrays(model):
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def write_npz(path, layers):
    arrays = {}
    for name, (kernel, bias) in layers.items():
        arrays |= {f"{name}/kernel": kernel, f"{name}/bias": bias}
    np.savez(path, **arrays)
    return path


def test_vgg16_stream_has_the_parameters_of_the_paper(full_backbone):
    found = {
        layer.name: (tuple(layer.kernel.shape), layer.dilation_rate[0])
        for layer in full_backbone.layers
        if layer.weights
    }
    assert found == CONVOLUTIONS
    for name, (kernel, _) in CONVOLUTIONS.items():
        layer = full_backbone.get_layer(name)
        assert tuple(layer.bias.shape) == kernel[-1:]
        assert (layer.strides, layer.padding, layer.activation) == ((1, 1), "same", keras.activations.relu)
    pools = [layer for layer in full_backbone.layers if isinstance(layer, keras.layers.MaxPooling2D)]
    assert [layer.name for layer in pools] == POOLINGS
    assert all((layer.pool_size, layer.strides, layer.padding) == ((2, 2), (2, 2), "same") for layer in pools)


def test_initial_weights_keep_the_size_of_features(full_backbone):
    for name, (kernel, _) in CONVOLUTIONS.items():
        layer = full_backbone.get_layer(name)
        np.testing.assert_allclose(np.std(layer.kernel), np.sqrt(2 / np.prod(kernel[:3])), rtol=0.05)
        assert not np.any(layer.bias)


def test_stride_8_follows_deeplab():
    model = build_backbone(output_stride=8, width=1 / 16)
    pool = model.get_layer("block4_pool")
    assert (pool.pool_size, pool.strides) == ((3, 3), (1, 1))
    assert model.get_layer("block5_conv1").dilation_rate == (2, 2)
    assert model.get_layer("fc6").dilation_rate == (12, 12)


# At width 1/16: middle, last.
OUTPUT_CHANNELS = {
    "vgg16": (32, 64),
    "resnet50v2": (32, 64),
    "resnet50v2_keras": (32, 64),
    "mobilenetv2": (24, 20),
    "efficientnet_lite0": (4, 20),
    "efficientnet_lite2": (4, 22),
}
# Those of padding on known sides, their norms folded. EfficientNet-Lite keeps its norms, and its cells lie elsewhere:
# see test_efficientnet_lite.py.
FOLDED = [name for name in BACKBONES if name != "vgg16" and name not in PYRAMID_BACKBONES]


@pytest.mark.parametrize("output_stride", [16, 8])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_outputs_cover_any_image_at_their_stride(backbone, output_stride):
    keras.utils.set_random_seed(0)  # four untrained channels can all be zero by chance
    model = build_backbone(backbone, output_stride=output_stride, width=1 / 16)
    strides = output_strides(backbone, output_stride)
    assert strides == (output_stride if backbone == "vgg16" else 8, output_stride)
    for size in ((97, 131), (64, 48), (5, 33)):
        outputs = model(random_image(*size, 3))
        for output, stride, channels in zip(outputs, strides, OUTPUT_CHANNELS[backbone], strict=True):
            assert tuple(output.shape) == (1, -(-size[0] // stride), -(-size[1] // stride), channels)
            assert np.ptp(output) > 0 and np.isfinite(output).all()


@pytest.mark.parametrize("backbone", FOLDED)
def test_every_second_cell_of_stride_8_is_that_of_stride_16(backbone):
    """A stride taken away and the dilation behind it: not so in VGG16, where a pooling has another window then."""
    coarse, fine = (build_backbone(backbone, 4, output_stride, 1 / 16) for output_stride in (16, 8))
    randomise(coarse)
    fine.set_weights(coarse.get_weights())
    for size in ((97, 131), (64, 48)):
        image = random_image(*size)
        (middle, last), (fine_middle, fine_last) = coarse(image), fine(image)
        np.testing.assert_allclose(middle, fine_middle, atol=1e-5)
        np.testing.assert_allclose(last, fine_last[:, ::2, ::2], atol=1e-5 * np.abs(last).max())
        assert np.std(last) > 1e-3


@pytest.mark.parametrize("backbone", FOLDED)
def test_cells_are_centred_within_two_and_a_half_pixels_of_what_they_stand_for(backbone):
    """The centroid of what a cell sees, from the gradient of networks whose kernels are alike everywhere."""
    model = build_backbone(backbone, width=1 / 16)
    for layer in model.layers:
        if layer.name == "pixels":
            layer.set_weights([np.ones(3), np.zeros(3)])
        elif "preact" not in layer.name and layer.name != "post" and layer.weights:
            layer.set_weights(
                [
                    np.full(w.shape, 1 / 9 if "depthwise" in layer.name else 1 / np.prod(w.shape[:3]))
                    if len(w.shape) == 4
                    else np.zeros(w.shape)
                    for w in layer.weights
                ]
            )
    image = tf.Variable(np.full((1, 736, 736, 3), 1e-3, np.float32))
    for output, stride in enumerate(output_strides(backbone)):
        cell = 368 // stride
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(model(image)[output][0, cell, cell])
        seen = np.asarray(tape.gradient(value, image))[0].sum(axis=(1, 2))
        assert seen.min() >= 0 and not seen[0] and not seen[-1]
        centre = (seen * np.arange(736)).sum() / seen.sum()
        # The largest of a pooling's alike values is the first, one cell of 2 before the centre of its window.
        pooling = 2 if backbone.startswith("resnet") else 0
        assert centre + pooling == pytest.approx(368 + 5, abs=0.01)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_untrained_features_keep_the_size_of_pixels(backbone):
    keras.utils.set_random_seed(0)
    for output in build_backbone(backbone, width=0.25)(random_image(96, 128, 3)):
        assert 0.05 < np.std(output) < 5


def random_image(height, width, channels=4):
    image = np.random.default_rng(0).uniform(0, 255, (1, height, width, channels)).astype(np.float32)
    image[..., 3:] /= 255
    return image


def randomise(model):
    generator = np.random.default_rng(1)
    for layer in model.layers:
        if layer.name != "pixels" and layer.weights:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, generator.normal(0, 0.2, bias.shape)])


# Not those that keep their norms: untrained, their 60 layers without a working norm add up bfloat16's rounding.
@pytest.mark.parametrize("backbone", ["vgg16", *FOLDED])
def test_flags_know_the_backbones_and_a_bfloat16_network_agrees(backbone):
    assert ModelOptions(backbone=backbone).arguments()["backbone"] == backbone
    model = build_backbone(backbone, 4, width=1 / 8)
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = build_backbone(backbone, 4, width=1 / 8)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    assert mixed.get_layer("pixels").compute_dtype == "float32"
    mixed.set_weights(model.get_weights())
    for output, rough in zip(model(random_image(64, 80)), mixed(random_image(64, 80)), strict=True):
        output, rough = np.asarray(output), np.asarray(rough).astype(np.float32)
        assert np.abs(output - rough).max() < 0.1 * np.abs(output).max()


@pytest.mark.parametrize("backbone", FOLDED)
def test_training_leaves_the_pixels_alone_and_moves_the_frozen_norms(backbone):
    model = build_backbone(backbone, width=1 / 16)
    model.trainable = False
    model.trainable = True
    names = {weight.path for weight in model.trainable_weights}
    assert not [name for name in names if "pixels" in name]
    assert len(names) == len(model.weights) - 2
    assert not [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


@pytest.mark.parametrize("output_stride", [16, 8])
def test_mirrored_images_give_mirrored_maps(output_stride):
    """With mirror-symmetric kernels, only a layer that shifts its map (an even window at stride 1) breaks this."""
    keras.utils.set_random_seed(2)
    model = build_backbone(output_stride=output_stride, width=1 / 16)
    for layer in model.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel + kernel[:, ::-1], bias])
    image = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    for straight, mirrored in zip(model(image), model(image[:, :, ::-1]), strict=True):
        straight, mirrored = np.asarray(straight), np.asarray(mirrored)
        np.testing.assert_allclose(straight, mirrored[:, :, ::-1], atol=1e-4 * straight.max())


def test_pixels_are_centred_and_scaled_and_the_prior_spans_a_colour_channel():
    model = build_backbone(channels=4, width=1 / 16)
    image = np.array([123.68 + 58, 116.779, 103.939 - 58, 1, 123.68, 116.779, 103.939, 0], np.float32)
    found = model.get_layer("pixels")(image.reshape(1, 1, 2, 4))
    np.testing.assert_allclose(np.ravel(found), [1, 0, -1, 255 / 58, 0, 0, 0, 0], atol=1e-6)


def test_pixels_stay_float32_under_a_mixed_policy():
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_backbone(width=1 / 16)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    assert model.get_layer("block1_conv1").compute_dtype == "bfloat16"
    pixel = keras.Model(model.input, model.get_layer("pixels").output)(np.full((1, 1, 1, 3), 100.25, np.float32))
    np.testing.assert_allclose(np.ravel(pixel), (100.25 - np.array(vgg16_module.RGB_MEAN)) / 58, rtol=1e-5)


def test_width_scales_channels():
    assert [scale_channels(64, 1 / 16), scale_channels(64, 0.01), scale_channels(3, 1.5, 1)] == [4, 4, 5]
    assert scale_channels(128, 1 / 32, minimum=8) == 8
    assert build_backbone(width=0.25).get_layer("fc6").kernel.shape == (3, 3, 128, 256)


def test_vgg16_file_gives_the_features_of_vgg16(vgg16, tmp_path):
    """End to end on RGB input: mean, channel order and the scaled biases, against Keras's own VGG16."""
    path = write_npz(tmp_path / "vgg16.npz", as_arrays(vgg16))
    model = build_backbone(weights=str(path))
    image = np.random.default_rng(0).uniform(0, 255, (1, 32, 48, 3)).astype(np.float32)
    reference = keras.Model(vgg16.input, vgg16.get_layer("block4_pool").output)
    expected = np.asarray(reference(keras.applications.vgg16.preprocess_input(image.copy())))
    middle = np.asarray(model(image)[0])
    assert expected.max() > 50
    np.testing.assert_allclose(middle * PIXEL_STD, expected, rtol=1e-3, atol=expected.max() * 1e-5)


@pytest.mark.parametrize("name", ["model.h5", "legacy.h5", "model.weights.h5", "model.keras", "arrays.npz"])
def test_every_file_format_is_read(vgg16, tmp_path, name):
    path = tmp_path / name
    if name == "legacy.h5":  # weights alone, as the files keras.applications downloads
        with h5py.File(path, "w") as file:
            for layer, (kernel, bias) in as_arrays(vgg16).items():
                file[f"{layer}/{layer}_W_1:0"], file[f"{layer}/{layer}_b_1:0"] = kernel, bias
    elif name == "arrays.npz":
        write_npz(path, as_arrays(vgg16))
    elif name == "model.weights.h5":
        vgg16.save_weights(path)
    else:
        vgg16.save(path)
    found = vgg16_module.read_vgg16(path)
    assert sorted(found) == sorted(as_arrays(vgg16))
    for layer, arrays in as_arrays(vgg16).items():
        for expected, array in zip(arrays, found[layer], strict=True):
            np.testing.assert_array_equal(array, expected)


def test_an_optimizer_in_the_file_is_no_layer(vgg16, tmp_path):
    with h5py.File(tmp_path / "trained.h5", "w") as file:
        for layer, (kernel, bias) in as_arrays(vgg16).items():
            file[f"model_weights/{layer}/kernel"], file[f"model_weights/{layer}/bias"] = kernel, bias
            file[f"optimizer_weights/{layer}/kernel"] = np.zeros_like(kernel)
    found = vgg16_module.read_vgg16(tmp_path / "trained.h5")
    np.testing.assert_array_equal(found["block3_conv2"][0], as_arrays(vgg16)["block3_conv2"][0])


def test_classifier_is_decimated():
    channels, filters = 2, 8
    kernel = np.arange(7 * 7 * channels * filters, dtype=np.float32).reshape(7 * 7 * channels, filters)
    dense = np.arange(filters * filters, dtype=np.float32).reshape(filters, filters)
    bias = np.arange(filters, dtype=np.float32)
    fc6, fc7 = vgg16_module.decimate_classifier((kernel, bias), (dense, bias + 10))
    assert fc6[0].shape == (3, 3, channels, 2)
    for (row, column, channel, out), value in np.ndenumerate(fc6[0]):
        assert value == (((3 * row * 7) + 3 * column) * channels + channel) * filters + 4 * out
    np.testing.assert_array_equal(fc6[1], [0, 4])
    np.testing.assert_array_equal(fc7[0], [[[[0, 4], [32, 36]]]])
    np.testing.assert_array_equal(fc7[1], [10, 14])


def test_classifier_fills_fc6_and_fc7_and_the_prior_gets_a_gaussian(monkeypatch):
    shapes = {name: kernel for name, (kernel, _) in CONVOLUTIONS.items()}
    layers = {name: (np.full(shape, 0.5, np.float32), np.full(shape[-1], 29.0)) for name, shape in shapes.items()}
    monkeypatch.setattr(vgg16_module, "read_vgg16", lambda weights: layers)
    model = build_backbone(channels=4, weights="imagenet")
    for name in ("block1_conv2", "fc6", "fc7"):
        kernel, bias = model.get_layer(name).get_weights()
        assert (kernel == 0.5).all() and (bias == 0.5).all()
    kernel, bias = model.get_layer("block1_conv1").get_weights()
    assert kernel.shape == (3, 3, 4, 64) and not bias.any()
    np.testing.assert_allclose([kernel.mean(), kernel.std()], [0, np.sqrt(2 / 36)], atol=0.015)


def test_imagenet_weights_are_those_keras_downloads(vgg16, monkeypatch):
    asked = []
    monkeypatch.setattr(keras.applications, "VGG16", lambda **arguments: asked.append(arguments) or vgg16)
    found = vgg16_module.read_vgg16("imagenet")
    assert asked == [{"weights": "imagenet"}]
    np.testing.assert_array_equal(found["block5_conv3"][0], as_arrays(vgg16)["block5_conv3"][0])


def test_failed_download_is_told(monkeypatch):
    def fail(**arguments):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications, "VGG16", fail)
    with pytest.raises(ValueError, match="could not be downloaded .*URL fetch failure.*pass the path"):
        build_backbone(weights="imagenet")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "vgg19"}, "backbone must be one of vgg16, .* found 'vgg19'"),
        ({"output_stride": 32}, r"output_stride must be one of \(16, 8\), found 32"),
        ({"channels": 5}, r"channels must be 3 \(RGB\) or 4 .* found 5"),
        ({"first_convolution_std": 0}, "first_convolution_std must be a positive number, found 0"),
        ({"width": 0}, "width must be a positive number.* found 0"),
        ({"width": float("nan")}, "width must be a positive number.* found nan"),
        ({"width": 0.5, "weights": "imagenet"}, "Pre-trained weights need width 1, found width 0.5"),
        ({"weights": "vgg16.pt"}, "a VGG16 file ending in .h5, .keras, .npz, found vgg16.pt"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(**arguments)


def test_missing_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected a VGG16 weights file at .*none.h5, found none"):
        build_backbone(weights=str(tmp_path / "none.h5"))


@pytest.mark.parametrize("content", [b"", b"this is no weights file"])
@pytest.mark.parametrize("name", ["broken.h5", "broken.keras", "broken.npz"])
def test_unreadable_file_is_told(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} cannot be read as a .* weights file"):
        vgg16_module.read_vgg16(path)


def small_layers():
    layers = {name: (np.zeros((3, 3, 1, 1)), np.zeros(1)) for name in vgg16_module.CONVOLUTIONS}
    return layers | {"fc1": (np.zeros((49, 4)), np.zeros(4)), "fc2": (np.zeros((4, 4)), np.zeros(4))}


def test_missing_layers_are_named(tmp_path):
    layers = small_layers()
    del layers["block3_conv2"], layers["fc2"]
    path = write_npz(tmp_path / "part.npz", layers)
    with pytest.raises(ValueError, match="part.npz is not a whole VGG16: .* found none for block3_conv2, fc2;"):
        vgg16_module.read_vgg16(path)


def test_classifier_of_another_size_is_refused(tmp_path):
    path = write_npz(tmp_path / "small.npz", small_layers())
    with pytest.raises(ValueError, match=r"found \(49, 4\) and \(4, 4\); leave both out"):
        vgg16_module.read_vgg16(path)


def test_two_networks_in_one_file_are_refused(tmp_path):
    with h5py.File(tmp_path / "two.h5", "w") as file:
        for network in ("spatial", "temporal"):
            file[f"{network}/block1_conv1/kernel"] = np.zeros((3, 3, 3, 64))
            file[f"{network}/block1_conv1/bias"] = np.zeros(64)
    with pytest.raises(
        ValueError, match="two.h5: expected one kernel and one bias of layer block1_conv1, found arrays"
    ):
        vgg16_module.read_vgg16(tmp_path / "two.h5")


def test_kernel_of_another_shape_is_refused(tmp_path):
    layers = {name: pair for name, pair in small_layers().items() if not name.startswith("fc")}
    path = write_npz(tmp_path / "thin.npz", layers)
    with pytest.raises(ValueError, match=r"expected a kernel \(3, 3, 3, 64\) for block1_conv1, found \(3, 3, 1, 1\)"):
        build_backbone(weights=str(path))


@pytest.mark.parametrize("name", ["vgg19.npz", "keras2.h5", "keras3.h5"])
def test_a_vgg19_is_no_vgg16(tmp_path, name):
    layers = {name: (np.zeros((3, 3, 1, 1)), np.zeros(1)) for name in vgg16_module.CONVOLUTIONS}
    layers |= {f"block{block}_conv4": (np.zeros((3, 3, 1, 1)), np.zeros(1)) for block in (3, 4, 5)}
    if name.endswith(".npz"):
        write_npz(tmp_path / name, layers)
    else:
        with h5py.File(tmp_path / name, "w") as file:
            for number, (layer, (kernel, bias)) in enumerate(layers.items()):
                group = file.create_group(layer if name == "keras2.h5" else f"layers/conv2d_{number}/vars")
                group.attrs["name"], group["0"], group["1"] = layer, kernel, bias
    with pytest.raises(ValueError, match=rf"{name} is a VGG19 \(it has block3_conv4, block4_conv4, block5_conv4\)"):
        vgg16_module.read_vgg16(tmp_path / name)


def test_arrays_that_are_no_floats_are_refused_and_short_floats_become_float32(tmp_path):
    layers = {name: (np.ones((3, 3, 1, 1)), np.full(1, 2.0)) for name in vgg16_module.CONVOLUTIONS}
    halves = {name: tuple(array.astype(np.float16) for array in pair) for name, pair in layers.items()}
    found = vgg16_module.read_vgg16(write_npz(tmp_path / "half.npz", halves))
    assert {array.dtype for pair in found.values() for array in pair} == {np.dtype(np.float32)}
    layers["block2_conv1"] = np.ones((3, 3, 1, 1), np.int32), np.ones(1, np.float32)
    path = write_npz(tmp_path / "whole.npz", layers)
    with pytest.raises(ValueError, match="whole.npz: expected floats in .* layer block2_conv1, found int32 and f"):
        vgg16_module.read_vgg16(path)


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e300])
@pytest.mark.parametrize("part", [0, 1])
def test_weights_that_are_not_finite_are_refused(number, part):
    model = build_backbone(width=1 / 16)
    pair = [np.ones((3, 3, 4, 4)), np.zeros(4)]
    set_layers(model, {"block1_conv2": pair}, "block1_conv1", "file.npz")
    pair[part][..., -1] = number
    name = ("kernel", "bias")[part]
    with pytest.raises(ValueError, match=f"file.npz: the {name} for block1_conv2 has numbers that are not finite"):
        set_layers(model, {"block1_conv2": pair}, "block1_conv1", "file.npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"last_stride": 4}, r"last_stride must be one of \(16, 32\), found 4"),
        ({"last_stride": 64}, r"last_stride must be one of \(16, 32\), found 64"),
        ({"channels": 5}, r"channels must be 3 \(RGB\) or 4 .* found 5"),
        ({"frozen_stride": 5}, r"frozen_stride must be one of \(0, 4, 8, 16, 32\), found 5"),
    ],
)
def test_wrong_arguments_of_a_pyramid_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_pyramid("efficientnet_lite0", width=1 / 16, **arguments)


def test_a_batch_norm_averages_over_about_twenty_batches():
    inputs = keras.Input((2, 2, 1))
    output = normalized_convolution(inputs, 1, 1, "c", "trained", activation=None, kernel_initializer="ones")
    model = keras.Model(inputs, output)
    batch = np.arange(8, dtype=np.float32).reshape(2, 2, 2, 1)
    model(batch, training=True)
    norm = model.get_layer("c_norm")
    np.testing.assert_allclose(norm.moving_mean, [0.05 * 3.5], rtol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, [0.95 + 0.05 * 5.25], rtol=1e-5)
