"""Records to batches of clips: a pure function of (seed, step), read by seeks, decoded and augmented in tf.data.

There is one global order of clips. Example number i (counted over the whole training) is clip
`shuffle(seed, epoch)(i mod n)` of epoch i div n, augmented by numbers drawn from (seed, i) alone. Step s takes the
examples s * batch_size and following. Starting at step s is therefore free (nothing before it is read) and gives the
very batches of an uninterrupted run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from msst_keras.data import images
from msst_keras.pipeline.clip_index import ClipIndex, find_damage
from msst_keras.pipeline.service import NUMBER, in_order, listen, make_here, serve
from msst_keras.records import example as records


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How training clips vary; the whole clip shares one draw. The paper names none: these are its field's usual two.

    Attributes:
      flip: mirrors half of the clips left to right.
      min_scale: the crop's side as a share of the frame's is uniform in [min_scale, 1]; 1 takes the whole frame. 0.7
        because salient objects are often large and touch the border: smaller crops lose them.
    """

    flip: bool = True
    min_scale: float = 0.7

    def __post_init__(self):
        if not 0 < self.min_scale <= 1:
            raise ValueError(f"min_scale must lie in (0, 1], not {self.min_scale}")


@dataclasses.dataclass(frozen=True)
class Share:
    """Which part of every global batch one process of a training reads, in batches of one replica (device) each.

    With P = num_workers * num_replicas replicas and b = batch_size / P, replica r of worker w has the examples
    s * batch_size + (w * num_replicas + r) * b + [0, b) of step s; a process's batches come step by step, replica by
    replica. So all processes together see what one would.

    Attributes:
      worker, num_workers: number of this process, and of how many.
      num_replicas: of this process.
    """

    worker: int = 0
    num_workers: int = 1
    num_replicas: int = 1

    def replica_batch(self, batch_size: int) -> int:
        """b, how many examples of a global batch one replica has.

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


WHOLE = Share()  # of a training of one process on one device


@dataclasses.dataclass(frozen=True)
class Batches:
    """The batches of a tf.data dataset, in which a record that cannot be read is a ValueError that says which.

    Attributes:
      batches: dicts of tensors, a dataset or what reads one.
      index: where its clips lie.
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
            # Of an assertion that is our own sentence (see `_expect`), else TensorFlow's.
            assertion = error.message.partition("assertion failed: [")[2].partition("]")[0]
            reason = assertion or error.message.partition("\n")[0]
            places = ", ".join(self.index.paths[:3])
            raise ValueError(found or f"the records in {places} cannot be used ({reason}); make them again") from error

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

    Step s has image size `image_sizes[draw(seed, s)]`: the paper's two resolutions mixed batch by batch. `service` is
    the address of a tf.data service (see `data.service`) that prepares them, the same ones in the same order.

    Returns:
      dicts: "frames" (B, T, H, W, 3) float32 in 0..255 RGB, "prior" (B, T, H, W, 1) float32 in 0..1 (where
      the index has one), "mask" (B, H, W, 1) float32 of 0 and 1 for the last frame, "clip" (B,) int64 indices into
      `index`, and, with `label_weights`, "weight" (B,) float32, that of the label's kind.
    """
    weights = None
    if label_weights:
        weights = np.asarray([label_weights[kind] for kind in index.label_kinds], np.float32)
    sizes = np.asarray(image_sizes, np.int32)
    size_ids = np.random.default_rng(seed).integers(len(sizes), size=last_step)
    # One draw per step from one generator: a pure function of (seed, step), since a longer training draws the same
    # prefix.

    def load(example, clip):
        size = tf.gather(sizes, tf.gather(size_ids, example // batch_size))
        element = _load_clip(index, clip, num_frames, size, augmentation, [seed, example])
        return element if weights is None else element | {"weight": tf.gather(weights, clip)}

    return _shuffled_batches(index, load, batch_size, seed, first_step, last_step, share, service)


def validation_batches(
    index: ClipIndex, num_frames: int, batch_size: int, image_size: tuple[int, int], share: Share = WHOLE
) -> Batches:
    """Every clip once, in order, not augmented; elements as in `training_batches`.

    The last batch is short, but where several replicas share it: all of them need as many examples, so it is filled up
    with repetitions of the last clip, whose "clip" is -1.
    """
    size = np.asarray(image_size, np.int32)
    replicas = share.num_workers * share.num_replicas
    steps = -(-len(index) // batch_size)
    examples = share.examples(0, steps, batch_size) if replicas > 1 else tf.data.Dataset.range(len(index))

    def load(example):
        clip = tf.minimum(example, len(index) - 1)
        element = _load_clip(index, clip, num_frames, size, None, None)
        return element | {"clip": tf.where(example < len(index), clip, -1)}

    dataset = examples.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return Batches(dataset.batch(share.replica_batch(batch_size)).prefetch(2), index)


def picture_clips(
    index: ClipIndex, clips: Sequence[int], num_frames: int, image_size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """The clips of these numbers as one batch like those of `validation_batches`, for drawing.

    Returns:
      the same keys, and "flow" (N, h, w, 2) float32 of the last frame if the records hold flow.
    """
    size = np.asarray(image_size, np.int32)

    def load(clip):
        element = _load_clip(index, clip, num_frames, size, None, None)
        return element | {"flow": _load_flow(index, clip)} if index.flow_stored else element

    dataset = tf.data.Dataset.from_tensor_slices(np.asarray(clips, np.int64)).map(load)
    (batch,) = Batches(dataset.batch(len(clips)), index).as_numpy_iterator()
    return batch


def flow_batches(
    index: ClipIndex, batch_size: int, seed: int, first_step: int, last_step: int, with_frames: bool = False
) -> Batches:
    """Flow maps with their masks, for training a motion prior; the order is that of `training_batches`.

    Returns:
      dicts: "flow" (B, h, w, 2) float32 (see `images.encode_flow_png`), "mask" (B, h, w) float32 of 0
      and 1, the frame's mask at the size of the flow, "clip" (B,) int64, and, if wanted, "frame" (B, h, w, 3) float32
      in 0..255 RGB, the frame at the size of the flow. Only whole batches.
    """

    def load(_, clip):
        features = _read_features(index, clip)
        flow = _decode_flow(features["flow"][-1], index, clip)
        box, flip = _draw(None, None)
        mask = _sample(_decode(features["mask"][-1], 1), box, flip, tf.shape(flow)[:2]) >= 127.5
        element = {"flow": flow, "mask": tf.cast(mask[..., 0], tf.float32), "clip": clip}
        if with_frames:
            element["frame"] = _sample(_decode(features["frame"][-1], 3), box, flip, tf.shape(flow)[:2])
        return element

    return _shuffled_batches(index, load, batch_size, seed, first_step, last_step)


def _shuffled_batches(index, load, batch_size, seed, first_step, last_step, share=WHOLE, service=None):
    """Batches of `load(example, clip)` in the global order (see the module)."""

    def locate(example):
        epoch, position = example // len(index), example % len(index)
        element = load(example, tf.random.experimental.index_shuffle(position, [seed, epoch], len(index) - 1))
        return element | {NUMBER: example} if service else element

    def make(examples):
        dataset = examples.map(locate, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return dataset.batch(size, drop_remainder=True).prefetch(2)

    size = share.replica_batch(batch_size)
    batches = make(share.examples(first_step, last_step, batch_size))
    if service:

        def begin(number):
            step, position = divmod(number, batch_size)
            examples = share.examples(step, last_step, batch_size)
            return make(examples.skip(position - share.worker * share.num_replicas * size))

        firsts = share.firsts(first_step, last_step, batch_size)
        batches = in_order(listen(serve(batches, service)), firsts, make_here(begin))
    return Batches(batches, index)


def _load_clip(index, clip, num_frames, size, augmentation, seed):
    """Reads, decodes and augments one clip; `size` int32 (2,), `seed` two integers (None: not augmented)."""
    features = _read_features(index, clip)
    order = tf.maximum(tf.range(num_frames, dtype=tf.int64) - (num_frames - tf.gather(index.counts, clip)), 0)
    box, flip = _draw(augmentation, seed)
    frames = tf.gather(features["frame"], order)
    element = {
        "frames": tf.stack([_sample(_decode(frames[t], 3), box, flip, size) for t in range(num_frames)]),
        # A resampled mask is a pixel's covered share; half of it or more is object.
        "mask": tf.cast(_sample(_decode(features["mask"][-1], 1), box, flip, size) >= 127.5, tf.float32),
        "clip": clip,
    }
    if index.motion:
        priors = tf.gather(features["prior"], order)
        priors = [_sample(_decode(priors[t], 1), box, flip, size) for t in range(num_frames)]
        element["prior"] = tf.stack(priors) / 255.0
    return element


def _read_features(index, clip):
    """The encoded images of a clip's stored frames: (count,) strings, empty where there is none.

    That they are the frames that the manifest says they are is checked too.
    """
    path, count = tf.gather(list(index.paths), tf.gather(index.path_ids, clip)), tf.gather(index.counts, clip)
    serialized = records.read_serialized(path, tf.gather(index.offsets, clip), count)
    specs = {key: tf.io.FixedLenFeature([], tf.string, default_value="") for key in ("frame", "prior", "mask", "flow")}
    specs |= {"sequence": tf.io.FixedLenFeature([], tf.string)}
    specs |= {key: tf.io.FixedLenFeature([], tf.int64) for key in ("version", "index")}
    features = tf.io.parse_example(serialized, specs)
    _expect(tf.reduce_all(features["version"] == records.FORMAT_VERSION), index, clip, "another format version")
    last = tf.strings.join([features["sequence"][-1], "/", tf.strings.as_string(features["index"][-1])])
    follow = features["index"] == features["index"][-1] - count + 1 + tf.range(count)
    right = tf.reduce_all(follow) & tf.reduce_all(features["sequence"] == features["sequence"][-1])
    _expect(right & (last == tf.gather(list(index.names), clip)), index, clip, "other frames than the manifest says")
    return features


def _load_flow(index, clip):
    return _decode_flow(_read_features(index, clip)["flow"][-1], index, clip)


def _decode_flow(encoded, index, clip):
    """Flow PNG to (h, w, 2) float32: 16 bits hold x, y and whether it is known; 2**15 is zero."""
    levels = tf.io.decode_png(encoded, channels=3, dtype=tf.uint16)
    known = tf.reduce_all(levels[..., 2] == images.FLOW_KNOWN)
    _expect(known, index, clip, "its flow is no flow PNG, or unknown in places")
    return (tf.cast(levels[..., :2], tf.float32) - 2.0**15) * images.FLOW_STEP


def _expect(condition, index, clip, problem):
    """Ends the reading unless `condition` holds; `Batches` makes a sentence of it."""
    tf.debugging.Assert(condition, [tf.strings.join([tf.gather(list(index.names), clip), ": ", problem])])


def _decode(encoded, channels):
    # INTEGER_ACCURATE is what OpenCV and Pillow decode with; the operation decodes PNG as well.
    return tf.io.decode_jpeg(encoded, channels=channels, dct_method="INTEGER_ACCURATE")


def _draw(augmentation, seed):
    """A crop box (top, left, height, width as shares of the frame) and whether to flip."""
    if augmentation is None:
        return tf.constant([0.0, 0.0, 1.0, 1.0]), tf.constant(False)
    draws = tf.random.stateless_uniform([4], seed)
    scale = augmentation.min_scale + (1 - augmentation.min_scale) * draws[0]
    box = tf.stack([(1 - scale) * draws[1], (1 - scale) * draws[2], scale, scale])
    return box, tf.logical_and(augmentation.flip, draws[3] < 0.5)


def _sample(image, box, flip, size):
    """Crops `box` out of an image and resizes it to `size`: bilinear with antialiasing, half-pixel centres.

    One operation on exact (fractional) boxes, so that frame, prior and mask of different sizes stay aligned. With the
    whole frame as the box it is `keras.ops.image.resize(..., antialias=True)`, which the exported model does.
    """
    scale = tf.cast(size, tf.float32) / (box[2:] * tf.cast(tf.shape(image)[:2], tf.float32))
    translation = -box[:2] * tf.cast(tf.shape(image)[:2], tf.float32) * scale
    resized = tf.raw_ops.ScaleAndTranslate(
        images=tf.cast(image, tf.float32)[None], size=size, scale=scale, translation=translation,
        kernel_type="triangle", antialias=True,
    )[0]  # fmt: skip
    resized.set_shape([None, None, image.shape[-1]])
    return tf.cond(flip, lambda: tf.reverse(resized, [1]), lambda: resized)
