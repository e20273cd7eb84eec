"""A video's frames, pushed one by one: their motion, and their maps by whatever model. Nothing here is TensorFlow's."""

from __future__ import annotations

import collections
import dataclasses
from typing import Protocol

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
    """

    frame: np.ndarray
    flow: np.ndarray | None = None
    superpixels: np.ndarray | None = None


class MotionStream:
    """The motion of one video's frames, pushed frame by frame: flow, and superpixels where the model takes them.

    Attributes:
      takes_flow: whether each frame's flow is to be pushed with it, because the model was made with flow from files.
    """

    def __init__(self, motion: MotionSettings | None):
        """Takes the motion of a model, `SaliencyModel.motion`."""
        self._waiting: collections.deque[np.ndarray] = collections.deque()  # frames whose flow is not known yet
        settings = motion.flow_settings if motion else None
        self.takes_flow = settings is not None and settings.method == FROM_FILES
        self._flow = FlowEstimator(settings) if settings and not self.takes_flow else None
        self._superpixels = motion.superpixel_settings if motion else None

    def push(self, frame: np.ndarray, flow: np.ndarray | None = None, time: float | None = None) -> list[MovingFrame]:
        """Takes the next frame and returns those whose motion became known, in order; see `SaliencyStream.push`."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"a frame must be uint8 (H, W, 3), not {frame.dtype} {frame.shape}")
        if self.takes_flow != (flow is not None):
            raise ValueError(
                f"this model {'needs flow from files (--flow_dir)' if self.takes_flow else 'takes no flow'}"
            )
        if self._flow is None:
            return [self._add_superpixels(frame, flow)]
        self._waiting.append(frame)
        return [self._add_superpixels(self._waiting.popleft(), flow) for flow in self._flow.push(frame, time)]

    def close(self) -> list[MovingFrame]:
        """Ends the video and returns the frames that were still to come, in order."""
        flows = self._flow.close() if self._flow else []
        return [self._add_superpixels(self._waiting.popleft(), flow) for flow in flows]

    def _add_superpixels(self, frame: np.ndarray, flow: np.ndarray | None) -> MovingFrame:
        if flow is None or self._superpixels is None:
            return MovingFrame(frame, flow)
        return MovingFrame(frame, flow, segment(flow, self._superpixels))


class MapSource(Protocol):
    """The maps of one video, frame by frame: a `stream.MapStream`, or a `serving.client.RemoteMaps`."""

    def push(self, moving: MovingFrame) -> np.ndarray:
        """Returns the frame's map, float32 (H, W) in 0..1."""


class MapModel(Protocol):
    """A model that makes maps, here or on a server, and the motion that it was made with (None: without motion)."""

    motion: MotionSettings | None

    def open_maps(self) -> MapSource:
        """Starts a video."""


class SaliencyStream:
    """The saliency maps of one video, pushed frame by frame.

    Attributes:
      takes_flow: whether each frame's flow is to be pushed with it, because the model was made with flow from files.
    """

    def __init__(self, model: MapModel) -> None:
        """Takes a `stream.SaliencyModel`, or a `serving.client.RemoteModel` on a server."""
        self._motion, self._maps = MotionStream(model.motion), model.open_maps()
        self.takes_flow = self._motion.takes_flow

    def push(self, frame: np.ndarray, flow: np.ndarray | None = None, time: float | None = None) -> list[np.ndarray]:
        """Takes the next frame and returns the maps that are ready, in order, float32 (H, W) in 0..1.

        Without motion, with given or with backward flow that is this frame's map (backward: none for the first frame
        and two for the second); with forward flow that of the frame `stride` before.

        Args:
          frame: uint8 (H, W, 3) RGB.
          flow: float32 (h, w, 2) at the model's motion size, for a model of flow from files alone (`takes_flow`).
          time: of the frame, counted in frames, for a live video that misses some: flow is divided by the time that it
            spans. None for a video whose frames are all pushed.

        Raises:
          ValueError: the frame is no uint8 RGB image or of another size than those before it; flow is missing, or given
            to a model that computes it; the time is not later than that of the frame before.
        """
        return [self._maps.push(moving) for moving in self._motion.push(frame, flow, time)]

    def close(self) -> list[np.ndarray]:
        """Ends the video and returns the maps that were still to come, in order."""
        return [self._maps.push(moving) for moving in self._motion.close()]
