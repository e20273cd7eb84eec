"""The ImageNet weights of files and of keras.applications in our networks, layer by layer.

Files are held to the networks written once more in NumPy, by the files' names: channels first, one image, batch norms
apart, the paddings as our networks document them (where they halve the map, zeros lie at the sides that put cell k on
pixel k * stride + 5).
"""

from __future__ import annotations

import keras
import numpy as np
import pytest

from msst_keras.model import resnet50v2
from msst_keras.model.backbones import build_backbone
from msst_keras.model.weights import Arrays

RESNET_FILE = "weights/resnet50v2_stages123_gluon_nchw.npz"
MOBILENET_FILE = "weights/mobilenetv2_bnfolded_nchw.npz"
RESNET_STAGES = ((1, 64, 3), (2, 128, 4), (3, 256, 6))
# Expansion, channels, repeats, stride of the first: the table of the paper (Sandler et al. 2018).
MOBILENET = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
)  # fmt: skip


def convolve(x, kernel, stride=1, pad=None, dilation=1, groups=1):
    """x (C, H, W), kernel (O, C / groups, K, K) -> (O, H', W'). `pad`: zeros (before, after), None for symmetric."""
    size = dilation * (kernel.shape[-1] - 1) + 1
    before, after = (size // 2, size // 2) if pad is None else pad
    x = np.pad(x, ((0, 0), (before, after), (before, after)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))
    windows = windows[:, ::stride, ::stride, ::dilation, ::dilation]
    kernel = kernel.astype(np.float64)
    if groups == 1:
        return np.einsum("chwij,ocij->ohw", windows, kernel, optimize=True)
    return np.einsum("chwij,cij->chw", windows, kernel[:, 0], optimize=True)


def relu(x, most=np.inf):
    return np.clip(x, 0, most)


def normalise(image):
    """(H, W, 3) in 0..255 -> (3, H, W) as the networks were trained with."""
    return ((image.astype(np.float64) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)


def reference_resnet50v2(arrays, image, prefix="resnetv24_", output_stride=16):
    """The map behind every block and the middle output: name -> (C, H, W)."""

    def norm(x, name):
        gamma, beta, mean, variance = (
            arrays[f"{prefix}{name}_{kind}"].astype(np.float64)[:, None, None]
            for kind in ("gamma", "beta", "running_mean", "running_var")
        )
        return gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta

    def convolution(x, name, **options):
        return convolve(x, arrays[f"{prefix}{name}_weight"], **options)

    found = {}
    x = norm(normalise(image), "batchnorm0")
    x = relu(norm(convolution(x, "conv0", stride=2, pad=(0, 6)), "batchnorm1"))
    found["stem"] = x
    x = np.pad(x, ((0, 0), (0, 2), (0, 2)))
    x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::2, ::2].max((-2, -1))
    found["stem_pool"] = x
    dilation = 1
    for stage, _, num_blocks in RESNET_STAGES:
        conv, bn = 0, 0
        for block in range(1, num_blocks + 1):
            name, halves = f"stage{stage}_block{block}", block == 1 and stage > 1
            stride = 2 if halves and not (stage == 3 and output_stride == 8) else 1
            y = relu(norm(x, f"stage{stage}_batchnorm{bn}"))
            if stage == 3 and block == 1:
                found["stage3_block1_preact_relu"] = y
            shortcut = convolution(y, f"stage{stage}_conv{conv + 3}", stride=stride) if block == 1 else x
            y = relu(norm(convolution(y, f"stage{stage}_conv{conv}"), f"stage{stage}_batchnorm{bn + 1}"))
            y = convolution(
                y, f"stage{stage}_conv{conv + 1}", stride=stride, dilation=dilation, pad=(1, 1) if stride > 1 else None
            )
            y = relu(norm(y, f"stage{stage}_batchnorm{bn + 2}"))
            x = found[name] = shortcut + convolution(y, f"stage{stage}_conv{conv + 2}")
            conv, bn = conv + (4 if block == 1 else 3), bn + 3
            if stage == 3 and stride == 1 and block == 1:
                dilation = 2
    return found


def reference_mobilenetv2(arrays, image, output_stride=16):
    """The map behind every block and every expansion: name -> (C, H, W)."""
    numbers = iter(sorted(int(name.split("_")[1]) for name in arrays if name.startswith("conv_") and "weight" in name))

    def convolution(x, **options):
        number = next(numbers)
        return convolve(x, arrays[f"conv_{number}_weight"], **options) + arrays[f"conv_{number}_bias"][:, None, None]

    found, block, reached, dilation = {}, 0, 2, 1
    x = found["stem"] = relu(convolution(normalise(image), stride=2, pad=(0, 2)), 6)
    for expansion, channels, repeats, first_stride in MOBILENET:
        for repeat in range(repeats):
            stride, name = first_stride if repeat == 0 else 1, f"block{block}"
            removed = reached * stride > output_stride
            y = x
            if expansion > 1:
                y = found[f"{name}_expand"] = relu(convolution(x), 6)
            step = 1 if removed else stride
            pad = None if step == 1 else (0, 2) if block == 3 else (1, 1)
            y = relu(convolution(y, stride=step, dilation=dilation, groups=len(y), pad=pad), 6)
            y = convolution(y)
            added = stride == 1 and len(x) == channels
            x = found[name if added else f"{name}_project"] = x + y if added else y
            reached, dilation, block = reached * step, dilation * (2 if removed else 1), block + 1
    return found


def random_resnet(prefix="resnetv24_", stage4=False):
    """A file's arrays, full size, their values random but of usual sizes, norms of both signs."""
    generator = np.random.default_rng(0)
    arrays = {}

    def norm(name, channels):
        arrays[f"{prefix}{name}_gamma"] = generator.normal(0.8, 0.4, channels).astype(np.float32)
        arrays[f"{prefix}{name}_beta"] = generator.normal(0, 0.4, channels).astype(np.float32)
        arrays[f"{prefix}{name}_running_mean"] = generator.normal(0, 0.3, channels).astype(np.float32)
        arrays[f"{prefix}{name}_running_var"] = generator.uniform(0.5, 1.5, channels).astype(np.float32)

    def kernel(name, *shape):
        values = generator.standard_normal(shape, np.float32) / np.sqrt(np.prod(shape[1:]))
        arrays[f"{prefix}{name}_weight"] = values.astype(np.float16)

    norm("batchnorm0", 3)
    kernel("conv0", 64, 3, 7, 7)
    norm("batchnorm1", 64)
    channels = 64
    for stage, inner, num_blocks in RESNET_STAGES:
        convolutions = []
        for block in range(num_blocks):
            norm(f"stage{stage}_batchnorm{3 * block}", channels)
            norm(f"stage{stage}_batchnorm{3 * block + 1}", inner)
            norm(f"stage{stage}_batchnorm{3 * block + 2}", inner)
            convolutions += [(inner, channels, 1, 1), (inner, inner, 3, 3), (4 * inner, inner, 1, 1)]
            convolutions += [(4 * inner, channels, 1, 1)] if block == 0 else []
            channels = 4 * inner
        for index, shape in enumerate(convolutions):
            kernel(f"stage{stage}_conv{index}", *shape)
    if stage4:
        norm("stage4_batchnorm0", 1024)
    return arrays


def random_mobilenet():
    generator = np.random.default_rng(1)
    arrays, channels, shapes = {}, 32, [(32, 3, 3, 3)]
    for expansion, outputs, repeats, _ in MOBILENET:
        for _ in range(repeats):
            inner = expansion * channels
            shapes += [(inner, channels, 1, 1)] if expansion > 1 else []
            shapes += [(inner, 1, 3, 3), (outputs, inner, 1, 1)]
            channels = outputs
    shapes.append((1280, 320, 1, 1))  # the classifier's, which we leave
    for index, shape in enumerate(shapes):
        kernel = generator.standard_normal(shape, np.float32) * np.sqrt(2 / np.prod(shape[1:]))
        arrays[f"conv_{2 * index}_weight"] = kernel.astype(np.float16)
        arrays[f"conv_{2 * index}_bias"] = generator.normal(0, 0.3, shape[0]).astype(np.float32)
    return arrays


@pytest.fixture(scope="module")
def resnet_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet.npz"
    np.savez(path, **random_resnet())
    return path


@pytest.fixture(scope="module")
def mobilenet_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mobilenet.npz"
    np.savez(path, **random_mobilenet())
    return path


def random_image(height=45, width=62):
    return np.random.default_rng(2).uniform(0, 255, (height, width, 3)).astype(np.float32)


def assert_layers_equal(model, image, expected):
    """Every map of `expected` is that of the model's layer of the same name, to 1e-4 of its largest value."""
    features = keras.Model(model.input, {name: model.get_layer(name).output for name in expected})(image[None])
    for name, values in expected.items():
        found = np.asarray(features[name])[0].transpose(2, 0, 1)
        assert found.shape == values.shape, name
        assert np.ptp(values) > 0.1, name
        np.testing.assert_allclose(found, values, rtol=0, atol=1e-4 * np.abs(values).max(), err_msg=name)


@pytest.mark.parametrize("output_stride", [16, 8])
def test_resnet_file_gives_the_features_of_the_reference(resnet_path, output_stride):
    model = build_backbone("resnet50v2", output_stride=output_stride, weights=str(resnet_path))
    image = random_image()
    expected = reference_resnet50v2(np.load(resnet_path), image, output_stride=output_stride)
    assert len(expected) == 16
    assert_layers_equal(model, image, expected)


@pytest.mark.parametrize("output_stride", [16, 8])
def test_mobilenet_file_gives_the_features_of_the_reference(mobilenet_path, output_stride):
    model = build_backbone("mobilenetv2", output_stride=output_stride, weights=str(mobilenet_path))
    image = random_image()
    expected = reference_mobilenetv2(np.load(mobilenet_path), image, output_stride)
    assert len(expected) == 1 + 17 + 16
    assert_layers_equal(model, image, expected)


def photograph():
    from skimage.data import chelsea

    return chelsea()[20:141, 100:277].astype(np.float32)  # the cat's eyes; both sides odd


def test_real_resnet_gives_the_features_of_the_reference(real_data):
    model = build_backbone("resnet50v2", weights=str(real_data / RESNET_FILE))
    assert_layers_equal(model, photograph(), reference_resnet50v2(np.load(real_data / RESNET_FILE), photograph()))


def test_real_mobilenet_gives_the_features_of_the_reference(real_data):
    model = build_backbone("mobilenetv2", weights=str(real_data / MOBILENET_FILE))
    assert_layers_equal(model, photograph(), reference_mobilenetv2(np.load(real_data / MOBILENET_FILE), photograph()))


def test_real_resnet_leaves_at_unit_size(real_data):
    """The norm behind stage 3, which the file lacks, is estimated from the file alone."""
    model = build_backbone("resnet50v2", weights=str(real_data / RESNET_FILE))
    from skimage.data import chelsea

    features = keras.Model(model.input, model.get_layer("post").output)(chelsea()[None].astype(np.float32))
    means, stds = np.mean(features, axis=(0, 1, 2)), np.std(features, axis=(0, 1, 2))
    assert np.median(np.abs(means)) < 0.5  # raw: -0.12 where the standard deviation is 0.13
    assert 0.7 < np.median(stds) < 1.4


def test_the_estimated_norm_has_the_statistics_that_gaussians_have(monkeypatch):
    """Drawn: what the last block adds to its input, for pre-activations with the statistics that its norms keep."""
    monkeypatch.setattr(resnet50v2, "_GLUON_EPSILON", 0.0)
    arrays = random_resnet("")
    generator = np.random.default_rng(0)
    gamma, beta = arrays["stage3_batchnorm17_gamma"], arrays["stage3_batchnorm17_beta"]
    inside = np.maximum(generator.standard_normal((4000, 256)) * gamma + beta, 0)
    mean, variance = (arrays[f"stage3_batchnorm15_running_{kind}"] for kind in ("mean", "var"))
    block_input = generator.standard_normal((4000, 1024)) * np.sqrt(variance) + mean
    outputs = block_input + inside @ arrays["stage3_conv18_weight"][:, :, 0, 0].T.astype(np.float32)
    scale, offset = resnet50v2._estimate_norm(Arrays(arrays, "", "file", "here"))
    normalised = outputs * scale + offset
    np.testing.assert_allclose(normalised.mean(0), 0, atol=0.08)
    np.testing.assert_allclose(normalised.std(0), 1, atol=0.06)


def test_a_last_stage_in_the_file_gives_the_norm_and_any_prefix_is_read(tmp_path):
    arrays = random_resnet("resnetv20_", stage4=True)
    np.savez(tmp_path / "whole.npz", **arrays)
    model = build_backbone("resnet50v2", weights=str(tmp_path / "whole.npz"))
    image = random_image()
    x = reference_resnet50v2(arrays, image, "resnetv20_")["stage3_block6"]
    gamma, beta, mean, variance = (
        arrays[f"resnetv20_stage4_batchnorm0_{kind}"][:, None, None]
        for kind in ("gamma", "beta", "running_mean", "running_var")
    )
    expected = relu(gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta).transpose(1, 2, 0)
    np.testing.assert_allclose(np.asarray(model(image[None])[1])[0], expected, atol=1e-4 * expected.max())


def randomise(model):
    """Random statistics and biases, so that no term of a fold is 0 or 1."""
    generator = np.random.default_rng(4)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma = generator.normal(0.8, 0.4, layer.gamma.shape)
            beta, mean = (generator.normal(0, 0.4, gamma.shape) for _ in range(2))
            layer.set_weights([gamma, beta, mean, generator.uniform(0.5, 1.5, gamma.shape)])
        elif layer.weights and layer.use_bias:
            layer.bias.assign(generator.normal(0, 0.2, layer.bias.shape))
    return model


def pad_as_keras(model, sides):
    """The model with the zeros of keras.applications around its windows: the same weights, cells elsewhere."""

    def change(layer):
        config = layer.get_config()
        if isinstance(layer, keras.layers.ZeroPadding2D) and layer.name in sides:
            config["padding"] = sides[layer.name]
        return type(layer).from_config(config)

    clone = keras.models.clone_model(model, clone_function=change)
    clone.set_weights(model.get_weights())
    return clone


def application(name, monkeypatch):
    """keras.applications' network with random weights in place of the downloaded ones."""
    build = getattr(keras.applications, name)
    keras.utils.set_random_seed(5)
    network = randomise(build(weights=None, include_top=False, input_shape=(None, None, 3)))
    asked = []
    monkeypatch.setattr(keras.applications, name, lambda **arguments: asked.append(arguments) or network)
    return network, asked


def assert_parity(model, network, pairs):
    image = random_image(64, 96)[None]
    found = keras.Model(model.input, [model.get_layer(ours).output for ours in pairs])(image)
    expected = keras.Model(network.input, [network.get_layer(theirs).output for theirs in pairs.values()])(
        image / 127.5 - 1
    )
    for name, ours, theirs in zip(pairs, found, expected, strict=True):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        if ours.shape != theirs.shape:  # Keras halves the map at the end of the stage; every second cell stays
            ours = ours[:, ::2, ::2]
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * np.abs(theirs).max(), err_msg=name)


