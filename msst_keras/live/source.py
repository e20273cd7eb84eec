"""Live sources: a camera of this machine, an address of the network, or a pipe; read through PyAV."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import av
import numpy as np

from msst_keras.data import image_files
from msst_keras.live.clock import Clock

# Schemes of FFmpeg that lead to a live stream. `file:` and the like are not among them.
SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "rtp", "udp", "tcp", "srt")
# A camera or an address that is silent for so many seconds, when it is opened and later, is gone. A pipe is not: its
# writer may come late.
_TIMEOUTS = (15.0, 10.0)
# Decoders hold no frame back. RTSP over TCP: lost UDP packets are grey pictures. What FFmpeg buffers while it finds out
# what comes (its `nobuffer`) does no harm: it is read at once, and dropped but for the newest.
_OPTIONS = {"flags": "low_delay", "rtsp_transport": "tcp"}
# Formats without times of their own: FFmpeg counts their frames at a rate that it guesses.
_TIMELESS = ("mpjpeg", "mjpeg", "image2pipe", "h264", "hevc", "rawvideo", "yuv4mpegpipe", "m4v")
_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}")}
_DEFAULT_RATE = 25.0
_MOST_FAILURES = 100  # one after the other; then what comes is no video any more


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
          KeyboardInterrupt, or what else a signal raises: while the source is silent.
        """
        self.name = address
        path, options = _find(address)
        try:
            self._container = _open(path) if options is None else _open(path, timeout=_TIMEOUTS, **options)
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
        clock = Clock(self.frame_rate, self._container.format.name.split(",")[0] not in _TIMELESS)
        with contextlib.closing(self._container):
            for picture in self._pictures():
                image_files.check_size(picture.width, picture.height, self.name)
                arrived = time.monotonic()
                yield LiveFrame(picture, clock.tell(picture.time, arrived), arrived)

    def _pictures(self) -> Iterator[av.VideoFrame]:
        """Yields what can be decoded, and goes on behind what cannot."""
        packets, failures = self._container.demux(self._stream), 0
        while True:
            packet = None
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                pictures = packet.decode()
            except av.InvalidDataError as error:  # a packet was lost, or we came in the middle of a picture
                failures += 1
                if failures > _MOST_FAILURES:
                    raise ValueError(f"{self.name}: what comes cannot be decoded ({_reason(error)})") from None
                if packet is None:  # the iterator itself raised, and has therefore ended; the source has not
                    packets = self._container.demux(self._stream)
                continue
            except (av.FFmpegError, OSError) as error:
                raise ValueError(f"{self.name}: the source broke off ({_reason(error)})") from None
            for picture in pictures:
                failures = 0
                yield picture


def _open(path: str, **options: Any) -> Any:
    """The container that PyAV makes of a source.

    FFmpeg waits in C, where Python handles no signal. So it waits in a thread, and this one, which Ctrl-C and SIGTERM
    interrupt, waits for that thread. It is a daemon: when the program ends, it ends too.
    """
    opened: Future[Any] = Future()

    def work() -> None:
        """Opens the source."""
        try:
            opened.set_result(av.open(path, options=_OPTIONS, **options))
        except Exception as error:
            opened.set_exception(error)

    threading.Thread(target=work, name="open source", daemon=True).start()
    return opened.result()


def _find(address: str) -> tuple[str, dict[str, str] | None]:
    """What PyAV opens, and how: its options, or None for a pipe."""
    if address.isdecimal():
        return _find_camera(address)
    if address == "-":
        return "pipe:0", None
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
        raise ValueError(f"{address}: a file is no live source; leave out --live")
    return "file:" + os.path.abspath(path), None


def _find_camera(number: str) -> tuple[str, dict[str, str]]:
    """What PyAV opens for this machine's camera of a number, and how."""
    if sys.platform not in _CAMERAS:
        raise ValueError(f"cameras cannot be opened by their number on {sys.platform}; give an address or a pipe")
    kind, path = _CAMERAS[sys.platform]
    path = path.format(number)
    if sys.platform == "linux" and not Path(path).exists():
        raise FileNotFoundError(f"{path}: there is no camera {number}")
    return path, {"format": kind}


def _reason(error: Exception) -> str:
    """What went wrong, in words."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
