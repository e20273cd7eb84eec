"""Gradients that repeat to the bit on a CPU.

TensorFlow sums the parts of a gradient by AddN, which begins with any part whose memory it may write over by then. So
the order of three parts or more depends on which other operations have ended already, and with it the last bits of the
sum. Here parts are summed two by two, whose order changes nothing, and the optimizer of the graph is kept from joining
such sums to an AddN again. Neither made a step slower (EfficientNet-Lite0 and VGG16 on two cores).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import tensorflow as tf


@contextlib.contextmanager
def ordered_sums() -> Iterator[None]:
    """Inside, the graphs that run for the first time keep the order of their sums."""
    before = tf.config.optimizer.get_experimental_options().get("arithmetic_optimization", True)
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"arithmetic_optimization": before})


def find_gradients(
    outputs: Sequence[tf.Tensor],
    values: Sequence[tf.Tensor | tf.Variable],
    ahead: Sequence[tf.Tensor] | None = None,
    stop: Sequence[tf.Tensor] = (),
) -> list[tf.Tensor | None]:
    """The gradient of the outputs' sum for each value, in a graph that runs inside `ordered_sums`.

    Args:
      outputs: what is differentiated.
      values: for what; None comes back for one that no output depends on.
      ahead: the gradients of the outputs, by which theirs are multiplied; None for ones.
      stop: tensors that are taken for constants, so that nothing before them has a gradient through them.
    """
    method = tf.AggregationMethod.EXPERIMENTAL_TREE
    return tf.gradients(outputs, values, ahead, aggregation_method=method, stop_gradients=list(stop) or None)
