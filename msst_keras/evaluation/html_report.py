"""The report of an evaluation: report.html, one file to read in a browser, to print or to send, and its figures.

The page contains everything that it shows, and loads nothing. Measured numbers stand under the name of their protocol;
numbers that papers published stand in a table of their own.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from msst_keras.evaluation import figures
from msst_keras.evaluation.examples import ReadImages, choose_examples
from msst_keras.evaluation.figures import Method
from msst_keras.evaluation.html_page import Cell, Picture, Table, reduce_colours, render_page
from msst_keras.evaluation.protocols import PROTOCOLS, SCALARS
from msst_keras.evaluation.published import PublishedRow
from msst_keras.evaluation.scores import HEADLINE, MEANINGS, SCORES
from msst_keras.files import publish

# A protocol's choices in words.
_WORDS = MappingProxyType({
    ("frames", "annotated"): "every frame that has a mask",
    ("frames", "inner"): "every frame that has a mask, but for the first and the last of each sequence",
    ("normalisation", "none"): "none",
    ("normalisation", "min_max"): "each map stretched to 0..1",
    ("thresholds", "integers"): "0 to 255, level >= threshold",
    ("thresholds", "half"): "one half",
    ("averaging", "frames"): "over all frames alike",
    ("averaging", "sequences"): "over the frames of a sequence, then over the sequences",
    ("f_curve", "of_means"): "F of the averaged precision and recall",
    ("f_curve", "mean"): "mean of the frames' F",
    ("resizing", "bilinear"): "maps of another size are brought to the mask's, bilinear",
})  # fmt: skip
_LABELS = MappingProxyType({
    "frames": "Frames", "normalisation": "Normalisation", "thresholds": "Thresholds", "averaging": "Averaging",
    "f_curve": "F over thresholds", "resizing": "Resizing", "source": "Source of the rules",
})  # fmt: skip
_HEADINGS = MappingProxyType({
    "numbers": "Numbers", "published": "Published by others, not measured here", "curves": "Curves",
    "sequences": "Sequences", "frames": "Worst and best frames", "time": "Over time",
})  # fmt: skip
# A timeline of a dozen methods is a picture of 54 KB, or 72 KB in the page, and the page should stay below 5 MB.
_MAX_TIMELINES = 50


def write_report(
    output_dir: str | os.PathLike,
    methods: Sequence[Method],
    read_images: ReadImages,
    published: Sequence[PublishedRow] = (),
    title: str = "",
) -> Path:
    """Writes report.html, and its figures as PNG and SVG into figures/; returns the report's path.

    The same input gives the same bytes. A caller who wants to state the time or the command does it in `title`.

    Args:
      output_dir: The folder. It is made if it is missing; files of these names in it are replaced.
      methods: The user's own method, then those it is compared with, all scored under one protocol.
      read_images: Called with (sequence, frame) for the few frames that are shown. Returns the frame, uint8 (H, W, 3)
        RGB, or None if there is none; the mask, bool (H, W); each method's map by its name, uint8 (h, w).
      published: What papers report, which is shown in a table of its own.
      title: A line below the heading: what was scored, when, by which command.

    Raises:
      ValueError: there is no method, two have one name, protocols differ, or a map is missing or not as described.
    """
    _check(methods)
    output_dir = Path(output_dir)
    own = methods[0]
    protocol = own.result["protocol"]
    figure_dir = output_dir / "figures"
    charts = _charts(methods, figure_dir)
    ranked_by, examples = choose_examples(methods, read_images)
    lowest_timelines, timelines = _timelines(methods, figure_dir / "sequences")
    table = _published(published) if published else None
    shown = {"published": table, "frames": examples, "time": timelines}
    text = render_page(
        name=own.name,
        title=title,
        facts=_facts(own),
        headings={name: heading for name, heading in _HEADINGS.items() if shown.get(name, True)},
        protocol=protocol,
        num_frames=own.result["num_frames"],
        num_sequences=own.result["num_sequences"],
        numbers=_numbers(methods),
        meanings=MEANINGS,
        published=table,
        charts=[chart for chart in charts if chart],
        num_missing_charts=charts.count(None),
        method_names=[method.name for method in methods],
        sequences=_sequences(methods),
        ranked_by=ranked_by,
        examples=examples,
        timelines=timelines,
        lowest_timelines=lowest_timelines,
        version=version("msst-keras"),
    )
    with publish(output_dir / "report.html") as path:
        # A folder's name need not be valid Unicode.
        path.write_text(text, encoding="utf-8", errors="replace")
    return output_dir / "report.html"


def _check(methods: Sequence[Method]) -> None:
    if not methods:
        raise ValueError("there is no method to report; give at least one result")
    names = Counter(method.name for method in methods)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"{len(twice)} names stand for two methods ({', '.join(twice)}); give each its own")
    protocols = {method.name: method.result["protocol"] for method in methods}
    if len(set(protocols.values())) > 1:
        found = ", ".join(f"{name}: {protocol}" for name, protocol in protocols.items())
        raise ValueError(f"a report holds one protocol, and these are under several ({found}); write one for each")


def _facts(own: Method) -> dict[str, str]:
    """What was scored and how, in words: term -> description."""
    result = own.result
    facts = {
        "Protocol": result["protocol"],
        "Scored": f"{result['num_frames']} frames of {result['num_sequences']} sequences",
    }
    if protocol := PROTOCOLS.get(result["protocol"]):
        choices = {field.name: getattr(protocol, field.name) for field in dataclasses.fields(protocol)}
        facts |= {_LABELS[key]: _WORDS.get((key, choices[key]), choices[key]) for key in _LABELS}
    return facts


def _shown(methods: Sequence[Method]) -> list[str]:
    defined = {name for method in methods for name in SCALARS if method.result.get(name) is not None}
    return [*HEADLINE, *(name for name in SCALARS if name in defined.difference(HEADLINE))]


def _head(first: str, names: Sequence[str]) -> list[Cell]:
    return [Cell(first, kind="text"), *(Cell(SCORES[name].title) for name in names)]


def _number(value: float | None, kind: str = "") -> Cell:
    return Cell("-" if value is None else f"{value:.3f}", value, kind)


def _numbers(methods: Sequence[Method]) -> Table:
    names = _shown(methods)
    best = {}
    for name in names:
        found = [method.result[name] for method in methods if method.result.get(name) is not None]
        best[name] = (min if SCORES[name].lower_is_better else max)(found, default=None)
    rows = []
    for place, method in enumerate(methods):
        mark = "baseline" if method.is_baseline else "yours" if place == 0 else ""
        values = {name: method.result.get(name) for name in names}
        kinds = {name: "best" if values[name] is not None and values[name] == best[name] else "" for name in names}
        rows.append([Cell(method.name, mark=mark), *(_number(values[name], kinds[name]) for name in names)])
    return Table(f"Measured, protocol {methods[0].result['protocol']}", _head("Method", names), rows, own_row=0)


def _published(rows: Sequence[PublishedRow]) -> Table:
    head = [Cell("Method", kind="text"), Cell("Dataset", kind="text"), Cell("MAE"), Cell("max F"), Cell("S")]
    head += [Cell("Protocol", kind="text"), Cell("Source", kind="text")]
    lines = [
        [
            Cell(row.method, mark="published"),
            Cell(row.dataset, kind="text"),
            *map(_number, (row.mae, row.max_f, row.s_measure)),
            Cell(row.protocol, kind="text"),
            Cell(row.source, kind="text long"),
        ]
        for row in rows
    ]
    return Table("Published numbers", head, lines)


def _charts(methods: Sequence[Method], figure_dir: Path) -> list[Picture | None]:
    """The charts; None in place of a chart that the protocol does not define."""
    names = ", ".join(method.name for method in methods)
    charts = {
        "precision_recall": (figures.precision_recall_figure(methods), "Precision over recall; marker: largest F"),
        "f_measure": (figures.f_measure_figure(methods), "F over the threshold; marker: its maximum"),
        "mae": (figures.error_figure(methods), "Mean absolute error; all black shows what an empty map gets"),
    }
    pictures: list[Picture | None] = []
    for name, (figure, caption) in charts.items():
        if figure is None:
            pictures.append(None)
            continue
        _, svg = figures.write_figure(figure, figure_dir / name)
        pictures.append(Picture(svg.read_bytes(), "image/svg+xml", f"Chart: {caption}. Methods: {names}", caption))
    return pictures


def _sequences(methods: Sequence[Method]) -> list[Table]:
    names = _shown(methods)
    head = [*_head("Sequence", names)]
    head.insert(1, Cell("frames"))
    tables = []
    for method in methods:
        counts = Counter(key[0] for key, scores in method.frames.items() if _is_scored(scores))
        rows = [
            [
                Cell(sequence),
                Cell(str(counts[sequence]), counts[sequence]),
                *(_number(scalars.get(name)) for name in names),
            ]
            for sequence, scalars in method.result["sequences"].items()
        ]
        caption = f"{method.name}: each sequence, protocol {method.result['protocol']}"
        tables.append(Table(caption, head, rows))
    return tables


def _is_scored(scores: Mapping[str, float | None]) -> bool:
    # Flicker needs no mask, so it may be the only score of a frame.
    return any(value is not None for name, value in scores.items() if name != "temporal_stability")


def _timelines(methods: Sequence[Method], figure_dir: Path) -> tuple[str, dict[str, Picture]]:
    """The chart of each sequence by its name, and a remark on which sequences these are, if they are not all."""
    own = methods[0]
    sequences = list(own.result["sequences"])
    note = ""
    if len(sequences) > _MAX_TIMELINES:
        key = next((name for name in ("s_measure", "j_mean") if own.result.get(name) is not None), None)
        sequences.sort(key=lambda name: own.result["sequences"][name][key] if key else 0)
        lowest = SCORES[key].title if key else "names"
        note = f"The {_MAX_TIMELINES} of {len(sequences)} sequences with the lowest {lowest}."
        sequences = sequences[:_MAX_TIMELINES]
    pictures = {}
    for name in sequences:
        figure = figures.timeline_figure(methods, name)
        if figure is None:
            continue
        png, _ = figures.write_figure(figure, figure_dir / quote(name, safe=" "))
        caption = f"{name}: scores of each frame"
        data = reduce_colours(png.read_bytes())
        pictures[name] = Picture(data, "image/png", f"Chart of scores over the frames of {name}", caption)
    return note, pictures
