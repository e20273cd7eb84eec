"""The light network: its parts give the whole, folding changes nothing, memory begins as none, bad arguments."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from msst_keras.model import topdown
from msst_keras.model.losses import SIDES, joint_loss
from msst_keras.model.msst import build_msst, fold_model, get_parts, get_serving_parts

# Keras 3.15 itself reads and saves weights by a call that NumPy 2.4 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
LIGHT = {
    "backbone": "efficientnet_lite0",
    "width": 0.125,
    "motion_input": "flow",
    "decoder": "topdown",
    "fusion": "gated",
}


@pytest.fixture(autouse=True)
def same_weights_each_time():
    keras.utils.set_random_seed(3)


def make_clip(num_frames, seed=0):
    generator = np.random.default_rng(seed)
    frames = generator.uniform(0, 255, (2, num_frames, 64, 96, 3)).astype(np.float32)
    return {"frames": frames, "prior": generator.uniform(0, 1, (2, num_frames, 64, 96, 3)).astype(np.float32)}


def stir(model):
    """Weights under which every part of the network counts."""
    generator = np.random.default_rng(1)
    for weight in model.weights:
        if "_map/" in weight.path or "remembered" in weight.path:
            weight.assign(generator.normal(0, 0.3, weight.shape))


def test_encoding_each_frame_once_gives_the_whole_models_map():
    model = build_msst("msst", num_frames=3, **LIGHT)
    stir(model)
    clip = make_clip(3)
    encoder, fuser = get_serving_parts(model)
    steps = [encoder({name: value[:, index] for name, value in clip.items()}) for index in range(3)]
    windows = {name for name, value in fuser.input.items() if len(value.shape) == 5}
    assert windows == {"memory"} and "temporal" not in fuser.input  # a past frame leaves the ConvLSTM's input alone
    assert fuser.input["memory"].shape[-1] * 2 == fuser.input["stride16"].shape[-1]
    maps = {
        name: keras.ops.stack([step[name] for step in steps], axis=1) if name in windows else steps[-1][name]
        for name in fuser.input
    }
    expected = np.asarray(model(clip)["fused"])
    np.testing.assert_allclose(np.asarray(fuser(maps)["fused"]), expected, atol=1e-5 * np.abs(expected).max())
    assert expected.shape == (2, 64, 96, 1)
    other = dict(clip, frames=clip["frames"].copy())
    other["frames"][:, 0] = 0
    assert np.abs(np.asarray(model(other)["fused"]) - expected).max() > 1e-4  # the past counts


def test_a_model_whose_parts_were_taken_is_saved_whole(tmp_path):
    model = build_msst("msst", num_frames=2, **LIGHT)
    stir(model)
    get_serving_parts(model)
    encoder, fuser = get_serving_parts(model, logit_shift=1.0)
    assert {id(weight) for weight in fuser.weights} <= {id(weight) for weight in model.weights}
    model.save(tmp_path / "model.keras")
    clip, loaded = make_clip(2), keras.saving.load_model(tmp_path / "model.keras")
    expected = np.asarray(model(clip)["fused"])
    np.testing.assert_allclose(np.asarray(loaded(clip)["fused"]), expected, atol=1e-5 * np.abs(expected).max())
    steps = [encoder({name: value[:, index] for name, value in clip.items()}) for index in range(2)]
    maps = {name: steps[-1][name] for name in fuser.input}
    maps["memory"] = keras.ops.stack([step["memory"] for step in steps], axis=1)
    found = np.asarray(fuser(maps)["fused"]) - 1
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_memory_begins_as_none_so_that_training_can_go_on_from_a_network_without():
    still, moving = build_msst("st", **LIGHT), build_msst("msst", num_frames=2, **LIGHT)
    from msst_keras.training.run_dir import transfer_weights

    transfer_weights(still, moving)
    clip = make_clip(2)
    expected = np.asarray(still(clip)["fused"])
    np.testing.assert_allclose(np.asarray(moving(clip)["fused"]), expected, atol=1e-6)
    assert np.std(expected) > 0


def test_folded_norms_give_the_same_map():
    model = build_msst("st", **LIGHT)
    stir(model)
    for _ in range(3):
        model(make_clip(1), training=True)  # statistics other than 0 and 1
    folded = fold_model(model, LIGHT | {"variant": "st"})
    names = [layer.name for layer in folded._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    expected, found = (np.asarray(network(make_clip(1))["fused"]) for network in (model, folded))
    assert not names and folded is not model
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert fold_model(folded, LIGHT | {"variant": "st"}) is folded


def test_every_side_output_is_in_the_loss():
    model = build_msst("st", **LIGHT)
    outputs = {name: np.asarray(value) for name, value in model(make_clip(1)).items()}
    assert set(outputs) == {"fused", *SIDES}
    labels = np.zeros((2, 64, 96, 1), np.float32)
    labels[:, :32] = 1
    alone = joint_loss({"fused": outputs["fused"]}, labels)
    whole = joint_loss(outputs, labels, side_weight=0.5)
    assert "loss_sides" not in alone
    np.testing.assert_allclose(float(whole["loss"]), float(alone["loss"]) + 0.5 * float(whole["loss_sides"]), rtol=1e-6)
    # Logits of 0 lose log 2 / 2 a pixel under balance, of which the four sides have one each.
    zeros = {name: np.zeros_like(value) for name, value in outputs.items()}
    np.testing.assert_allclose(float(joint_loss(zeros, labels)["loss_sides"]), 4 * 0.5 * np.log(2), rtol=1e-5)


def test_a_spatial_stream_alone_takes_no_motion():
    model = build_msst("os", **LIGHT)
    assert set(model.input) == {"frames"} and "temporal" not in model.output
    assert "temporal" not in {layer.name for layer in get_parts(model)[0].layers}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"decoder": "topdown"}, "needs a backbone that is a pyramid"),
        ({"fusion": "gated"}, 'The decoder "branches" fuses by Eq. 5'),
        ({"motion_input": "rgb"}, "motion_input must be one of prior, flow, found 'rgb'"),
        ({"motion_backbone": "mobilenetv2"}, "The streams' maps must lie on one grid"),
        ({"motion_backbone": "vgg", "variant": "os"}, "motion_backbone must be one of vgg16, .*, found 'vgg'"),
        ({"batch_norm": "thawed"}, "batch_norm must be one of trained, frozen, folded, found 'thawed'"),
        ({"frozen_stride": 4}, "frozen_stride=4 is of the decoder topdown; branches trains every layer"),
        (LIGHT | {"output_stride": 8}, "output_stride=8 is of the decoder branches; topdown has every stride"),
        (LIGHT | {"lstm_kernel_size": 4}, "are of the decoder branches; that of topdown has its own ConvLSTM"),
        (LIGHT | {"frozen_stride": 5}, "frozen_stride must be one of 0, 4, 8, 16, 32, not 5"),
        (LIGHT | {"first_convolution_std": 0.1}, "first_convolution_std is of the decoder branches"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_msst(**{"variant": "st", "width": 0.0625} | arguments)


def test_a_gate_is_by_hand():
    """spatial * sigmoid(1x1 convolution of both) + temporal, at one pixel of two channels."""
    spatial, temporal = keras.Input((1, 1, 2)), keras.Input((1, 1, 2))
    model = keras.Model([spatial, temporal], topdown._fuse(spatial, temporal, "gated", 8, 2, "folded"))
    kernel, bias = np.random.default_rng(0).normal(size=(4, 2)), np.array([0.5, -0.25])
    model.get_layer("gate8").set_weights([kernel[None, None], bias])
    seen, moving = np.array([2.0, -3.0]), np.array([-1.0, 5.0])
    gate = 1 / (1 + np.exp(-(np.concatenate([seen, moving]) @ kernel + bias)))
    found = model([seen.reshape(1, 1, 1, 2).astype(np.float32), moving.reshape(1, 1, 1, 2).astype(np.float32)])
    np.testing.assert_allclose(np.ravel(found), seen * gate + moving, rtol=1e-5)


def test_the_whole_image_is_added_to_the_coarsest_level():
    encoder = get_parts(build_msst("os", **LIGHT))[0]
    context = encoder.get_layer("context")
    level, whole = context.input
    found = keras.Model(encoder.input, {"level": level, "whole": whole, "sum": context.output})(
        {"frames": make_clip(1)["frames"][:, 0]}
    )
    found = {name: np.asarray(value) for name, value in found.items()}
    kernel, bias = encoder.get_layer("whole_features").get_weights()
    whole = found["level"].mean(axis=(1, 2), keepdims=True) @ kernel[0, 0] + bias
    assert found["level"].shape[1:3] == (2, 3) and np.std(whole) > 1e-3
    np.testing.assert_allclose(found["whole"], whole, atol=1e-5)
    np.testing.assert_allclose(found["sum"], found["level"] + whole, atol=1e-5)
