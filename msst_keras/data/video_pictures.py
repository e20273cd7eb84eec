"""Decoded pictures of a video to upright RGB of one size, with FFmpeg's filters."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from msst_keras.data import image_files

_UPRIGHT = np.eye(2)


class VideoFrame(NamedTuple):
    """A frame of a video: `image` is uint8 (H, W, 3) RGB, upright; `seconds` passed since the first frame."""

    image: np.ndarray
    seconds: float


class Painter:
    """Decoded pictures to upright RGB of one size; the times of those that wait for their neighbours stay with them."""

    def __init__(self, path: str | Path):
        self._path = path
        self._graph: av.filter.Graph | None = None
        self._key: tuple[str, int, int, bool] | None = None
        self._size: tuple[int, int] | None = None
        self._waiting: collections.deque[tuple[float, np.ndarray]] = collections.deque()
        self._ready: collections.deque[VideoFrame] = collections.deque()

    def push(self, frame: av.VideoFrame, seconds: float) -> None:
        """Takes the next decoded frame and its time.

        Raises:
          ValueError: it is too large, or a frame before it cannot be converted.
        """
        image_files.check_size(frame.width, frame.height, str(self._path))
        is_interlaced = frame.interlaced_frame or bool(self._key and self._key[-1])  # the filter looks at each itself
        key = (frame.format.name, frame.width, frame.height, is_interlaced)
        if key != self._key:
            self._drain()
            self._size = self._size or (frame.width, frame.height)
            self._graph, self._key = _make_graph(frame, self._size, is_interlaced), key
        self._waiting.append((seconds, display_matrix(frame)))
        assert self._graph is not None, "made with the key"
        self._graph.push(frame)
        self._pull(self._graph)

    def end(self) -> None:
        """Converts what still waits. Raises ValueError if a frame cannot be converted."""
        self._drain()

    def ready(self) -> Iterator[VideoFrame]:
        """Yields the frames that are converted, uint8 (H, W, 3) RGB with their times in seconds, once and in order."""
        while self._ready:
            yield self._ready.popleft()

    def _drain(self) -> None:
        if self._graph:
            self._graph.push(None)
            self._pull(self._graph)
        if self._waiting:
            raise ValueError(f"{self._path}: {len(self._waiting)} frames cannot be converted; encode the video again")

    def _pull(self, graph: av.filter.Graph) -> None:
        while self._waiting:
            try:
                picture = graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            seconds, matrix = self._waiting.popleft()
            self._ready.append(VideoFrame(_show(picture.to_ndarray(), matrix, self._path), seconds))


def _make_graph(frame: av.VideoFrame, size: tuple[int, int], is_interlaced: bool) -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.threads = 1  # its threads cost more than they save
    time_base = frame.time_base or Fraction(1, 90_000)
    last = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base)
    filters = [("scale", f"{size[0]}:{size[1]}:flags=bicubic:interl=0"), ("format", "rgb24"), ("buffersink", None)]
    if is_interlaced:
        filters.insert(0, ("yadif", "mode=send_frame:deint=interlaced"))
    for name, arguments in filters:
        following = graph.add(name, arguments)
        last.link_to(following)
        last = following
    graph.configure()
    return graph


def display_matrix(frame: av.VideoFrame) -> np.ndarray:
    """The turn of a frame as (2, 2) of -1, 0, 1, in whose rows stored x and y become shown x and y; else as it is."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            matrix = np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2] / 65536
            return np.rint(matrix) if np.abs(matrix - np.rint(matrix)).max() < 0.02 else matrix
    return _UPRIGHT


def _show(image: np.ndarray, matrix: np.ndarray, path: str | Path) -> np.ndarray:
    """Turns and mirrors an image as its display matrix says."""
    (a, b), (c, d) = matrix
    if matrix is _UPRIGHT:
        shown = image
    elif {abs(a), abs(d)} == {1} and b == c == 0:
        shown = image[:: int(d), :: int(a)]
    elif {abs(b), abs(c)} == {1} and a == d == 0:
        shown = image.swapaxes(0, 1)[:: int(b), :: int(c)]
    else:
        raise ValueError(
            f"{path}: is to be shown turned by an angle that is no multiple of 90 degrees; encode it upright"
        )
    return np.ascontiguousarray(shown)
