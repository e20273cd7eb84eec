"""Image files as bytes: opened with limits, decoded upright, and refused where they are damaged or cut off."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path

from PIL import Image, UnidentifiedImageError

# Pillow's own limit, ten 4K frames: a file of a few kilobytes may claim any size, and memory is taken at once.
MAX_PIXELS = 89_478_485


_FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP")


JPEG_FORMATS = ("JPEG", "MPO")  # MPO: the JPEG of a camera that holds a second picture


EIGHT_BIT_MODES = ("1", "L", "P", "RGB", "LA", "PA", "RGBA")


PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


# A marker of JPEG that ends a scan's data: neither a stuffed 0xFF, nor a restart, nor filling.
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)


_EXIF_ORIENTATION = 0x0112


_TURNS = dict(zip(range(2, 9), [
    Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90,
], strict=True))  # fmt: skip


def read_file(path: str | Path) -> bytes:
    """The bytes of a file.

    Raises:
      FileNotFoundError: no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return Path(path).read_bytes()


def open_image(encoded: bytes, name: str) -> Image.Image:
    """The image with its header read, of a size that is safe to decode.

    Raises:
      ValueError: no image of a known format, too many pixels, or more than 8 bits a channel.
    """
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


def decode_image(encoded: bytes, name: str) -> Image.Image:
    """The image with its pixels, turned as it is shown; it keeps its own mode.

    Raises:
      ValueError: see `open_image`; cut off or damaged.
    """
    image = open_image(encoded, name)
    try:
        image.load()
        if (turn := read_orientation(image, encoded)) != 1:
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
    return image_format not in JPEG_FORMATS or _jpeg_end(encoded) is not None


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


def read_orientation(image: Image.Image, encoded: bytes) -> int:
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


def drop_alpha(image: Image.Image, name: str) -> Image.Image:
    """The image without its alpha channel, as RGB if it had one.

    Raises:
      ValueError: a pixel is transparent.
    """
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
