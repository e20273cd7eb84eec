"""What a request must be, checked in the graph before anything is computed.

What is not right comes back as INVALID_ARGUMENT with one sentence, in bounded time and memory: a request of a few bytes
could otherwise ask for gigabytes. `tf.debugging.Assert` takes the sentence alone, because the named assertions print
whole tensors beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

MAX_BATCH = 16  # rows; each needs as much memory as the network takes for one frame
MAX_SIDE = 8192
MAX_PIXELS = 2**24  # of one frame: 4096x4096, twice a 4K frame
MAX_ANSWER = 2**25  # pixels of all the maps of an answer, 128 MB


def refuse_unless(right: tf.Tensor, sentence: str, *tensors: tf.Tensor) -> Any:
    """Returns the tensors, which exist only if `right` does.

    Args:
      right: bool, of any shape; all of it must be true.
      sentence: what the client reads.
      tensors: what must not be used before it is known to be right.
    """
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(right), [sentence])]):
        checked = [tf.identity(tensor) for tensor in tensors]
    return checked[0] if len(checked) == 1 else checked


def check_shape(tensor: tf.Tensor, name: str, shape: Sequence[int | None]) -> tf.Tensor:
    """Returns the tensor with its static shape set, after it was compared with that of the request.

    Signatures leave all shapes open, because a server feeds whatever comes: an operation further on would then fail
    with a sentence of its own, or not at all.

    Args:
      tensor: of unknown shape.
      name: of the input.
      shape: None for what is free; the first axis is the batch, of 1 to MAX_BATCH rows.
    """
    wanted = tf.constant([-1 if side is None else side for side in shape] + [-2])
    found = tf.concat([tf.shape(tensor), tf.fill([len(shape) + 1], -2)], axis=0)[: len(shape) + 1]
    right = tf.logical_or(found == wanted, tf.logical_and(wanted == -1, found >= 0))
    letters = iter(("B", "H", "W", "?", "?"))
    text = ", ".join(next(letters) if side is None else str(side) for side in shape)
    tensor = refuse_unless(right, f"{name} must have the shape ({text})", tensor)
    tensor.set_shape(shape)
    rows = tf.shape(tensor)[0]
    right = tf.logical_and(rows >= 1, rows <= MAX_BATCH)
    return refuse_unless(right, f"a request must have 1 to {MAX_BATCH} rows, found another number in {name}", tensor)


def check_rows(tensors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Returns the inputs, all of which have the number of rows of the first."""
    first, *others = tensors
    rows = tf.shape(tensors[first])[0]
    for name in others:
        right = tf.shape(tensors[name])[0] == rows
        sentence = f"{name} must have as many rows as {first}"
        tensors[name] = refuse_unless(right, sentence, tensors[name])
    return tensors


def check_size(height: tf.Tensor, width: tf.Tensor, name: str, *tensors: tf.Tensor) -> Any:
    """Returns the tensors, which belong to images of these sides; each side is checked, so nothing overflows.

    Args:
      height, width: int32 or int64, of any one shape.
      name: what has this size.
      tensors: see `refuse_unless`.
    """
    height, width = tf.cast(height, tf.int64), tf.cast(width, tf.int64)
    right = (height >= 1) & (width >= 1) & (height <= MAX_SIDE) & (width <= MAX_SIDE)
    right &= tf.clip_by_value(height, 0, MAX_SIDE) * tf.clip_by_value(width, 0, MAX_SIDE) <= MAX_PIXELS
    sentence = f"{name} must be 1 to {MAX_SIDE} pixels high and wide, and have at most {MAX_PIXELS} pixels"
    return refuse_unless(right, sentence, *tensors)


def check_answer(rows: tf.Tensor, height: tf.Tensor, width: tf.Tensor, *tensors: tf.Tensor) -> Any:
    """Returns the tensors, if the maps of so many rows of a size (`check_size`) are not more than one answer holds."""
    pixels = tf.cast(rows, tf.int64) * tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    sentence = f"the maps of one answer may have {MAX_ANSWER} pixels in all; send fewer rows at a time"
    return refuse_unless(pixels <= MAX_ANSWER, sentence, *tensors)


def check_flow(flow: tf.Tensor, longest: float) -> tf.Tensor:
    """Returns flow that is finite and shorter than records can hold; anything else would be a map of nothing."""
    right = tf.abs(flow) <= longest  # false for what is not a number
    return refuse_unless(right, f"flow must be finite, {longest:g} pixels per frame at most", flow)


def check_superpixels(superpixels: tf.Tensor, max_regions: int) -> tf.Tensor:
    """Returns labels that the model has room for.

    One label of a million would make matrices of a million rows, and a negative one belongs to the row before.
    """
    right = (superpixels >= 0) & (superpixels < max_regions)
    return refuse_unless(right, f"superpixels must be labels of 0 to {max_regions - 1}", superpixels)


def check_finite(maps: tf.Tensor, name: str) -> tf.Tensor:
    """Returns maps without anything infinite or undefined."""
    return refuse_unless(tf.math.is_finite(maps), f"{name} must hold finite numbers", maps)
