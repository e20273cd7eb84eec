"""The motion of a video's frames, pushed one by one. Nothing here is TensorFlow's."""

from __future__ import annotations

import collections
import copy
import dataclasses

import cv2
import numpy as np

from msst_keras.motion.flow import FROM_FILES, FlowEstimator
from msst_keras.motion.settings import MotionSettings
from msst_keras.motion.superpixels import segment


@dataclasses.dataclass(frozen=True)
class MovingFrame:
    """A frame and its motion: what a model sees of one time step.

    Attributes:
      frame: uint8 (H, W, 3) RGB.
      flow: float32 (h, w, 2), x then y, pixels per frame at the model's motion size; None for a model without motion.
      superpixels: int32 (h, w, M); None for a model that takes none.
      time: when the frame was, counted in frames; None where every frame of the video is there.
    """

    frame: np.ndarray
    flow: np.ndarray | None = None
    superpixels: np.ndarray | None = None
    time: float | None = None

    def mirror(self) -> MovingFrame:
        """The mirror image, in which what moves to the right moves to the left."""
        flow = None if self.flow is None else mirror_flow(self.flow)
        superpixels = None if self.superpixels is None else mirror_image(self.superpixels)
        return dataclasses.replace(self, frame=mirror_image(self.frame), flow=flow, superpixels=superpixels)


def mirror_image(image: np.ndarray) -> np.ndarray:
    """Turns an image (H, W) or (H, W, channels), uint8, int32 or float32, left to right."""
    return cv2.flip(image, 1).reshape(image.shape)


def mirror_flow(flow: np.ndarray) -> np.ndarray:
    """The flow (h, w, 2), x then y, of the mirror image."""
    return mirror_image(flow) * np.array([-1, 1], flow.dtype)


class MotionStream:
    """The motion of one video's frames, pushed frame by frame: flow, and superpixels where the model takes them.

    Attributes:
      takes_flow: whether each frame's flow is to be pushed with it, because the model was made with flow from files.
    """

    def __init__(self, motion: MotionSettings | None):
        """Takes the motion of a model, `SaliencyModel.motion`."""
        # Frames whose flow is not known yet, and their times.
        self._waiting: collections.deque[tuple[np.ndarray, float | None]] = collections.deque()
        settings = motion.flow_settings if motion else None
        self.takes_flow = settings is not None and settings.method == FROM_FILES
        self._flow = FlowEstimator(settings) if settings and not self.takes_flow else None
        self._superpixels = motion.superpixel_settings if motion else None

    def __copy__(self) -> MotionStream:
        """A stream that goes on from here by itself."""
        other = object.__new__(MotionStream)
        # The estimator sets its attributes anew and changes none of their values.
        vars(other).update(vars(self), _waiting=self._waiting.copy(), _flow=copy.copy(self._flow))
        return other

    def push(self, frame: np.ndarray, flow: np.ndarray | None = None, time: float | None = None) -> list[MovingFrame]:
        """Takes the next frame and returns those whose motion became known, in order; see `SaliencyStream.push`."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"a frame must be uint8 (H, W, 3), not {frame.dtype} {frame.shape}")
        if self.takes_flow != (flow is not None):
            raise ValueError(
                f"this model {'needs flow from files (--flow_dir)' if self.takes_flow else 'takes no flow'}"
            )
        if self._flow is None:
            return [self._add_motion(frame, time, flow)]
        flows = self._flow.push(frame, time)  # first, because a frame that is refused must not wait for its flow
        self._waiting.append((frame, time))
        return [self._add_motion(*self._waiting.popleft(), flow) for flow in flows]

    def close(self) -> list[MovingFrame]:
        """Ends the video and returns the frames that were still to come, in order."""
        flows = self._flow.close() if self._flow else []
        return [self._add_motion(*self._waiting.popleft(), flow) for flow in flows]

    def _add_motion(self, frame: np.ndarray, time: float | None, flow: np.ndarray | None) -> MovingFrame:
        superpixels = None if flow is None or self._superpixels is None else segment(flow, self._superpixels)
        return MovingFrame(frame, flow, superpixels, time)
