"""The app's page in a real browser: a video goes in, an overlay comes out; skipped where there is no Chromium."""

from __future__ import annotations

import pytest
from chromium import CHROMIUM, Browser

pytest.importorskip("uvicorn")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")

from served import Served  # noqa: E402


@pytest.fixture(scope="module")
def server(saved_model):
    with Served("app", f"--model={saved_model}") as server:
        yield server


@pytest.fixture
def browser(server, tmp_path):
    with Browser(tmp_path / "profile") as browser:
        browser.resize(1280, 800)
        browser.open(server.origin)
        browser.wait("document.body.dataset.state")
        yield browser


def choose(browser, path):
    browser.call("DOM.enable")
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    node = browser.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    browser.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)


def state_is(browser, state):
    browser.wait(f"document.body.dataset.state === '{state}'", 120)


def pixels(name):
    """A sum of what a canvas shows."""
    return (
        f"(canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data"
        f".reduce((sum, value, i) => sum + value * (i % 7), 0))(document.getElementById('{name}'))"
    )


def test_a_video_goes_in_and_an_overlay_comes_out(browser, video):
    choose(browser, video)
    state_is(browser, "done")
    browser.wait("document.body.dataset.frame === '0'")
    assert browser.run("[...document.querySelectorAll('canvas')].map(c => [c.width, c.height])") == [[60, 40], [60, 40]]
    first = browser.run(pixels("overlay"))
    assert first != browser.run(pixels("video"))
    browser.run("document.getElementById('threshold').value = 0.2")
    browser.run("document.getElementById('threshold').dispatchEvent(new Event('input'))")
    browser.wait(f"{pixels('overlay')} !== {first}")
    assert browser.run("document.getElementById('threshold-text').textContent") == "0.20"
    browser.run("document.getElementById('play').click()")
    browser.wait("document.body.dataset.frame === '11'")
    browser.wait("document.getElementById('play').getAttribute('aria-label') === 'Play'")
    sizes = browser.run(
        "Promise.all([...document.querySelectorAll('#results a')].map(async link =>"
        " (await (await fetch(link.href)).blob()).size))"
    )
    assert len(sizes) == 2 and min(sizes) > 1000
    for width, height in ((390, 844), (1280, 800)):
        browser.resize(width, height)
        assert browser.run("document.documentElement.scrollWidth") == width
    browser.run("document.getElementById('another').click()")
    browser.wait("!document.getElementById('take').hidden && document.getElementById('view').hidden")
    assert browser.complaints() == []


def test_cancel_and_errors_are_said_on_the_page(browser, long_video, video, tmp_path):
    choose(browser, long_video)
    state_is(browser, "working")
    browser.run("document.getElementById('cancel').click()")
    browser.wait("document.getElementById('error').textContent === 'Cancelled.'")
    state_is(browser, "cancelled")
    (tmp_path / "notes.mp4").write_text("text")
    choose(browser, tmp_path / "notes.mp4")
    state_is(browser, "failed")
    browser.wait("document.getElementById('error').textContent.startsWith('notes.mp4: not a readable video')")
    assert browser.run("document.getElementById('take').hidden") is False
    (tmp_path / "notes.txt").write_text("text")
    choose(browser, tmp_path / "notes.txt")
    browser.wait("document.getElementById('error').textContent.startsWith('Expected a video (')")
    choose(browser, video)  # and goes on
    state_is(browser, "done")
    assert browser.run("document.getElementById('error').hidden")
