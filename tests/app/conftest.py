"""A small model and videos for the app."""

from __future__ import annotations

import cv2
import keras
import numpy as np
import pytest

from msst_keras.model.msst import build_msst
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.prior import MagnitudePrior
from msst_keras.serving.export import export_saved_model

SIZE = (40, 60)


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory):
    """A SavedModel of random weights whose maps differ from frame to frame."""
    folder = tmp_path_factory.mktemp("model")
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(1)
    model = build_msst("msst", num_frames=2, width=0.0625)
    for weight in model.trainable_weights:
        if weight.path.endswith(("_map/kernel", "recurrent_map/kernel")):
            weight.assign(generator.normal(size=weight.shape))
    flow = FlowSettings(motion_size=(32, 48))
    motion = {"flow": flow.to_dict(), "superpixels": None, "prior": {"kind": "magnitude"}}
    settings = {"num_frames": 2, "image_size": (33, 49), "motion": motion}
    export_saved_model(folder / "1", model, MagnitudePrior(), settings)
    return folder


def write_video(path, num_frames, size=SIZE):
    """A video of a texture that moves."""
    texture = cv2.blur(np.random.default_rng(2).integers(0, 256, (*size, 3)).astype(np.uint8), (3, 3))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12.5, size[::-1])
    for index in range(num_frames):
        writer.write(np.roll(texture, 2 * index, axis=1))
    writer.release()
    return path


@pytest.fixture(scope="session")
def make_video():
    """The function `write_video`."""
    return write_video


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    """A video of 12 frames."""
    return write_video(tmp_path_factory.mktemp("video") / "clip.avi", 12)


@pytest.fixture(scope="session")
def long_video(tmp_path_factory):
    """A video whose maps take a while."""
    return write_video(tmp_path_factory.mktemp("video") / "long.avi", 900)
