"""Work on the frames of a video side by side, its results in order, in memory that does not grow with the video."""

from __future__ import annotations

import collections
import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")
_END = object()


def map_in_order(function: Callable[[T], R], items: Iterable[T], num_workers: int) -> Generator[R, None, None]:
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
        waiting: collections.deque[Future[R]] = collections.deque()
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


def read_ahead(items: Iterable[T], num_ahead: int, stop: Callable[[], None] | None = None) -> Generator[T, None, None]:
    """Yields the items of an iterable that a thread of its own makes, while the caller works on those before.

    A chain of them is a pipeline: each stage is a generator over the stage before, and works in a thread of its own.
    Order and items are those of the iterable.

    Args:
      items: whatever it does is done in the thread; a generator is closed there too, when the caller stops reading.
      num_ahead: so many items wait or are being made at most. 0 makes no thread.
      stop: makes `items` end. It is called when the caller stops reading, because the item that is being made may be
        one that does not come for long.

    Raises:
      ValueError: a negative number of items.
      Whatever `items` raises, behind the items that came before.
    """
    if num_ahead < 0:
        raise ValueError(f"the number of items to read ahead must not be negative, got {num_ahead}")
    if num_ahead == 0:
        yield from items
        return
    reader = _Reader(items, num_ahead, stop)
    reader.start()
    try:
        yield from reader.take()
    finally:  # after an error or Ctrl-C in the caller too, if it closes this generator
        reader.stop()


class _Reader(Generic[T]):
    """The thread behind `read_ahead`."""

    def __init__(self, items: Iterable[T], num_ahead: int, stop: Callable[[], None] | None):
        self._items, self._stop_items, self._stopped = items, stop, False
        # (True, item); last (False, error or None)
        self._made: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()
        self._room = threading.Semaphore(num_ahead)
        self._thread = threading.Thread(target=self._work, name="read_ahead", daemon=True)
        self.start = self._thread.start

    def take(self) -> Iterator[T]:
        """Yields the items in order; raises what making them raised."""
        while (made := self._made.get())[0]:
            self._room.release()
            yield made[1]
        if made[1] is not None:
            raise made[1]

    def stop(self) -> None:
        """Waits for the item that is being made; nothing is made after it."""
        self._stopped = True
        if self._stop_items is not None:
            self._stop_items()
        self._room.release()
        self._thread.join()

    def _work(self) -> None:
        error = None
        try:
            iterator = iter(self._items)
            with contextlib.ExitStack() as stack:
                if isinstance(iterator, Generator):  # so that what it opened is closed before `stop` returns
                    stack.callback(iterator.close)
                while True:
                    self._room.acquire()  # before the item is made: one of a live source would grow old
                    item = _END if self._stopped else next(iterator, _END)
                    if item is _END:
                        break
                    self._made.put((True, item))
        except BaseException as raised:
            error = raised
        self._made.put((False, error))
