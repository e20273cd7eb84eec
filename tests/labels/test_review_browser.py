"""The review page in a real browser, with mouse, keys and fingers; skipped where there is no Chromium."""

from __future__ import annotations

import resource
import time

import numpy as np
import pytest
from chromium import CHROMIUM, Browser

from msst_keras.data import images
from msst_keras.labels.label_files import read_label, write_label

pytest.importorskip("uvicorn")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")

from served import Served  # noqa: E402

SIZE = (120, 200)
ODD = "<img src=x onerror='document.title=1'>"
LEFT, RIGHT = (40, 60), (150, 60)  # the middles (x, y) of a label's two regions


def two_regions():
    label = np.zeros(SIZE, bool)
    label[40:80, 20:60] = label[40:80, 130:170] = True
    return label


def make_tree(root):
    for sequence, count in ((ODD, 1), ("boat", 5)):
        for index in range(count):
            path = root / "frames" / sequence / f"{index:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(images.encode_png(np.full((*SIZE, 3), 40 * index, np.uint8)))
            write_label(root / "labels" / sequence / f"{index:05d}.png", two_regions())
    return root


class Page:
    """The review page of a tree, its server and its browser."""

    def __init__(self, root, server, browser):
        self.root, self.server, self.browser = root, server, browser

    def open(self, width=1280, height=800, position=0):
        self.browser.resize(width, height)
        self.browser.open(f"{self.server.origin}/#{position}")
        self.wait_shown(position)

    def wait_shown(self, position):
        self.browser.wait(f"document.body.dataset.shown === '{position}'")

    def at(self, x, y):
        """Where a pixel of the frame is on the screen."""
        box = self.browser.run(
            "(({x, y, width}) => [x, y, width])(document.getElementById('overlay').getBoundingClientRect())"
        )
        scale = box[2] / SIZE[1]
        return box[0] + (x + 0.5) * scale, box[1] + (y + 0.5) * scale

    def click(self, x, y):
        self.browser.drag(self.at(x, y))

    def press(self, key, **options):
        self.browser.press(key, key if len(key) == 1 else "", **options)

    def saved(self):
        self.browser.wait("document.body.dataset.saving == 'saved'")

    def label(self, frame="00000", sequence="boat"):
        """The label on the disk, once what was done is saved."""
        self.saved()
        return read_label(self.root / "labels" / sequence / f"{frame}.png")

    def expect(self, expected, frame="00000"):
        """Waits until the label on the disk is the expected one, or is as the function `expected` says."""
        deadline = time.monotonic() + 20
        holds = expected if callable(expected) else lambda label: np.array_equal(label, expected)
        while not holds(label := self.label(frame)):
            assert time.monotonic() < deadline, f"{frame} has {label.sum()} pixels, not what is expected"
            time.sleep(0.05)

    def text(self, name):
        return self.browser.run(f"document.getElementById('{name}').textContent")

    def is_seat_asked(self):
        return self.browser.run("document.getElementById('seat').open")


@pytest.fixture
def page(tmp_path):
    root = make_tree(tmp_path)
    command = ("review_labels", f"--frames={root}/frames", f"--labels={root}/labels", "--order=sequence")
    with Served(*command) as server, Browser(tmp_path / "profile") as browser:
        page = Page(root, server, browser)
        page.open(position=1)  # boat/00000; the first is that of the odd name
        yield page


def regions(left, right):
    label = two_regions()
    label[:, :100] &= left
    label[:, 100:] &= right
    return label


def test_regions_are_erased_and_brought_back_by_clicks_and_undone(page):
    page.click(*LEFT)
    page.expect(regions(False, True))
    page.click(*RIGHT)
    page.expect(regions(False, False))
    page.click(*RIGHT)  # an erased region comes back
    page.expect(regions(False, True))
    page.press("z")
    page.expect(regions(False, False))
    page.press("z", modifiers=2)
    page.expect(regions(False, True))
    page.press("y")
    page.expect(regions(False, False))
    for _ in range(5):
        page.press("z")
    page.expect(two_regions())
    page.click(100, 60)
    assert page.text("message") == "There is no region here."
    page.expect(two_regions())
    page.press("k")
    page.click(*RIGHT)  # keeps this one alone
    page.expect(regions(False, True))
    assert "changed" in page.text("facts")
    page.press("o")
    page.expect(two_regions())
    assert "changed" not in page.text("facts")
    assert page.browser.complaints() == []


