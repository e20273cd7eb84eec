"""The report in a real browser, driven through its DevTools pipe; skipped where there is no Chromium."""

from __future__ import annotations

import json

import numpy as np
import pytest
from chromium import CHROMIUM, Browser

from msst_keras.evaluation.figures import Method
from msst_keras.evaluation.html_report import write_report
from msst_keras.evaluation.protocols import SCALARS
from msst_keras.evaluation.published import published_rows

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")
ODD = '<img src="http://example.com/x.png" onerror="document.title=1">'


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
        browser.open(report.as_uri())
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
        browser.open(broken.as_uri())
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
