"""RGB frames and saliency maps, from and to image files.

Frames, maps and masks (`masks`) are read with Pillow, because palette indices survive it and truncated files raise. Its
JPEG pixels are those of OpenCV and of `tf.io.decode_jpeg(dct_method="INTEGER_ACCURATE")`. An EXIF orientation, such as
that of a phone held upright, is applied to frames, masks and maps alike, as every viewer does; records hold such a
frame as an upright PNG. OpenCV writes.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from msst_keras.data.image_files import (
    EIGHT_BIT_MODES,
    JPEG_FORMATS,
    decode_image,
    drop_alpha,
    open_image,
    read_file,
    read_orientation,
)
from msst_keras.files import publish


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
    image = decode_image(encoded, name)
    if image.mode not in EIGHT_BIT_MODES:
        raise ValueError(f"{name}: a frame must be 8-bit RGB or grey, this is of mode {image.mode}; convert the file")
    return np.array(drop_alpha(image, name).convert("RGB"))


def is_plain(encoded: bytes) -> bool:
    """Whether any decoder makes of these bytes what `decode_frame` does: RGB or grey JPEG, or 8-bit RGB or grey PNG."""
    image = Image.open(io.BytesIO(encoded))
    is_known = image.format in (*JPEG_FORMATS, "PNG") and image.mode in ("L", "RGB")
    return is_known and read_orientation(image, encoded) == 1


def read_image_size(path: str | Path) -> tuple[int, int]:
    """Reads (height, width), as the image is shown, from an image file's header."""
    encoded = read_file(path)
    return header_size(encoded, str(path))


def header_size(encoded: bytes, name: str) -> tuple[int, int]:
    """(height, width) of an image, as it is shown, from its header alone.

    Raises:
      ValueError: no image, or one of more than MAX_PIXELS; names `name`.
    """
    image = open_image(encoded, name)
    return image.size if read_orientation(image, encoded) >= 5 else image.size[::-1]


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
    image = decode_image(read_file(path), str(path))
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
