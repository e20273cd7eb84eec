from __future__ import annotations

import ast
import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import msst_keras.model
from msst_keras.model.losses import joint_loss
from msst_keras.model.msst import VARIANTS, build_msst, get_parts
from msst_keras.model.recurrent import ConvLSTM2D, CropToFrame, UpsampleScales

# Keras 3.15 itself reads and saves weights by a call that NumPy 2.4 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
STREAMS = {"os": ["spatial"], "st": ["spatial", "temporal"], "msst": ["spatial", "temporal"]}


def build_small(variant="msst", **arguments):
    keras.utils.set_random_seed(3)
    return build_msst(variant, width=1 / 16, **arguments)


# For tests that leave the weights as they are.
small = functools.cache(build_small)


def clip(variant, size, batch=1, num_frames=4, seed=0):
    generator = np.random.default_rng(seed)
    frames = generator.uniform(0, 255, (batch, num_frames, *size, 3)).astype(np.float32)
    prior = generator.uniform(0, 1, (batch, num_frames, *size, 1)).astype(np.float32)
    return {"frames": frames} if variant == "os" else {"frames": frames, "prior": prior}


def predict(model, inputs):
    return {key: np.asarray(value) for key, value in model(inputs).items()}


def encode_each(encoder, inputs):
    steps = [encoder({key: value[:, t] for key, value in inputs.items()}) for t in range(inputs["frames"].shape[1])]
    return {key: np.stack([np.asarray(step[key]) for step in steps], axis=1) for key in ("middle", "last")}


def test_full_network_has_the_branches_and_fusions_of_the_paper():
    model = build_msst()
    encoder, fuser = get_parts(model)
    for stream, channels in (("spatial", 3), ("temporal", 4)):
        network = encoder.get_layer(stream)
        assert network.get_layer("block1_conv1").kernel.shape == (3, 3, channels, 64)
        for scale, depth in (("middle", 512), ("last", 1024)):
            assert encoder.get_layer(f"{stream}_{scale}_features").kernel.shape == (3, 3, depth, 128)
            assert encoder.get_layer(f"{stream}_{scale}_map").kernel.shape == (1, 1, 128, 1)
        assert fuser.get_layer(f"fuse_{stream}").kernel.shape == (1, 1, 2, 1)
    kernel, recurrent_kernel, _ = fuser.get_layer("conv_lstm").weights
    assert (kernel.shape, recurrent_kernel.shape) == ((3, 3, 4, 4 * 8), (3, 3, 8, 4 * 8))
    assert fuser.get_layer("recurrent_map").kernel.shape == (1, 1, 8, 1)
    assert model.count_params() == 44_511_857
    inputs = {key: value.shape for key, value in model.input.items()}
    assert inputs == {"frames": (None, 4, None, None, 3), "prior": (None, 4, None, None, 1)}
    assert {key: value.shape for key, value in model.output.items()} == dict.fromkeys(
        ("fused", "recurrent"), (None, None, None, 1)
    )


