"""Image files: RGB frames, masks, saliency maps.

Frames, masks and maps are read with Pillow: palette indices survive it and truncated files raise. Its JPEG pixels are
those of OpenCV and of `tf.io.decode_jpeg(dct_method="INTEGER_ACCURATE")`. An EXIF orientation (a phone held upright) is
applied, as every viewer does, to frames, masks and maps alike; records hold such a frame as a PNG that lies right.
OpenCV writes.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from msst_keras.files import publish

# "nonzero": any channel, or the palette index, above 0 (DAVIS: 0/255, 0/1 or indices); but masks with soft edges are
# cut in the middle, see `_is_soft`. "half": grey > 128 (SegTrackV2, DUTS: 0/255 with grey edges; PySODMetrics and
# DAVSOD's program cut there). "fbms": see `read_mask`.
MASK_RULES = ("nonzero", "half", "fbms")
# Pillow's own limit, ten 4K frames: a file of a few kilobytes may claim any size, and memory is taken at once.
MAX_PIXELS = 89_478_485

_FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP")
_JPEG_FORMATS = ("JPEG", "MPO")  # MPO: the JPEG of a camera that holds a second picture
_FRAME_MODES = ("1", "L", "P", "RGB", "LA", "PA", "RGBA")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MIDDLE = 128  # what is above it is object where a mask is cut in the middle
# A marker of JPEG that ends a scan's data: neither a stuffed 0xFF, nor a restart, nor filling.
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_EXIF_ORIENTATION = 0x0112
_TURNS = dict(zip(range(2, 9), [
    Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90,
], strict=True))  # fmt: skip
_MAX_OBJECTS = 64  # levels of grey in a mask that can be told apart as objects


def read_frame(path: str | Path) -> np.ndarray:
    """Reads an image file as `decode_frame` does.

    Raises:
      FileNotFoundError: no such file.
      ValueError: see `decode_frame`.
    """
    return decode_frame(read_file(path), str(path))


def decode_frame(encoded: bytes, name: str) -> np.ndarray:
    """Decodes a frame: uint8 (H, W, 3), RGB. Grey and palette images become RGB; an opaque alpha channel is dropped.

    Args:
      encoded: a JPEG, PNG, BMP, PPM, TIFF or WebP file.
      name: of the file, for errors.

    Raises:
      ValueError: truncated, damaged or no image; more than MAX_PIXELS; more than 8 bits a channel, transparent or CMYK,
        which 8-bit RGB cannot represent.
    """
    image = _decode(encoded, name)
    if image.mode not in _FRAME_MODES:
        raise ValueError(f"{name}: a frame must be 8-bit RGB or grey, this is of mode {image.mode}; convert the file")
    return np.array(_drop_alpha(image, name).convert("RGB"))


def is_plain(encoded: bytes) -> bool:
    """Whether any decoder makes of these bytes what `decode_frame` does: RGB or grey JPEG, or 8-bit RGB or grey PNG."""
    image = Image.open(io.BytesIO(encoded))
    is_known = image.format in (*_JPEG_FORMATS, "PNG") and image.mode in ("L", "RGB")
    return is_known and _orientation(image, encoded) == 1


def read_image_size(path: str | Path) -> tuple[int, int]:
    """Reads (height, width), as the image is shown, from an image file's header."""
    encoded = read_file(path)
    return header_size(encoded, str(path))


def header_size(encoded: bytes, name: str) -> tuple[int, int]:
    """(height, width) of an image, as it is shown, from its header alone.

    Raises:
      ValueError: no image, or one of more than MAX_PIXELS; names `name`.
    """
    image = _open(encoded, name)
    return image.size if _orientation(image, encoded) >= 5 else image.size[::-1]


