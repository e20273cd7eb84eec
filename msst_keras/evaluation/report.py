"""What an evaluation leaves behind: metrics.json, metrics.csv, and a table to read."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path

from msst_keras.evaluation.protocols import SCALARS
from msst_keras.files import publish

# MAE rewards an all-black map, so it never stands alone: max F and S always stand beside it.
_ALWAYS_SHOWN = ("mae", "max_f", "s_measure")
_TITLES = {
    "mae": "MAE", "max_f": "max F", "mean_f": "mean F", "adaptive_f": "adaptive F", "weighted_f": "weighted F",
    "s_measure": "S", "max_e": "max E", "mean_e": "mean E", "adaptive_e": "adaptive E",
    "j_mean": "J", "f_boundary_mean": "boundary F", "temporal_stability": "T",
}  # fmt: skip


def write_results(result: Mapping, output_dir: str | os.PathLike) -> None:
    """Writes metrics.json and metrics.csv, each under its name only when it is whole.

    The CSV has one row per sequence and a last one, "dataset", by the protocol's averaging; a scalar that the protocol
    does not define is an empty cell.

    Args:
      result: What `Evaluator.result` returned.
      output_dir: The folder; made when missing, files of these names in it are replaced.

    Raises:
      ValueError: when a number is NaN or infinite, which JSON cannot hold.
    """
    output_dir = Path(output_dir)
    with publish(output_dir / "metrics.json") as path:
        path.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    with publish(output_dir / "metrics.csv") as path, open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["sequence", *SCALARS], extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({"sequence": name, **scalars} for name, scalars in result["sequences"].items())
        writer.writerow({**result, "sequence": "dataset"})


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
    shown = [*_ALWAYS_SHOWN, *(name for name in SCALARS if name in defined.difference(_ALWAYS_SHOWN))]
    rows = [["method", "protocol", "sequences", "frames", *(_TITLES[name] for name in shown)]]
    for method, result in results.items():
        cells = [method, result["protocol"], str(result["num_sequences"]), str(result["num_frames"])]
        rows.append(cells + ["-" if result[name] is None else f"{result[name]:.4f}" for name in shown])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        names = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join([*names, *numbers]))
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines) + "\n"