def test_imagenet_resnet_is_that_of_keras(monkeypatch):
    network, asked = application("ResNet50V2", monkeypatch)
    model = build_backbone("resnet50v2_keras", weights="imagenet")
    assert asked == [{"weights": "imagenet", "include_top": False, "input_shape": (224, 224, 3)}]
    model = pad_as_keras(model, {"stem_pad": 3, "stem_pool_pad": 1})
    pairs = {"stem": "conv1_conv", "stem_pool": "pool1_pool", "stage2_block4_preact_relu": "conv3_block4_preact_relu"}
    for stage, num_blocks in ((1, 3), (2, 4), (3, 6)):
        pairs |= {
            f"stage{stage}_block{block}": f"conv{stage + 1}_block{block}_out" for block in range(1, num_blocks + 1)
        }
    assert_parity(model, network, pairs | {"post_relu": "conv5_block1_preact_relu"})


def test_imagenet_mobilenet_is_that_of_keras(monkeypatch):
    network, asked = application("MobileNetV2", monkeypatch)
    model = build_backbone("mobilenetv2", weights="imagenet")
    assert asked == [{"weights": "imagenet", "include_top": False, "input_shape": (224, 224, 3)}]
    one_sided = ((0, 1), (0, 1))  # of even sizes
    model = pad_as_keras(model, dict.fromkeys(("stem_pad", "block1_pad", "block3_pad", "block6_pad"), one_sided))
    pairs = {"stem": "Conv1_relu", "block0_project": "expanded_conv_project_BN"}
    for block in range(1, 13):  # block 13 has the stride that ours lacks
        pairs |= {
            f"block{block}_{ours}": f"block_{block}_{theirs}"
            for ours, theirs in (("expand", "expand_relu"), ("depthwise", "depthwise_relu"), ("project", "project_BN"))
        }
    pairs["block13_expand"] = "block_13_expand_relu"
    assert_parity(model, network, pairs)


