"""Two exported models, the paper's kind and the light one, in Keras and in TensorFlow's C++ loader."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import logging
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from cpp_model import CppModel

from msst_keras.model.msst import build_msst
from msst_keras.motion.flow import FlowEstimator, FlowSettings
from msst_keras.motion.flow_image import FlowImage
from msst_keras.motion.prior import MotionPrior
from msst_keras.motion.superpixels import SuperpixelSettings, segment
from msst_keras.serving.export import export_saved_model

NUM_FRAMES = 3
FLOW = FlowSettings(motion_size=(32, 48))
SUPERPIXELS = SuperpixelSettings(num_levels=2, max_regions=32)
IMAGE_SIZES = {"paper": (49, 64), "light": (64, 96)}


def moving_square(num_frames=9, size=(80, 112), seed=0):
    """Frames, uint8 (N, H, W, 3), of a square that moves over noise; the noise is coarse, as JPEG likes it."""
    generator = np.random.default_rng(seed)
    background = generator.integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    frames = np.repeat(background[None], num_frames, axis=0)
    for index, frame in enumerate(frames):
        frame[20:44, 10 + 5 * index : 34 + 5 * index] = generator.integers(0, 256, 3)
    return frames


@dataclasses.dataclass(frozen=True)
class Exported:
    """A model and what was exported of it."""

    kind: str
    folder: Path  # of the versions
    model: keras.Model
    prior: keras.Model
    cpp: CppModel

    @property
    def path(self):
        return self.folder / "1"

    def inputs(self, num_rows, frames=None):
        """Inputs of `serving_default` for clips that begin one frame after the other."""
        frames = moving_square(num_rows + NUM_FRAMES - 1) if frames is None else frames
        flows = np.stack(list(FlowEstimator(FLOW).flows(frames)))
        single = {"frames": frames, "flow": flows}
        if self.kind == "paper":
            single["superpixels"] = np.stack([segment(flow, SUPERPIXELS) for flow in flows]).astype(np.int32)
        window = np.arange(num_rows)[:, None] + np.arange(NUM_FRAMES)
        return {name: value[window] for name, value in single.items()}

    def live(self, inputs):
        """The maps of the Keras model itself, float32 (B, H, W)."""
        size, clips = IMAGE_SIZES[self.kind], {}
        flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in inputs.items()}
        motion = {name: value for name, value in flat.items() if name != "frames"}
        if self.prior.needs_frames:
            motion["frame"] = flat["frames"]
        images = {"frames": flat["frames"].astype("float32"), "prior": self.prior(motion)}
        for name, value in images.items():
            resized = keras.ops.image.resize(value, size, antialias=True)
            clips[name] = keras.ops.reshape(resized, (-1, NUM_FRAMES, *resized.shape[1:]))
        saliency = tf.sigmoid(self.model(clips)["fused"])
        return tf.image.resize(saliency, inputs["frames"].shape[2:4], antialias=True).numpy()[..., 0]


def build(kind):
    """The model and the prior, small, with maps that are no constants."""
    keras.utils.set_random_seed(0)
    if kind == "paper":
        model = build_msst("msst", num_frames=NUM_FRAMES, width=0.0625)
        prior = MotionPrior(FLOW, SUPERPIXELS, width=0.0625, rgb_features=True)
    else:
        model = build_msst(
            "msst", "efficientnet_lite0", NUM_FRAMES, width=0.25, motion_input="flow", fusion="gated",
            decoder="topdown", batch_norm="folded",
        )  # fmt: skip
        prior = FlowImage(FLOW)
    generator = np.random.default_rng(1)
    # With kernels of 1, the light network's maps are 2e-5 away from those of its twin in float64: there float32 itself
    # is less exact than what the tests ask of two programs.
    scale = {"paper": 1.0, "light": 0.3}[kind]
    for weight in model.trainable_weights:
        if weight.path.endswith(("_map/kernel", "map/kernel", "remembered/kernel")):
            weight.assign(scale * generator.normal(size=weight.shape))
    return model, prior


def settings_of(kind):
    superpixels = SUPERPIXELS.to_dict() if kind == "paper" else None
    prior = {"kind": "network"} if kind == "paper" else {"kind": "flow", "channels": 3}
    motion = {"flow": FLOW.to_dict(), "superpixels": superpixels, "prior": prior}
    return {"num_frames": NUM_FRAMES, "image_size": IMAGE_SIZES[kind], "motion": motion}


@contextlib.contextmanager
def _write_log(path):
    """Writes what TensorFlow logs in this block, warnings and above, to a file."""
    handler = logging.FileHandler(path, delay=False)
    handler.setLevel(logging.WARNING)
    tf.get_logger().addHandler(handler)
    try:
        yield
    finally:
        tf.get_logger().removeHandler(handler)
        handler.close()


@pytest.fixture(scope="session")
def write_log():
    """The function `_write_log`."""
    return _write_log


@pytest.fixture(scope="session")
def export_once(shared_folder):
    """A function of a kind: the folder of its export, which has its log beside it, and the model and the prior."""

    @functools.cache
    def export(kind):
        model, prior = build(kind)
        path = shared_folder / "exported" / kind
        path.mkdir(parents=True, exist_ok=True)
        with open(path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (path / "1").exists():
                with _write_log(path.with_suffix(".log")):
                    export_saved_model(path / "1", model, prior, settings_of(kind))
        return path, model, prior

    return export


@pytest.fixture(scope="session", params=["paper", pytest.param("light", marks=pytest.mark.slow)])
def exported_step(request, export_once):
    folder, model, prior = export_once(request.param)
    return Exported(request.param, folder, model, prior, CppModel(folder / "1", Path(tf.__file__).parent))
