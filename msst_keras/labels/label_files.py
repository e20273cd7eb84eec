"""Label files: 8-bit PNG of 0 and 255, LABELS/SEQUENCE/FRAME.png, and the table of frames beside them."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from msst_keras.data import images
from msst_keras.files import guard_cell, publish, read_cell

FRAMES_CSV = "frames.csv"  # in the folder of labels: a row per frame, the most doubtful first


def read_label(path: str | Path) -> np.ndarray:
    """Reads a label: bool (H, W), True = object.

    Raises:
      FileNotFoundError: the file is missing.
      ValueError: the file cannot be read, or is no label: a label's values are 0 and 255 (or 0 and 1).
    """
    levels = np.rint(images.read_map(path) * 255).astype(np.uint8)
    object_level = int(levels.max())
    if object_level not in (0, 1, 255) or not np.isin(levels, (0, object_level)).all():
        raise ValueError(
            f"{path}: a label holds 0 and 255 alone, found {len(np.unique(levels))} grey levels up to {object_level}; "
            "`msst fuse_labels` makes labels of such maps"
        )
    return levels > 0


def write_label(path: str | Path, label: np.ndarray) -> None:
    """Writes a label, bool (H, W), as PNG of 0 and 255. The file is complete and on the disk before it gets its name.

    Raises:
      ValueError: the label has another type or shape.
    """
    if label.dtype != np.bool_ or label.ndim != 2:
        raise ValueError(f"{path}: a label must be bool (H, W), not {label.dtype} {label.shape}")
    with publish(path) as temporary, open(temporary, "wb") as file:
        file.write(images.encode_png(label.astype(np.uint8) * 255))
        file.flush()
        os.fsync(file.fileno())


def write_table(path: str | Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Writes rows with the same keys, which become the header, as CSV."""
    rows = list(rows)
    with publish(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({key: guard_cell(cell) if isinstance(cell, str) else cell for key, cell in row.items()})


def read_order(labels_dir: str | Path) -> list[tuple[str, str]]:
    """The (sequence, frame) of each row of the folder's table, in its order; an empty list if there is no table.

    A spreadsheet may have saved the table, with a byte order mark and with rows of empty cells.

    Raises:
      ValueError: the table lacks these columns or a cell in them, or is no CSV in UTF-8.
    """
    path = Path(labels_dir) / FRAMES_CSV
    if not path.is_file():
        return []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns, rows = reader.fieldnames or (), [(reader.line_num, row) for row in reader if any(row.values())]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: expected CSV in UTF-8 ({error}); save it as such or make it again") from error
    if not {"sequence", "frame"} <= set(columns):
        raise ValueError(f"{path}: expected columns sequence and frame, found {columns}; make it again")
    for line, row in rows:
        if not (row["sequence"] and row["frame"]):
            raise ValueError(f"{path}: line {line} lacks its sequence or its frame; fill the cell or remove the row")
    return [(read_cell(row["sequence"]), read_cell(row["frame"])) for _, row in rows]
