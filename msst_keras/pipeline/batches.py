"""Records to batches of clips: a pure function of (seed, step), read by seeks, decoded and augmented in tf.data.

There is one global order of clips. Example number i (counted over the whole training) is clip
`shuffle(seed, epoch)(i mod n)` of epoch i div n, augmented by numbers drawn from (seed, i) alone. Several groups of
clips take turns by their shares, each in an order of its own. Step s takes `batch_size` examples from number
s * batch_size on. So a run can start at step s without reading anything before it, and gets exactly the batches of an
uninterrupted run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from msst_keras.pipeline.clip_index import ClipIndex, find_damage
from msst_keras.pipeline.clips import load_clip, load_flow, load_labelled_flow
from msst_keras.pipeline.options import Augmentation
from msst_keras.pipeline.service import NUMBER, in_order, listen, make_here, serve
from msst_keras.pipeline.share import WHOLE, Share
from msst_keras.records.shard_files import MEND

# The functions of the graph have no conditions or loops of Python on tensors, and AutoGraph would take seconds to read.
_as_it_is = tf.autograph.experimental.do_not_convert


@dataclasses.dataclass(frozen=True)
class Batches:
    """The batches of a tf.data dataset. A record that cannot be read raises a ValueError that names it.

    Attributes:
      batches: dicts of tensors: a dataset, or an iterator over one.
      index: where its clips are.
    """

    batches: Iterable[dict[str, tf.Tensor]]
    index: ClipIndex

    def __iter__(self) -> Iterator[dict[str, tf.Tensor]]:
        """Yields the batches.

        Raises:
          ValueError: a record is corrupt, or holds something else than the manifest says.
        """
        try:
            yield from self.batches
        except tf.errors.OpError as error:
            found = find_damage(self.index)
            # If an assertion of `clips` failed, its own sentence, otherwise TensorFlow's.
            assertion = error.message.partition("assertion failed: [")[2].partition("]")[0]
            reason = assertion or error.message.partition("\n")[0]
            places = ", ".join(self.index.paths[:3])
            raise ValueError(found or f"the records in {places} cannot be used ({reason}); {MEND}") from error

    def as_numpy_iterator(self) -> Iterator[dict[str, np.ndarray]]:
        """Yields the batches as arrays."""
        return ({name: value.numpy() for name, value in batch.items()} for batch in self)


def training_batches(
    index: ClipIndex,
    num_frames: int,
    batch_size: int,
    image_sizes: Sequence[tuple[int, int]],
    seed: int,
    first_step: int,
    last_step: int,
    augmentation: Augmentation,
    share: Share = WHOLE,
    label_weights: Mapping[str, float] | None = None,
    service: str | None = None,
) -> Batches:
    """The batches of steps first_step to last_step - 1, or a process's `share` of them.

    Step s has image size `image_sizes[draw(seed, s)]`, so that the paper's two resolutions are mixed batch by batch.
    `service` is the address of a tf.data service (see `pipeline.service`) that prepares the same batches in the same
    order.

    Returns:
      dicts: "frames" (B, T, H, W, 3) float32 in 0..255 RGB, "prior" (B, T, H, W, 1 or 3) float32 in 0..1 (where
      the index has one), "mask" (B, H, W, 1) float32 of 0 and 1 for the last frame, "clip" (B,) int64 indices into
      `index`, and, with `label_weights`, "weight" (B,) float32, the weight of the label's kind.
    """
    weights = None
    if label_weights:
        weights = np.asarray([label_weights[kind] for kind in index.label_kinds], np.float32)
    sizes = np.asarray(image_sizes, np.int32)
    # One draw per step from one generator. A longer training draws the same numbers first, so they depend on (seed,
    # step) alone.
    size_ids = np.random.default_rng(seed).integers(len(sizes), size=last_step)

    def load(example: tf.Tensor, clip: tf.Tensor) -> dict[str, tf.Tensor]:
        """An augmented clip, by its number in the training and in the index."""
        size = tf.gather(sizes, tf.gather(size_ids, example // batch_size))
        element = load_clip(index, clip, num_frames, size, augmentation, [seed, example])
        return element if weights is None else element | {"weight": tf.gather(weights, clip)}

    return _shuffled_batches(index, load, batch_size, seed, first_step, last_step, share, service)


def validation_batches(
    index: ClipIndex, num_frames: int, batch_size: int, image_size: tuple[int, int], share: Share = WHOLE
) -> Batches:
    """Every clip once, in order, not augmented; the elements are those of `training_batches`.

    The last batch may be short. But if several replicas share it, each of them needs equally many examples, so it is
    filled up with repetitions of the last clip, whose "clip" is -1.
    """
    size = np.asarray(image_size, np.int32)
    replicas = share.num_workers * share.num_replicas
    steps = -(-len(index) // batch_size)
    examples = share.examples(0, steps, batch_size) if replicas > 1 else tf.data.Dataset.range(len(index))

    def load(example: tf.Tensor) -> dict[str, tf.Tensor]:
        """A whole clip by its number; those beyond the last have the number -1."""
        clip = tf.minimum(example, len(index) - 1)
        element = load_clip(index, clip, num_frames, size, None, None)
        return element | {"clip": tf.where(example < len(index), clip, -1)}

    dataset = examples.map(_as_it_is(load), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return Batches(dataset.batch(share.replica_batch(batch_size)).prefetch(2), index)


def picture_clips(
    index: ClipIndex, clips: Sequence[int] | np.ndarray, num_frames: int, image_size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """One batch of the clips with these numbers, like those of `validation_batches`, for drawing.

    Returns:
      the same keys, and "flow" (N, h, w, 2) float32 of the last frame if the records hold flow.
    """
    size = np.asarray(image_size, np.int32)

    def load(clip: tf.Tensor) -> dict[str, tf.Tensor]:
        """A whole clip by its number, with its flow where records store it."""
        element = load_clip(index, clip, num_frames, size, None, None)
        return element | {"flow": load_flow(index, clip)} if index.flow_stored else element

    dataset = tf.data.Dataset.from_tensor_slices(np.asarray(clips, np.int64)).map(_as_it_is(load))
    (batch,) = Batches(dataset.batch(len(clips)), index).as_numpy_iterator()
    return batch


def flow_batches(
    index: ClipIndex, batch_size: int, seed: int, first_step: int, last_step: int, with_frames: bool = False
) -> Batches:
    """Flow maps with their masks, for training a motion prior; the order is that of `training_batches`.

    Returns:
      dicts: "flow" (B, h, w, 2) float32 (see `flow_files.encode_flow_png`), "mask" (B, h, w) float32 of 0
      and 1, the frame's mask at the size of the flow, "clip" (B,) int64, and, with `with_frames`, "frame" (B, h, w, 3)
      float32 in 0..255 RGB, the frame at the size of the flow. Only whole batches are given.
    """

    def load(_: tf.Tensor, clip: tf.Tensor) -> dict[str, tf.Tensor]:
        """A frame's flow and mask, by the number of its clip."""
        return load_labelled_flow(index, clip, with_frames)

    return _shuffled_batches(index, load, batch_size, seed, first_step, last_step)


