"""Live video: the newest frame alone, a source that is never made to wait, and a page that shows what is made of it."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import threading
import time

import numpy as np
import pytest

pytest.importorskip("uvicorn")

import uvicorn  # noqa: E402

from msst_keras.data import images  # noqa: E402
from msst_keras.inference.options import PredictOptions  # noqa: E402
from msst_keras.inference.parallel import read_ahead  # noqa: E402
from msst_keras.live import view as live_view  # noqa: E402
from msst_keras.live.newest import Newest  # noqa: E402
from msst_keras.live.server import LivePage  # noqa: E402
from msst_keras.live.source import LiveFrame  # noqa: E402
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

    def make(frames, stop):
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
    def fail(frames, stop):
        next(frames)
        raise ValueError("frames of one sequence must have one size")
        yield

    view = LiveView(paced(10**6, 0.001), 25.0, fail)
    view.start()
    assert view.is_over.wait(10)
    assert view.state()["error"] == "frames of one sequence must have one size"
    with pytest.raises(ValueError, match="must have one size"):
        view.stop()


def one_frame(comes):
    """One frame, and silence until `comes` is set."""
    yield from paced(1, 0.0)
    comes.wait(60)


def check_error_ends(view, comes, reason):
    """The view ends with an error while its source is silent; only then does the next frame come."""
    view.start()
    is_over = view.is_over.wait(10)
    comes.set()
    assert is_over
    with pytest.raises(ValueError, match=reason):
        view.stop()


def test_an_error_ends_the_work_while_the_source_is_silent(monkeypatch):
    waits, comes = threading.Event(), threading.Event()

    def make_maps(frames):
        for frame, pixels, _ in frames:
            yield frame, pixels, np.zeros(SIZE, np.float32)
            waits.set()

    def fail(pixels, saliency):
        waits.wait(20)
        raise ValueError("there is no room for a picture")

    monkeypatch.setattr(live_view, "overlay", fail)
    view = LiveView(one_frame(comes), 25.0, lambda frames, stop: read_ahead(make_maps(frames), 1))
    view.watchers += 1
    check_error_ends(view, comes, "no room for a picture")


def test_an_error_of_a_stage_ends_the_work_while_the_source_is_silent():
    waits, comes = threading.Event(), threading.Event()

    def first_stage(frames):
        yield next(frames)
        waits.set()
        yield from frames

    def second_stage(items):
        with contextlib.closing(items):
            yield next(items)
            waits.wait(20)
            raise ValueError("there is no room for a map")

    def make_maps(frames, stop):
        return read_ahead(second_stage(read_ahead(first_stage(frames), 1, stop)), 1)

    view = LiveView(one_frame(comes), 25.0, make_maps)
    check_error_ends(view, comes, "no room for a map")


@contextlib.contextmanager
def served(view):
    """The port of the page of a view, served by a thread of this process."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as free:
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input": ("0", "1")}, "--live has one source, and there are 2: 0, 1"),
        (
            {"input": ("0",), "server": "grpc://localhost:8500"},
            "--live shows maps as they come, and has no use for --server",
        ),
        ({"input": ("0",), "crf": True, "threshold": 0.5}, "and has no use for --crf, --threshold"),
        ({"input": ("0",), "look_ahead": 7}, "and has no use for --look_ahead$"),
        ({"input": ("0",), "output_dir": "x", "overwrite": True}, "and has no use for --output_dir, --overwrite$"),
        (
            {"input": ("0",), "timeout": 3.0, "frame_quality": 90, "crf_workers": 2},
            "and has no use for --timeout, --frame_quality, --crf_workers$",
        ),
        ({"input": ("0",), "overlay": "x.mp4", "model_name": "mine"}, "and has no use for --model_name, --overlay"),
    ],
)
def test_options_that_do_not_go_with_live_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PredictOptions(live=True, **options)


def test_options_that_say_what_is_done_anyway_go_with_live():
    PredictOptions(live=True, input=("0",), look_ahead=0, overlay="none", port=0)