def read_mask(path: str | Path, rule: str) -> np.ndarray:
    """Reads a mask: bool (H, W), True = object.

    Args:
      path: an image file.
      rule: one of MASK_RULES. "fbms": in a .ppm, whose regions are coloured, white is background and all else object;
        in any other file (.pgm and .png of FBMS) black is background. The .pgm that lies beside a .ppm holds the
        objects' outlines on white, not the objects: it has no background by this rule, which is an error.

    Raises:
      FileNotFoundError: no such file.
      ValueError: an unknown rule, an unreadable file, or one whose values contradict the rule, or do not tell where
        objects end.
    """
    if rule not in MASK_RULES:
        raise ValueError(f"mask rule must be one of {', '.join(MASK_RULES)}, not '{rule}'")
    encoded = read_file(path)
    image = _decode(encoded, str(path))
    is_lossy = encoded[:2] == b"\xff\xd8" or encoded[8:16] == b"WEBPVP8 "
    if image.mode not in _FRAME_MODES:
        raise ValueError(f"{path}: a mask must be an 8-bit image, this is of mode {image.mode}; convert the file")
    if rule == "half":
        return _cut_in_the_middle(np.asarray(_drop_alpha(image, str(path)).convert("L")), path)
    values = np.asarray(image if image.mode == "P" else _drop_alpha(image, str(path)))
    values = values.reshape(*values.shape[:2], -1)
    if image.mode not in ("P", "1") and (rule == "nonzero" or is_lossy):
        grey = values[..., 0] if np.ptp(values, axis=2).max() == 0 else None
        if grey is not None and (is_lossy or _is_soft(grey)):
            return _cut_in_the_middle(grey, path)
        if grey is None and (is_lossy or _count_colours(values) > _MAX_OBJECTS):
            raise ValueError(
                f"{path}: expected a mask of a few colours, found many (JPEG, or soft edges?): where objects end "
                "cannot be told; save it as a PNG of a palette or of 0 and 255"
            )
    if rule == "fbms" and Path(path).suffix.lower() == ".ppm":
        return np.any(values != 255, axis=2)
    mask = np.any(values != 0, axis=2)
    if rule == "fbms" and mask.all():
        raise ValueError(
            f"{path}: expected black (0) for background, found none; if this is the outline drawing that belongs to a "
            ".ppm, put the .ppm beside it"
        )
    return mask


def _cut_in_the_middle(grey: np.ndarray, path: str | Path) -> np.ndarray:
    if 0 < grey.max() <= _MIDDLE:
        raise ValueError(
            f"{path}: expected a mask of 0 to 255, found nothing above {grey.max()} (0/1, or indices of objects?); "
            "make its objects 255"
        )
    return grey > _MIDDLE


def _is_soft(grey: np.ndarray) -> bool:
    """Whether the levels between 0 and the highest of a mask are those of soft edges, not indices of objects.

    An object has an inside, three pixels wide and high, somewhere; a level of an edge has none.
    """
    counts = np.bincount(grey.ravel(), minlength=256)
    highest = int(grey.max())
    between = np.flatnonzero(counts[1:highest]) + 1
    if highest <= _MIDDLE or not between.size or between[-1] < _MAX_OBJECTS:  # a void of 255 may stand beside indices
        return False
    kernel = np.ones((3, 3), np.uint8)
    is_inside = cv2.erode(grey, kernel) == cv2.dilate(grey, kernel)
    with_inside = np.bincount(grey[is_inside], minlength=256)[between] > 0
    return between.size > _MAX_OBJECTS or with_inside.mean() < 0.5


def _count_colours(values: np.ndarray) -> int:
    packed = values.astype(np.uint32) << (8 * np.arange(values.shape[2], dtype=np.uint32))
    return np.unique(packed.sum(axis=2)).size


def encode_png(image: np.ndarray) -> bytes:
    """Encodes uint8 (H, W) grey or (H, W, 3) RGB as PNG, without loss."""
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise ValueError(f"a PNG is made of uint8 (H, W) or (H, W, 3), not {image.dtype} {image.shape}")
    return cv2.imencode(".png", image if image.ndim == 2 else image[..., ::-1])[1].tobytes()


def encode_jpeg(frame: np.ndarray, quality: int = 95) -> bytes:
    """Encodes a frame, uint8 (H, W, 3) RGB, as JPEG."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"a frame must be uint8 (H, W, 3), not {frame.dtype} {frame.shape}")
    return cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def write_map(path: str | Path, saliency: np.ndarray) -> None:
    """Writes a saliency map, float (H, W) in [0, 1], as 8-bit grey PNG: round(255 x). The file appears when whole.

    Raises:
      ValueError: another shape, or values outside [0, 1] (or NaN).
    """
    if saliency.ndim != 2:
        raise ValueError(f"{path}: a map must be (H, W), not {saliency.shape}")
    if not np.all((saliency >= 0) & (saliency <= 1)):
        raise ValueError(f"{path}: a map must lie in [0, 1], found {saliency.min()} to {saliency.max()}")
    with publish(path, durable=False) as temporary:
        temporary.write_bytes(encode_png(np.rint(saliency * 255.0).astype(np.uint8)))


def read_map(path: str | Path) -> np.ndarray:
    """Reads a saliency map of `write_map` or of another method, 8-bit or 1-bit grey: float32 (H, W) in [0, 1].

    Raises:
      FileNotFoundError, ValueError: as `read_levels`.
    """
    return read_levels(path) / np.float32(255)


def read_levels(path: str | Path) -> np.ndarray:
    """Reads a saliency map as `read_map` does, but as it lies in the file: uint8 (H, W).

    Raises:
      FileNotFoundError: no such file.
      ValueError: an unreadable file, or one that is not grey.
    """
    image = _decode(read_file(path), str(path))
    if image.mode not in ("L", "1"):
        raise ValueError(f"{path}: a map must be 8-bit grey, this is of mode {image.mode}; convert the file")
    return np.asarray(image.convert("L"))


def check_scale(paths: Iterable[str | Path], name: str) -> None:
    """Checks that saliency maps are on the scale of 0 to 255: reads them up to the first that has a level above 1.

    Raises:
      ValueError: none has, and some have a 1: these are maps of 0 and 1. `name` is their folder.
      FileNotFoundError, ValueError: as `read_levels`.
    """
    highest = 0
    for path in paths:
        highest = max(highest, int(read_levels(path).max()))
        if highest > 1:
            return
    if highest == 1:
        raise ValueError(
            f"{name}: expected maps of 0 to 255, found nothing above 1 in any of them; multiply them by 255"
        )


def read_file(path: str | Path) -> bytes:
    """The bytes of a file.

    Raises:
      FileNotFoundError: no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return Path(path).read_bytes()


