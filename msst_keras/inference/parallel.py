"""Work on the frames of a video side by side, its results in order, in memory that does not grow with the video."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_in_order(function: Callable[[T], R], items: Iterable[T], num_workers: int) -> Iterator[R]:
    """Yields `function(item)` of each item, in the order of the items, computed by `num_workers` threads.

    At most `num_workers` + 1 items are under way or waiting, so memory is constant. `items` is read by the caller's
    thread: a network that makes them works while the threads do. Threads, not processes: the dense CRF spends its time
    in NumPy and SciPy functions that let other threads run, and frames need not be copied to other processes
    (`benchmarks/crf.py` prints both). One worker is the caller's own thread. The results do not depend on the number.

    Raises:
      ValueError: fewer than one worker.
      Whatever `items` raises, at once, and whatever `function` raises, in its turn; no further item is then begun.
    """
    if num_workers < 1:
        raise ValueError(f"there must be at least one worker, got {num_workers}")
    if num_workers == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(num_workers, "map_in_order") as pool:
        waiting = collections.deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > num_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # after an error, or when the caller stops reading
            for future in waiting:
                future.cancel()
