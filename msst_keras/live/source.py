"""Live sources: a camera of this machine, an address of the network, or a pipe; read through PyAV."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from msst_keras.data import image_files

# Schemes of FFmpeg that lead to a live stream. `file:` and the like are not among them.
SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "rtp", "udp", "tcp", "srt")
OPEN_SECONDS, READ_SECONDS = 15.0, 10.0  # a source that is silent for so long is gone
# Decoders hold no frame back. RTSP over TCP: lost UDP packets are grey pictures. What FFmpeg buffers while it finds out
# what comes (its `nobuffer`) does no harm: it is read at once, and dropped but for the newest.
_OPTIONS = {"flags": "low_delay", "rtsp_transport": "tcp"}
# Formats without times of their own: FFmpeg counts their frames at a rate that it guesses.
_TIMELESS = ("mpjpeg", "mjpeg", "image2pipe", "h264", "hevc", "rawvideo", "yuv4mpegpipe", "m4v")
_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}")}
_DEFAULT_RATE = 25.0


@dataclasses.dataclass(frozen=True)
class LiveFrame:
    """A frame as it came.

    Attributes:
      picture: what was decoded; `image` makes pixels of it, which only a frame that is looked at needs.
      seconds: its time by the source's clock, counted from the first frame; by its arrival where the source has none.
      arrived: when it came, by `time.monotonic`.
    """

    picture: av.VideoFrame
    seconds: float
    arrived: float

    def image(self) -> np.ndarray:
        """uint8 (H, W, 3) RGB."""
        return self.picture.to_ndarray(format="rgb24")


class LiveSource:
    """An opened source.

    Attributes:
      name: what it was opened by.
      frame_rate: frames per second that it says it gives; the true times are those of the frames.
    """

    def __init__(self, address: str):
        """Opens a camera by its number, an address of one of SCHEMES, a named pipe by its path, or "-", standard input.

        Raises:
          FileNotFoundError: no such camera or pipe.
          ValueError: no such kind of source; one that does not answer, or gives no video.
        """
        self.name = address
        path, options = _find(address)
        try:
            self._container = av.open(path, options=_OPTIONS, timeout=(OPEN_SECONDS, READ_SECONDS), **options)
        except (av.FFmpegError, OSError) as error:
            raise ValueError(f"{address}: no video comes from there ({_reason(error)})") from None
        self._stream = self._container.streams.best("video")
        if self._stream is None:
            self._container.close()
            raise ValueError(f"{address}: there is no video in what comes from there")
        self._stream.thread_type = "SLICE"  # threads that work on several frames at once would hold frames back
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.frame_rate = float(rate) if rate and 1 <= rate <= 240 else _DEFAULT_RATE

    def frames(self) -> Iterator[LiveFrame]:
        """Yields the frames until the source ends.

        Raises:
          ValueError: the source fell silent or sends what cannot be decoded.
        """
        clock = _Clock(self._container.format.name.split(",")[0] not in _TIMELESS)
        with contextlib.closing(self._container):
            packets, failures = self._container.demux(self._stream), 0
            while True:
                try:
                    packet = next(packets, None)
                    pictures = packet.decode() if packet else ()
                except av.InvalidDataError as error:  # a packet was lost, or we came in the middle of a picture
                    failures += 1
                    if failures > 100:
                        raise ValueError(f"{self.name}: what comes cannot be decoded ({_reason(error)})") from None
                    continue
                except (av.FFmpegError, OSError) as error:
                    raise ValueError(f"{self.name}: the source broke off ({_reason(error)})") from None
                if packet is None:
                    return
                for picture in pictures:
                    failures = 0
                    image_files.check_size(picture.width, picture.height, self.name)
                    arrived = time.monotonic()
                    yield LiveFrame(picture, clock.tell(picture.time, arrived), arrived)


class _Clock:
    """Times that rise from 0: the source's own where it has them, else those of arrival."""

    _LEAST = 1e-3  # seconds between two frames

    def __init__(self, has_times: bool):
        self._has_times, self._offset = has_times, 0.0
        self._last: float | None = None

    def tell(self, time: float | None, arrived: float) -> float:
        """Seconds since the first frame, later than those of the frame before; given its own time and its arrival."""
        if time is None or not self._has_times:
            time, self._has_times = arrived, False
        if self._last is None:
            self._offset, seconds = time, 0.0
        else:
            seconds = time - self._offset
            # A clock that was set back, or far ahead, goes on from where it was.
            if not self._last < seconds < self._last + READ_SECONDS:
                seconds = self._last + self._LEAST
                self._offset = time - seconds
        self._last = seconds
        return seconds


def _find(address: str) -> tuple[str, dict]:
    """What PyAV opens, and how."""
    if address.isdecimal():
        return _find_camera(address)
    if address == "-":
        return "pipe:0", {}
    scheme = re.match(r"([a-z0-9+]+)://", address, re.IGNORECASE)
    if scheme:
        if scheme[1].lower() not in SCHEMES:
            raise ValueError(f"{address}: a live address begins with {'://, '.join(SCHEMES)}://")
        return address, {}
    path = Path(address)
    if not path.exists():
        raise FileNotFoundError(f"{address}: no such pipe; a live source is a camera's number, an address or a pipe")
    if stat.S_ISCHR(path.stat().st_mode):
        return address, {"format": "v4l2"}
    if not stat.S_ISFIFO(path.stat().st_mode):
        raise ValueError(f"{address}: a file is no live source; leave --live away")
    return "file:" + os.path.abspath(path), {}


def _find_camera(number: str) -> tuple[str, dict]:
    if sys.platform not in _CAMERAS:
        raise ValueError(f"cameras cannot be opened by their number on {sys.platform}; give an address or a pipe")
    kind, path = _CAMERAS[sys.platform]
    path = path.format(number)
    if sys.platform == "linux" and not Path(path).exists():
        raise FileNotFoundError(f"{path}: there is no camera {number}")
    return path, {"format": kind}


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
