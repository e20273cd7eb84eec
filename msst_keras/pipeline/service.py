"""Batches that other machines prepare, through a tf.data service: the same batches in the same order.

A dispatcher hands out steps to its workers one by one, as they ask for them (`tf.data`'s dynamic sharding). So batches
come in any order; they carry a number and are put in order here. If a worker or the dispatcher dies, the training
process makes the missing batches itself. It can, because a batch is a pure function of its number.
"""

from __future__ import annotations

import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import tensorflow as tf

NUMBER = "example"  # key of an element's number; the number of a batch is that of its first element
# How many batches may wait for an earlier one. Workers that keep pace are a few apart; a worker's buffer holds about 8.
PATIENCE = 16
SILENCE = 20.0  # seconds without a batch after which the service counts as silent; a worker's first batch takes long
_PROTOCOL = "grpc://"
_GONE = (tf.errors.UnavailableError, tf.errors.CancelledError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)


def serve(dataset: tf.data.Dataset, address: str) -> tf.data.Dataset:
    """The elements of a dataset in any order, made by the workers of the service.

    Args:
      dataset: a dataset that begins with steps (`tf.data.Dataset.range`), which the workers share.
      address: the dispatcher's address, grpc://HOST:PORT.

    Raises:
      ValueError: the address has another form.
      ConnectionError: nothing listens there. (TensorFlow alone would try forever.)
    """
    host, _, port = address.removeprefix(_PROTOCOL).rpartition(":")
    if not address.startswith(_PROTOCOL) or not host or not port.isdecimal():
        raise ValueError(f"a data service has an address {_PROTOCOL}HOST:PORT, not '{address}'")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise ConnectionError(f"no data service answers at {address} ({error}); `msst serve_data` is one") from error
    distribute = tf.data.experimental.service.distribute
    return dataset.apply(distribute(tf.data.experimental.service.ShardingPolicy.DYNAMIC, address))


def listen(batches: Iterable[dict[str, tf.Tensor]], silence: float = SILENCE) -> Iterator[dict[str, tf.Tensor] | None]:
    """Yields the batches as they come. After `silence` seconds without one, it yields None at once, until one comes.

    TensorFlow itself waits forever for a service that is gone, and ignores signals, so a thread does the waiting.
    """
    results: queue.Queue[dict[str, tf.Tensor] | BaseException | None] = queue.Queue(maxsize=2)

    def read() -> None:
        """Puts the batches into the queue, then None, or what went wrong."""
        try:
            for batch in batches:
                results.put(batch)
            results.put(None)
        except BaseException as error:
            results.put(error)

    threading.Thread(target=read, daemon=True).start()
    heard, silent = time.monotonic(), False
    while True:
        try:
            found = results.get(timeout=max(0.0, heard + silence - time.monotonic()))
        except queue.Empty:
            if not silent:
                print("the data service is silent; batches are made here until it is heard again", file=sys.stderr)
            silent = True
            yield None
            continue
        heard, silent = time.monotonic(), False
        if found is None:
            return
        if isinstance(found, _GONE):
            print(f"the data service is gone ({found.message.splitlines()[0]}); batches are made here", file=sys.stderr)
            return
        if isinstance(found, BaseException):
            raise found
        yield found


def make_here(begin: Callable[[int], Iterable[dict[str, tf.Tensor]]]) -> Callable[[int], dict[str, tf.Tensor]]:
    """Returns a function that makes the batch of a number, quickly if it follows the batch made before.

    Args:
      begin: a function from a number to the batches, with NUMBER, from that number on.
    """
    batches: Iterator[dict[str, tf.Tensor]] = iter(())

    def make(number: int) -> dict[str, tf.Tensor]:
        """The batch that begins with the example of this number."""
        nonlocal batches
        batch = next(batches, None)
        if batch is None or int(batch[NUMBER][0]) != number:
            batches = iter(begin(number))
            batch = next(batches)
        return batch

    return make


def in_order(
    batches: Iterable[dict[str, tf.Tensor] | None],
    numbers: Iterable[int],
    make: Callable[[int], dict[str, tf.Tensor]],
) -> Iterator[dict[str, tf.Tensor]]:
    """Yields the batches of the numbers in their order, without NUMBER.

    Args:
      batches: batches with NUMBER, in any order; some may be missing, and None says that none will come soon.
      numbers: the numbers of the wanted batches, in ascending order.
      make: a function from the number of a missing batch to that batch, with NUMBER.
    """
    coming = iter(batches)
    waiting: dict[int, dict[str, tf.Tensor]] = {}
    for number in numbers:
        while number not in waiting:
            batch = next(coming, None) if len(waiting) < PATIENCE else None
            batch = make(number) if batch is None else batch
            found = int(batch[NUMBER][0])
            if found >= number:  # otherwise it comes late and was made here
                waiting[found] = batch
        batch = waiting.pop(number)
        yield {name: value for name, value in batch.items() if name != NUMBER}
