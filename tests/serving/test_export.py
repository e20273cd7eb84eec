"""The SavedModel gives what the live model gives; streamed frames give what whole clips give."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from msst_keras.inference.stream import SaliencyModel, SaliencyStream, stream_maps
from msst_keras.model.msst import build_msst
from msst_keras.motion.flow import FlowEstimator, FlowSettings
from msst_keras.motion.prior import MagnitudePrior, MotionPrior
from msst_keras.motion.superpixels import SuperpixelSettings, segment
from msst_keras.serving.export import export_saved_model

NUM_FRAMES = 3
IMAGE_SIZE = (49, 64)
FLOW = FlowSettings(motion_size=(32, 48))
SUPERPIXELS = SuperpixelSettings(num_levels=2, max_regions=32)


def make_frames(num_frames=6, size=(40, 70)):
    """A textured square that moves over noise."""
    generator = np.random.default_rng(0)
    background = generator.integers(0, 256, (*size, 3), np.uint8)
    square = generator.integers(0, 256, (16, 16, 3), np.uint8)
    frames = np.repeat(background[None], num_frames, axis=0)
    for index, frame in enumerate(frames):
        frame[10:26, 10 + 3 * index : 26 + 3 * index] = square
    return frames


def lively(model):
    """Weights large enough that a map's pixels differ by more than rounding."""
    generator = np.random.default_rng(1)
    for weight in model.trainable_weights:
        if weight.path.endswith(("_map/kernel", "recurrent_map/kernel")):
            weight.assign(generator.normal(size=weight.shape))
    return model


def make_prior(kind):
    if kind == "network":
        keras.utils.set_random_seed(0)
        return MotionPrior(FLOW, SUPERPIXELS, width=0.0625, camera="median")
    return MagnitudePrior() if kind == "magnitude" else None


def make_settings(kind):
    motion = None
    if kind != "none":
        superpixels = SUPERPIXELS.to_dict() if kind.startswith("network") else None
        motion = {"flow": FLOW.to_dict(), "superpixels": superpixels, "prior": {"kind": kind.split()[0]}}
    return {"num_frames": NUM_FRAMES, "image_size": IMAGE_SIZE, "motion": motion}


@pytest.fixture(scope="module", params=["network", "network with frames", "magnitude", "none"])
def exported(request, tmp_path_factory, export_once, write_log):
    """The path of an export, the model and the prior."""
    if request.param == "network with frames":
        folder, model, prior = export_once("paper")
        return folder / "1", model, prior
    keras.utils.set_random_seed(0)
    variant = "os" if request.param == "none" else "msst"
    model = lively(build_msst(variant, num_frames=NUM_FRAMES, width=0.0625))
    prior = make_prior(request.param)
    folder = tmp_path_factory.mktemp("models") / "net"
    with write_log(folder.with_suffix(".log")):
        export_saved_model(folder / "1", model, prior, make_settings(request.param))
    return folder / "1", model, prior


@pytest.fixture(scope="module")
def loaded(exported):
    return SaliencyModel(exported[0].parent)  # the newest version


def test_tensorflow_has_no_complaint(exported):
    assert exported[0].parent.with_suffix(".log").read_text() == ""  # for example of what AutoGraph cannot transform


def expected_maps(frames, model, prior):
    """The map of every frame by the live model on a window of resized frames: no encode, no fuse, no SavedModel."""
    inputs = {"frames": keras.ops.image.resize(frames.astype("float32"), IMAGE_SIZE, antialias=True)}
    if prior is not None:
        flows = np.stack(list(FlowEstimator(FLOW).flows(frames)))
        motion = {"flow": flows}
        if isinstance(prior, MotionPrior):
            motion["superpixels"] = np.stack([segment(flow, SUPERPIXELS) for flow in flows])
        if prior.needs_frames:
            motion["frame"] = frames
        inputs["prior"] = keras.ops.image.resize(prior(motion), IMAGE_SIZE, antialias=True)
    maps = []
    for index in range(len(frames)):
        window = np.maximum(np.arange(index - NUM_FRAMES + 1, index + 1), 0)
        logits = model({name: tf.gather(value, window)[None] for name, value in inputs.items()})["fused"]
        maps.append(tf.image.resize(tf.sigmoid(logits), frames.shape[1:3], antialias=True).numpy()[0, :, :, 0])
    return maps


