"""Batches that other machines prepare, through a tf.data service: the same batches in the same order.

A dispatcher hands out steps to its workers one by one, as they ask for them (`tf.data`'s dynamic sharding), so batches
come in any order; they carry a number and are put in order here. A worker that dies takes the steps it had with it:
what is missing when many later batches wait is made here, which any process can, since a batch is a pure function of
its number.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator

import tensorflow as tf

NUMBER = "example"  # key of an element: the number of its first example is that of a batch
# Batches that may wait for an earlier one. Two workers in step are at most a few apart; a worker's buffer holds some 8.
PATIENCE = 16
_PROTOCOL = "grpc://"


def serve(dataset: tf.data.Dataset, address: str) -> tf.data.Dataset:
    """The elements of a dataset in any order, made by the workers of the service.

    Args:
      dataset: begins with steps (`tf.data.Dataset.range`), which the workers share among them.
      address: of the dispatcher, grpc://HOST:PORT.

    Raises:
      ValueError: not such an address.
      ConnectionError: nothing listens there. (TensorFlow alone would try for ever.)
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


def in_order(
    batches: Iterable[dict[str, tf.Tensor]], numbers: Iterable[int], make: Callable[[int], dict[str, tf.Tensor]]
) -> Iterator[dict[str, tf.Tensor]]:
    """Yields the batches of the numbers in their order, without NUMBER.

    Args:
      batches: with NUMBER, in any order; some may be missing.
      numbers: of the batches that are wanted, rising.
      make: number -> the batch, with NUMBER, for one that is missing.
    """
    coming, waiting = iter(batches), {}
    for number in numbers:
        while number not in waiting:
            batch = next(coming, None) if len(waiting) < PATIENCE else None
            batch = make(number) if batch is None else batch
            found = int(batch[NUMBER][0])
            if found >= number:  # else it was made here, and comes late
                waiting[found] = batch
        batch = waiting.pop(number)
        yield {name: value for name, value in batch.items() if name != NUMBER}
