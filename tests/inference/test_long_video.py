"""A long video: the memory of the chain does not grow with it."""

from __future__ import annotations

import resource
import sys

import keras
import numpy as np
import pytest

from msst_keras.inference.stream import SaliencyModel, stream_maps
from msst_keras.model.msst import build_msst
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.prior import MagnitudePrior
from msst_keras.serving.export import export_saved_model

NUM_FRAMES, NUM_WARM = 5000, 500
SIZE = (40, 60)


def peak_megabytes():
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def moving_texture(num_frames):
    texture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    for index in range(num_frames):
        yield f"{index:05d}", np.roll(texture, index % SIZE[1], axis=1)


def growth(path, num_frames, num_warm):
    """Megabytes that the peak grows by from frame `num_warm` to the end; checks that every frame has its map."""
    first, count = None, 0
    for name, frame, saliency in stream_maps(SaliencyModel(path), moving_texture(num_frames)):
        assert name == f"{count:05d}" and saliency.shape == frame.shape[:2]
        count += 1
        if count == num_warm:
            first = peak_megabytes()
    assert count == num_frames
    return peak_megabytes() - first


@pytest.mark.slow
def test_memory_does_not_grow_with_the_video(tmp_path):
    keras.utils.set_random_seed(0)
    motion = {
        "flow": FlowSettings("dis_fast", (32, 48)).to_dict(), "superpixels": None, "prior": {"kind": "magnitude"}
    }  # fmt: skip
    settings = {"num_frames": 4, "image_size": (33, 49), "motion": motion}
    export_saved_model(tmp_path / "1", build_msst("msst", width=0.0625), MagnitudePrior(), settings)
    assert growth(tmp_path / "1", NUM_FRAMES, NUM_WARM) < 20
