"""Live sources: cameras, addresses and pipes; their times, their silence, and what they send that is no video."""

from __future__ import annotations

import contextlib
import http.server
import io
import os
import signal
import socket
import threading
import time
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from msst_keras.live import source as live_source
from msst_keras.live.source import LiveSource

SIZE = (48, 64)


def make_stream(times, rate=30):
    """Frames of these times (seconds), as MPEG-TS with MPEG-4 video."""
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = *SIZE, "yuv420p", 1
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, seconds in enumerate(times):
            picture = av.VideoFrame.from_ndarray(np.full((*SIZE, 3), 20 * number, np.uint8), format="rgb24")
            picture.pts, picture.time_base = round(seconds * 1000), Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return file.getvalue()


def open_pipe(path, content):
    """The source of a pipe to which a thread writes. It writes by Python: PyAV holds the GIL while it opens a pipe."""
    os.mkfifo(path)

    def write():
        with contextlib.suppress(BrokenPipeError):
            path.write_bytes(content)

    threading.Thread(target=write, daemon=True).start()
    return LiveSource(str(path))


def test_a_pipe_gives_frames_with_their_own_times(tmp_path):
    times = [0.0, 1 / 30, 2 / 30, 5 / 30, 6 / 30, 9 / 30]
    source = open_pipe(tmp_path / "pipe", make_stream(times))
    frames = list(source.frames())
    assert source.frame_rate == pytest.approx(30)
    assert [frame.seconds for frame in frames] == pytest.approx(times, abs=2e-3)
    for number, frame in enumerate(frames):
        assert frame.image().shape == (*SIZE, 3) and np.abs(frame.image() - 20.0 * number).mean() < 3


