"""Each backbone from training to the exported stream: what holds for VGG16 holds for networks with two strides."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from msst_keras.inference.stream import SaliencyModel, stream_maps
from msst_keras.model.backbones import BACKBONES, output_strides
from msst_keras.model.msst import build_msst, get_parts
from msst_keras.motion.flow import FlowEstimator, FlowSettings
from msst_keras.motion.prior import MotionPrior
from msst_keras.motion.prior_files import load_prior
from msst_keras.motion.superpixels import SuperpixelSettings, segment
from msst_keras.serving.export import export_saved_model
from msst_keras.training import checkpoints, loop
from msst_keras.training import run_dir as run
from msst_keras.training.options import OptimizerOptions, TrainingOptions

LIGHT = [name for name in BACKBONES if name != "vgg16"]
FLOW = FlowSettings(motion_size=(32, 48))
SUPERPIXELS = SuperpixelSettings(num_levels=2, max_regions=32)
IMAGE_SIZE = (49, 64)


def settings_of(backbone, variant="msst"):
    return {"variant": variant, "backbone": backbone, "num_frames": 2, "width": 0.0625, "output_stride": 16}


def batches(num_steps):
    """Bright squares, which the prior shows too."""

    def make(step):
        mask = np.zeros((1, 64, 64, 1), "float32")
        mask[:, 16:48, 16 * (step % 3) : 16 * (step % 3) + 32] = 1
        noise = np.random.default_rng(step).uniform(0, 50, (1, 2, 64, 64, 3)).astype("float32")
        prior = np.repeat(mask[:, None], 2, axis=1)
        return {"frames": noise + 200 * mask[:, None], "prior": prior, "mask": mask, "clip": np.array([0])}

    return lambda first: ({k: tf.constant(v) for k, v in make(step).items()} for step in range(first, num_steps))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", LIGHT)
def test_a_run_learns_keeps_its_backbone_and_gives_its_weights_on(backbone, tmp_path):
    run.write_run(tmp_path, {"model": settings_of(backbone), "motion": None, "image_size": [64, 64]})
    keras.utils.set_random_seed(0)
    model = build_msst(**settings_of(backbone))
    pixels = [weight.numpy() for weight in model.weights if "pixels" in weight.path]
    options = TrainingOptions(steps=12, optimizer=OptimizerOptions(5e-3), checkpoint_every=12)
    loop.train(model, batches(12), ("a",), tmp_path, options)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    loaded = checkpoints.load_model(tmp_path)
    for expected, found in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(expected, found)
    for expected, found in zip(pixels, (w for w in model.weights if "pixels" in w.path), strict=True):
        np.testing.assert_array_equal(expected, found)
    spatial = build_msst(**settings_of(backbone, "os"))
    copied = run.transfer_weights(loaded, spatial)
    assert copied == len(spatial.weights)
    assert output_strides(backbone) == (8, 16)


@pytest.mark.parametrize("backbone", LIGHT)
def test_encoding_each_frame_and_fusing_equals_the_model(backbone):
    keras.utils.set_random_seed(3)
    model = build_msst(**settings_of(backbone))
    encoder, fuser = get_parts(model)
    for height, width in ((97, 131), (64, 48), (5, 33)):
        generator = np.random.default_rng(0)
        frames = generator.uniform(0, 255, (1, 2, height, width, 3)).astype(np.float32)
        inputs = {"frames": frames, "prior": frames[..., :1] / 255}
        steps = [encoder({key: value[:, step] for key, value in inputs.items()}) for step in (0, 1)]
        maps = {scale: np.stack([np.asarray(step[scale]) for step in steps], axis=1) for scale in ("middle", "last")}
        for scale, stride in zip(("middle", "last"), (8, 16), strict=True):
            assert maps[scale].shape[2:4] == (-(-height // stride), -(-width // stride))
        whole, fused = model(inputs), fuser(maps)
        for key, value in whole.items():
            assert value.shape == (1, height, width, 1) and np.ptp(value) > 1e-5
            np.testing.assert_allclose(value, fused[key][:, :height, :width], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", LIGHT)
def test_the_exported_stream_gives_the_maps_of_model_and_prior(backbone, tmp_path):
    keras.utils.set_random_seed(0)
    model = build_msst(**settings_of(backbone))
    generator = np.random.default_rng(1)
    for weight in model.trainable_weights:  # so that a map's pixels differ by more than rounding
        if weight.path.endswith(("_map/kernel", "recurrent_map/kernel")):
            weight.assign(generator.normal(size=weight.shape))
    made = MotionPrior(FLOW, SUPERPIXELS, backbone=backbone, width=0.0625)
    made.save(tmp_path / "prior.keras")
    prior = load_prior(tmp_path / "prior.keras")
    motion = {"flow": FLOW.to_dict(), "superpixels": SUPERPIXELS.to_dict(), "prior": {"kind": "network"}}
    asset = {"num_frames": 2, "image_size": IMAGE_SIZE, "motion": motion}
    export_saved_model(tmp_path / "net" / "1", model, prior, asset)

    frames = generator.integers(0, 256, (3, 40, 70, 3), np.uint8)
    frames[1:, :, 2:] = frames[:-1, :, :-2]
    streamed = [
        saliency for *_, saliency in stream_maps(SaliencyModel(tmp_path / "net" / "1"), zip("abc", frames, strict=True))
    ]
    flows = np.stack(list(FlowEstimator(FLOW).flows(frames)))
    inputs = {"flow": flows, "superpixels": np.stack([segment(flow, SUPERPIXELS) for flow in flows])}
    if getattr(prior, "needs_frames", False):
        inputs["frame"] = frames
    np.testing.assert_array_equal(made(inputs), prior(inputs))
    resized = [
        keras.ops.image.resize(np.asarray(value, "float32"), IMAGE_SIZE, antialias=True)
        for value in (frames, made(inputs))
    ]
    for index, found in enumerate(streamed):
        window = [max(index - 1, 0), index]
        clip = dict(zip(("frames", "prior"), (tf.gather(value, window)[None] for value in resized), strict=True))
        expected = tf.image.resize(tf.sigmoid(model(clip)["fused"]), (40, 70), antialias=True).numpy()[0, :, :, 0]
        assert np.ptp(expected) > 1e-3
        np.testing.assert_allclose(found, expected, atol=2e-5)