def take_turns(shares: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """A turn of the groups: as many places as the sum of the shares, those of each group evenly spread.

    So a batch that is shorter than a turn has its groups in their shares too, as far as whole clips allow it.

    Returns:
      int64: the group of each place, and how many earlier places of the turn that group has.
    """
    groups = np.repeat(np.arange(len(shares), dtype=np.int64), shares)
    ranks = np.concatenate([np.arange(share, dtype=np.int64) for share in shares])
    order = np.argsort((ranks + 0.5) / np.asarray(shares)[groups], kind="stable")
    return groups[order], ranks[order]


def _shuffled_batches(
    index: ClipIndex,
    load: Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]],
    batch_size: int,
    seed: int,
    first_step: int,
    last_step: int,
    share: Share = WHOLE,
    service: str | None = None,
) -> Batches:
    """Batches of `load(example, clip)` in the global order (see the module)."""

    turn, ranks = take_turns([weight for _, weight in index.groups])
    counts = np.asarray([count for count, _ in index.groups], np.int64)
    shares, firsts_of = np.asarray([weight for _, weight in index.groups], np.int64), np.cumsum(counts) - counts

    def locate(example: tf.Tensor) -> dict[str, tf.Tensor]:
        """The example of a number of the training: that of its place in the epoch of its group."""
        turns, place = example // len(turn), example % len(turn)
        group = tf.gather(turn, place)
        number = turns * tf.gather(shares, group) + tf.gather(ranks, place)
        count = tf.gather(counts, group)
        epoch, position = number // count, number % count
        clip = tf.random.experimental.index_shuffle(position, tf.stack([seed + group, epoch]), count - 1)
        element = load(example, tf.gather(firsts_of, group) + clip)
        return element | {NUMBER: example} if service else element

    def make(examples: tf.data.Dataset) -> tf.data.Dataset:
        """Batches of the examples, in their order."""
        dataset = examples.map(_as_it_is(locate), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return dataset.batch(size, drop_remainder=True).prefetch(2)

    size = share.replica_batch(batch_size)
    batches: Iterable[dict[str, tf.Tensor]] = make(share.examples(first_step, last_step, batch_size))
    if service:

        def begin(number: int) -> tf.data.Dataset:
            """The batches of this worker from an example on."""
            step, position = divmod(number, batch_size)
            examples = share.examples(step, last_step, batch_size)
            return make(examples.skip(position - share.worker * share.num_replicas * size))

        firsts = share.firsts(first_step, last_step, batch_size)
        batches = in_order(listen(serve(batches, service)), firsts, make_here(begin))
    return Batches(batches, index)
