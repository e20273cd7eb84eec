"""The light network: its parts give the whole, folding changes nothing, memory begins as none, bad arguments."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from msst_keras.model.losses import SIDES, joint_loss
from msst_keras.model.msst import build_msst, fold_model, get_parts, get_serving_parts

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
    ],
)
def test_what_does_not_go_together_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_msst("st", **{"width": 0.0625} | arguments)
