"""The work on a live source: its newest frames to maps, and the last picture for whoever looks."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator

import numpy as np

from msst_keras.data import images
from msst_keras.inference.overlay import overlay
from msst_keras.live.newest import Newest
from msst_keras.live.source import LiveFrame

_JPEG_QUALITY = 85
_RATE_SECONDS = 3.0  # the rate that is shown is that of so long a time

# (frame, its pixels, its time in frames), ..., what makes these end -> (frame, its pixels, its map), ... in order; see
# `stream.stream_maps`.
MakeMaps = Callable[
    [Iterator[tuple[LiveFrame, np.ndarray, float]], Callable[[], None]],
    Generator[tuple[LiveFrame, np.ndarray, np.ndarray], None, None],
]


class LiveView:
    """Makes the maps of a source's newest frames in a thread of its own, and holds the last picture.

    Between a frame's coming and its map lie the frames that are under way and no more: when a stage of the work has
    room, it takes the newest frame there is.

    Attributes:
      is_over: set when the source has ended, failed, or was stopped.
      watchers: how many look. Pictures are painted only for them.
    """

    def __init__(self, frames: Iterable[LiveFrame], frame_rate: float, make_maps: MakeMaps):
        """Takes the source's frames, its frames per second, and what makes maps of them."""
        self.is_over, self.watchers = threading.Event(), 0
        self._newest, self._frame_rate, self._make_maps = Newest(frames), frame_rate, make_maps
        self._thread = threading.Thread(target=self._work, name="live", daemon=True)
        self._painted = threading.Condition()
        self._picture, self._number = b"", 0
        self._error: Exception | None = None
        self._num_maps, self._lag = 0, 0.0
        self._ends: list[float] = []

    def start(self) -> None:
        """Begins to read and to work."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the work, waits for what is under way, and raises the error that ended it, if one did."""
        self._newest.stop()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def state(self) -> dict:
        """What is going on: "frames" read, "maps" made, "dropped" frames, maps a "rate" second, seconds of "lag"."""
        ends = [end for end in list(self._ends) if end > time.monotonic() - _RATE_SECONDS]
        rate = (len(ends) - 1) / (ends[-1] - ends[0]) if len(ends) > 1 else 0.0
        return {
            "frames": self._newest.num_read, "maps": self._num_maps, "dropped": self._newest.num_dropped,
            "rate": round(rate, 2), "lag": round(self._lag, 3), "over": self.is_over.is_set(),
            "error": " ".join(str(self._error or "").split()),
        }  # fmt: skip

    def picture(self, after: int, timeout: float) -> tuple[int, bytes] | None:
        """(number, JPEG) of the newest picture if its number is above `after`; waits for it; None if none came."""
        with self._painted:
            self._painted.wait_for(lambda: self._number > after or self.is_over.is_set(), timeout)
            return (self._number, self._picture) if self._number > after else None

    def _work(self) -> None:
        """Makes the maps until the source or the work ends."""
        try:
            with contextlib.closing(self._make_maps(self._numbered(), self._newest.stop)) as maps:
                try:
                    for frame, pixels, saliency in maps:
                        self._take(frame, pixels, saliency)
                finally:  # first: closing the maps waits for a stage that may wait for the next frame
                    self._newest.stop()
        except Exception as error:
            self._error = error
        finally:
            self._newest.stop()
            self.is_over.set()
            with self._painted:
                self._painted.notify_all()

    def _take(self, frame: LiveFrame, pixels: np.ndarray, saliency: np.ndarray) -> None:
        """Shows a map to those who look, and counts it."""
        if self.watchers:
            self._show(images.encode_jpeg(overlay(pixels, saliency), _JPEG_QUALITY))
        self._num_maps += 1
        now = time.monotonic()
        self._lag = now - frame.arrived
        self._ends = [*self._ends[-100:], now]

    def _numbered(self) -> Iterator[tuple[LiveFrame, np.ndarray, float]]:
        """Yields the newest frames, their pixels, and their times in frames."""
        for frame in self._newest:
            yield frame, frame.image(), frame.seconds * self._frame_rate

    def _show(self, picture: bytes) -> None:
        """Makes a JPEG the newest picture."""
        with self._painted:
            self._picture, self._number = picture, self._number + 1
            self._painted.notify_all()
