"""What an evaluation leaves behind: metrics.json, metrics.csv, frames.csv, and tables to read."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from msst_keras.evaluation.protocols import SCALARS
from msst_keras.evaluation.published import PublishedRow
from msst_keras.evaluation.scores import HEADLINE, SCORES
from msst_keras.files import publish


def write_results(result: Mapping, output_dir: str | os.PathLike, method: str = "") -> None:
    """Writes metrics.json and metrics.csv (metrics-METHOD.json and .csv), each under its name only when it is whole.

    The CSV has one row per sequence and a last one, "dataset", by the protocol's averaging; a scalar that the protocol
    does not define is an empty cell.

    Args:
      result: What `Evaluator.result` returned.
      output_dir: The folder; made when missing, files of these names in it are replaced.
      method: Name of the method for the files' names, where it is not the user's own.

    Raises:
      ValueError: when a number is NaN or infinite, which JSON cannot hold.
    """
    stem = Path(output_dir) / f"metrics{_suffix(method)}"
    with publish(stem.with_name(f"{stem.name}.json")) as path:
        path.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    with publish(stem.with_name(f"{stem.name}.csv")) as path, open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["sequence", *SCALARS], extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({"sequence": name, **scalars} for name, scalars in result["sequences"].items())
        writer.writerow({**result, "sequence": "dataset"})


@contextlib.contextmanager
def write_frames(
    output_dir: str | os.PathLike, method: str = ""
) -> Iterator[Callable[[str, str, Mapping[str, float]], None]]:
    """Yields a function (sequence, frame, scalars) that writes a row of frames.csv (frames-METHOD.csv).

    The columns are sequence, frame and SCALARS; what is not defined is an empty cell. Rows go to disk as they come; the
    file has its name when all are written, and is not there when an error stops them.
    """
    final = Path(output_dir) / f"frames{_suffix(method)}.csv"
    with publish(final) as path, open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["sequence", "frame", *SCALARS])
        yield lambda sequence, frame, scalars: writer.writerow(
            [sequence, frame, *(scalars.get(name) for name in SCALARS)]
        )


def read_frames(output_dir: str | os.PathLike, method: str = "") -> dict[tuple[str, str], dict[str, float | None]]:
    """Reads frames.csv back: (sequence, frame) -> scalars, None where the cell is empty."""
    path = Path(output_dir) / f"frames{_suffix(method)}.csv"
    with open(path, newline="", encoding="utf-8") as file:
        return {
            (row["sequence"], row["frame"]): {name: float(row[name]) if row[name] else None for name in SCALARS}
            for row in csv.DictReader(file)
        }


def _suffix(method: str) -> str:
    return f"-{method.replace(' ', '-')}" if method else ""


def format_published(rows: Sequence[PublishedRow]) -> str:
    """Returns a plain text table of published numbers, which says in its head that they are not measured."""
    lines = [["published, not measured here", "MAE", "max F", "S", "protocol", "source"]]
    for row in rows:
        numbers = [f"{value:.3f}" if value is not None else "-" for value in (row.mae, row.max_f, row.s_measure)]
        lines.append([row.method, *numbers, row.protocol, row.source])
    return _align(lines, left=(0, 4, 5))


def format_table(results: Mapping[str, Mapping]) -> str:
    """Returns a plain text table with one row per method; "-" where its protocol does not define the metric.

    Args:
      results: Method name -> what `Evaluator.result` returned. Protocol and numbers of sequences and frames are
        columns, because scores under different ones do not compare.

    Raises:
      ValueError: when there is no method.
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
    """Returns the rows, the first one their titles, in columns; those of the numbers `left` start at the left."""
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