class Mjpeg(http.server.BaseHTTPRequestHandler):
    """A network camera of the simplest kind: JPEGs one behind the other, without times."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.end_headers()
        with contextlib.suppress(OSError):
            for number in range(12):
                jpeg = cv2.imencode(".jpg", np.full((*SIZE, 3), 20 * number, np.uint8))[1].tobytes()
                head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")
                self.wfile.flush()
                time.sleep(0.1)

    def log_message(self, *_):
        pass


def test_a_camera_without_times_is_timed_by_arrival():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mjpeg) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        frames = []
        with pytest.raises(ValueError, match="camera: the source broke off"):  # it ends without its last boundary
            for frame in LiveSource(f"http://127.0.0.1:{server.server_port}/camera").frames():
                frames.append(frame)
        server.shutdown()
    assert len(frames) >= 8
    steps = np.diff([frame.seconds for frame in frames])
    assert (steps > 0).all() and np.median(steps[-5:]) == pytest.approx(0.1, abs=0.05)  # not FFmpeg's guess of 1/25 s


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("97", FileNotFoundError, "there is no camera 97"),
        ("nothing", FileNotFoundError, "nothing: no such pipe; a live source is a camera's number"),
        ("file:///etc/passwd", ValueError, "a live address begins with rtsp://, "),
        ("http://127.0.0.1:9/none", ValueError, "http://127.0.0.1:9/none: no video comes from there"),
        (__file__, ValueError, "a file is no live source; leave out --live"),
    ],
)
def test_what_is_no_live_source_is_one_sentence(address, error, message):
    with pytest.raises(error, match=message):
        LiveSource(address)


def test_a_source_that_breaks_off_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="pipe: no video comes from there"):
        open_pipe(tmp_path / "pipe", b"no video at all " * 1000)


class Interrupted(BaseException):
    """What a signal raises in these tests, as Ctrl-C raises KeyboardInterrupt."""


@contextlib.contextmanager
def interrupted_soon():
    """A signal comes a little later, and raises."""

    def interrupt(*_):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("start", [None, b"", b"G"], ids=["no writer", "silent", "silent after its first byte"])
def test_a_signal_ends_the_wait_for_a_pipe(tmp_path, start):
    pipe, held, given_up = tmp_path / "pipe", [], threading.Event()
    os.mkfifo(pipe)

    def end():
        """Whoever waits for the pipe now finds its end. Both ways, because that waits for nobody."""
        held.append(os.open(pipe, os.O_RDWR))
        while held:
            os.close(held.pop())

    def give_up():
        given_up.set()
        end()

    if start is not None:
        held.append(os.open(pipe, os.O_RDWR))
        os.write(held[0], start)
    timer = threading.Timer(20, give_up)
    timer.start()
    with pytest.raises(Interrupted), interrupted_soon():
        LiveSource(str(pipe))
    timer.cancel()
    assert not given_up.is_set()
    while any(thread.name == "open source" for thread in threading.enumerate()):
        end()
        time.sleep(0.01)


def test_a_signal_ends_the_wait_for_an_address(monkeypatch):
    monkeypatch.setattr(live_source, "_TIMEOUTS", (5.0, 5.0))
    with socket.create_server(("127.0.0.1", 0)) as server:
        started = time.monotonic()
        with pytest.raises(Interrupted), interrupted_soon():
            LiveSource(f"http://127.0.0.1:{server.getsockname()[1]}/camera")
        assert time.monotonic() - started < 3


def test_a_pipe_may_be_silent_for_longer_than_an_address(tmp_path, monkeypatch):
    monkeypatch.setattr(live_source, "_TIMEOUTS", (0.2, 0.2))
    os.mkfifo(tmp_path / "pipe")
    stream = make_stream([number / 30 for number in range(9)])

    def write():
        time.sleep(0.5)
        with open(tmp_path / "pipe", "wb", buffering=0) as pipe:
            for part in (stream[:400], stream[400:-400], stream[-400:]):
                time.sleep(0.5)
                pipe.write(part)

    threading.Thread(target=write, daemon=True).start()
    assert len(list(LiveSource(str(tmp_path / "pipe")).frames())) == 9


def test_an_address_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(live_source, "_TIMEOUTS", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/camera"
        with pytest.raises(ValueError, match="camera: no video comes from there"):
            LiveSource(address)


def test_standard_input_is_a_pipe():
    times = [0.0, 1 / 30, 3 / 30, 4 / 30, 5 / 30, 9 / 30]
    reader, writer = os.pipe()
    before = os.dup(0)
    try:
        os.dup2(reader, 0)
        os.write(writer, make_stream(times))  # a pipe holds so much
        os.close(writer)
        frames = list(LiveSource("-").frames())
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(reader)
    assert [frame.seconds for frame in frames] == pytest.approx(times, abs=2e-3)


def test_a_clock_that_is_set_back_counts_one_frame(tmp_path):
    parts = [make_stream([100 + number / 30 for number in range(6)]), make_stream([0.0, 1 / 30, 4 / 30])]
    frames = list(open_pipe(tmp_path / "pipe", b"".join(parts)).frames())
    steps = np.diff([frame.seconds for frame in frames])
    assert steps * 30 == pytest.approx([1, 1, 1, 1, 1, 1, 1, 3], abs=0.1)


def make_y4m(num_frames):
    """The head, and frames of equal length, of uncompressed video."""
    height, width = SIZE
    frames = [b"FRAME\n" + bytes([20 * number]) * (height * width * 3 // 2) for number in range(num_frames)]
    return f"YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1 C420mpeg2\n".encode(), frames


def test_damage_is_gone_past(tmp_path):
    head, frames = make_y4m(10)
    damage = bytes(80 * 20)  # FFmpeg looks for the head of a frame in 80 bytes at a time
    source = open_pipe(tmp_path / "pipe", b"".join([head, *frames[:4], damage, *frames[4:]]))
    assert len(list(source.frames())) == 10


def test_damage_that_does_not_end_is_one_sentence(tmp_path):
    head, frames = make_y4m(12)
    source, came = open_pipe(tmp_path / "pipe", b"".join([head, *frames[:6], bytes(3000), *frames[6:]])), []
    with pytest.raises(ValueError, match="pipe: what comes cannot be decoded"):
        for frame in source.frames():
            came.append(frame)
    assert len(came) == 6
