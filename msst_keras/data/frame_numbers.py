"""The number of a frame or mask: the last in its file's name (camel01_0020_gt.ppm: 20), or the one that differs."""

from __future__ import annotations

import re
from pathlib import Path

from msst_keras.data.file_names import plain_name, printable


def by_number(paths: list[Path], column: int | None = None) -> dict[int, Path]:
    """Number -> file, in ascending order, which must be the order of the names too.

    Where all names end with one number (PXL_20240501_12.jpg, PXL_20240502_12.jpg) the one that differs is meant.

    Args:
      paths: the files.
      column: which of the numbers in a name counts, where that is known (see `shared_column`).

    Raises:
      ValueError: a name without number, two files of one number, or numbers in another order than the names.
    """
    numbers: dict[int, Path] = {}
    last, column = None, find_column(paths) if column is None else column
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


def read_number(path: Path, column: int | None = None) -> int:
    """The number in a file's name: the one at `column`, or the last one where that is None.

    Raises:
      ValueError: no number.
    """
    found = _numbers_in(path)
    if not found:
        raise ValueError(f"{path}: no number in this name; frames and masks are ordered and paired by number")
    return found[-1 if column is None else column]


def find_column(paths: list[Path]) -> int | None:
    """Which of the numbers in these names is the only one that differs; None where none or several do."""
    found = [_numbers_in(path) for path in paths]
    if len({len(numbers) for numbers in found}) != 1:
        return None
    varying = [column for column in range(len(found[0])) if len({numbers[column] for numbers in found}) > 1]
    return varying[0] if len(varying) == 1 else None


def shared_column(frames: list[Path], masks: list[Path]) -> int | None:
    """Which of the numbers counts in the names of frames and of masks, where these are named alike.

    Masks that are named otherwise than frames, but all in one way, say it by the only number that differs among them.
    One mask by itself says nothing of that kind: in 00010_v2.png its frame may be the tenth or the second.

    Returns:
      None where frames and masks are named in two ways, each of which says by itself which number counts.

    Raises:
      ValueError: a mask that is named in another way than the frames, so that any of its numbers may be the frame's.
    """
    column, counts = find_column([*frames, *masks]), find_column(frames)
    is_one_way = column is not None or len({_words_between(mask) for mask in masks}) == 1
    if is_one_way and find_column(masks) is not None:
        return column
    # A mask that is called as a frame is read by its last number where the others are named otherwise.
    is_last = counts is None or counts == len(_numbers_in(frames[0])) - 1
    words = {_words_between(path) for path in frames}
    of_frames = {(_words_between(path), *_numbers_in(path)) for path in frames} if is_last else set()
    for mask in masks:
        numbers, between = _numbers_in(mask), _words_between(mask)
        is_alike = column is not None and between in words or (between, *numbers) in of_frames
        if len(set(numbers)) > 1 and not is_alike:
            raise ValueError(
                f"{mask}: which number in this name is the frame's is not clear; name each mask as its frame, such as "
                f"{frames[0].stem}{mask.suffix}"
            )
    return column


def _words_between(path: Path) -> tuple[str, ...]:
    """What stands between the numbers in a file's name; what stands before and after them says what the file is."""
    return tuple(re.split("[0-9]+", plain_name(path))[1:-1])


def _numbers_in(path: Path) -> list[int]:
    """The numbers in a file's name, in order."""
    return [int(number) for number in re.findall("[0-9]+", path.stem)]


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