def _open(encoded: bytes, name: str) -> Image.Image:
    """The image with its header read, of a size that is safe to decode."""
    try:
        image = Image.open(io.BytesIO(encoded), formats=_FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"{name}: not a readable image; expected one of {', '.join(_FORMATS)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{name}: {error}") from None
    except (OSError, SyntaxError, ValueError) as error:  # a header that ends early
        raise ValueError(f"{name}: cut off or damaged ({error}); make or fetch the file again") from None
    width, height = image.size
    check_size(width, height, name)
    if image.format == "PNG" and encoded[24] == 16:  # of which Pillow would silently drop eight
        raise ValueError(f"{name}: expected 8 bits a channel, found 16; convert the file")
    return image


def _decode(encoded: bytes, name: str) -> Image.Image:
    image = _open(encoded, name)
    try:
        image.load()
        if (turn := _orientation(image, encoded)) != 1:
            image_format, image = image.format, image.transpose(_TURNS[turn])
            image.format = image_format
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{name}: cut off or damaged ({error}); make or fetch the file again") from None
    if image.format == "PNG":
        check_png(encoded, name)
    if not _has_end(encoded, image.format):  # Pillow does not mind when all pixels are there, TensorFlow does
        raise ValueError(f"{name}: cut off or damaged (no end); make or fetch the file again")
    return image


def check_png(encoded: bytes, name: str) -> None:
    """Checks the checksum of each chunk, which Pillow does of some and OpenCV makes the best of, up to the end."""
    position, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        header = encoded[position : position + 8]
        if len(header) < 8:
            raise ValueError(f"{name}: cut off or damaged (no end); make or fetch the file again")
        length, kind = struct.unpack(">I4s", header)
        end = position + 8 + length
        if encoded[end : end + 4] != struct.pack(">I", zlib.crc32(encoded[position + 4 : end])):
            raise ValueError(f"{name}: cut off or damaged (a checksum is wrong); make or fetch the file again")
        position = end + 4


def _has_end(encoded: bytes, image_format: str) -> bool:
    return image_format not in _JPEG_FORMATS or _jpeg_end(encoded) is not None


def _jpeg_end(encoded: bytes) -> int | None:
    """Where the picture of a JPEG file ends, whatever follows it (a phone's video, a second picture); None: cut off."""
    position = 2
    while found := _JPEG_MARKER.search(encoded, position):
        position, kind = found.end(), found[1][0]
        if kind == 0xD9:
            return position
        if kind not in (0x01, 0xD8):  # of all others the length follows, and of a start of scan then its data
            position += int.from_bytes(encoded[position : position + 2], "big")
    return None


def _orientation(image: Image.Image, encoded: bytes) -> int:
    """How an image is to be turned or mirrored, by its EXIF data; 1: not at all."""
    if image.format == "TIFF":  # Pillow has done it
        return 1
    if image.format == "PNG" and "exif" not in image.info and b"eXIf" in encoded:  # it may follow the pixels
        image.load()
    try:
        return _exif_turn(image.info.get("exif", b"").removeprefix(b"Exif\0\0"))
    except struct.error:  # damaged: viewers pass it over
        return 1


def _exif_turn(exif: bytes) -> int:
    """The orientation in EXIF data, 1 to 8; 1 where there is none. (Pillow's reader warns of what it does not need.)"""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
        if tag == _EXIF_ORIENTATION and kind == 3:  # of 16 bits
            (turn,) = struct.unpack_from(f"{order}H", exif, entry + 8)
            return turn if turn in _TURNS else 1
    return 1


def _drop_alpha(image: Image.Image, name: str) -> Image.Image:
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    if image.getextrema()[3][0] < 255:
        raise ValueError(f"{name}: expected an opaque image, found transparent pixels; lay it over a background first")
    return image.convert("RGB")


def check_size(width: int, height: int, name: str) -> None:
    """Raises ValueError if an image has more than MAX_PIXELS."""
    if width * height > MAX_PIXELS:
        raise ValueError(f"{name}: {height}x{width} pixels, more than the limit of {MAX_PIXELS}; reduce the image")