def test_brushes_erase_restore_and_add(page):
    page.browser.run("document.getElementById('size').value = 10")
    page.press("e")
    page.browser.drag(page.at(20, 60), page.at(40, 60), page.at(59, 60))
    page.expect(lambda label: not label[56:64, 20:60].any() and label[40:54, 20:60].all() and label[66:80, 20:60].all())
    page.press("b")
    page.browser.drag(page.at(10, 60), page.at(70, 60))
    page.expect(two_regions())  # only what the original had comes back
    page.press("d")
    page.browser.drag(page.at(60, 60), page.at(129, 60))
    page.expect(lambda label: label[57:63, 60:130].all() and (label & ~two_regions()).sum() < 70 * 14)
    page.press("r")
    page.click(*LEFT)  # now one region
    page.expect(regions(False, False))
    page.press("z")
    page.press("z")
    page.expect(two_regions())


def test_everything_goes_by_keyboard(page):
    for key in (".", ".", "Delete"):
        page.press(key)
    page.expect(lambda label: label.sum() == two_regions().sum() / 2)
    page.press(",")
    page.press("Delete")
    page.expect(regions(False, False))
    page.press("o")
    page.press(".")
    page.press("k")
    page.expect(lambda label: label.sum() == two_regions().sum() / 2)
    page.press("a")
    page.wait_shown(2)
    page.press("x")
    page.wait_shown(3)
    page.press("ArrowLeft")
    page.wait_shown(2)
    assert "rejected" in page.text("facts")
    page.press("u")
    page.saved()
    assert "open" in page.text("facts") and (page.root / "labels/boat/00001.png").exists()
    page.press("ArrowRight")
    page.wait_shown(3)
    page.press("?")
    assert page.browser.run("document.getElementById('help').open")


def test_decisions_show_in_the_progress_and_on_the_disk(page):
    started = time.monotonic()
    for position in (1, 2, 3, 4):
        page.press("x" if position == 2 else "a")
        page.wait_shown(position + 1)
    assert time.monotonic() - started < 8  # 2 s a frame
    page.saved()
    assert page.text("progress-text").startswith("4 of 6 decided, 1 rejected")
    assert page.browser.run("document.getElementById('progress').value") == pytest.approx(4 / 6)
    assert not (page.root / "labels/boat/00001.png").exists()
    page.press("a")
    page.wait_shown(0)  # the last open one comes before it
    assert page.text("name") == f"{ODD} / 00000"
    page.press("a")
    page.saved()
    page.browser.wait("document.getElementById('progress-text').textContent == 'All 6 are decided, 1 rejected.'")
    assert page.text("message") == f"All 6 labels are decided. They are in {page.root}/labels."
    assert page.browser.run("document.title") == "Review of coarse labels" and page.browser.complaints() == []


COVERED = """
    (shown => shown.flatMap((a, i) => shown.slice(i + 1).filter(b => {
      const [p, q] = [a.getBoundingClientRect(), b.getBoundingClientRect()];
      return p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 1 && q.top < p.bottom - 1;
    }).map(b => a.id + a.textContent + ' / ' + b.id + b.textContent)))
    ([...document.querySelectorAll('header button, header progress, footer button, footer input, #stage')]
      .filter(each => each.offsetParent))"""


def test_nothing_covers_anything_at_any_width(page):
    page.press("x")  # on a decided frame all buttons may be pressed
    page.wait_shown(2)
    page.press("ArrowLeft")
    page.wait_shown(1)
    for width in (1920, 1700, 1280, 1279, 1000, 800, 390):
        page.browser.resize(width, 800)
        page.browser.wait(f"document.documentElement.clientWidth === {width}")
        assert page.browser.run(COVERED) == [], width
        assert page.browser.run("document.documentElement.scrollWidth") == width


def test_a_server_that_is_killed_loses_nothing(page, tmp_path):
    page.click(*LEFT)
    page.press("a")
    page.wait_shown(2)
    page.saved()
    page.server.kill()
    page.click(*RIGHT)
    page.browser.wait("document.body.dataset.saving == 'waiting'")
    assert page.text("message") == "Not saved yet: the server does not answer. Keep this page open."
    page.press("a")  # decides while the server is away
    page.server.start()
    page.saved()
    page.expect(regions(False, True))
    page.expect(regions(True, False), "00001")
    assert not page.is_seat_asked()
    decisions = [frame[2] for frame in page.server.ask("GET", "/api/review")[1]["frames"]]
    assert decisions == ["reopen", "accept", "accept", "reopen", "reopen", "reopen"]
    page.press("z")  # nothing to undo on the frame that is shown now
    page.browser.call("Page.close")
    page.server.kill()
    page.server.start()
    with Browser(tmp_path / "later") as later:
        later.open(page.server.origin)
        Page(page.root, page.server, later).wait_shown(3)  # where it stopped
        assert later.run("document.getElementById('progress-text').textContent").startswith("2 of 6 decided")


