"""The pictures of an evaluation: precision-recall curves, F over threshold, error bars, scores over time.

Drawn as in the paper's Fig. 4, 6 and 8, for a column of a paper or the width of a telephone. A method keeps its colour,
line and marker in all of them, so that they can be told apart without colour, too. The same input gives the same bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from msst_keras.evaluation.scores import HEADLINE, SCORES
from msst_keras.files import publish

# Okabe and Ito's colours, which read the same with colour blindness; without yellow, which is lost on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_BASELINE_COLOUR = "#777777"
_LINES = ("-", (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<")
_WIDTH = 5.0  # inches: with text of 9 points a telephone of 360 pixels shows it at its size
_RESOLUTION = 160  # dots per inch of a PNG
_LONGEST_NAME = 30
_LONGEST_FILE_NAME = 150  # bytes, of the 255 that most file systems allow: the name of an unfinished file is longer
_SETTINGS = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same text everywhere
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "svg.hashsalt": "msst_keras",  # otherwise the identifiers in an SVG are random
}
# What a frame's scores over time are drawn for, in this order, where the protocol defines it.
_TIMELINES = ("mae", "max_f", "j_mean", "f_boundary_mean")
_BARS = (*HEADLINE, "j_mean")


@dataclass(frozen=True)
class Method:
    """A method that was scored.

    Attributes:
      name: What the reader knows it by.
      result: What `Evaluator.result` returned: the content of metrics.json.
      frames: (sequence, frame) -> that frame's own scalars, None where the protocol does not define one; in temporal
        order.
      is_baseline: Whether it stands there as a yardstick (all black, flow magnitude): drawn in grey.
    """

    name: str
    result: Mapping
    frames: Mapping[tuple[str, str], Mapping[str, float | None]]
    is_baseline: bool = False


def write_figure(figure: Figure, path: str | os.PathLike) -> list[Path]:
    """Writes a figure as PATH.png and PATH.svg, each under its name only when it is whole, and returns the two paths.

    Text in the SVG is outlines: it looks the same everywhere. A name that file systems may find too long is
    shortened, and stays apart from others.
    """
    path = Path(path)
    name = path.name
    if len(name.encode()) > _LONGEST_FILE_NAME:
        name = f"{name[: _LONGEST_FILE_NAME // 2]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    paths = [path.with_name(f"{name}.{suffix}") for suffix in ("png", "svg")]
    with matplotlib.rc_context(_SETTINGS):
        for target, metadata in zip(paths, ({"Software": None}, {"Date": None}), strict=True):
            with publish(target) as unfinished:
                figure.savefig(unfinished, dpi=_RESOLUTION, metadata=metadata)
            figure.set_layout_engine("none")  # laid out by now: the second time would take as long, for the same
    return paths


def precision_recall_figure(methods: Sequence[Method]) -> Figure | None:
    """Draws precision over recall, a curve per method (the paper's Fig. 4, 6 and 8, left).

    A marker stands where F is largest. Returns None when the protocol has no curves.
    """
    return _curves_figure(methods, _draw_precision_recall, "precision")


def f_measure_figure(methods: Sequence[Method]) -> Figure | None:
    """Draws F over the threshold, a curve per method, with a marker at its maximum; None without such curves."""
    return _curves_figure(methods, _draw_f_measure, "f_curve")


def error_figure(methods: Sequence[Method]) -> Figure | None:
    """Draws a bar of mean absolute error per method, in their order (the paper's Fig. 4, 6 and 8, right).

    Returns None when the protocol does not define it.
    """
    if any(method.result["mae"] is None for method in methods):
        return None
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure((_WIDTH, 0.9 + 0.32 * len(methods)), layout="constrained")
        axes = figure.add_subplot()
        _draw_bars(axes, methods, "mae")
        axes.set_yticks(range(len(methods)), [_drawable(method.name) for method in methods])
        axes.set_xlabel("Mean absolute error (0 to 1, lower is better)")
    return figure


def timeline_figure(methods: Sequence[Method], sequence_name: str) -> Figure | None:
    """Draws the scores of a sequence's frames over time: one picture above the other, a curve per method.

    The axis is the frame's number where all frames are named by numbers, otherwise its place in the sequence. Returns
    None when no method has a frame's score there.
    """
    scores = [_frame_scores(method, sequence_name) for method in methods]
    shown = [key for key in _TIMELINES if any(frame.get(key) is not None for frames in scores for frame in frames[1])]
    if not shown:
        return None
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure((_WIDTH, 0.5 + 1.3 * len(shown) + _legend_height(methods)), layout="constrained")
        rows = figure.subplots(len(shown), sharex=True, squeeze=False)[:, 0]
        for axes, key in zip(rows, shown, strict=True):
            for place, (method, (times, frames)) in enumerate(zip(methods, scores, strict=True)):
                values = [np.nan if frame.get(key) is None else frame[key] for frame in frames]
                marks = {"markevery": max(1, len(values) // 8), "markersize": 3.5, "marker": _marker(place)}
                axes.plot(times, values, **_line(method, place), **marks)
            axes.set_ylabel(SCORES[key].title)
            axes.set_ylim(*(0, None) if key == "mae" else (-0.03, 1.03))
        rows[-1].set_xlabel("Frame")
        _add_legend(figure, rows[0], methods)
    return figure


def write_ablation(output_dir: str | os.PathLike, methods: Sequence[Method], title: str) -> list[Path]:
    """Draws variants of one method as the paper's Fig. 6 and 8: precision-recall curves; bars of MAE, max F, S and J.

    Args:
      output_dir: The folder; made when missing.
      methods: The variants, in the order of their bars, scored under one protocol.
      title: What is varied.

    Returns:
      The files: scores.png and .svg, and precision_recall.png and .svg where the protocol has curves. A score that it
      does not define has no bars.

    Raises:
      ValueError: when there is no method, or no score that all of them have.
    """
    shown = [key for key in _BARS if all(method.result[key] is not None for method in methods)]
    if not methods or not shown:
        raise ValueError(f"{title}: nothing to draw; give at least one result, all with one of {', '.join(_BARS)}")
    figures = {"precision_recall": precision_recall_figure(methods)}
    with matplotlib.rc_context(_SETTINGS):
        height = 1.2 + 0.28 * len(methods)
        figures["scores"] = figure = Figure((2.3 * len(shown) + 1.2, height), layout="constrained")
        columns = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axes, key in zip(columns, shown, strict=True):
            _draw_bars(axes, methods, key)
            axes.set_xlabel(SCORES[key].title + (" (lower is better)" if SCORES[key].lower_is_better else ""))
        columns[0].set_yticks(range(len(methods)), [_drawable(method.name) for method in methods])
    paths = []
    for name, figure in figures.items():
        if figure is not None:
            with matplotlib.rc_context(_SETTINGS):
                figure.suptitle(_drawable(title, longest=70), fontsize=10)
            paths += write_figure(figure, Path(output_dir) / name)
    return paths


def _curves_figure(methods: Sequence[Method], draw, needed: str) -> Figure | None:
    if any(method.result.get(needed) is None for method in methods):
        return None
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure((_WIDTH, 3.6 + _legend_height(methods)), layout="constrained")
        axes = figure.add_subplot()
        # The user's own comes last, over the others.
        for place, method in reversed(list(enumerate(methods))):
            draw(axes, method, place)
        axes.set_ylim(0, 1.02)
        _add_legend(figure, axes, methods, reverse=True)
    return figure


def _draw_precision_recall(axes: Axes, method: Method, place: int) -> None:
    recall, precision = method.result["recall"], method.result["precision"]
    # F is largest at one threshold; without an F curve there is no marker to set.
    f_curve = method.result.get("f_curve")
    best = [] if f_curve is None else [int(np.argmax(f_curve))]
    axes.plot(recall, precision, **_line(method, place), marker=_marker(place), markevery=best, markersize=6)
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("Recall")
    axes.set_ylabel("Precision")


def _draw_f_measure(axes: Axes, method: Method, place: int) -> None:
    curve = method.result["f_curve"]
    best = [int(np.argmax(curve))]
    axes.plot(range(len(curve)), curve, **_line(method, place), marker=_marker(place), markevery=best, markersize=6)
    axes.set_xlim(0, len(curve) - 1)
    axes.set_xticks([0, 51, 102, 153, 204, 255])
    axes.set_xlabel("Threshold (level of the 8-bit map)")
    axes.set_ylabel("F-measure (β² = 0.3)")


def _draw_bars(axes: Axes, methods: Sequence[Method], key: str) -> None:
    values = [method.result[key] for method in methods]
    colours = [_colour(method, place) for place, method in enumerate(methods)]
    bars = axes.barh(range(len(methods)), values, 0.7, color=colours)
    axes.bar_label(bars, [f"{value:.3f}" for value in values], padding=3)
    axes.set_xlim(0, 1.3 * max([*values, 0.01]))  # room for the numbers
    axes.set_ylim(len(methods) - 0.4, -0.6)  # the first on top
    axes.grid(False, axis="y")


def _frame_scores(method: Method, sequence_name: str) -> tuple[list[int], list[Mapping]]:
    frames = {frame: scores for (sequence, frame), scores in method.frames.items() if sequence == sequence_name}
    is_numbered = all(frame.isascii() and frame.isdecimal() for frame in frames)
    times = [int(frame) for frame in frames] if is_numbered else list(range(len(frames)))
    return times, list(frames.values())


def _colour(method: Method, place: int) -> str:
    return _BASELINE_COLOUR if method.is_baseline else _COLOURS[place % len(_COLOURS)]


def _marker(place: int) -> str:
    return _MARKERS[place % len(_MARKERS)]


def _line(method: Method, place: int) -> dict:
    # Colours and lines have different periods: 28 methods pass before a pair of them comes again.
    line = {"color": _colour(method, place), "linestyle": _LINES[place % len(_LINES)]}
    return {**line, "linewidth": 2.2 if place == 0 else 1.3, "zorder": 3 if place == 0 else 2}


def _legend_height(methods: Sequence[Method]) -> float:
    return 0.2 * ((len(methods) + 1) // 2)


def _add_legend(figure: Figure, axes: Axes, methods: Sequence[Method], reverse: bool = False) -> None:
    """Sets the legend below the axes, in two columns: it never covers a curve."""
    lines = axes.get_lines()[::-1] if reverse else axes.get_lines()
    # Set after the legend is made: it would leave out a name that begins with an underscore.
    names = [str(place) for place in range(len(methods))]
    legend = figure.legend(lines, names, loc="outside lower center", ncols=2, frameon=False, handlelength=3.5)
    for text, method in zip(legend.get_texts(), methods, strict=True):
        text.set_text(_drawable(method.name))


def _drawable(name: str, longest: int = _LONGEST_NAME) -> str:
    """Returns what makes matplotlib draw a name as it stands; a box stands for what the font cannot draw."""
    font = get_font(findfont(_SETTINGS["font.family"]))
    shown = name if len(name) <= longest else name[: longest - 1] + "…"
    shown = "".join(character if font.get_char_index(ord(character)) else "□" for character in shown)
    return shown.replace("$", r"\$")
