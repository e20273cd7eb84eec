"""Tests of the report's page: its numbers, names that are no HTML, and what it leaves out."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from msst_keras.evaluation.examples import choose_frames
from msst_keras.evaluation.figures import Method
from msst_keras.evaluation.html_page import encode_image, reduce_colours
from msst_keras.evaluation.html_report import write_report
from msst_keras.evaluation.protocols import PROTOCOLS, SCALARS

ODD = """<script>alert("1")</script>&'x'"""
# No frame and no curve to draw: quick, where the test is about something else.
BARE = {"num_frames": 0, "precision": None, "f_curve": None}
MASK = np.zeros((30, 40), bool)
MASK[10:20, 10:30] = True


@dataclass(frozen=True)
class Row:
    """A published row."""

    method: str
    dataset: str
    mae: float
    max_f: float | None
    s_measure: float | None
    source: str
    protocol: str


class Page(HTMLParser):
    """The page's tables (rows of cell texts), pictures, tags and text."""

    def __init__(self, path):
        super().__init__()
        self.tables, self.images, self.tags, self.text = [], [], [], ""
        self.best = []
        self._cell = self._best = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
            self._cell, self._best = True, ("class", "best") in attributes
        elif tag == "img":
            self.images.append(dict(attributes))

    def handle_endtag(self, tag):
        self._cell = self._cell and tag not in ("th", "td")

    def handle_data(self, data):
        self.text += data
        if self._cell:
            self.tables[-1][-1][-1] += data
            self.best += [data] * self._best


def _method(name, error=0.25, sequences=("bear", "swan"), num_frames=3, is_baseline=False, **changes):
    scalars = {**dict.fromkeys(SCALARS), "mae": error, "max_f": 0.5, "s_measure": 0.75}
    curve = np.linspace(1, 0, 256).tolist()
    frames = {
        (sequence, f"{frame:05d}"): {**scalars, "max_f": (place + frame) / 10}
        for place, sequence in enumerate(sequences)
        for frame in range(num_frames)
    }
    result = {
        "protocol": "paper", "num_frames": len(frames), "num_sequences": len(sequences), **scalars,
        "precision": curve, "recall": curve, "f_curve": curve, "e_curve": curve,
        "sequences": {sequence: {**scalars, "mae": error / 2} for sequence in sequences}, **changes,
    }  # fmt: skip
    return Method(name, result, frames, is_baseline)


def _read_images(methods, has_frames=True):
    def read(sequence, frame):
        image = np.full((*MASK.shape, 3), 100, np.uint8) if has_frames else None
        return image, MASK, {method.name: np.full(MASK.shape, 60, np.uint8) for method in methods}

    return read


def _report(output_dir, methods, has_frames=True, **options):
    return Page(write_report(output_dir, methods, _read_images(methods, has_frames), **options))


def test_numbers(tmp_path):
    methods = [_method("ours"), _method("other", 0.125, j_mean=0.5), _method("all black", 0.5, is_baseline=True)]
    page = _report(tmp_path, methods)
    assert page.tables[0] == [
        ["Method", "MAE", "max F", "S", "J"],
        ["ours yours", "0.250", "0.500", "0.750", "-"],
        ["other", "0.125", "0.500", "0.750", "0.500"],
        ["all black baseline", "0.500", "0.500", "0.750", "-"],
    ]
    assert page.best == ["0.500", "0.750", "0.125", "0.500", "0.750", "0.500", "0.500", "0.750"]
    assert page.tables[1] == [
        ["Sequence", "frames", "MAE", "max F", "S", "J"],
        ["bear", "3", "0.125", "0.500", "0.750", "-"],
        ["swan", "3", "0.125", "0.500", "0.750", "-"],
    ]
    assert len(page.tables) == 4  # one of sequences for each method


def test_header_says_what_was_scored_and_how(tmp_path):
    text = _report(tmp_path, [_method("ours")], title="DAVIS, by msst evaluate --x=1").text
    assert "DAVIS, by msst evaluate --x=1" in text
    assert "6 frames of 2 sequences" in text
    for words in ("every frame that has a mask", "over all frames alike", PROTOCOLS["paper"].source):
        assert words in text


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_protocol_is_told_in_words(tmp_path, protocol):
    text = _report(tmp_path, [_method("ours", protocol=protocol, **BARE)]).text
    told = text[text.index("Protocol") : text.index("Source of the rules")]
    assert "_" not in told and PROTOCOLS[protocol].source in text


