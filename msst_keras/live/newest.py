"""The newest of what comes: a source is never made to wait, and what nobody took in time is dropped and counted."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Newest(Generic[T]):
    """Reads an iterable in a thread of its own, as fast as it comes, and keeps the newest item alone.

    A source that is not read fills its buffers, and then shows an ever older past. So it is always read; the item that
    waits is replaced by the next one.

    Attributes:
      num_read: items that came.
      num_dropped: items that were replaced before anybody took them.
    """

    def __init__(self, items: Iterable[T]):
        self.num_read = self.num_dropped = 0
        self._items = items
        self._changed = threading.Condition()
        self._waiting: list[T] = []  # at most one
        self._is_over = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._read, name="newest", daemon=True)

    def __iter__(self) -> Iterator[T]:
        """Yields the newest item each time, in order, once each.

        Raises:
          Whatever the iterable raises, behind the last item.
        """
        if not self._thread.is_alive() and not self._is_over:
            self._thread.start()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_over)
                if not self._waiting:
                    break
                item = self._waiting.pop()
            yield item
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Ends the iteration; what the source gives from now on is not read any more."""
        with self._changed:
            self._is_over = True
            self._waiting.clear()
            self._changed.notify_all()

    def _read(self) -> None:
        error = None
        try:
            for item in self._items:
                with self._changed:
                    if self._is_over:
                        return
                    self.num_read += 1
                    self.num_dropped += len(self._waiting)
                    self._waiting[:] = [item]
                    self._changed.notify_all()
        except Exception as raised:
            error = raised
        finally:
            with self._changed:
                if not self._is_over:  # an error behind `stop` is nobody's
                    self._is_over, self._error = True, error
                self._changed.notify_all()