def test_streaming_the_export_gives_the_maps_of_the_live_window(exported, loaded):
    _, model, prior = exported
    frames = make_frames()
    names = [f"{index:05d}" for index in range(len(frames))]
    streamed = list(stream_maps(loaded, zip(names, frames, strict=True)))
    serial = list(stream_maps(loaded, zip(names, frames, strict=True), num_ahead=0))
    assert [name for name, _, _ in streamed] == [name for name, _, _ in serial] == names
    np.testing.assert_array_equal([saliency for *_, saliency in streamed], [saliency for *_, saliency in serial])
    for (_, frame, found), expected, original in zip(
        streamed, expected_maps(frames, model, prior), frames, strict=True
    ):
        np.testing.assert_array_equal(frame, original)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        assert found.std() > 0.01  # not a constant


def test_the_default_signature_gives_the_last_frame_of_a_batch_of_clips(exported, loaded):
    _, model, prior = exported
    frames = make_frames(4)
    clips = np.stack([frames[:3], frames[1:]])
    inputs = {"frames": tf.constant(clips)}
    if prior is not None:
        flows = np.stack(list(FlowEstimator(FLOW).flows(frames)))
        inputs["flow"] = tf.constant(np.stack([flows[:3], flows[1:]]))
        if isinstance(prior, MotionPrior):
            labels = np.stack([segment(flow, SUPERPIXELS) for flow in flows])
            inputs["superpixels"] = tf.constant(np.stack([labels[:3], labels[1:]]))
    maps = loaded._loaded.signatures["serving_default"](**inputs)["saliency"].numpy()
    assert maps.shape == (2, 40, 70, 1)
    expected = expected_maps(frames, model, prior)
    np.testing.assert_allclose(maps[..., 0], expected[2:], atol=2e-5)


def test_the_asset_tells_what_a_client_needs(exported, loaded):
    path = exported[0]
    settings = json.loads((path / "assets" / "msst.json").read_text())
    assert settings["num_frames"] == NUM_FRAMES and settings["image_size"] == list(IMAGE_SIZE)
    assert loaded.path == path and loaded.settings == settings


def test_a_stream_with_forward_flow_is_one_frame_behind(exported, loaded):
    stream = SaliencyStream(loaded)
    lag = 0 if exported[2] is None else 1
    counts = [len(stream.push(frame)) for frame in make_frames(3)]
    assert counts == [1 - lag, 1, 1] and len(stream.close()) == lag


def test_frames_that_are_none_are_refused(loaded):
    stream = SaliencyStream(loaded)
    with pytest.raises(ValueError, match=r"must be uint8 \(H, W, 3\), not float64"):
        stream.push(np.zeros((4, 4, 3)))


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such model folder"):
        SaliencyModel(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no SavedModel here"):
        SaliencyModel(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    with pytest.raises(ValueError, match="not one of `msst export`"):
        SaliencyModel(tmp_path)
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "msst.json").write_text("{}")
    with pytest.raises(ValueError, match="msst.json: damaged"):
        SaliencyModel(tmp_path)


def test_an_export_that_does_not_fit_is_refused(tmp_path):
    spatial = build_msst("os", width=0.0625)
    with pytest.raises(ValueError, match="has no use for a motion prior"):
        export_saved_model(tmp_path / "1", spatial, MagnitudePrior(), make_settings("magnitude"))
    with pytest.raises(ValueError, match="needs a motion prior"):
        export_saved_model(tmp_path / "1", build_msst("st", width=0.0625), None, make_settings("none"))
    (tmp_path / "1").mkdir()
    with pytest.raises(FileExistsError, match="choose another --version"):
        export_saved_model(tmp_path / "1", spatial, None, make_settings("none"))
