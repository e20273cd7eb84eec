"""Tests of the pictures: what is drawn, where and by which name."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from msst_keras.evaluation.figures import (
    Method,
    error_figure,
    f_measure_figure,
    precision_recall_figure,
    timeline_figure,
    write_ablation,
    write_figure,
)
from msst_keras.evaluation.protocols import SCALARS

RECALL = np.linspace(1, 0, 256)
NAMES = ["_ours", "costs $5$ or $6$", "漢字", "a name that is longer than any legend can hold"]
DRAWN = ["_ours", r"costs \$5\$ or \$6\$", "□□", "a name that is longer than an…"]


def _method(name, mae=0.25, quality=0.5, is_baseline=False, **changes):
    result = {
        **dict.fromkeys(SCALARS), "mae": mae, "max_f": quality, "s_measure": 0.75, "recall": RECALL.tolist(),
        "precision": (quality * (1 - RECALL / 2)).tolist(),
        "f_curve": (quality - abs(np.arange(256) - 100) / 1000).tolist(), **changes,
    }  # fmt: skip
    frames = {
        ("bear", "00003"): {"mae": mae, "max_f": 0.5},
        ("bear", "00007"): {"mae": None, "max_f": 0.25},
        ("stills", "cat"): {"mae": 0.125, "max_f": 1.0},
    }
    return Method(name, result, frames, is_baseline)


NO_CURVES = {"protocol": "davis16", "mae": None, "max_f": None, "s_measure": None, "precision": None, "recall": None,
             "f_curve": None, "j_mean": 0.5}  # fmt: skip


def test_precision_recall():
    methods = [_method("ours"), _method("other", quality=0.25)]
    figure = precision_recall_figure(methods)
    axes = figure.axes[0]
    own = axes.get_lines()[-1]  # on top of the others
    np.testing.assert_array_equal(own.get_xydata(), np.stack([RECALL, 0.5 * (1 - RECALL / 2)], axis=1))
    assert own.get_markevery() == [100]  # where F is largest
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Recall", "Precision")
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["ours", "other"]
    assert legend.get_lines()[0].get_color() == own.get_color() != axes.get_lines()[0].get_color()
    assert own.get_linestyle() != axes.get_lines()[0].get_linestyle()


def test_f_measure():
    line = f_measure_figure([_method("ours")]).axes[0].get_lines()[0]
    assert line.get_xdata()[[0, 255]].tolist() == [0, 255]
    assert line.get_ydata()[100] == 0.5 and line.get_markevery() == [100]


def test_error_bars_are_in_order_and_baselines_grey():
    axes = error_figure([_method("ours", 0.25), _method("all black", 0.5, is_baseline=True)]).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.25, 0.5]
    assert [text.get_text() for text in axes.texts] == ["0.250", "0.500"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ours", "all black"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first on top
    red, green, blue, _ = axes.patches[1].get_facecolor()
    assert red == green == blue != axes.patches[0].get_facecolor()[2]


@pytest.mark.parametrize("figure", [precision_recall_figure, f_measure_figure, error_figure])
def test_what_a_protocol_does_not_define_is_not_drawn(figure):
    assert figure([_method("ours"), _method("other")]) is not None
    assert figure([_method("ours"), _method("other", **NO_CURVES)]) is None


def test_timeline():
    figure = timeline_figure([_method("ours"), _method("other", mae=0.75)], "bear")
    assert [axes.get_ylabel() for axes in figure.axes] == ["MAE", "max F"]
    mae, max_f = ([line.get_xydata().tolist() for line in axes.get_lines()] for axes in figure.axes)
    assert np.array_equal(mae, [[[3, 0.25], [7, np.nan]], [[3, 0.75], [7, np.nan]]], equal_nan=True)
    assert max_f == [[[3, 0.5], [7, 0.25]]] * 2


def test_timeline_of_frames_without_numbers_and_of_none():
    line = timeline_figure([_method("ours")], "stills").axes[0].get_lines()[0]
    assert line.get_xydata().tolist() == [[0, 0.125]]
    assert timeline_figure([_method("ours")], "swan") is None


def test_names_are_drawn_as_they_stand(tmp_path):
    methods = [_method(name) for name in NAMES]
    for figure in (precision_recall_figure(methods), timeline_figure(methods, "bear")):
        assert [text.get_text() for text in figure.legends[0].get_texts()] == DRAWN
    figure = error_figure(methods)
    write_figure(figure, tmp_path / "error")  # a glyph that is missing would warn
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == DRAWN


def test_files_are_the_same_each_time_and_whole(tmp_path):
    written = []
    for run in ("first", "second"):
        paths = write_figure(precision_recall_figure([_method("ours")]), tmp_path / run / "v1.5")
        assert [path.name for path in paths] == ["v1.5.png", "v1.5.svg"]
        assert sorted(paths[0].parent.iterdir()) == paths
        written.append([path.read_bytes() for path in paths])
    assert written[0] == written[1]
    png, svg = written[0]
    assert b"<text" not in svg and b"dc:date" not in svg
    with Image.open(tmp_path / "first" / "v1.5.png") as image:
        assert image.size == (800, 608)  # 5 x 3.8 inches at 160 dots


def test_ablation(tmp_path):
    methods = [_method("os", 0.5), _method("st", 0.25), _method("msst", 0.125)]
    paths = write_ablation(tmp_path / "new", methods, "Fig. 6")
    names = ["precision_recall.png", "precision_recall.svg", "scores.png", "scores.svg"]
    assert [path.name for path in paths] == names == sorted(path.name for path in (tmp_path / "new").iterdir())
    paths = write_ablation(tmp_path / "other", [_method("os", **NO_CURVES)], "Fig. 6")
    assert [path.name for path in paths] == ["scores.png", "scores.svg"]


def test_ablation_of_nothing(tmp_path):
    with pytest.raises(ValueError, match="Fig. 6: nothing to draw; give at least one result, all with one of mae"):
        write_ablation(tmp_path, [], "Fig. 6")
    with pytest.raises(ValueError, match="nothing to draw"):
        write_ablation(tmp_path, [_method("os", **{**NO_CURVES, "j_mean": None})], "Fig. 6")
    assert not list(tmp_path.iterdir())
