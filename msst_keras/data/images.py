"""Image files: RGB frames, masks, saliency maps.

Frames, masks and maps are read with Pillow: palette indices survive it and truncated files raise. Its JPEG pixels are
those of OpenCV and of `tf.io.decode_jpeg(dct_method="INTEGER_ACCURATE")`. Pixels are taken as they are stored: an EXIF
orientation is not applied (TensorFlow does not apply it either, and records hold the file's bytes). OpenCV writes.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from msst_keras.files import publish

# "nonzero": any channel, or the palette index, above 0 (DAVIS: 0/255, 0/1 or indices). "half": grey >= 128 (SegTrackV2,
# DUTS: 0/255 with grey edges). "fbms": see `read_mask`.
MASK_RULES = ("nonzero", "half", "fbms")
# Pillow's own limit, ten 4K frames: a file of a few kilobytes may claim any size, and memory is taken at once.
MAX_PIXELS = 89_478_485

_FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP")
_JPEG_FORMATS = ("JPEG", "MPO")  # MPO: the JPEG of a camera that holds a second picture
_FRAME_MODES = ("1", "L", "P", "RGB", "LA", "PA", "RGBA")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


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
    return image.format in (*_JPEG_FORMATS, "PNG") and image.mode in ("L", "RGB")


def read_image_size(path: str | Path) -> tuple[int, int]:
    """Reads (height, width) from an image file's header."""
    return _open(read_file(path), str(path)).size[::-1]


def read_mask(path: str | Path, rule: str) -> np.ndarray:
    """Reads a mask: bool (H, W), True = object.

    Args:
      path: an image file.
      rule: one of MASK_RULES. "fbms": in a .ppm, whose regions are coloured, white is background and all else object;
        in any other file (.pgm and .png of FBMS) black is background. The .pgm that lies beside a .ppm holds the
        objects' outlines on white, not the objects: it has no background by this rule, which is an error.

    Raises:
      FileNotFoundError: no such file.
      ValueError: an unknown rule, an unreadable file, or one whose values contradict the rule.
    """
    if rule not in MASK_RULES:
        raise ValueError(f"mask rule must be one of {', '.join(MASK_RULES)}, not '{rule}'")
    image = _decode(read_file(path), str(path))
    if image.mode not in _FRAME_MODES:
        raise ValueError(f"{path}: a mask must be an 8-bit image, this is of mode {image.mode}; convert the file")
    if rule == "half":
        grey = np.asarray(_drop_alpha(image, str(path)).convert("L"))
        if 0 < grey.max() < 128:
            raise ValueError(
                f"{path}: expected a mask of 0 to 255, found nothing above {grey.max()} (0/1, or indices of objects?); "
                "make its objects 255"
            )
        return grey >= 128
    values = np.asarray(image if image.mode == "P" else _drop_alpha(image, str(path)))
    values = values.reshape(*values.shape[:2], -1)
    if rule == "fbms" and Path(path).suffix.lower() == ".ppm":
        return np.any(values != 255, axis=2)
    mask = np.any(values != 0, axis=2)
    if rule == "fbms" and mask.all():
        raise ValueError(
            f"{path}: expected black (0) for background, found none; if this is the outline drawing that belongs to a "
            ".ppm, put the .ppm beside it"
        )
    return mask


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
    check_size(*image.size, name)
    if image.format == "PNG" and encoded[24] == 16:  # of which Pillow would silently drop eight
        raise ValueError(f"{name}: expected 8 bits a channel, found 16; convert the file")
    return image


def _decode(encoded: bytes, name: str) -> Image.Image:
    image = _open(encoded, name)
    try:
        image.load()
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
    if image_format in _JPEG_FORMATS:  # an end of image after the last start of a scan
        return encoded.rfind(b"\xff\xd9") > encoded.rfind(b"\xff\xda")
    return True


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
