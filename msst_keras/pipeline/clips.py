"""One clip of a record folder: read by a seek, decoded, augmented and brought to its size, in a tf.data graph."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from msst_keras.data import flow_files
from msst_keras.data.image_files import MAX_PIXELS, PNG_SIGNATURE
from msst_keras.motion.settings import LEVELS, ZERO_LEVEL
from msst_keras.pipeline.clip_index import ClipIndex
from msst_keras.pipeline.options import Augmentation
from msst_keras.records.example import FORMAT_VERSION
from msst_keras.records.shard_files import read_serialized

# Two integers, from which all random numbers of a clip are drawn; None if it is not augmented.
Seed = Sequence[int | tf.Tensor] | None


def load_clip(
    index: ClipIndex,
    clip: tf.Tensor,
    num_frames: int,
    size: tf.Tensor | np.ndarray,
    augmentation: Augmentation | None,
    seed: Seed,
) -> dict[str, tf.Tensor]:
    """Reads, decodes and augments one clip, at `size`, int32 (2,); see `batches.training_batches` for its elements."""
    features = _read_features(index, clip)
    order = tf.maximum(tf.range(num_frames, dtype=tf.int64) - (num_frames - tf.gather(index.counts, clip)), 0)
    box, flip = _draw(augmentation, seed)
    frames = tf.gather(features["frame"], order)
    frames = tf.stack([_sample(_decode(frames[t], 3), box, flip, size) for t in range(num_frames)])
    element = {
        "frames": _jitter(frames, augmentation, seed),
        # A resampled mask holds the share of each pixel that is covered; a half or more counts as object.
        "mask": tf.cast(_sample(_decode(features["mask"][-1], 1), box, flip, size) >= 127.5, tf.float32),
        "clip": clip,
    }
    if index.motion:
        priors = tf.gather(features["prior"], order)
        channels = index.motion.prior.channels
        priors = tf.stack([_sample(_decode(priors[t], channels), box, flip, size) for t in range(num_frames)])
        element["prior"] = _augment_motion(priors, flip, augmentation, seed) / 255.0
    return element


def _jitter(frames: tf.Tensor, augmentation: Augmentation | None, seed: Seed) -> tf.Tensor:
    """Changes brightness, contrast and saturation of a clip's frames (T, H, W, 3), in 0..255, all alike."""
    if augmentation is None or seed is None or not augmentation.color_jitter:
        return frames
    most = augmentation.color_jitter
    draws = 1 + most * tf.random.stateless_uniform([3], _another(seed, 1), -1.0, 1.0)
    middle = tf.reduce_mean(frames)
    frames = (frames - middle) * draws[1] + middle * draws[0]
    grey = tf.reduce_sum(frames * [0.299, 0.587, 0.114], -1, keepdims=True)
    return tf.clip_by_value(grey + (frames - grey) * draws[2], 0.0, 255.0)


def _augment_motion(priors: tf.Tensor, flip: tf.Tensor, augmentation: Augmentation | None, seed: Seed) -> tf.Tensor:
    """Does to a clip's motion (T, H, W, 1 or 3), in levels 0 to 255, what flips and other augmentations ask for."""
    is_flow = priors.shape[-1] == 3
    zero = float(ZERO_LEVEL) if is_flow else 0.0
    if is_flow:  # in a mirrored frame, what moved left moves right
        priors = tf.where(flip, (priors - zero) * [-1.0, 1.0, 1.0] + zero, priors)
    if augmentation is None or seed is None:
        return priors
    if is_flow and augmentation.turn_motion:
        angle = tf.random.stateless_uniform([], _another(seed, 2), 0.0, 2 * math.pi)
        x, y, length = tf.unstack(priors - zero, axis=-1)
        turned = tf.stack([x * tf.cos(angle) - y * tf.sin(angle), x * tf.sin(angle) + y * tf.cos(angle), length], -1)
        priors = tf.clip_by_value(turned, float(-LEVELS), float(LEVELS)) + zero
    if augmentation.missing_motion:
        draws = tf.random.stateless_uniform([priors.shape[0] + 1], _another(seed, 3))
        lost = tf.concat([draws[1:-1] < 0.5, [True]], 0) & (draws[0] < augmentation.missing_motion)
        priors = tf.where(lost[:, None, None, None], zero, priors)
    return priors


