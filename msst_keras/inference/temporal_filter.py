"""Maps that follow the motion: each takes a share of its values from the maps before, carried along the optical flow.

A network that sees one frame and its flow, or a few frames, is in doubt now here and now there, and its maps flicker.
What it said of the same point a moment ago helps:

    logit S'_t(x) = (1 - w(x)) logit S_t(x) + w(x) logit S'_t-1(x + b(x))

b leads back from frame t to frame t - 1. The weight w is the share where both points look alike and falls to 0 where
they do not (what is uncovered, or where the flow is wrong), or where b leads out of the frame. Video coders and
denoisers call it motion-compensated temporal filtering. It works at the size of the flow; what it adds is enlarged.

Only the last NUM_FRAMES maps count, so that a video can be gone on with in the middle. On five sequences that were held
out from the installed model's training, eight are better than four (S .9503 and .9489 at a share of .75).
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from msst_keras.inference.motion_stream import MovingFrame
from msst_keras.motion.flow import FlowSettings, reduce_frame
from msst_keras.motion.settings import MAX_TEMPORAL_SHARE

NUM_FRAMES = 8
_LEAST = 1 / 255  # a map at 0 or 1 would never change its mind, so it counts as one level away from there
_ALIKE = 15.0  # grey levels; at this difference of two points the weight has fallen to 1 / e
_NOISE = 1.0  # pixels; standard deviation of the blur before points are compared
_NUM_TURNS = 3  # of the fixed point b(x) = -f(x + b(x)), which turns a forward flow round

Points = tuple[np.ndarray, np.ndarray]  # x and y, float32 (h, w) each


class TemporalFilter:
    """The filter of one video, frame by frame."""

    def __init__(self, share: float, flow: FlowSettings):
        """Begins a video.

        Args:
          share: 0 (the maps stay as they are) to MAX_TEMPORAL_SHARE.
          flow: what the flow of its frames was made with.
        """
        self._share, self._settings = share, flow
        height, width = flow.motion_size
        self._x, self._y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        # Of the last frames: logits, where each point was in the frame before, and the weight of what is there.
        self._steps: collections.deque[tuple[np.ndarray, Points, np.ndarray]] = collections.deque(maxlen=NUM_FRAMES)
        self._last: tuple[MovingFrame, np.ndarray] | None = None  # the frame before, and what it looks like

    def push(self, moving: MovingFrame, saliency: np.ndarray) -> np.ndarray:
        """Takes the next frame with its motion and its map, float32 (H, W) in 0..1, and returns the filtered map."""
        grey = reduce_frame(moving.frame, self._settings.motion_size)
        look = cv2.GaussianBlur(grey, (0, 0), _NOISE).astype(np.float32)
        logits = self._reduce(saliency)
        if self._last is None:
            origins, weight = (self._x, self._y), np.zeros_like(look)
        else:
            origins = self._move(self._lead_back(self._last[0], moving))
            weight = self._weigh(look, self._last[1], origins)
        self._steps.append((logits, origins, weight))
        self._last = moving, look
        return _add_logits(saliency, self._carry() - logits)

    def _reduce(self, saliency: np.ndarray) -> np.ndarray:
        """The logits of a map at the size of the flow."""
        reduced = cv2.resize(saliency, self._x.shape[::-1], interpolation=cv2.INTER_AREA)
        reduced = np.clip(reduced, _LEAST, 1 - _LEAST)
        return np.log(reduced / (1 - reduced))

    def _lead_back(self, before: MovingFrame, moving: MovingFrame) -> np.ndarray:
        """The flow from a frame to the one before it, (h, w, 2) in pixels."""
        if moving.time is None or before.time is None:
            frames = 1.0
        else:  # some are missing, and flow is divided by the time that it spans
            frames = moving.time - before.time
        flow = moving.flow if self._settings.direction == "backward" else before.flow
        assert flow is not None, "a model that sees motion has flow"
        flow = flow * np.float32(frames)
        if self._settings.direction == "backward":
            return flow
        back = -flow
        for _ in range(_NUM_TURNS):
            back = -_look_up(flow, self._move(back))
        return back

    def _move(self, flow: np.ndarray) -> Points:
        """Where the flow leads from each point."""
        return self._x + flow[..., 0], self._y + flow[..., 1]

    def _weigh(self, look: np.ndarray, before: np.ndarray, origins: Points) -> np.ndarray:
        difference = (look - _look_up(before, origins)) / _ALIKE
        (x, y), (height, width) = origins, look.shape
        inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        return np.float32(self._share) * inside * np.exp(-(difference**2))

    def _carry(self) -> np.ndarray:
        """The filtered logits of the newest frame."""
        (carried, _, _), *later = self._steps
        for logits, origins, weight in later:
            carried = logits + weight * (_look_up(carried, origins) - logits)
        return carried


def _look_up(values: np.ndarray, points: Points) -> np.ndarray:
    """The values at the points, bilinear; outside those at the edge."""
    return cv2.remap(values, *points, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _add_logits(saliency: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The map whose logits are larger by `change` (h, w), which is enlarged; where that is 0 the map stays as it is."""
    factor = cv2.resize(np.exp(change), saliency.shape[::-1], interpolation=cv2.INTER_LINEAR)
    bounded = np.clip(saliency, _LEAST, 1 - _LEAST)
    changed = bounded * factor
    changed /= 1 - bounded + changed
    return np.clip(saliency + (changed - bounded), 0, 1)


def read_share(settings: Mapping[str, Any]) -> float:
    """The share that a model's settings say: "temporal_filter", 0 where there is none.

    Raises:
      ValueError: it is no number of 0 to MAX_TEMPORAL_SHARE.
    """
    share = settings.get("temporal_filter", 0.0)
    if type(share) not in (int, float) or not 0 <= share <= MAX_TEMPORAL_SHARE:
        raise ValueError(
            f"expected a number of 0 to {MAX_TEMPORAL_SHARE} in temporal_filter, found {str(share)[:80]!r}"
        )
    return float(share)
