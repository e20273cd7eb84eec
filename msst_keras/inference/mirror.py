"""Maps that are the mean of a video's and of its mirror image's, in twice the time.

The network, and the optical flow above all, make other mistakes on the mirror image; a part is averaged away.
"""

from __future__ import annotations

import numpy as np

from msst_keras.inference.motion_stream import MotionStream, MovingFrame, mirror_flow, mirror_image
from msst_keras.inference.saliency_stream import MapModel, open_filter
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
        turned = None if flow is None else mirror_flow(flow)
        return list(zip(plain, self._streams[1].push(mirror_image(frame), turned, time), strict=True))

    def close(self) -> list[Pair]:
        """Ends the video and returns the frames that were still to come; see `MotionStream.close`."""
        plain, mirrored = (stream.close() for stream in self._streams)
        return list(zip(plain, mirrored, strict=True))


class MirroredMaps:
    """The maps of one video's frames and of their mirror images, whose motion is known, side by side."""

    def __init__(self, model: MapModel):
        self._maps = model.open_maps(), model.open_maps()

    def push(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        """Takes the next frame and returns both maps, float32 (H, W) in 0..1."""
        return self._maps[0].push(pair[0]), self._maps[1].push(pair[1])


class MirroredFilter:
    """Filters the maps of a video and of its mirror image, each along its own flow, and gives their means."""

    def __init__(self, model: MapModel, share: float | None = None, look_ahead: int = 0, first: int = 0):
        """Takes what `open_filter` takes."""
        self._filters = tuple(open_filter(model, share, look_ahead, first) for _ in range(2))

    def push(self, pair: Pair, saliency: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
        """Takes the next frame's maps and returns those that are ready, float32 (H, W) in 0..1."""
        plain, mirrored = self._filters
        return self._average(plain.push(pair[0], saliency[0]), mirrored.push(pair[1], saliency[1]))

    def close(self) -> list[np.ndarray]:
        """Ends the video and returns the maps that were still to come, in order."""
        return self._average(*(filtering.close() for filtering in self._filters))

    @staticmethod
    def _average(plain: list[np.ndarray], mirrored: list[np.ndarray]) -> list[np.ndarray]:
        return [(one + other[:, ::-1]) / 2 for one, other in zip(plain, mirrored, strict=True)]
