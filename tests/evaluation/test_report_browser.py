"""The report in a real browser, driven through its DevTools pipe; skipped where there is no Chromium."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from msst_keras.evaluation.figures import Method
from msst_keras.evaluation.html_report import write_report
from msst_keras.evaluation.protocols import SCALARS
from msst_keras.evaluation.published import published_rows

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")
ODD = '<img src="http://example.com/x.png" onerror="document.title=1">'
# Descriptors 3 and 4 are Chromium's ends of the pipe.
_START = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_TIMEOUT = 60


class Browser:
    """A page in a headless Chromium, and what it did: `events` is every DevTools event in order."""

    def __init__(self, profile_dir, color_scheme="light"):
        pipes = [os.pipe(), os.pipe()]
        # Away from 3 and 4, so that moving one end there does not close the other.
        theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in (pipes[0][0], pipes[1][1])]
        self._write, self._read, self._buffer, self._last, self.events = pipes[0][1], pipes[1][0], b"", 0, []
        command = [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--remote-debugging-pipe", f"--user-data-dir={profile_dir}", "--host-resolver-rules=MAP * ~NOTFOUND",
            "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, *map(str, theirs), *command],
            pass_fds=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for fd in (*theirs, pipes[0][0], pipes[1][1]):
            os.close(fd)
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": color_scheme}])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(_TIMEOUT)
        os.close(self._write)
        os.close(self._read)

    def call(self, method, **parameters):
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _next(self):
        while b"\0" not in self._buffer:
            assert select.select([self._read], [], [], _TIMEOUT)[0], "Chromium does not answer"
            data = os.read(self._read, 1 << 20)
            assert data, "Chromium has ended"
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, path):
        self.call("Page.navigate", url=path.as_uri())
        deadline = time.monotonic() + _TIMEOUT
        while self.run("document.readyState") != "complete" or self.run("location.href") == "about:blank":
            assert time.monotonic() < deadline, "the page does not load"

    def run(self, script):
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key, text=""):
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, text=text, windowsVirtualKeyCode=13)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=13)

    def resize(self, width, height=900):
        mobile = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def screenshot(self):
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        return base64.b64decode(data)

    def complaints(self):
        """Errors and messages of the console."""
        kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [event["params"] for event in self.events if event["method"] in kinds]

    def requests(self):
        """What was asked for, but for the page itself and what it holds."""
        sent = [event["params"]["request"]["url"] for event in self.events
                if event["method"] == "Network.requestWillBeSent"]  # fmt: skip
        return [url for url in sent if not url.startswith(("file:", "data:"))]


def make_method(name, quality, is_baseline=False):
    scalars = {**dict.fromkeys(SCALARS), "mae": 0.1 - quality / 20, "max_f": quality, "s_measure": quality}
    frames = {
        (sequence, f"{frame:05d}"): {**scalars, "max_f": quality * (0.5 + frame / 20)}
        for sequence in ("bear", ODD, "cat10", "cat9")
        for frame in range(8)
    }
    values = {"bear": 0.5, ODD: 0.25, "cat10": 0.125, "cat9": None}
    curve = np.linspace(1, 0, 256)
    result = {
        "protocol": "paper", "num_frames": 32, "num_sequences": 4, **scalars, "recall": curve.tolist(),
        "precision": (1 - 0.5 * curve).tolist(), "f_curve": (quality * curve).tolist(), "e_curve": None,
        "sequences": {sequence: {**scalars, "s_measure": value} for sequence, value in values.items()},
    }  # fmt: skip
    return Method(name, result, frames, is_baseline)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    methods = [make_method("ours", 0.8), make_method(ODD, 0.7), make_method("all black", 0.1, True)]
    image = np.random.default_rng(0).integers(0, 256, (48, 85, 3), dtype=np.uint8)

    def read_images(sequence, frame):
        return image, image[..., 0] > 128, {method.name: image[..., 1] for method in methods}

    return write_report(tmp_path_factory.mktemp("report"), methods, read_images, published_rows("davis"), title=ODD)


@pytest.fixture(scope="module")
def browser(report, tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        browser.resize(1280)
        browser.open(report)
        yield browser


TABLE = "document.querySelectorAll('#sequence-tables table')[0]"


def rows(browser):
    return browser.run(f"[...{TABLE}.tBodies[0].rows].map(row => row.cells[0].textContent)")


def test_no_complaint_no_request_every_picture_drawn(browser):
    pictures = browser.run(
        "Promise.all([...document.images].map(async image => { await image.decode(); return image.naturalWidth; }))"
    )
    assert len(pictures) == 3 + 8 * 5 + 4 and min(pictures) > 0
    assert browser.complaints() == []
    assert browser.requests() == []
    assert browser.run("document.title") == "ours: saliency evaluation"


def test_a_request_would_be_seen_and_refused(report, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(report.read_text().replace("<main>", '<main><img src="http://example.com/y.png">'))
    with Browser(tmp_path / "profile") as browser:
        browser.open(broken)
        assert "Content Security Policy" in json.dumps(browser.complaints())


def test_table_sorts_by_click(browser):
    browser.run(f"{TABLE}.querySelectorAll('button')[4].click()")  # S
    assert rows(browser) == ["cat10", ODD, "bear", "cat9"]
    browser.run(f"{TABLE}.querySelectorAll('button')[4].click()")
    assert rows(browser) == ["bear", ODD, "cat10", "cat9"]  # what is undefined stays last
    assert browser.run(f"{TABLE}.querySelectorAll('th')[4].getAttribute('aria-sort')") == "descending"


def test_table_sorts_by_keyboard(browser):
    browser.run(f"{TABLE}.querySelectorAll('button')[0].focus()")
    browser.press("Enter", "\r")
    assert rows(browser) == [ODD, "bear", "cat9", "cat10"]
    assert browser.run(f"{TABLE}.querySelectorAll('th[aria-sort]').length") == 1


def test_one_panel_is_shown(browser):
    shown = "[...document.getElementById('timelines').children].map(panel => panel.checkVisibility())"
    assert browser.run(shown) == [True, False, False, False]
    choose = "const select = document.querySelector('[data-panels=timelines]'); select.selectedIndex = 2;"
    browser.run(f"{{ {choose} select.dispatchEvent(new Event('change')); }}")
    assert browser.run(shown) == [False, False, True, False]


def test_nothing_is_wider_than_a_phone(browser):
    browser.resize(360)
    assert browser.run("document.documentElement.scrollWidth") == 360
    browser.resize(1280)
