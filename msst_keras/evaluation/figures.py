"""The pictures of an evaluation: precision-recall curves, F over threshold, error bars, scores over time.

They look like the paper's Fig. 4, 6 and 8, and fit a column of a paper or the width of a telephone. A method has the
same colour, line and marker in all of them, so that it can be recognised without colour, too. The same input gives the
same bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from msst_keras.evaluation.scores import HEADLINE, SCORES
from msst_keras.files import publish

# Okabe and Ito's colours, which colour-blind people can tell apart, without yellow, which is hard to see on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_BASELINE_COLOUR = "#777777"
_LINES = ("-", (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<")
_WIDTH = 5.0  # inches, which a telephone of 360 pixels shows at their size, with text of 9 points
_RESOLUTION = 160  # dots per inch of a PNG
_LONGEST_NAME = 30
_LONGEST_FILE_NAME = 150  # bytes, of the 255 that most file systems allow: the name of an unfinished file is longer
_SETTINGS = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that text is the same everywhere
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "svg.hashsalt": "msst_keras",  # otherwise the identifiers in an SVG are random
}
# The scores that are drawn over time, in this order, if the protocol defines them.
_TIMELINES = ("mae", "max_f", "j_mean", "f_boundary_mean")
_BARS = (*HEADLINE, "j_mean")


@dataclass(frozen=True)
class Method:
    """A method that was scored.

    Attributes:
      name: The name that the reader sees.
      result: What `Evaluator.result` returned, the content of metrics.json.
      frames: (sequence, frame) -> that frame's own scalars, None if the protocol does not define one; in temporal
        order.
      is_baseline: Whether it is only a yardstick (all black, flow magnitude), which is drawn in grey.
    """

    name: str
    result: Mapping[str, Any]
    frames: Mapping[tuple[str, str], Mapping[str, float | None]]
    is_baseline: bool = False


def write_figure(figure: Figure, path: str | os.PathLike) -> list[Path]:
    """Writes a figure as PATH.png and PATH.svg and returns the two paths. A file gets its name when it is complete.

    Text in the SVG is drawn as outlines, so that it looks the same everywhere. A name that file systems may find too
    long is shortened, and stays different from others.
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
            figure.set_layout_engine("none")  # the layout is done; doing it again would take as long
    return paths


def precision_recall_figure(methods: Sequence[Method]) -> Figure | None:
    """Draws precision over recall, a curve per method (the paper's Fig. 4, 6 and 8, left).

    A marker shows where F is largest. Returns None if the protocol has no curves.
    """
    return _curves_figure(methods, _draw_precision_recall, "precision")


def f_measure_figure(methods: Sequence[Method]) -> Figure | None:
    """Draws F over the threshold, a curve per method, with a marker at its maximum.

    Returns None if the protocol has no such curves.
    """
    return _curves_figure(methods, _draw_f_measure, "f_curve")


def error_figure(methods: Sequence[Method]) -> Figure | None:
    """Draws a bar of mean absolute error per method, in their order (the paper's Fig. 4, 6 and 8, right).

    Returns None if the protocol does not define it.
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
    """Draws the scores of a sequence's frames over time: a picture per score, one above the other, a curve per method.

    The axis is the frame's number if all frames are named by numbers, otherwise its place in the sequence. Returns None
    if no method has a score of a frame there.
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
            if key == "mae":
                axes.set_ylim(bottom=0)
            else:
                axes.set_ylim(-0.03, 1.03)
        rows[-1].set_xlabel("Frame")
        _add_legend(figure, rows[0], methods)
    return figure


def write_ablation(output_dir: str | os.PathLike, methods: Sequence[Method], title: str) -> list[Path]:
    """Draws variants of one method as the paper's Fig. 6 and 8: precision-recall curves; bars of MAE, max F, S and J.

    Args:
      output_dir: The folder, which is made if it is missing.
      methods: The variants, in the order of their bars, scored under one protocol.
      title: What is varied.

    Returns:
      The files: scores.png and .svg, and precision_recall.png and .svg if the protocol has curves. A score that the
      protocol does not define has no bars.

    Raises:
      ValueError: there is no method, or no score that all of them have.
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


def _curves_figure(methods: Sequence[Method], draw: Callable[[Axes, Method, int], None], needed: str) -> Figure | None:
    if any(method.result.get(needed) is None for method in methods):
        return None
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure((_WIDTH, 3.6 + _legend_height(methods)), layout="constrained")
        axes = figure.add_subplot()
        # The user's own method is drawn last, over the others.
        for place, method in reversed(list(enumerate(methods))):
            draw(axes, method, place)
        axes.set_ylim(0, 1.02)
        _add_legend(figure, axes, methods, reverse=True)
    return figure


def _draw_precision_recall(axes: Axes, method: Method, place: int) -> None:
    recall, precision = method.result["recall"], method.result["precision"]
    # A marker shows the threshold at which F is largest; without an F curve there is none.
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
    axes.set_ylim(len(methods) - 0.4, -0.6)  # puts the first on top
    axes.grid(False, axis="y")


def _frame_scores(method: Method, sequence_name: str) -> tuple[list[int], list[Mapping[str, float | None]]]:
    """The times of a sequence's frames, and the scores of each."""
    frames = {frame: scores for (sequence, frame), scores in method.frames.items() if sequence == sequence_name}
    is_numbered = all(frame.isascii() and frame.isdecimal() for frame in frames)
    times = [int(frame) for frame in frames] if is_numbered else list(range(len(frames)))
    return times, list(frames.values())


def _colour(method: Method, place: int) -> str:
    return _BASELINE_COLOUR if method.is_baseline else _COLOURS[place % len(_COLOURS)]


def _marker(place: int) -> str:
    return _MARKERS[place % len(_MARKERS)]


def _line(method: Method, place: int) -> dict[str, Any]:
    # Colours and lines have different periods, so a pair of them comes again only after 28 methods.
    line = {"color": _colour(method, place), "linestyle": _LINES[place % len(_LINES)]}
    return {**line, "linewidth": 2.2 if place == 0 else 1.3, "zorder": 3 if place == 0 else 2}


def _legend_height(methods: Sequence[Method]) -> float:
    return 0.2 * ((len(methods) + 1) // 2)


def _add_legend(figure: Figure, axes: Axes, methods: Sequence[Method], reverse: bool = False) -> None:
    """Sets the legend below the axes, in two columns, where it never covers a curve."""
    lines = axes.get_lines()[::-1] if reverse else axes.get_lines()
    # Names are set after the legend is made, because it would leave out a name that begins with an underscore.
    names = [str(place) for place in range(len(methods))]
    legend = figure.legend(lines, names, loc="outside lower center", ncols=2, frameon=False, handlelength=3.5)
    for text, method in zip(legend.get_texts(), methods, strict=True):
        text.set_text(_drawable(method.name))


def _drawable(name: str, longest: int = _LONGEST_NAME) -> str:
    """Returns text that makes matplotlib draw a name as it is, with a box for each character that the font lacks."""
    font = get_font(findfont(_SETTINGS["font.family"]))
    shown = name if len(name) <= longest else name[: longest - 1] + "…"
    shown = "".join(character if font.get_char_index(ord(character)) else "□" for character in shown)
    return shown.replace("$", r"\$")