def test_the_prior_leaves_the_first_convolution_gaussian_and_its_pixels_scaled(resnet_path):
    rgb = build_backbone("resnet50v2", weights=str(resnet_path))
    model = build_backbone("resnet50v2", channels=4, weights=str(resnet_path))
    kernel, bias = model.get_layer("stem").get_weights()
    assert kernel.shape == (7, 7, 4, 64) and not bias.any()
    np.testing.assert_allclose([kernel.mean(), kernel.std()], [0, np.sqrt(2 / 196)], atol=2e-3)
    for name, weight, expected in zip(
        ("scale", "offset"), model.get_layer("pixels").get_weights(), rgb.get_layer("pixels").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(weight[:3], expected, err_msg=name)
    assert model.get_layer("pixels").get_weights()[0][3] == pytest.approx(255 / 57.12)
    assert model.get_layer("pixels").get_weights()[1][3] == 0
    for layer in ("stage1_block1_conv1", "stage3_block6_conv3", "post"):
        for weight, expected in zip(
            model.get_layer(layer).get_weights(), rgb.get_layer(layer).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize(
    ("backbone", "weights", "message"),
    [
        ("resnet50v2", "imagenet", 'set backbone to "resnet50v2_keras" for them, or weights to a file'),
        ("resnet50v2_keras", "file.npz", 'resnet50v2_keras must be "none" or "imagenet", found file.npz'),
        ("resnet50v2", "file.h5", "a file ending in .npz, found file.h5"),
        ("mobilenetv2", "file.pth", "a file ending in .npz, found file.pth"),
    ],
)
def test_weights_of_another_kind_are_refused(backbone, weights, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(backbone, weights=weights)


def test_missing_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected a weights file at .*none.npz, found none; check the path"):
        build_backbone("mobilenetv2", weights=str(tmp_path / "none.npz"))


@pytest.mark.parametrize("content", [b"", b"this is no weights file"])
def test_unreadable_file_is_told(tmp_path, content):
    (tmp_path / "broken.npz").write_bytes(content)
    with pytest.raises(ValueError, match="broken.npz cannot be read as a .npz weights file"):
        build_backbone("mobilenetv2", weights=str(tmp_path / "broken.npz"))


def test_pickled_objects_are_not_read(tmp_path):
    np.savez(tmp_path / "objects.npz", conv_0_weight=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="objects.npz cannot be read as a .npz weights file"):
        build_backbone("mobilenetv2", weights=str(tmp_path / "objects.npz"))


def test_failed_download_is_told(monkeypatch):
    def fail(**arguments):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications, "MobileNetV2", fail)
    with pytest.raises(ValueError, match="MobileNetV2 could not be downloaded .*URL fetch failure.*pass the path"):
        build_backbone("mobilenetv2", weights="imagenet")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("conv_4_weight", None, r"expected a kernel \(1, 1, 32, 16\) for block0_project, found \(1, 1, 16, 96\)"),
        ("conv_4_bias", None, "expected an array conv_4_bias, found none"),
        ("conv_4_bias", np.full(16, np.nan, np.float32), r"finite floats with 1 axes in conv_4_bias, found float32"),
        ("conv_4_bias", np.zeros(16, np.int64), r"finite floats with 1 axes in conv_4_bias, found int64 \(16,\)"),
        ("conv_4_bias", np.zeros(8, np.float32), r"expected a bias \(16,\) for block0_project, found \(8,\)"),
        ("conv_4_weight", np.zeros((16, 32), np.float32), r"floats with 4 axes in conv_4_weight, found float32 \(16"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, name, value, message):
    arrays = random_mobilenet()
    del arrays[name]
    if value is not None:
        arrays[name] = value
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        build_backbone("mobilenetv2", weights=str(tmp_path / "wrong.npz"))


def test_files_of_other_networks_are_refused(tmp_path, resnet_path, mobilenet_path):
    with pytest.raises(ValueError, match="expected 51 convolutions or more, conv_N_weight, found 0"):
        build_backbone("mobilenetv2", weights=str(resnet_path))
    with pytest.raises(ValueError, match="expected an array batchnorm0_gamma, found none; give a file with the names"):
        build_backbone("resnet50v2", weights=str(mobilenet_path))


@pytest.fixture(scope="module")
def resnet_arrays():
    return random_resnet("")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "stage3_conv19_weight",
            None,
            "file.npz: stage3_conv19_weight is of a bigger ResNet v2, such as ResNet-101",
        ),
        ("stage2_conv13_weight", None, "file.npz: stage2_conv13_weight is of a bigger ResNet v2"),
        (
            "batchnorm1_gamma",
            lambda a: a[:32],
            r"file.npz: batchnorm1: expected .* of 32 channels, found \(32,\), \(64",
        ),
        (
            "batchnorm1_beta",
            lambda a: a[:1],
            r"file.npz: batchnorm1: expected .* of 64 channels, found \(64,\), \(1,",
        ),
        (
            "batchnorm1",
            lambda a: a[:1],
            "file.npz: batchnorm1: expected a batch norm of the 64 channels .* one of 1;",
        ),
        ("batchnorm1", lambda a: a[:32], "file.npz: batchnorm1: expected a batch norm of the 64 channels .* one of 32"),
        ("batchnorm0", lambda a: a[:1], "file.npz: batchnorm0: expected a norm of R, G and B, found 1 channels"),
        (
            "stage1_conv1_weight",
            lambda a: a[:32],
            "file.npz: stage1_batchnorm2: expected a batch norm of the 32 chan",
        ),
        (
            "stage3_conv18_weight",
            lambda a: a[:, :9],
            r"expected a kernel \(1024, 256, 1, 1\) .* found \(1024, 9, 1, ",
        ),
        ("batchnorm1_running_var", lambda a: -a, "file.npz: batchnorm1: expected variances from 0 up, found -"),
        (
            "batchnorm1_beta",
            lambda a: a + 1e300,
            "file.npz: expected finite floats with 1 axes in batchnorm1_beta",
        ),
    ],
)
def test_gluon_arrays_that_do_not_fit_one_another_are_named(resnet_arrays, name, change, message):
    arrays = dict(resnet_arrays)
    if change is None:
        arrays[name] = np.zeros((1, 1, 1, 1), np.float32)
    else:
        for found in [key for key in arrays if key == name or key.startswith(f"{name}_")]:
            arrays[found] = change(arrays[found].astype(np.float64))
    with pytest.raises(ValueError, match=message):
        resnet50v2._fold_gluon(Arrays(arrays, "", "file.npz", "here"))