@pytest.mark.parametrize(("variant", "output_stride"), [("os", 16), ("st", 16), ("msst", 16), ("msst", 8)])
def test_encoding_each_frame_and_fusing_equals_the_model(variant, output_stride):
    model = small(variant, output_stride=output_stride)
    encoder, fuser = get_parts(model)
    for height, width in ((97, 131), (64, 48), (5, 33)):
        inputs = clip(variant, (height, width), batch=2)
        maps = encode_each(encoder, inputs)
        cells = [-(-side // output_stride) for side in (height, width)]
        assert {value.shape for value in maps.values()} == {(2, 4, *cells, len(STREAMS[variant]))}
        whole, fused = predict(model, inputs), predict(fuser, maps)
        assert sorted(whole) == sorted(fused) == (["fused", "recurrent"] if variant == "msst" else ["fused"])
        for key, value in whole.items():
            assert value.shape == (2, height, width, 1) and value.dtype == np.float32
            assert np.ptp(value) > 1e-5
            assert fused[key].shape[1:3] == tuple(cell * output_stride for cell in cells)
            np.testing.assert_allclose(value, fused[key][:, :height, :width], atol=1e-6)


def test_a_frame_is_encoded_without_regard_to_its_clip():
    """The maps the whole model fuses, seen by a probe in front of its fuser."""
    model = small("msst")
    encoder, _ = get_parts(model)
    inputs = clip("msst", (40, 56))
    other = {key: value.copy() for key, value in inputs.items()}
    for value in other.values():
        value[:, [0, 1, 3]] = value[:, [0, 1, 3]][..., ::-1, :] * 0.5
    probe = keras.Model(model.input, {scale: model.get_layer(scale).output for scale in ("middle", "last")})
    first, second, alone = predict(probe, inputs), predict(probe, other), encode_each(encoder, inputs)
    for scale in ("middle", "last"):
        np.testing.assert_allclose(first[scale], alone[scale], atol=1e-6)
        np.testing.assert_allclose(first[scale][:, 2], second[scale][:, 2], atol=1e-6)
        assert np.abs(first[scale][:, 3] - second[scale][:, 3]).max() > 1e-4


@pytest.mark.parametrize("variant", ["os", "st"])
def test_os_and_st_see_the_last_frame_alone(variant):
    model = small(variant)
    inputs = clip(variant, (40, 56))
    expected = predict(model, inputs)["fused"]
    last = predict(model, {key: value[:, -1:] for key, value in inputs.items()})["fused"]
    np.testing.assert_allclose(last, expected, atol=1e-6)
    first = predict(model, {key: value[:, :1] for key, value in inputs.items()})["fused"]
    assert np.abs(first - expected).max() > 1e-3


def test_msst_sees_earlier_frames_through_the_recurrent_map_alone():
    model = small("msst")
    inputs = clip("msst", (40, 56))
    other = {key: np.concatenate([value[:, 1:2], value[:, 1:]], axis=1) for key, value in inputs.items()}
    whole, changed = predict(model, inputs), predict(model, other)
    assert np.abs(whole["recurrent"] - changed["recurrent"]).max() > 1e-5
    np.testing.assert_allclose(whole["fused"] - changed["fused"], whole["recurrent"] - changed["recurrent"], atol=1e-6)


def test_the_prior_reaches_the_temporal_map_alone():
    encoder, _ = get_parts(small("st"))
    inputs = {key: value[:, 0] for key, value in clip("st", (40, 56)).items()}
    first, second = encoder(inputs), encoder(inputs | {"prior": 1 - inputs["prior"]})
    for scale in ("middle", "last"):
        difference = np.abs(np.asarray(first[scale]) - np.asarray(second[scale])).max(axis=(0, 1, 2))
        assert difference[0] == 0 and difference[1] > 1e-5


def test_first_convolution_of_the_temporal_stream_has_the_std_asked_for():
    encoder, _ = get_parts(build_small("st", first_convolution_std=0.01))
    kernels = [np.std(encoder.get_layer(stream).get_layer("block1_conv1").kernel) for stream in STREAMS["st"]]
    np.testing.assert_allclose(kernels, [np.sqrt(2 / 27), 0.01], rtol=0.25)


def test_fused_map_is_eq_5():
    fuser = get_parts(build_small())[1]
    weights = {"fuse_spatial": [1.0, 10.0], "fuse_temporal": [100.0, 1000.0]}
    for name, values in weights.items():
        fuser.get_layer(name).set_weights([np.reshape(values, (1, 1, 2, 1))])
    maps = {
        "middle": np.broadcast_to(np.array([0.5, 0.25], np.float32), (1, 4, 2, 3, 2)),
        "last": np.broadcast_to(np.array([0.125, 2.0], np.float32), (1, 4, 2, 3, 2)),
    }
    outputs = predict(fuser, maps)
    expected = 1 * 0.5 + 10 * 0.125 + 100 * 0.25 + 1000 * 2
    np.testing.assert_allclose(outputs["fused"] - outputs["recurrent"], np.full((1, 32, 48, 1), expected), rtol=1e-5)


def test_a_larger_kernel_reaches_farther_into_the_past():
    """A point of the first frame of four: by one pixel a step with a kernel of 3, by three with 7."""
    frames = np.random.default_rng(0).uniform(0, 255, (1, 4, 32, 48, 3)).astype(np.float32)
    priors = np.zeros((1, 4, 32, 48, 1), np.float32)
    for size in (3, 7):
        model = build_small(lstm_filters=2, lstm_kernel_size=size, output_stride=8)
        assert model.get_layer("fuser").get_layer("conv_lstm").cell.kernel.shape == (size, size, 4, 8)
        layer = model.get_layer("fuser").get_layer("conv_lstm")
        maps = np.random.default_rng(1).normal(size=(1, 4, 31, 31, 4)).astype(np.float32)
        moved = maps.copy()
        moved[0, 0, 15, 15] += 3
        changed = np.abs(np.asarray(layer(moved)) - np.asarray(layer(maps))).max(axis=(0, 3)) > 0
        rows = np.flatnonzero(changed.any(axis=1))
        assert (rows.min(), rows.max()) == (15 - 4 * (size // 2), 15 + 4 * (size // 2))
    assert np.isfinite(np.asarray(model({"frames": frames, "prior": priors})["fused"])).all()


def test_training_starts_from_the_mean_of_the_maps():
    fuser = get_parts(small("st"))[1]
    maps = {"middle": np.full((1, 1, 2, 3, 2), 3, np.float32), "last": np.full((1, 1, 2, 3, 2), 5, np.float32)}
    np.testing.assert_allclose(predict(fuser, maps)["fused"], np.full((1, 32, 48, 1), 4 + 4))


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_reach_every_weight(variant):
    tf = pytest.importorskip("tensorflow")
    model = small(variant)
    inputs = clip(variant, (64, 80), batch=2)
    labels = np.random.default_rng(1).uniform(size=(2, 64, 80, 1)) > 0.7
    with tf.GradientTape() as tape:
        loss = joint_loss(model(inputs), labels)["loss"]
    gradients = tape.gradient(loss, model.trainable_variables)
    silent = [
        variable.path
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
        if gradient is None or not np.any(gradient)
    ]
    assert len(gradients) > 30 and silent == []


def test_maps_lie_where_their_cells_lie_up_to_the_far_edge():
    """Cells that hold the pixel coordinate of their centre give, upsampled, each pixel its own coordinate.

    321 pixels are 21 cells of 16; a resize of the 21 to 321 would give pixel 320 the value 327.5.
    """
    fuser = get_parts(build_small("os"))[1]
    fuser.get_layer("fuse_spatial").set_weights([np.reshape([1.0, 0.0], (1, 1, 2, 1))])
    centres = np.arange(21, dtype=np.float32) * 16 + 7.5
    ramp = np.broadcast_to(centres[None, None, None, :, None], (1, 1, 21, 21, 1))
    pixels = np.arange(8, 321)
    for axis, maps in ((2, ramp), (1, ramp.swapaxes(2, 3))):
        fused = predict(fuser, {"middle": maps, "last": np.zeros_like(maps)})["fused"]
        assert fused.shape == (1, 336, 336, 1)
        row = np.moveaxis(fused[0, ..., 0], axis - 1, 0)
        np.testing.assert_allclose(row[8:321], np.broadcast_to(pixels[:, None], (313, 336)), atol=1e-3)
        np.testing.assert_allclose(row[:8], 7.5)
    cropped = CropToFrame()([fused, np.zeros((1, 4, 321, 123, 3))])
    np.testing.assert_array_equal(np.asarray(cropped), fused[:, :321, :123])


def test_scales_of_two_strides_are_upsampled_to_the_finer_grid_in_the_order_of_eq_2():
    """Frame 24 x 8: three cells of stride 8, two of stride 16 that reach beyond them."""
    fine = np.arange(6, dtype=np.float32).reshape(1, 3, 1, 2)
    coarse = np.arange(4, dtype=np.float32).reshape(1, 2, 1, 2) + 100
    maps = np.asarray(UpsampleScales((8, 16))([fine, coarse]))
    assert maps.shape == (1, 24, 8, 4)
    np.testing.assert_allclose(maps[0, 0, 0], [0, 100, 1, 101])  # first stream: both scales, then the second
    # pixel 20: row (20 + .5) / 8 - .5 = 2.0625 of the fine cells (beyond the last), .78125 of the coarse ones
    np.testing.assert_allclose(maps[0, 20, 7], [4, 101.5625, 5, 102.5625])


@pytest.mark.parametrize("variant", VARIANTS)
def test_stored_weights_make_a_rebuilt_model_the_same(variant, tmp_path):
    model = small(variant)
    model.save_weights(tmp_path / "model.weights.h5")
    rebuilt = build_msst(variant, width=1 / 16)
    assert any(
        np.any(weight != other) for weight, other in zip(model.get_weights(), rebuilt.get_weights(), strict=True)
    )
    rebuilt.load_weights(tmp_path / "model.weights.h5")
    for weight, same in zip(model.get_weights(), rebuilt.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, same)
    inputs = clip(variant, (40, 56))
    encoder, fuser = get_parts(rebuilt)
    fused = predict(fuser, encode_each(encoder, inputs))
    for key, value in predict(model, inputs).items():
        np.testing.assert_allclose(fused[key][:, :40, :56], value, atol=1e-6)


def test_stored_model_reloads_whole(tmp_path):
    model = small("msst")
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")
    inputs = clip("msst", (40, 56))
    encoder, fuser = get_parts(reloaded)
    outputs, fused = predict(reloaded, inputs), predict(fuser, encode_each(encoder, inputs))
    for key, value in predict(model, inputs).items():
        np.testing.assert_allclose(outputs[key], value, atol=1e-6)
        np.testing.assert_allclose(fused[key][:, :40, :56], value, atol=1e-6)


def test_mixed_precision_gives_float32_close_to_float32():
    model = small("msst")
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = build_small()
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    mixed.set_weights(model.get_weights())
    encoder, fuser = get_parts(mixed)
    assert encoder.get_layer("spatial_last_features").compute_dtype == "bfloat16"
    assert fuser.get_layer("conv_lstm").compute_dtype == "bfloat16"
    maps = [f"{stream}_{scale}_map" for stream in STREAMS["msst"] for scale in ("middle", "last")]
    assert {encoder.get_layer(name).compute_dtype for name in maps} == {"float32"}
    names = ("upsample", "fuse_spatial", "fuse_temporal", "recurrent_map", "sum")
    assert {fuser.get_layer(name).compute_dtype for name in names} == {"float32"}
    inputs = clip("msst", (40, 56))
    expected = predict(model, inputs)
    for key, value in predict(mixed, inputs).items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, expected[key], atol=0.05 * np.abs(expected[key]).max())
    assert all(value.dtype == np.float32 for value in encode_each(encoder, inputs).values())


@pytest.mark.parametrize("variant", ["os", "msst"])
def test_one_graph_takes_any_size(variant):
    tf = pytest.importorskip("tensorflow")
    model = small(variant)
    channels = {"frames": 3, "prior": 1}
    specs = {key: tf.TensorSpec((None, 4, None, None, channels[key])) for key in clip(variant, (1, 1))}
    graph = tf.function(model, input_signature=[specs])
    for size in ((97, 131), (64, 48)):
        inputs = clip(variant, size, batch=2)
        expected = predict(model, inputs)
        for key, value in graph({key: tf.constant(value) for key, value in inputs.items()}).items():
            assert value.shape == (2, *size, 1)
            np.testing.assert_allclose(np.asarray(value), expected[key], atol=1e-5)


def test_exported_fuser_takes_any_size(tmp_path):
    tf = pytest.importorskip("tensorflow")
    fuser = get_parts(small("msst"))[1]
    fuser.export(tmp_path / "fuser", verbose=False)
    reloaded = tf.saved_model.load(tmp_path / "fuser")
    for size in ((3, 5), (4, 2)):
        maps = np.random.default_rng(5).normal(size=(2, 2, 4, *size, 2)).astype(np.float32)
        inputs = {"middle": maps[0], "last": maps[1]}
        expected = predict(fuser, inputs)
        outputs = reloaded.serve({key: tf.constant(value) for key, value in inputs.items()})
        assert sorted(outputs) == ["fused", "recurrent"]
        for key, value in outputs.items():
            np.testing.assert_allclose(np.asarray(value), expected[key], atol=1e-5)


def test_conv_lstm_equals_that_of_keras_at_every_size():
    layer = ConvLSTM2D(5, 3)
    for size in ((6, 7), (9, 4)):
        sequence = np.random.default_rng(4).normal(size=(2, 3, *size, 2)).astype(np.float32)
        found = np.asarray(layer(sequence))
        reference = keras.layers.ConvLSTM2D(5, 3, padding="same")
        reference.build(sequence.shape)
        reference.set_weights(layer.get_weights())
        np.testing.assert_allclose(found, np.asarray(reference(sequence)), atol=1e-6)
    assert keras.Sequential([keras.Input((3, None, None, 2)), layer]).output_shape == (None, None, None, 5)


@pytest.mark.parametrize("num_frames", [1, 3])
def test_conv_lstm_learns_as_that_of_keras_does(num_frames):
    tf = pytest.importorskip("tensorflow")
    sequence = tf.constant(np.random.default_rng(6).normal(size=(2, num_frames, 6, 7, 2)), tf.float32)
    reference, layer = keras.layers.ConvLSTM2D(5, 3, padding="same"), ConvLSTM2D(5, 3)
    reference.build(sequence.shape)
    layer.build(sequence.shape)
    layer.set_weights(reference.get_weights())
    gradients = []
    for each in (layer, reference):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sin(3 * each(sequence, training=True)))
        gradients.append(tape.gradient(loss, [weight.value for weight in each.trainable_weights]))
    for found, expected in zip(*gradients, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max() + 1e-6)
    assert all(np.abs(gradient).max() > 0.1 for gradient in gradients[0][::2])  # of the kernel and the biases


def test_conv_lstm_reloads_from_its_configuration():
    layer = ConvLSTM2D(5, 3, name="memory", dtype="mixed_bfloat16")
    config = keras.saving.serialize_keras_object(layer)
    assert config["registered_name"] == "msst_keras>ConvLSTM2D"
    copy = keras.saving.deserialize_keras_object(config)
    assert (copy.filters, copy.kernel_size, copy.name, copy.compute_dtype) == (5, (3, 3), "memory", "bfloat16")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": 0, "kernel_size": 3}, "filters of ConvLSTM2D must be a positive whole number, found 0"),
        ({"filters": 2.5, "kernel_size": 3}, "filters of ConvLSTM2D must be a positive whole number, found 2.5"),
        ({"filters": 2, "kernel_size": 0}, "kernel_size of ConvLSTM2D must be a positive whole number, found 0"),
        ({"filters": 2, "kernel_size": 4}, "kernel_size of ConvLSTM2D must be odd, found 4"),
        ({"filters": 2, "kernel_size": 3, "dropout": 7.0}, "name, dtype and trainable alone, found dropout"),
    ],
)
def test_wrong_conv_lstm_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConvLSTM2D(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "ts"}, "variant must be one of os, st, msst, found 'ts'"),
        ({"num_frames": 0}, "num_frames must be a positive whole number, found 0"),
        ({"num_frames": 4.0}, "num_frames must be a positive whole number, found 4.0"),
        ({"backbone": "vgg19"}, "backbone must be one of vgg16, .* found 'vgg19'"),
        ({"output_stride": 4}, "output_stride must be one of .* found 4"),
        ({"width": -1}, "width must be a positive number.* found -1"),
        ({"lstm_filters": 0, "width": 1 / 16}, "filters of ConvLSTM2D must be a positive whole number"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_msst(**arguments)


def test_the_model_package_names_no_backend():
    backends = {"tensorflow", "jax", "torch"}
    for path in Path(msst_keras.model.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not backends & {name.split(".")[0] for name in names}, f"{path.name} line {node.lineno}"


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_the_network_runs_under_jax_without_tensorflow():
    program = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import numpy as np
from msst_keras.model.losses import joint_loss
from msst_keras.model.msst import build_msst
model = build_msst(width=1 / 16)
frames = np.random.default_rng(0).uniform(0, 255, (1, 4, 40, 56, 3)).astype("float32")
outputs = model({"frames": frames, "prior": frames[..., :1] / 255})
assert outputs["fused"].shape == (1, 40, 56, 1)
loss = joint_loss(outputs, frames[:, -1, ..., :1] > 200)["loss"]
assert 1e-3 < float(loss) < 2
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


def test_flow_reaches_the_temporal_stream_as_an_image_of_0_to_255():
    encoder = get_parts(build_small("st", motion_input="flow"))[0]
    seen = keras.Model(encoder.input, encoder.get_layer("motion_image").output)
    frames, flow = np.zeros((1, 2, 2, 3), np.float32), np.linspace(0, 1, 12, dtype=np.float32).reshape(1, 2, 2, 3)
    np.testing.assert_allclose(np.asarray(seen({"frames": frames, "prior": flow})), 255 * flow, rtol=1e-6)
