"""Maps that are the mean of a video's and of its mirror image's, in twice the time.

The network, and the optical flow above all, make other mistakes on the mirror image; a part is averaged away.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from msst_keras.inference.motion_stream import MotionStream, MovingFrame
from msst_keras.inference.saliency_stream import FilteredMaps
from msst_keras.motion.settings import MotionSettings

Pair = tuple[MovingFrame, MovingFrame]  # a frame with its motion, and its mirror image with its own


class MirroredMotion:
    """A `MotionStream` of a video and one of its mirror image, side by side.

    Attributes:
      takes_flow: see `MotionStream`.
    """

    def __init__(self, motion: MotionSettings | None):
        self._streams = MotionStream(motion), MotionStream(motion)
        self.takes_flow = self._streams[0].takes_flow

    def push(self, frame: np.ndarray, flow: np.ndarray | None = None, time: float | None = None) -> list[Pair]:
        """Takes the next frame and returns those whose motion became known; see `MotionStream.push`."""
        plain = self._streams[0].push(frame, flow, time)
        # What moves to the right moves to the left in the mirror.
        turned = None if flow is None else np.ascontiguousarray(flow[:, ::-1] * np.array([-1, 1], np.float32))
        return list(zip(plain, self._streams[1].push(_mirror(frame), turned, time), strict=True))

    def close(self) -> list[Pair]:
        """Ends the video and returns the frames that were still to come; see `MotionStream.close`."""
        plain, mirrored = (stream.close() for stream in self._streams)
        return list(zip(plain, mirrored, strict=True))


class MirroredMaps:
    """The averaged maps of one video's frames, whose motion is known; either video is filtered along its own flow."""

    def __init__(self, model: Any, temporal_filter: float | None = None):
        """Takes a `stream.SaliencyModel` or a `serving.client.RemoteModel`, and what `open_filter` takes."""
        self._maps = FilteredMaps(model, temporal_filter), FilteredMaps(model, temporal_filter)

    def push(self, pair: Pair) -> np.ndarray:
        """Takes the next frame and returns its map, float32 (H, W) in 0..1."""
        plain, mirrored = (maps.push(moving) for maps, moving in zip(self._maps, pair, strict=True))
        return (plain + mirrored[:, ::-1]) / 2


def _mirror(frame: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(frame[:, ::-1])
