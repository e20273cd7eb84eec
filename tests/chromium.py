"""A page in a real browser, driven through Chromium's DevTools pipe."""

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

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
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
            "--remote-debugging-pipe", f"--user-data-dir={profile_dir}",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "about:blank",
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

    def open(self, url):
        self.call("Page.navigate", url=url)
        deadline = time.monotonic() + _TIMEOUT
        while self.run("document.readyState") != "complete" or self.run("location.href") == "about:blank":
            assert time.monotonic() < deadline, "the page does not load"

    def run(self, script):
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script, seconds=_TIMEOUT):
        """The value of a JavaScript expression once it is true."""
        deadline = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < deadline, f"this does not become true: {script}"
            time.sleep(0.02)
        return value

    def press(self, key, text="", modifiers=0):
        """Presses a key; modifiers: 2 is Ctrl, 8 is Shift."""
        code = 13 if key == "Enter" else 0
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def drag(self, *points):
        """Presses the left button of the mouse at the first (x, y), moves through the others and lets go."""
        for kind, (x, y) in (
            ("mouseMoved", points[0]), ("mousePressed", points[0]), *(("mouseMoved", p) for p in points[1:]),
            ("mouseReleased", points[-1]),
        ):  # fmt: skip
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def touch(self, *strokes):
        """Puts a finger down at the first point of each stroke, moves all alongside, and lifts them."""
        send = lambda kind, points: self.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)  # noqa: E731
        for step, points in enumerate(zip(*strokes, strict=True)):
            fingers = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(points)]
            send("touchMove" if step else "touchStart", fingers)
        send("touchEnd", [])

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
