"""One clip of a record folder: read by a seek, decoded, augmented and brought to its size, in a tf.data graph."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from msst_keras.data import flow_files
from msst_keras.records.example import FORMAT_VERSION
from msst_keras.records.shard_files import read_serialized


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


def load_clip(index, clip, num_frames, size, augmentation, seed):
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


def load_labelled_flow(index, clip, with_frame):
    """A clip's last flow with its mask and, if wanted, its frame, at the size of the flow (see `flow_batches`)."""
    features = _read_features(index, clip)
    flow = _decode_flow(features["flow"][-1], index, clip)
    box, flip = _draw(None, None)
    mask = _sample(_decode(features["mask"][-1], 1), box, flip, tf.shape(flow)[:2]) >= 127.5
    element = {"flow": flow, "mask": tf.cast(mask[..., 0], tf.float32), "clip": clip}
    if with_frame:
        element["frame"] = _sample(_decode(features["frame"][-1], 3), box, flip, tf.shape(flow)[:2])
    return element


def load_flow(index, clip):
    """A clip's last flow, float32 (h, w, 2)."""
    return _decode_flow(_read_features(index, clip)["flow"][-1], index, clip)


def _read_features(index, clip):
    """The encoded images of a clip's stored frames: (count,) strings, empty where there is none.

    That they are the frames that the manifest says they are is checked too.
    """
    path, count = tf.gather(list(index.paths), tf.gather(index.path_ids, clip)), tf.gather(index.counts, clip)
    serialized = read_serialized(path, tf.gather(index.offsets, clip), count)
    specs = {key: tf.io.FixedLenFeature([], tf.string, default_value="") for key in ("frame", "prior", "mask", "flow")}
    specs |= {"sequence": tf.io.FixedLenFeature([], tf.string)}
    specs |= {key: tf.io.FixedLenFeature([], tf.int64) for key in ("version", "index")}
    features = tf.io.parse_example(serialized, specs)
    _expect(tf.reduce_all(features["version"] == FORMAT_VERSION), index, clip, "another format version")
    last = tf.strings.join([features["sequence"][-1], "/", tf.strings.as_string(features["index"][-1])])
    follow = features["index"] == features["index"][-1] - count + 1 + tf.range(count)
    right = tf.reduce_all(follow) & tf.reduce_all(features["sequence"] == features["sequence"][-1])
    _expect(right & (last == tf.gather(list(index.names), clip)), index, clip, "other frames than the manifest says")
    return features


def _decode_flow(encoded, index, clip):
    """Flow PNG to (h, w, 2) float32: 16 bits hold x, y and whether it is known; FLOW_OFFSET is zero."""
    levels = tf.io.decode_png(encoded, channels=3, dtype=tf.uint16)
    known = tf.reduce_all(levels[..., 2] == flow_files.FLOW_KNOWN)
    _expect(known, index, clip, "its flow is no flow PNG, or unknown in places")
    return (tf.cast(levels[..., :2], tf.float32) - flow_files.FLOW_OFFSET) * flow_files.FLOW_STEP


def _expect(condition, index, clip, problem):
    """Ends the reading unless `condition` holds; `batches.Batches` makes a sentence of it."""
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
