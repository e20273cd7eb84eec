"""JPEG and PNG files decoded in the graph, one row at a time.

The header is read before anything is decoded: a file of a hundred bytes may claim 60000x60000 pixels, and the decoders
take the memory at once. Files must end as they should, so that a cut one is named as such. Damage in the middle of
a file is left to the decoders, which fail with INVALID_ARGUMENT and a sentence of their own.
"""

from __future__ import annotations

import tensorflow as tf

from msst_keras.data.flow_files import FLOW_KNOWN, FLOW_OFFSET, FLOW_STEP
from msst_keras.serving.checks import check_size, refuse_unless

_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", b"\x00\x00\x00\x00IEND\xaeB`\x82"
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_BASELINE = (0xC0, 0xC1)  # the kinds of a JPEG's frame header that are taken
# Markers before the frame header (a camera writes a dozen) and scans (three of a colour picture whose channels are
# apart, some more in a thumbnail): each costs time whether it holds anything or not, so a file of a few kilobytes
# could keep a server busy for minutes. A progressive JPEG is made of scans, and is refused for that.
_MAX_MARKERS, _MAX_SCANS = 200, 8


def decode_frame(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes one frame, a scalar string with a baseline JPEG or an 8-bit PNG without alpha: uint8 (H, W, 3) RGB."""
    starts = tf.strings.substr(encoded + bytes(3), 0, len(_JPEG_START)) == _JPEG_START
    return tf.cond(starts, lambda: _decode_jpeg(encoded), lambda: _decode_png(encoded))


def decode_flow(encoded: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Decodes flow in the format of `data.flow_files.encode_flow_png`: float32 (h, w, 2), pixels per frame, x, y."""
    channels = _decode_png16(encoded, "flow_bytes", size, 3)
    sentence = f"flow_bytes must have {FLOW_KNOWN} in its third channel: flow that is unknown, or of other steps"
    channels = refuse_unless(channels[..., 2] == FLOW_KNOWN, sentence, channels)
    return (tf.cast(channels[..., :2], tf.float32) - FLOW_OFFSET) * FLOW_STEP


def decode_superpixels(encoded: tf.Tensor, size: tuple[int, int], num_levels: int) -> tf.Tensor:
    """Decodes labels, a grey 16-bit PNG of the M levels one below the other, (M * h, w): int32 (h, w, M)."""
    labels = _decode_png16(encoded, "superpixels_bytes", (num_levels * size[0], size[1]), 1)
    levels = tf.reshape(tf.cast(labels, tf.int32), (num_levels, *size))
    return tf.transpose(levels, (1, 2, 0))


def _decode_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    data = tf.cast(tf.io.decode_raw(encoded, tf.uint8), tf.int32)
    length, data = tf.size(data), tf.pad(data, [[0, 16]])

    def is_frame(position: tf.Tensor) -> tf.Tensor:
        """Whether a frame header is there: C0 to CF, but for the tables C4, C8 and CC."""
        kind = data[position + 1]
        return (kind >= 0xC0) & (kind <= 0xCF) & (kind != 0xC4) & (kind != 0xC8) & (kind != 0xCC)

    def goes_on(position: tf.Tensor) -> tf.Tensor:
        """Whether another segment is there, which is no frame header."""
        return (position + 4 <= length) & (data[position] == 0xFF) & ~is_frame(position)

    def skip(position: tf.Tensor) -> tuple[tf.Tensor]:
        """The position behind the segment."""
        size = data[position + 2] * 256 + data[position + 3]
        return (tf.minimum(position + 2 + tf.maximum(size, 2), length),)

    (position,) = tf.while_loop(goes_on, skip, (tf.constant(2),), maximum_iterations=_MAX_MARKERS)
    head = data[position : position + 10]  # of the frame header: FF, kind, length, bits, height, width, channels
    found = (position + 10 <= length) & (head[0] == 0xFF) & is_frame(position) & (head[4] == 8)
    found &= (head[9] == 1) | (head[9] == 3)
    encoded = refuse_unless(found, "frame_bytes begins like a JPEG, but is no picture with 8-bit RGB or grey", encoded)
    is_baseline = tf.reduce_any(head[1] == tf.constant(_BASELINE))
    num_scans = tf.math.count_nonzero((data[:-1] == 0xFF) & (data[1:] == 0xDA))
    sentence = "frame_bytes must be a baseline JPEG, not a progressive one"
    encoded = refuse_unless(is_baseline & (num_scans <= _MAX_SCANS), sentence, encoded)
    ends = tf.strings.substr(_JPEG_END + encoded, -2, 2) == _JPEG_END
    encoded = refuse_unless(ends, "frame_bytes is a JPEG that is cut off", encoded)
    encoded = check_size(head[5] * 256 + head[6], head[7] * 256 + head[8], "a frame", encoded)
    return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")


def _decode_png(encoded: tf.Tensor) -> tf.Tensor:
    height, width, bits, kind, encoded = _read_png_header(encoded, "frame_bytes must be a JPEG or PNG file")
    right = (bits == 8) & ((kind == 0) | (kind == 2))
    encoded = refuse_unless(right, "frame_bytes must be a PNG with 8-bit RGB or grey, without alpha", encoded)
    encoded = check_size(height, width, "a frame", encoded)
    return tf.io.decode_png(encoded, channels=3)


def _decode_png16(encoded: tf.Tensor, name: str, size: tuple[int, int], channels: int) -> tf.Tensor:
    expected = f"{name} must be a 16-bit PNG of {size[0]}x{size[1]} with {channels} channel{'s' * (channels > 1)}"
    height, width, bits, kind, encoded = _read_png_header(encoded, expected)
    right = (height == size[0]) & (width == size[1]) & (bits == 16) & (kind == (2 if channels == 3 else 0))
    encoded = refuse_unless(right, expected, encoded)
    return tf.ensure_shape(tf.io.decode_png(encoded, channels, tf.uint16), (*size, channels))


def _read_png_header(encoded: tf.Tensor, sentence: str) -> tuple[tf.Tensor, ...]:
    """Height and width, int64, bits and colour type, int32, of a PNG that is whole; and the file."""
    head = tf.strings.substr(encoded + bytes(32), 0, 26)
    starts = tf.strings.substr(head, 0, len(_PNG_START)) == _PNG_START
    encoded = refuse_unless(starts, sentence, encoded)
    ends = tf.strings.substr(bytes(len(_PNG_END)) + encoded, -len(_PNG_END), len(_PNG_END)) == _PNG_END
    encoded = refuse_unless(ends, f"{sentence.split()[0]} is a PNG that is cut off", encoded)
    numbers = tf.cast(tf.io.decode_raw(head, tf.uint8), tf.int64)
    places = tf.constant([2**24, 2**16, 2**8, 1], tf.int64)
    width, height = tf.reduce_sum(numbers[16:20] * places), tf.reduce_sum(numbers[20:24] * places)
    return height, width, tf.cast(numbers[24], tf.int32), tf.cast(numbers[25], tf.int32), encoded
