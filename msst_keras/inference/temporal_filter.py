"""Maps that follow the motion: each is a mean with the maps around it, carried along the optical flow.

A network that sees one frame and its flow, or a few frames, is in doubt now here and now there, and its maps flicker.
What it says of the same point a moment before or after helps:

    logit S'_t(x) = sum_k w_k(x) logit S_t+k(x_k) / sum_k w_k(x)

x_k is the point of frame t + k to which the flow leads from x, x_0 = x and w_0 = 1. With each frame further away the
weight w_k falls by a factor: the share where the point looks alike in both frames, and less, down to 0, where it does
not (what is uncovered, or where the flow is wrong), or where the flow leads out of the frame. Video coders and
denoisers call it motion-compensated temporal filtering. It works at the size of the flow; what it adds is enlarged.

A live video has only the maps before (k <= 0). A file has the maps after too, and then the maps come later. Not all of
them count, so that a video can be gone on with in its middle, but at least NUM_FRAMES before each (fewer at its start),
and 2 NUM_FRAMES - 1 at most. On five sequences that were held out from the installed model's training, S is .9462
without the filter, .9527 with the maps before each, and .9564 with seven after it too, at a share of .85.

Sums are carried from frame to frame, forward and backward, so that a map costs few look-ups however many others count
in it. Forward there are two of them, and every NUM_FRAMES frames the younger takes the place of the older and another
begins. Backward there is one for every few maps, which begins at the newest frame.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from msst_keras.inference.motion_stream import MovingFrame
from msst_keras.motion.flow import FlowSettings, reduce_frame
from msst_keras.motion.settings import MAX_TEMPORAL_SHARE

NUM_FRAMES = 8
MAX_BEFORE = 2 * NUM_FRAMES - 1  # no map depends on more of those before it
LOOK_AHEAD = 7  # of the maps of a file: with four after it S was .0004 lower there
_NUM_TOGETHER = 4  # so many maps share a sum of those after them; more would be faster, and would be held for longer
_LEAST = 1 / 255  # a map at 0 or 1 would never change its mind, so it counts as one level away from there
_ALIKE = 15.0  # grey levels; at this difference of two points the weight has fallen to 1 / e
_NOISE = 1.0  # pixels; standard deviation of the blur before points are compared
_NUM_TURNS = 3  # of the fixed point b(x) = -f(x + b(x)), which turns a flow round

# From each point of a frame to another frame: where it is there, as `cv2.convertMaps` writes it, so that it is computed
# once for many look-ups; and the weight of what is there, float32 (h, w, 2), twice the same.
_Link = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclasses.dataclass
class _Step:
    """A frame whose filtered map is still to come."""

    saliency: np.ndarray
    logits: np.ndarray  # float32 (h, w, 2): the map's logits at the size of the flow, and 1, their weight
    before: np.ndarray  # the sum of its logits and weights and those before, likewise
    ahead: _Link | None = None  # to the frame after


class TemporalFilter:
    """The filter of one video, frame by frame."""

    def __init__(self, share: float, flow: FlowSettings, look_ahead: int = 0, first: int = 0):
        """Begins a video, or goes on with one.

        Args:
          share: the weight of the next frame's map where the point looks alike, 0 (the maps stay as they are) to
            MAX_TEMPORAL_SHARE.
          flow: what the flow of its frames was made with.
          look_ahead: how many maps after a frame's own count at least.
          first: the number of the first frame that is pushed. Maps from frame `first` + MAX_BEFORE on are those of the
            video from its frame 0 on, to the bit.
        """
        self._share, self._settings, self._look_ahead = share, flow, look_ahead
        height, width = flow.motion_size
        self._x, self._y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        self._number = first  # of the next frame
        self._newest: tuple[MovingFrame, np.ndarray] | None = None  # the frame before, and what it looks like
        self._sums: list[np.ndarray] = []  # of the frames so far, of which the second began later
        self._waiting: collections.deque[_Step] = collections.deque()

    def push(self, moving: MovingFrame, saliency: np.ndarray) -> list[np.ndarray]:
        """Takes the next frame with its motion and its map, float32 (H, W) in 0..1.

        Returns:
          the filtered maps that are ready, in order: of this frame without `look_ahead`, else now and then of several.
        """
        logits = self._reduce(saliency)
        back = self._link(moving)
        self._sums = [_add(total, back, logits) for total in self._sums] or [logits, logits]
        if self._number % NUM_FRAMES == 0:
            self._sums = [self._sums[1], logits]
        self._waiting.append(_Step(saliency, logits, self._sums[0]))
        self._number += 1
        if (self._number - self._look_ahead) % (_NUM_TOGETHER if self._look_ahead else 1) == 0:
            return self._filter(self._look_ahead)
        return []

    def close(self) -> list[np.ndarray]:
        """Ends the video and returns the maps that were still to come, in order."""
        return self._filter(0)

    def _filter(self, num_left: int) -> list[np.ndarray]:
        """The filtered maps of all frames that wait but the last `num_left`, which then wait no longer."""
        filtered = []
        after = None
        for number in reversed(range(len(self._waiting))):
            step = self._waiting[number]
            after = step.logits if after is None else _add(after, step.ahead, step.logits)
            if number < len(self._waiting) - num_left:
                total = step.before + (after - step.logits)
                change = total[..., 0] / total[..., 1] - step.logits[..., 0]
                filtered.append(_add_logits(step.saliency, change))
        for _ in filtered:
            self._waiting.popleft()
        return filtered[::-1]

    def _reduce(self, saliency: np.ndarray) -> np.ndarray:
        reduced = cv2.resize(saliency, self._x.shape[::-1], interpolation=cv2.INTER_AREA)
        reduced = np.clip(reduced, _LEAST, 1 - _LEAST)
        return np.dstack([np.log(reduced / (1 - reduced)), np.ones_like(reduced)])

    def _link(self, moving: MovingFrame) -> _Link | None:
        """Links the next frame to the one before and that to it; returns the way back, None for the first."""
        grey = reduce_frame(moving.frame, self._settings.motion_size)
        look = cv2.GaussianBlur(grey, (0, 0), _NOISE).astype(np.float32)
        newest, self._newest = self._newest, (moving, look)
        if newest is None:
            return None
        before, look_before = newest
        flow = self._find_flow(before, moving)
        is_backward = self._settings.direction == "backward"
        if self._look_ahead:
            ahead = self._turn(flow) if is_backward else flow
            self._waiting[-1].ahead = self._lead(ahead, look_before, look)
        return self._lead(flow if is_backward else self._turn(flow), look, look_before)

    def _find_flow(self, before: MovingFrame, moving: MovingFrame) -> np.ndarray:
        """The flow between two frames, in the direction of the settings, (h, w, 2) in pixels."""
        if moving.time is None or before.time is None:
            frames = 1.0
        else:  # some are missing, and flow is divided by the time that it spans
            frames = moving.time - before.time
        flow = moving.flow if self._settings.direction == "backward" else before.flow
        assert flow is not None, "a model that sees motion has flow"
        return flow * np.float32(frames)

    def _turn(self, flow: np.ndarray) -> np.ndarray:
        """The flow from the other frame to this one."""
        back = -flow
        for _ in range(_NUM_TURNS):
            back = -_look_up(flow, self._x + back[..., 0], self._y + back[..., 1])
        return back

    def _lead(self, flow: np.ndarray, look: np.ndarray, other: np.ndarray) -> _Link:
        """Where the flow leads from each point, and how much what is there counts."""
        x, y = self._x + flow[..., 0], self._y + flow[..., 1]
        points = cv2.convertMaps(x, y, cv2.CV_16SC2)
        difference = (look - _look_up(other, *points)) / _ALIKE
        height, width = look.shape
        inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        weight = np.float32(self._share) * inside * np.exp(-(difference**2))
        return *points, cv2.merge([weight, weight])


class NoFilter:
    """In place of a `TemporalFilter`: the maps stay as they are."""

    def push(self, moving: MovingFrame, saliency: np.ndarray) -> list[np.ndarray]:
        """Returns the map."""
        return [saliency]

    def close(self) -> list[np.ndarray]:
        """Returns nothing."""
        return []


def _add(total: np.ndarray, link: _Link | None, logits: np.ndarray) -> np.ndarray:
    """The sum of another frame, carried along the link to this one, and this one's own logits."""
    assert link is not None, "a frame with another after it is linked to it"
    whole, parts, weight = link
    carried = _look_up(total, whole, parts)
    carried *= weight
    carried += logits
    return carried


def _look_up(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The values at the points, which `cv2.convertMaps` may have converted; bilinear, outside those at the edge."""
    return cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


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