def test_published_stands_apart(tmp_path):
    rows = [Row("PDB", "davis", 0.028, 0.855, None, "a paper", "davsod")]
    page = _report(tmp_path, [_method("ours", **BARE)], published=rows)
    assert page.tables[1] == [
        ["Method", "Dataset", "MAE", "max F", "S", "Protocol", "Source"],
        ["PDB published", "davis", "0.028", "0.855", "-", "davsod", "a paper"],
    ]
    assert not any("PDB" in cell for row in page.tables[0] for cell in row)
    assert "Published by others, not measured here" in page.text
    assert "Published" not in _report(tmp_path, [_method("ours", **BARE)]).text


def test_names_are_no_html(tmp_path):
    plain = _report(tmp_path / "plain", [_method("ours", sequences=("bear",)), _method("other", sequences=("bear",))])
    methods = [_method(f"{ODD}{place}", sequences=(ODD,)) for place in range(2)]
    odd = _report(tmp_path / "odd", methods, title=ODD, published=[Row(ODD, ODD, 0.1, None, None, ODD, ODD)])
    assert odd.tags.count("script") == plain.tags.count("script") == 1
    assert odd.text.count(ODD) > 10
    assert all(ODD in image["alt"] for image in odd.images[3:])
    assert (tmp_path / "odd" / "figures" / "sequences").is_dir()


def test_a_name_that_is_no_unicode(tmp_path):
    _report(tmp_path, [_method("ours\udce9", **BARE)])
    assert "ours?" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_everything_is_inside(tmp_path):
    page = _report(tmp_path, [_method("ours"), _method("other")])
    assert all(image["src"].startswith("data:image/") for image in page.images)
    assert all(len(image["alt"]) > 5 for image in page.images)
    text = re.sub(r"base64,[^\"]+", "", (tmp_path / "report.html").read_text())
    assert not re.search(r"https?:|//\w|@import|url\(", text.replace("// Empty", "").replace("// Without", ""))
    assert page.tags.count("link") == 1 and 'rel="icon" href="data:,"' in text
    assert page.tags.count("h1") == page.tags.count("main") == 1


def test_pictures_of_frames(tmp_path):
    methods = [_method("ours"), _method("other")]
    page = _report(tmp_path, methods)
    alts = [image["alt"] for image in page.images[3:-2]]
    assert alts[:4] == ["Frame, bear/00000", "Mask (ground truth), bear/00000", "ours: max F 0.000, bear/00000",
                        "other: max F 0.000, bear/00000"]  # fmt: skip
    assert [alt.split(", ")[-1] for alt in alts[::4]] == [
        "bear/00000", "swan/00000", "bear/00002",  # worst: not two neighbours while others are left
        "swan/00002", "swan/00001", "bear/00001",  # best of what is left, the best first
    ]  # fmt: skip
    assert page.text[page.text.index("Worst\n") : page.text.index("Best\n")].count(", MAE") == 3
    kind, data = page.images[4]["src"].split(";base64,")
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert kind == "data:image/png" and np.array_equal(np.array(image), MASK * np.uint8(255))
    without = _report(tmp_path / "without", methods, has_frames=False)
    assert len(without.images) == len(page.images) - 6
    assert "Frame, bear/00000" not in [image["alt"] for image in without.images]


def test_a_protocol_without_curves(tmp_path):
    nothing = dict.fromkeys(["mae", "max_f", "s_measure", "precision", "recall", "f_curve", "e_curve"])
    method = _method("ours", **{**nothing, "protocol": "davis16", "j_mean": 0.5})
    frames = {key: {"j_mean": 0.5} for key in method.frames}
    page = _report(tmp_path, [Method("ours", method.result, frames)])
    assert "Protocol davis16 binarises maps once: it has no curves" in page.text
    assert page.tables[0][1] == ["ours yours", "-", "-", "-", "0.500"]
    assert not (tmp_path / "figures" / "mae.png").exists()
    assert "By ours's J of the frame" in page.text
    only_error = _method("ours", **{**nothing, "mae": 0.25})
    assert "Protocol paper does not define 2 of these charts" in _report(tmp_path, [only_error]).text


