"""Optical flow between frames (section 3.1).

The paper names no flow method. Flow is made at `motion_size`, which is smaller than the frame, and rounded to
FLOW_STEP. Records and the exported graph get exactly what this module gives, to the bit.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import cv2
import numpy as np

from msst_keras.data.flow_files import FLOW_STEP, MAX_FLOW

# Two grey frames, uint8 (h, w) -> the flow from the first to the second, float32 (h, w, 2).
Method = Callable[[np.ndarray, np.ndarray], np.ndarray]

MIN_MOTION_SIZE = 32  # DIS fails on smaller maps or gives NaN, depending on their shape

# A frame's flow leads `stride` frames ahead (forward) or back (backward), or to the last or first frame of the sequence
# if that is nearer, and is divided by the number of frames it spans. From the frame at the end flow leads nowhere, so
# it is the negated flow of the opposite direction to its neighbour.
EDGE_RULE = "forward: last = -flow(last, last - 1); backward: first = -flow(first, second); one frame alone: zero"

FILES_EDGE_RULE = "a frame at the end without a file takes its neighbour's flow"


def _dis(preset: int, finest_scale: int, patch_stride: int) -> Method:
    method = cv2.DISOpticalFlow_create(preset)
    method.setFinestScale(finest_scale)
    method.setPatchStride(patch_stride)
    return lambda first, second: method.calc(first, second, None)


def _tvl1() -> Method:
    method = cv2.optflow.createOptFlow_DualTVL1()
    return lambda first, second: method.calc(first, second, None)


def _deepflow() -> Method:
    method = cv2.optflow.createOptFlow_DeepFlow()
    return lambda first, second: method.calc(first, second, None)


def _farneback() -> Method:
    return lambda first, second: cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 5, 15, 3, 5, 1.2, 0)


# Milliseconds at 240x432 on one core, end-point error on Middlebury's RubberWhale, and max F of `magnitude_prior` over
# 188 frames of 27 DAVIS-2016 training sequences with coarse masks (camera median, and in brackets homography; from
# `python benchmarks/prior_choices.py --root=DAVIS_TRAIN --every=10`):
#   dis        34 ms  .12 px  .618  (.643)
#   dis_fast    8 ms  .23 px  .602  (.623)
#   farneback  21 ms  .37 px  .433  (.444)  it gives nothing where texture is weak
#   deepflow  300 ms  .13 px
#   tvl1        2 s   .16 px
# `dis` is OpenCV's medium preset carried on to full resolution, with patches 4 pixels apart (unchanged, the preset ends
# at scale 1: 11 ms, .22 px). `dis_fast` is the fast preset with one scale more (unchanged, it ends at scale 2: 3 ms,
# .44 px).
_METHODS: dict[str, Callable[[], Method]] = {
    "dis": lambda: _dis(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM, finest_scale=0, patch_stride=4),
    "dis_fast": lambda: _dis(cv2.DISOPTICAL_FLOW_PRESET_FAST, finest_scale=1, patch_stride=4),
    "farneback": _farneback,
    "tvl1": _tvl1,
    "deepflow": _deepflow,
}
FLOW_METHODS = tuple(_METHODS)
FROM_FILES = "files"  # in place of a method: flow that is read from files and not computed
DIRECTIONS = ("forward", "backward")


@dataclasses.dataclass(frozen=True)
class FlowSettings:
    """Everything that flow depends on. Record manifests and exported models hold these settings.

    Attributes:
        method: One of FLOW_METHODS, or FROM_FILES.
        motion_size: (height, width) of flow maps. The default is half of DAVIS's 480x854 (16:9): flow takes a
            quarter of the time, and a 512x512 network sees it through a stride of 16 anyway.
        direction: "forward", from frame t to t + stride, as most flow files are, or "backward", from t to t - stride,
            which has no delay in a live stream.
        stride: How many frames flow spans. Flow is divided by it, so its unit is always pixels per frame. 2 or 3 help
            where the frame rate is high and motion is slow.

    Raises:
        ValueError: A value is none of these.
    """

    method: str = "dis"
    motion_size: tuple[int, int] = (240, 432)
    direction: str = "forward"
    stride: int = 1

    def __post_init__(self) -> None:
        if self.method not in (*FLOW_METHODS, FROM_FILES):
            methods = ", ".join((*FLOW_METHODS, FROM_FILES))
            raise ValueError(f"The flow method must be one of {methods}, found {self.method!r}.")
        size = tuple(self.motion_size)
        if len(size) != 2 or not all(isinstance(side, int) and side >= MIN_MOTION_SIZE for side in size):
            raise ValueError(
                f"motion_size must be (height, width), both from {MIN_MOTION_SIZE} on, found {self.motion_size!r}."
            )
        object.__setattr__(self, "motion_size", size)
        if self.direction not in DIRECTIONS:
            raise ValueError(f"The flow direction must be forward or backward, found {self.direction!r}.")
        if not (isinstance(self.stride, int) and self.stride >= 1):
            raise ValueError(f"The flow stride must be a whole number of frames, 1 or more, found {self.stride!r}.")

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON values, with the rounding and the rule at the ends that flow was made with."""
        settings = dataclasses.asdict(self)
        edge_rule = FILES_EDGE_RULE if self.method == FROM_FILES else EDGE_RULE
        return {**settings, "motion_size": list(self.motion_size), "rounding": FLOW_STEP, "edge_rule": edge_rule}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> FlowSettings:
        """The inverse of `to_dict`.

        Raises:
            ValueError: Settings are missing or unknown, or the rounding or edge rule is not this program's.
        """
        expected = cls(method=settings.get("method", cls.method)).to_dict()
        if settings.keys() != expected.keys():
            raise ValueError(f"Flow settings must have the keys {', '.join(expected)}, found {', '.join(settings)}.")
        for key in ("rounding", "edge_rule"):
            if settings[key] != expected[key]:
                raise ValueError(
                    f"Flow was made with {key} {settings[key]!r}, this program's is {expected[key]!r}; make it again."
                )
        return cls(**{field.name: settings[field.name] for field in dataclasses.fields(cls)})


