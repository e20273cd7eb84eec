"""Progress of long work: a bar on a terminal, a line every ten seconds in a log."""

from __future__ import annotations

import functools
import sys
from collections.abc import Generator, Iterable
from typing import TypeVar

import tqdm

T = TypeVar("T")


def progress(
    iterable: Iterable[T], total: int | None = None, description: str = "", initial: int = 0
) -> Generator[T, None, None]:
    """Yields the items of `iterable` and reports on standard error how many of `total` are done and the time left.

    `initial` counts items that an earlier run has done. In a log, which is not a terminal, a bar would be a mess of
    carriage returns, so a plain line is printed every ten seconds instead.
    """
    if sys.stderr.isatty():
        yield from tqdm.tqdm(iterable, total=total, desc=description, initial=initial, dynamic_ncols=True, leave=False)
        return
    bar = tqdm.tqdm(iterable, total=total, desc=description, initial=initial, mininterval=10, maxinterval=10,
                    ascii=True, ncols=0, file=_Lines())  # fmt: skip
    yield from bar


@functools.cache  # a sentence that was said need not be said again
def say(sentence: str) -> None:
    """Tells the user what was left out: one line on standard error, above a bar if there is one."""
    tqdm.tqdm.write(f"note: {sentence}", file=sys.stderr)


class _Lines:
    """A file that makes lines of what tqdm writes with carriage returns."""

    def write(self, text: str) -> None:
        """Writes text as a line of its own."""
        text = text.strip("\r\n ")
        if text:
            sys.stderr.write(text + "\n")

    def flush(self) -> None:
        """Flushes standard error."""
        sys.stderr.flush()