def test_a_full_disk_loses_nothing(page):
    old = resource.prlimit(page.server.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    page.click(*LEFT)
    page.browser.wait("document.body.dataset.saving == 'waiting'")
    assert page.text("message") == "Not saved yet: File too large. Keep this page open."
    page.click(*RIGHT)
    resource.prlimit(page.server.process.pid, resource.RLIMIT_FSIZE, old)
    page.expect(regions(False, False))
    assert page.browser.run("document.getElementById('message').hidden")


def test_a_second_browser_is_told_and_may_take_over(page, tmp_path):
    with Browser(tmp_path / "other") as browser:
        other = Page(page.root, page.server, browser)
        browser.open(page.server.origin)
        browser.wait("document.getElementById('seat').open")
        assert other.text("seat-title") == "Another browser is reviewing these labels"
        page.click(*LEFT)
        page.expect(regions(False, True))
        browser.run("document.getElementById('seat-take').click()")
        other.wait_shown(1)
        other.click(*RIGHT)
        other.expect(regions(False, False))
        page.click(*RIGHT)  # what this page knows is out of date
        page.browser.wait("document.getElementById('seat').open")
        assert page.text("seat-title") == "The review went on in another browser"
        page.browser.run("document.getElementById('seat-take').click()")
        page.browser.wait("!document.getElementById('seat').open")
        page.expect(regions(False, False))
        browser.wait("document.getElementById('seat').open", 15)


def test_the_page_loaded_again_is_the_same_browser(page):
    page.click(*LEFT)
    page.saved()
    page.browser.call("Page.reload")
    time.sleep(0.5)
    page.wait_shown(1)
    assert not page.is_seat_asked() and "changed" in page.text("facts")
    page.click(*LEFT)
    page.expect(two_regions())


def test_fingers_on_a_phone(page):
    page.open(390, 844, position=1)
    page.browser.call("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=2)
    assert page.browser.run("document.documentElement.scrollWidth") == 390
    outside = page.browser.run("""
        [...document.querySelectorAll('header button, footer button')].filter(button => {
          const box = button.getBoundingClientRect();
          return !button.hidden && (box.left < 0 || box.right > 390 || box.bottom > 844 || box.height < 43);
        }).map(button => button.textContent)""")
    assert outside == []
    x, y = page.at(62, 60)  # a finger that misses the region by 2 pixels
    page.browser.touch([(x, y)])
    page.expect(regions(False, True))
    page.browser.run("document.querySelector('[data-tool=erase]').click()")
    page.browser.touch([page.at(130, 60), page.at(150, 60), page.at(169, 60)])
    page.expect(lambda label: not label[57:63, 130:170].any() and label[:, 130:170].any())
    page.browser.run("document.getElementById('undo').click()")
    before = page.browser.run("document.getElementById('overlay').getBoundingClientRect().width")
    page.browser.touch([(150, 300), (110, 300)], [(200, 300), (280, 300)])  # two fingers apart
    after = page.browser.run("document.getElementById('overlay').getBoundingClientRect().width")
    assert after > 1.5 * before
    page.expect(regions(False, True))
    page.browser.run("document.getElementById('accept').click()")
    page.wait_shown(2)


def test_another_sites_page_cannot_read_or_change(page, tmp_path):
    before = (page.root / "labels/boat/00000.png").read_bytes()
    page.saved()
    with Browser(tmp_path / "evil") as evil:
        evil.open("data:text/html,<title>evil</title>")
        script = (
            "fetch('{}', {{method: '{}', mode: '{}', body: 'accept', headers: {{'Content-Type': 'text/plain'}}}})"
            ".then(response => response.type + response.status, error => 'refused')"
        )
        url = f"{page.server.origin}/api/frames/1/decision"
        assert evil.run(script.format(url, "PUT", "cors")) == "refused"
        assert evil.run(script.format(f"{page.server.origin}/api/seat?force", "POST", "no-cors")) == "refused"
        image = f"""new Promise(done => {{
            const image = new Image();
            [image.onload, image.onerror] = [() => done('read'), () => done('refused')];
            image.src = '{page.server.origin}/api/frames/1/image';
        }})"""
        assert evil.run(image) == "refused"
    assert (page.root / "labels/boat/00000.png").read_bytes() == before
    page.click(*LEFT)
    page.expect(regions(False, True))
    assert not page.is_seat_asked()  # the seat was not taken


def test_with_a_token_the_page_works_from_elsewhere(tmp_path):
    root = make_tree(tmp_path)
    command = ("review_labels", f"--frames={root}/frames", f"--labels={root}/labels", "--host=0.0.0.0")
    with Served(*command) as server, Browser(tmp_path / "profile") as browser:
        page = Page(root, server, browser)
        browser.open(server.origin)
        assert "with its token" in browser.run("document.body.textContent")
        browser.open(f"{server.origin}/?token={server.token}")
        page.wait_shown(0)
        assert browser.run("location.search + document.cookie") == ""  # it is in neither
        page.press("x")
        page.wait_shown(1)
        page.saved()
        assert not (root / "labels" / ODD / "00000.png").exists()
