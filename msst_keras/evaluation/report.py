"""The files of an evaluation, metrics.json, metrics.csv and frames.csv, and its tables as text."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msst_keras.evaluation.options import in_file_names
from msst_keras.evaluation.protocols import SCALARS
from msst_keras.evaluation.published import PublishedRow
from msst_keras.evaluation.scores import HEADLINE, SCORES
from msst_keras.files import guard_cell, publish, read_cell


def write_results(result: Mapping[str, Any], output_dir: str | os.PathLike, method: str = "") -> None:
    """Writes metrics.json and metrics.csv (or metrics-METHOD.json and .csv). A file gets its name when it is complete.

    The CSV has one row per sequence and a last one, "dataset", averaged as the protocol says. A scalar that the
    protocol does not define is an empty cell.

    Args:
      result: What `Evaluator.result` returned.
      output_dir: The folder. It is made if it is missing; files of these names in it are replaced.
      method: The method's name in the names of the files, unless it is the user's own method.

    Raises:
      ValueError: a number is NaN or infinite, which JSON cannot hold.
    """
    with publish(metrics_path(output_dir, method)) as path:
        path.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    table = Path(output_dir) / f"metrics{_suffix(method)}.csv"
    with publish(table) as path, open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["sequence", *SCALARS], extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({"sequence": guard_cell(name), **scalars} for name, scalars in result["sequences"].items())
        writer.writerow({**result, "sequence": "dataset"})


@contextlib.contextmanager
def write_frames(
    output_dir: str | os.PathLike, method: str = ""
) -> Iterator[Callable[[str, str, Mapping[str, float]], None]]:
    """Yields a function (sequence, frame, scalars) that writes a row of frames.csv (frames-METHOD.csv).

    The columns are sequence, frame and SCALARS; a scalar that is not defined is an empty cell. Rows are written as they
    come. The file gets its name when all are written; if an error comes before, there is no file.
    """
    final = Path(output_dir) / f"frames{_suffix(method)}.csv"
    with publish(final) as path, open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["sequence", "frame", *SCALARS])
        yield lambda sequence, frame, scalars: writer.writerow(
            [guard_cell(sequence), guard_cell(frame), *(scalars.get(name) for name in SCALARS)]
        )


def read_frames(output_dir: str | os.PathLike, method: str = "") -> dict[tuple[str, str], dict[str, float | None]]:
    """Reads frames.csv back: (sequence, frame) -> scalars, None for an empty cell."""
    path = Path(output_dir) / f"frames{_suffix(method)}.csv"
    with open(path, newline="", encoding="utf-8") as file:
        return {
            (read_cell(row["sequence"]), read_cell(row["frame"])): {
                name: float(row[name]) if row[name] else None for name in SCALARS
            }
            for row in csv.DictReader(file)
        }


def metrics_path(output_dir: str | os.PathLike, method: str = "") -> Path:
    """Where `write_results` writes a method's numbers."""
    return Path(output_dir) / f"metrics{_suffix(method)}.json"


def _suffix(method: str) -> str:
    return f"-{in_file_names(method)}" if method else ""


def format_published(rows: Sequence[PublishedRow]) -> str:
    """Returns a plain text table of published numbers; its head says of what, and that they were not measured here."""
    dataset = {"davis": "DAVIS-2016 val", "fbms": "FBMS test"}[rows[0].dataset]
    lines = [[f"published for all of {dataset}, not measured here", "MAE", "max F", "S", "protocol", "source"]]
    for row in rows:
        numbers = [f"{value:.3f}" if value is not None else "-" for value in (row.mae, row.max_f, row.s_measure)]
        lines.append([row.method, *numbers, row.protocol, row.source])
    return _align(lines, left=(0, 4, 5))


def format_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a plain text table with one row per method, and "-" for scores that its protocol does not define.

    Args:
      results: Method name -> what `Evaluator.result` returned. Protocol and numbers of sequences and frames are
        columns, because scores that differ in them cannot be compared.

    Raises:
      ValueError: there is no method.
    """
    if not results:
        raise ValueError("there is no method to tabulate; give at least one result")
    defined = {name for result in results.values() for name in SCALARS if result[name] is not None}
    shown = [*HEADLINE, *(name for name in SCALARS if name in defined.difference(HEADLINE))]
    rows = [["method", "protocol", "sequences", "frames", *(SCORES[name].title for name in shown)]]
    for method, result in results.items():
        cells = [method, result["protocol"], str(result["num_sequences"]), str(result["num_frames"])]
        rows.append(cells + ["-" if result[name] is None else f"{result[name]:.4f}" for name in shown])
    return _align(rows, left=(0, 1))


def _align(rows: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    """Returns rows, the first of which has the titles, in aligned columns; the columns `left` are aligned left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines) + "\n"