def _another(seed: Sequence[int | tf.Tensor], number: int) -> tf.Tensor:
    """The seed of something that is drawn beside the crop, by its number."""
    return tf.random.experimental.stateless_fold_in(tf.cast(tf.stack(seed), tf.int64), number)


def load_labelled_flow(index: ClipIndex, clip: tf.Tensor, with_frame: bool) -> dict[str, tf.Tensor]:
    """A clip's last flow with its mask and, if wanted, its frame, at the size of the flow (see `flow_batches`)."""
    features = _read_features(index, clip)
    flow = _decode_flow(features["flow"][-1], index, clip)
    box, flip = _draw(None, None)
    mask = _sample(_decode(features["mask"][-1], 1), box, flip, tf.shape(flow)[:2]) >= 127.5
    element = {"flow": flow, "mask": tf.cast(mask[..., 0], tf.float32), "clip": clip}
    if with_frame:
        element["frame"] = _sample(_decode(features["frame"][-1], 3), box, flip, tf.shape(flow)[:2])
    return element


def load_flow(index: ClipIndex, clip: tf.Tensor) -> tf.Tensor:
    """A clip's last flow, float32 (h, w, 2)."""
    return _decode_flow(_read_features(index, clip)["flow"][-1], index, clip)


def _read_features(index: ClipIndex, clip: tf.Tensor) -> dict[str, tf.Tensor]:
    """The encoded images of a clip's stored frames: (count,) strings, empty where there is no image.

    It also checks that these are the frames that the manifest names.
    """
    path, count = tf.gather(list(index.paths), tf.gather(index.path_ids, clip)), tf.gather(index.counts, clip)
    serialized = read_serialized(path, tf.gather(index.offsets, clip), count)
    specs = {key: tf.io.FixedLenFeature([], tf.string, default_value="") for key in ("frame", "prior", "mask", "flow")}
    specs |= {"sequence": tf.io.FixedLenFeature([], tf.string)}
    specs |= {key: tf.io.FixedLenFeature([], tf.int64) for key in ("version", "index", "height", "width")}
    features = tf.io.parse_example(serialized, specs)
    _expect(tf.reduce_all(features["version"] == FORMAT_VERSION), index, clip, "another format version")
    last = tf.strings.join([features["sequence"][-1], "/", tf.strings.as_string(features["index"][-1])])
    follow = features["index"] == features["index"][-1] - count + 1 + tf.range(count)
    right = tf.reduce_all(follow) & tf.reduce_all(features["sequence"] == features["sequence"][-1])
    _expect(right & (last == tf.gather(list(index.names), clip)), index, clip, "other frames than the manifest says")
    return _with_checked_sizes(features, index, clip)


