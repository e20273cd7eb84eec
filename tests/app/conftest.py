"""Videos for the app."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

SIZE = (40, 60)


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
