"""The number of a frame or mask: the last one in the name of its file (camel01_0020_gt.ppm: 20)."""

from __future__ import annotations

import re
from pathlib import Path

from msst_keras.data.file_names import printable


def by_number(paths: list[Path]) -> dict[int, Path]:
    """Number -> file, in ascending order, which must be the order of the names too.

    Where all names end with one number (PXL_20240501_12.jpg, PXL_20240502_12.jpg) the one that differs is meant.
    """
    numbers: dict[int, Path] = {}
    last, column = None, _varying_number(paths)
    for path in sorted(paths, key=natural_key):
        number = read_number(path, column)
        if number in numbers:
            raise ValueError(f"{path}: the number {number} is that of {numbers[number].name} too; one file a number")
        if last is not None and number < last:
            raise ValueError(
                f"{path}: the last number in this name is smaller than in {numbers[last].name}, which comes before it; "
                "the last number must be the frame's"
            )
        numbers[number], last = path, number
    return numbers


def read_number(path: Path, column: int = -1) -> int:
    """The number in a file's name: the last one, or the one at `column` where there are several.

    Raises:
      ValueError: no number.
    """
    found = re.findall("[0-9]+", path.stem)
    if not found:
        raise ValueError(f"{path}: no number in this name; frames and masks are ordered and paired by number")
    return int(found[column])


def _varying_number(paths: list[Path]) -> int:
    """Which of the numbers in these names counts: the last, or the only one that differs if the last is always one."""
    found = [re.findall("[0-9]+", path.stem) for path in paths]
    if len(paths) < 2 or len({len(numbers) for numbers in found}) > 1:
        return -1
    varying = [column for column in range(len(found[0])) if len({numbers[column] for numbers in found}) > 1]
    return varying[0] if len(varying) == 1 else -1


def natural_key(path: Path) -> list[str | int]:
    """Text and numbers of a name in turn, so that 2 comes before 10."""
    parts = re.split("([0-9]+)", path.stem)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def describe_gaps(frame_paths: tuple[Path, ...]) -> str:
    """A sentence about numbers that are missing among a sequence's frames; empty where they follow one another.

    Where all numbers lie equally far apart (every tenth frame of a video) none is missing.
    """
    numbers = list(by_number(list(frame_paths)))
    steps = [following - number for number, following in zip(numbers, numbers[1:], strict=False)]
    step = min(steps, default=1)
    gaps = [index for index, found in enumerate(steps) if found != step]
    if not gaps:
        return ""
    first = gaps[0]
    return (
        f"{printable(frame_paths[0].parent)}: frames are missing in {_places(len(gaps))} between "
        f"{frame_paths[first].name} and {frame_paths[first + 1].name}; what moved there counts as one step"
    )


def _places(count: int) -> str:
    return "one place," if count == 1 else f"{count} places, the first"