def _with_checked_sizes(features: dict[str, tf.Tensor], index: ClipIndex, clip: tf.Tensor) -> dict[str, tf.Tensor]:
    """The features, after a look at the images' headers: a small file may unfold to any size, or be of another one."""
    expected = tf.stack([features["height"], features["width"]], axis=1)
    checks = []
    for key in ("frame", "mask", "prior", "flow"):
        sizes, is_png = _png_sizes(features[key])
        if key == "frame":  # the one that may be a JPEG
            sizes = tf.map_fn(
                lambda each: tf.cond(each[2], lambda: each[1], lambda: _jpeg_size(each[0])),
                (features[key], sizes, is_png),
                fn_output_signature=tf.TensorSpec([2], tf.int64),
            )
        if key in ("frame", "mask"):
            right = tf.reduce_all(sizes == expected, axis=1)
        elif index.motion_size:
            right = is_png & tf.reduce_all(sizes == index.motion_size, axis=1)
        else:
            right = is_png & (sizes[:, 0] <= MAX_PIXELS // tf.maximum(sizes[:, 1], 1))
        sentence = f"its {key} is of another size than the record says, too large, or no image"
        is_there = tf.strings.length(features[key]) > 0
        checks.append(_expect(tf.reduce_all(right | ~is_there), index, clip, sentence))
    with tf.control_dependencies(checks):
        return {key: tf.identity(value) for key, value in features.items()}


def _png_sizes(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(height, width) int64 (N, 2) from the headers of PNG files, and whether each is one, bool (N,)."""
    head = tf.strings.substr(tf.strings.join([tf.strings.substr(encoded, 0, 24), "\0" * 24]), 0, 24)
    numbers = tf.cast(tf.io.decode_raw(head, tf.uint8), tf.int64)
    sides = tf.reduce_sum(tf.reshape(numbers[:, 16:], [-1, 2, 4]) * [1 << 24, 1 << 16, 1 << 8, 1], axis=2)
    return sides[:, ::-1], tf.strings.substr(head, 0, 8) == PNG_SIGNATURE


def _jpeg_size(encoded: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.io.extract_jpeg_shape(encoded)[:2], tf.int64)


def _decode_flow(encoded: tf.Tensor, index: ClipIndex, clip: tf.Tensor) -> tf.Tensor:
    """Decodes a flow PNG to (h, w, 2) float32. Its 16-bit channels hold x, y and whether the flow is known."""
    levels = tf.io.decode_png(encoded, channels=3, dtype=tf.uint16)
    known = tf.reduce_all(levels[..., 2] == flow_files.FLOW_KNOWN)
    _expect(known, index, clip, "its flow is no flow PNG, or unknown in places")
    return (tf.cast(levels[..., :2], tf.float32) - flow_files.FLOW_OFFSET) * flow_files.FLOW_STEP


def _expect(condition: tf.Tensor, index: ClipIndex, clip: tf.Tensor, problem: str) -> tf.Operation | None:
    """Stops the reading unless `condition` holds; `batches.Batches` raises the error with this problem."""
    return tf.debugging.Assert(condition, [tf.strings.join([tf.gather(list(index.names), clip), ": ", problem])])


def _decode(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    # OpenCV and Pillow decode with INTEGER_ACCURATE too. The operation also decodes PNG.
    return tf.io.decode_jpeg(encoded, channels=channels, dct_method="INTEGER_ACCURATE")


def _draw(augmentation: Augmentation | None, seed: Seed) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws a crop box (top, left, height, width as shares of the frame) and whether to flip."""
    if augmentation is None:
        return tf.constant([0.0, 0.0, 1.0, 1.0]), tf.constant(False)
    draws = tf.random.stateless_uniform([4], seed)
    scale = augmentation.min_scale + (1 - augmentation.min_scale) * draws[0]
    box = tf.stack([(1 - scale) * draws[1], (1 - scale) * draws[2], scale, scale])
    return box, tf.logical_and(augmentation.flip, draws[3] < 0.5)


def _sample(image: tf.Tensor, box: tf.Tensor, flip: tf.Tensor, size: tf.Tensor | np.ndarray) -> tf.Tensor:
    """Crops `box` out of an image and resizes it to `size`: bilinear with antialiasing, half-pixel centres.

    It is one operation on exact (fractional) boxes, so that frame, prior and mask of different sizes stay aligned. With
    the whole frame as the box it equals `keras.ops.image.resize(..., antialias=True)`, which the exported model has.
    """
    scale = tf.cast(size, tf.float32) / (box[2:] * tf.cast(tf.shape(image)[:2], tf.float32))
    translation = -box[:2] * tf.cast(tf.shape(image)[:2], tf.float32) * scale
    resized = tf.raw_ops.ScaleAndTranslate(
        images=tf.cast(image, tf.float32)[None], size=size, scale=scale, translation=translation,
        kernel_type="triangle", antialias=True,
    )[0]  # fmt: skip
    resized.set_shape([None, None, image.shape[-1]])
    return tf.cond(flip, lambda: tf.reverse(resized, [1]), lambda: resized)