def reduce_frame(frame: np.ndarray, motion_size: tuple[int, int]) -> np.ndarray:
    """Reduces a frame to the grey image that flow is computed on.

    Args:
        frame: (H, W, 3) uint8 RGB.
        motion_size: (h, w).

    Returns:
        (h, w) uint8 grey. The frame is made grey and then resized: by means over areas (INTER_AREA) if neither side
        grows, by bilinear interpolation otherwise. The aspect ratio is not kept; flow is in pixels of the reduced
        frame.

    Raises:
        ValueError: The array is not such a frame.
    """
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise ValueError(f"A frame must be a uint8 (H, W, 3) RGB array, found {found}.")
    height, width = motion_size
    shrinks = height <= frame.shape[0] and width <= frame.shape[1]
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


class FlowEstimator:
    """The flow of a sequence, frame by frame: `flows`, or `push` and `close` for a live stream.

    Results depend on the frames and settings alone, not on the number of threads or on what was computed before.
    Memory does not grow with the sequence: `stride` + 1 reduced frames are held. An estimator cannot be pickled; make
    one in each process.
    """

    def __init__(self, settings: FlowSettings):
        if settings.method == FROM_FILES:
            raise ValueError("This flow comes from files; give the folder of its files (--flow_dir) to go on.")
        self.settings = settings
        self._calculate = _METHODS[settings.method]()
        self._start()

    def _start(self) -> None:
        # The reduced frames, the newest last, and their times.
        self._frames: collections.deque[np.ndarray] = collections.deque(maxlen=self.settings.stride + 1)
        self._times: collections.deque[float] = collections.deque(maxlen=self.settings.stride + 1)
        self._frame_shape: tuple[int, ...] | None = None
        self._num_frames = 0

    def between(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The flow from one frame to another, which need not be neighbours.

        Args:
            first: (H, W, 3) uint8 RGB.
            second: A frame of the same shape.

        Returns:
            (h, w, 2) float32, x then y, in pixels of `motion_size`, multiples of FLOW_STEP.

        Raises:
            ValueError: An array is not such a frame, the sizes differ, or 16 bits cannot hold the flow.
        """
        first_grey, second_grey = (reduce_frame(frame, self.settings.motion_size) for frame in (first, second))
        if first.shape != second.shape:
            raise ValueError(f"Frames of one sequence must have one size, found {first.shape} and {second.shape}.")
        return self._measure(first_grey, second_grey)

    def flows(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the flow of each frame in order.

        Args:
            frames: The frames of one sequence, (H, W, 3) uint8 RGB.

        Yields:
            (h, w, 2) float32, x then y, pixels of `motion_size` per frame, multiples of FLOW_STEP.

        Raises:
            ValueError: See `between`.
        """
        stream = FlowEstimator(self.settings)  # a new one, which has no frames that were pushed here
        for frame in frames:
            yield from stream.push(frame)
        yield from stream.close()

    def push(self, frame: np.ndarray, time: float | None = None) -> list[np.ndarray]:
        """Takes the next frame and returns the flows that became known, in frame order.

        Forward, there is none at first, and then one each time, that of the frame `stride` before. Backward, there is
        none for the first frame, two for the second (the flow of the first frame leads to it), and then that of each
        frame at once.

        Args:
            frame: (H, W, 3) uint8 RGB.
            time: Of the frame, counted in frames from anywhere. A live video leaves frames out; what moves has then
                moved farther, and its flow is divided by the time that passed. None counts the frames.

        Raises:
            ValueError: See `between`; or a time that is not later than that of the frame before.
        """
        grey = reduce_frame(frame, self.settings.motion_size)
        if self._num_frames and frame.shape != self._frame_shape:
            raise ValueError(
                f"Frames of one sequence must have one size, found {self._frame_shape}, then {frame.shape} "
                f"at frame {self._num_frames}."
            )
        time = self._num_frames if time is None else time
        if self._times and not time > self._times[-1]:  # also true for NaN
            raise ValueError(f"Times of frames must rise, found {time} after {self._times[-1]}.")
        # Kept only when the flow is known, so that a frame whose flow is refused leaves no trace.
        frames, times = self._frames.copy(), self._times.copy()
        frames.append(grey)
        times.append(time)
        flows = self._new_flows(frames, time - times[0])
        self._frames, self._times = frames, times
        self._frame_shape, self._num_frames = frame.shape, self._num_frames + 1
        return flows

    def _new_flows(self, frames: collections.deque[np.ndarray], span: float) -> list[np.ndarray]:
        """The flows that became known by the last of these reduced frames, `span` after the first of them."""
        if len(frames) == 1:
            return []
        if self.settings.direction == "forward":
            return [self._measure(frames[0], frames[-1], span)] if len(frames) > self.settings.stride else []
        # The oldest frame held is the one `stride` before, or the first of the sequence.
        flows = [self._measure(frames[0], frames[-1], -span)] if self._num_frames == 1 else []
        return [*flows, self._measure(frames[-1], frames[0], span)]

    def close(self) -> list[np.ndarray]:
        """Ends the sequence and returns the remaining flows in order. The estimator can then be used again."""
        frames, direction = list(self._frames), self.settings.direction
        num_frames, stride, times = self._num_frames, self.settings.stride, list(self._times)
        self._start()
        if num_frames == 1:
            return [np.zeros((*self.settings.motion_size, 2), np.float32)]
        if num_frames == 0 or direction == "backward":
            return []
        waiting = slice(-min(stride, num_frames), -1)
        flows = [
            self._measure(frame, frames[-1], times[-1] - time)
            for frame, time in zip(frames[waiting], times[waiting], strict=True)
        ]
        return [*flows, self._measure(frames[-1], frames[-2], times[-2] - times[-1])]

    def _measure(self, first: np.ndarray, second: np.ndarray, num_steps: float = 1) -> np.ndarray:
        """Rounded flow per frame over the time of `num_steps` frames, negative to negate it."""
        flow = np.round(self._calculate(first, second) / np.float32(num_steps * FLOW_STEP)) * np.float32(FLOW_STEP)
        if not (np.abs(flow) < MAX_FLOW).all():
            raise ValueError(
                f"Flow must be finite and below {MAX_FLOW:g} pixels, found {np.abs(flow).max()} "
                f"by method {self.settings.method!r}; use a smaller motion_size or another method."
            )
        return flow + np.float32(0)  # no negative zeros


def check_flow(flow: np.ndarray) -> np.ndarray:
    """Returns `flow` as float32.

    Raises:
        ValueError: The array is not a finite (H, W, 2) float array.
    """
    flow = np.asarray(flow)
    if flow.ndim != 3 or flow.shape[2] != 2 or not np.issubdtype(flow.dtype, np.floating):
        raise ValueError(f"Flow must be a float (H, W, 2) array, x then y, found {flow.dtype} {flow.shape}.")
    if not np.isfinite(flow).all():
        raise ValueError("Flow must be finite, found NaN or infinity; mask unknown vectors first.")
    return flow.astype(np.float32, copy=False)
