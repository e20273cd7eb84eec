"""Which part of every global batch each process of a training reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Share:
    """Which part of every global batch one process of a training reads, in batches of one replica (device) each.

    With P = num_workers * num_replicas replicas and b = batch_size / P, replica r of worker w has the examples
    s * batch_size + (w * num_replicas + r) * b + [0, b) of step s. A process's batches come step by step, replica by
    replica. So all processes together see what a single one would see.

    Attributes:
      worker, num_workers: the number of this process, and how many processes there are.
      num_replicas: how many replicas this process has.
    """

    worker: int = 0
    num_workers: int = 1
    num_replicas: int = 1

    def replica_batch(self, batch_size: int) -> int:
        """How many examples of a global batch one replica has, b.

        Raises:
          ValueError: the replicas cannot share the batch equally.
        """
        replicas = self.num_workers * self.num_replicas
        if batch_size % replicas:
            raise ValueError(f"a batch of {batch_size} cannot be shared equally by {replicas} replicas")
        return batch_size // replicas

    def examples(self, first_step: int, last_step: int, batch_size: int) -> tf.data.Dataset:
        """The numbers of this process's examples of steps first_step to last_step - 1, scalar int64."""
        mine = self.replica_batch(batch_size) * self.num_replicas
        steps = tf.data.Dataset.range(first_step, last_step)
        return steps.flat_map(
            lambda step: tf.data.Dataset.range(mine).map(lambda i: step * batch_size + self.worker * mine + i)
        )

    def firsts(self, first_step: int, last_step: int, batch_size: int) -> Iterator[int]:
        """The number of the first example of each of this process's batches of these steps."""
        each = self.replica_batch(batch_size)
        for step in range(first_step, last_step):
            for replica in range(self.num_replicas):
                yield step * batch_size + (self.worker * self.num_replicas + replica) * each


WHOLE = Share()  # the share of a training with one process on one device
