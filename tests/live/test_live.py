"""Live sources: never made to wait, the newest frame alone, true times, and a page that shows what is made of it."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import threading
import time
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

pytest.importorskip("uvicorn")

import uvicorn  # noqa: E402

from msst_keras.data import images  # noqa: E402
from msst_keras.inference.options import PredictOptions  # noqa: E402
from msst_keras.live.newest import Newest  # noqa: E402
from msst_keras.live.server import LivePage  # noqa: E402
from msst_keras.live.source import LiveFrame, LiveSource  # noqa: E402
from msst_keras.live.view import LiveView  # noqa: E402
from msst_keras.web.guard import Guard  # noqa: E402

SIZE = (48, 64)


class Picture:
    """What LiveFrame needs of a decoded frame; its grey level tells which one it is."""

    def __init__(self, number):
        self.number = number

    def to_ndarray(self, format):
        assert format == "rgb24"
        return np.full((*SIZE, 3), self.number % 256, np.uint8)


def paced(num_frames, seconds):
    """A source of so many frames, `seconds` apart, that does not wait for anybody."""
    due = time.monotonic()
    for number in range(num_frames):
        due += seconds
        time.sleep(max(0.0, due - time.monotonic()))
        yield LiveFrame(Picture(number), number * seconds, time.monotonic())


def slow_maps(seconds, seen):
    """Maps that take so long each."""

    def make(frames):
        for frame, pixels, when in frames:
            time.sleep(seconds)
            seen.append((frame.picture.number, when))
            yield frame, pixels, np.full(SIZE, 0.5, np.float32)

    return make


def test_the_newest_item_is_taken_and_the_others_are_counted():
    came = [threading.Event() for _ in range(2)]

    def items():
        yield 0
        came[0].wait(10)
        yield from (1, 2, 3)
        came[1].wait(10)
        yield from (4, 5)

    newest, taken = Newest(items()), []
    for item in newest:
        taken.append(item)
        if len(taken) <= 2:
            before = newest.num_read
            came[len(taken) - 1].set()
            while newest.num_read < before + (3 if len(taken) == 1 else 2):
                time.sleep(0.001)
    assert taken == [0, 3, 5]
    assert (newest.num_read, newest.num_dropped) == (6, 3)


def test_an_error_of_the_source_comes_behind_its_last_item():
    def items():
        yield 1
        raise ValueError("the source broke off")

    taken = []
    with pytest.raises(ValueError, match="the source broke off"):
        for item in Newest(items()):
            taken.append(item)
    assert taken == [1]


def test_a_source_faster_than_the_work_is_followed_with_a_bounded_lag():
    seen, lags = [], []
    view = LiveView(paced(150, 0.01), 100.0, slow_maps(0.04, seen))
    view.start()
    while not view.is_over.wait(0.05):
        lags.append(view.state()["lag"])
    view.stop()
    state = view.state()
    assert state["frames"] == 150 and state["maps"] == len(seen)
    assert state["dropped"] == 150 - len(seen) and 20 <= len(seen) <= 60
    # Each map is that of a frame that came during the one before or later: the lag does not grow with the time.
    assert max(lags) < 0.5
    numbers = [number for number, _ in seen]
    assert numbers == sorted(set(numbers)) and numbers[-1] == 149
    assert all(when == pytest.approx(number) for number, when in seen)  # times in frames, also where some are missing


def test_pictures_are_painted_for_those_who_look():
    view = LiveView(paced(40, 0.01), 100.0, slow_maps(0.0, []))
    view.start()
    time.sleep(0.1)
    assert view.picture(0, 0.0) is None
    view.watchers += 1
    number, jpeg = view.picture(0, 5.0)
    assert number >= 1 and images.decode_frame(jpeg, "picture").shape == (*SIZE, 3)
    view.stop()
    assert view.picture(10**9, 5.0) is None  # at once: nothing comes any more


def test_an_error_of_the_work_ends_it_and_is_told():
    def fail(frames):
        next(frames)
        raise ValueError("frames of one sequence must have one size")
        yield

    view = LiveView(paced(10**6, 0.001), 25.0, fail)
    view.start()
    assert view.is_over.wait(10)
    assert view.state()["error"] == "frames of one sequence must have one size"
    with pytest.raises(ValueError, match="must have one size"):
        view.stop()


@contextlib.contextmanager
def served(view):
    """The port of the page of a view, served by a thread of this process."""
    with http.server.HTTPServer(("127.0.0.1", 0), Mjpeg) as free:
        port = free.server_port
    app = Guard(LivePage(view, "camera 0").make_app(), port)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join()


def test_the_page_streams_the_newest_pictures_and_tells_the_numbers():
    view = LiveView(paced(10**6, 0.005), 200.0, slow_maps(0.02, []))
    view.start()
    with served(view) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/overlay.mjpeg")
        response = connection.getresponse()
        assert response.headers["content-type"] == "multipart/x-mixed-replace; boundary=picture"
        for _ in range(3):
            assert response.readline() == b"--picture\r\n" and response.readline() == b"Content-Type: image/jpeg\r\n"
            length = int(response.readline().split(b":")[1])
            assert response.readline() == b"\r\n"
            assert images.decode_frame(response.read(length), "picture").shape == (*SIZE, 3)
            assert response.readline() == b"\r\n"
        other = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        other.request("GET", "/api/state")
        state = json.loads(other.getresponse().read())
        assert state["title"] == "camera 0" and state["maps"] >= 3 and state["dropped"] > state["maps"]
        other.request("GET", "/overlay.mjpeg", headers={"Sec-Fetch-Site": "cross-site"})
        with other.getresponse() as refused:
            assert refused.status == 403  # another site's page gets no picture of the camera
        response.close()
        for each in (connection, other):
            each.close()
        deadline = time.monotonic() + 10
        while view.watchers and time.monotonic() < deadline:
            time.sleep(0.01)
        assert view.watchers == 0
        view.stop()


def write_stream(path, times, rate=30):
    """Writes frames of these times (seconds) to a pipe, as MPEG-TS with MPEG-4 video."""
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = *SIZE, "yuv420p", 1
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, seconds in enumerate(times):
            picture = av.VideoFrame.from_ndarray(np.full((*SIZE, 3), 20 * number, np.uint8), format="rgb24")
            picture.pts, picture.time_base = round(seconds * 1000), Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def test_a_pipe_gives_frames_with_their_own_times(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    times = [0.0, 1 / 30, 2 / 30, 5 / 30, 6 / 30, 9 / 30]
    writer = threading.Thread(target=write_stream, args=(tmp_path / "pipe", times), daemon=True)
    writer.start()
    source = LiveSource(str(tmp_path / "pipe"))
    frames = list(source.frames())
    writer.join()
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
        (__file__, ValueError, "a file is no live source; leave --live away"),
    ],
)
def test_what_is_no_live_source_is_one_sentence(address, error, message):
    with pytest.raises(error, match=message):
        LiveSource(address)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input": ("0", "1")}, "--live has one source, and there are 2: 0, 1"),
        (
            {"input": ("0",), "server": "grpc://localhost:8500"},
            "--live shows maps as they come, and has no use for --server",
        ),
        ({"input": ("0",), "crf": True, "threshold": 0.5}, "and has no use for --crf, --threshold"),
        ({"input": ("0",), "look_ahead": 7}, "and has no use for --look_ahead"),
    ],
)
def test_options_that_do_not_go_with_live_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PredictOptions(live=True, **options)


def test_a_source_that_breaks_off_is_one_sentence(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    def write():
        with open(tmp_path / "pipe", "wb") as pipe:
            pipe.write(b"no video at all " * 1000)

    writer = threading.Thread(target=write)
    writer.start()
    with pytest.raises(ValueError, match="pipe: no video comes from there"):
        LiveSource(str(tmp_path / "pipe"))
    writer.join()