def test_the_same_bytes_each_time(tmp_path):
    methods = [_method("ours"), _method("other")]
    for run in ("first", "second"):
        _report(tmp_path / run, methods)
    files = sorted(path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*.*"))
    assert [str(path) for path in files] == [
        *(f"figures/{name}.{suffix}" for name in ("f_measure", "mae", "precision_recall") for suffix in ("png", "svg")),
        *(f"figures/sequences/{name}.{suffix}" for name in ("bear", "swan") for suffix in ("png", "svg")),
        "report.html",
    ]
    for path in files:
        assert (tmp_path / "first" / path).read_bytes() == (tmp_path / "second" / path).read_bytes(), path


def test_many_sequences_stay_small(tmp_path, monkeypatch):
    monkeypatch.setattr("msst_keras.evaluation.html_report._MAX_TIMELINES", 2)
    scalars = dict.fromkeys(SCALARS)
    sequences = {name: {**scalars, "s_measure": value} for name, value in (("a", 0.5), ("b", 0.25), ("c", 0.125))}
    method = _method("ours", sequences=("a", "b", "c"))
    page = _report(tmp_path, [Method("ours", {**method.result, "sequences": sequences}, method.frames)])
    assert "The 2 of 3 sequences with the lowest S" in page.text
    assert sorted(path.stem for path in (tmp_path / "figures" / "sequences").glob("*.svg")) == ["b", "c"]
    assert [image["alt"][-3:] for image in page.images[-2:]] == ["f c", "f b"]


class TestChooseFrames:
    def test_one_of_each_sequence_first(self):
        scores = {("a", "0"): 0.1, ("a", "1"): 0.11, ("b", "0"): 0.5, ("c", "0"): 0.9, ("c", "1"): 0.8}
        assert choose_frames(scores, 3) == [("a", "0"), ("b", "0"), ("c", "1")]

    def test_far_apart_in_one(self):
        scores = {("a", f"{frame:03d}"): frame / 1000 for frame in range(100)}
        assert [int(frame) for _, frame in choose_frames(scores, 3)] == [0, 8, 16]
        assert [int(frame) for _, frame in choose_frames(dict(list(scores.items())[:10]), 3)] == [0, 4, 8]

    def test_bad_frames_of_one_sequence_come_before_good_ones_of_another(self):
        scores = {("a", f"{frame:03d}"): frame / 1000 for frame in range(20)} | {("b", "0"): 0.5}
        assert choose_frames(scores, 3) == [("a", "000"), ("a", "008"), ("a", "016")]

    def test_all_when_there_are_few(self):
        scores = {("a", "0"): 0.2, ("a", "1"): 0.1}
        assert choose_frames(scores, 4) == [("a", "1"), ("a", "0")]


def test_pictures_are_reduced():
    levels = np.arange(80 * 40, dtype=np.uint8).reshape(40, 80)
    data, kind = encode_image(levels, 20)
    with Image.open(io.BytesIO(data)) as image:
        assert (kind, image.size, image.mode) == ("image/jpeg", (20, 10), "L")
        mean = levels.reshape(10, 4, 20, 4).mean(axis=(1, 3))
        assert abs(np.array(image) - mean).mean() < 8
    data, kind = encode_image(levels > 100, 200)
    with Image.open(io.BytesIO(data)) as image:
        assert kind == "image/png" and np.array_equal(np.array(image) == 255, levels > 100)


def test_palette_keeps_a_chart():
    colours = np.zeros((20, 30, 3), np.uint8)
    colours[:10] = 255
    colours[5:8, 3:9] = (0, 114, 178)
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, "PNG")
    with Image.open(io.BytesIO(reduce_colours(buffer.getvalue()))) as image:
        assert image.mode == "P" and np.array_equal(np.array(image.convert("RGB")), colours)


class TestErrors:
    def test_no_method(self, tmp_path):
        with pytest.raises(ValueError, match="no method to report"):
            write_report(tmp_path, [], None)

    def test_two_of_one_name(self, tmp_path):
        with pytest.raises(ValueError, match=r"1 names stand for two methods \(ours\)"):
            _report(tmp_path, [_method("ours"), _method("ours")])

    def test_several_protocols(self, tmp_path):
        methods = [_method("ours"), _method("other", protocol="davsod")]
        with pytest.raises(ValueError, match=r"one protocol, .* \(ours: paper, other: davsod\)"):
            _report(tmp_path, methods)

    def test_a_map_is_missing(self, tmp_path):
        with pytest.raises(ValueError, match="bear/00000: read_images gave no map of other"):
            write_report(tmp_path, [_method("ours"), _method("other")], _read_images([_method("ours")]))
        assert not (tmp_path / "report.html").exists()

    def test_a_map_in_floating_point(self, tmp_path):
        with pytest.raises(ValueError, match=r"the map of ours must be \(H, W\) uint8, not \(3, 4\) float64"):
            write_report(tmp_path, [_method("ours")], lambda *_: (None, MASK, {"ours": np.zeros((3, 4))}))
