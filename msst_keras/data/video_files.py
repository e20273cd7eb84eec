"""Video files looked at from outside: whether one is cut off, and whether it is a list of other files.

What a header says of seconds or frames proves nothing (edit lists hide frames, sound may be longer, rates vary), but
what it says of bytes does: a part that ends beyond the end of its file is not all there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<?xml", b"<MPD", b"<SMIL", b"<smil", b"[playlist]", b"v=0", b"[Reference]")
_ESSENTIAL_BOXES = (b"moov", b"mdat", b"moof")  # of MP4 and MOV
_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067  # of Matroska and WebM


def check_whole(path: str | Path) -> None:
    """Looks at a video file's first bytes and at the sizes that its parts claim.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it is empty, a list of other files, or cut off.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such video file")
    size = path.stat().st_size
    if not size:
        raise ValueError(f"{path}: this file is empty; fetch or encode the video again")
    with open(path, "rb") as file:
        start = file.read(64)
        if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_PLAYLISTS):
            raise ValueError(f"{path}: a list of other files, not a video; give the video files themselves")
        end = _claimed_end(file, start, size)
    if end > size:
        raise ValueError(
            f"{path}: cut off or damaged: has {size} bytes, and its parts need {end}; fetch or encode the video again"
        )


def _claimed_end(file: BinaryIO, start: bytes, size: int) -> int:
    """How many bytes a file must have by what its parts say; 0 where its format does not say."""
    if start[:4] == b"RIFF":
        return max((end for kind, end in _riff_chunks(file, size) if kind == b"RIFF"), default=0)
    if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp", b"pnot"):
        return max((end for kind, end in _boxes(file, size) if kind in _ESSENTIAL_BOXES), default=0)
    if start[:4] == _EBML.to_bytes(4, "big"):
        return max((end for kind, end in _elements(file, size) if kind == _SEGMENT), default=0)
    if start[:4] == b"GIF8":
        return _gif_end(file, start, size)
    return 0


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """(kind, end) of each top box of an MP4 file."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        length, kind = struct.unpack(">I4s", file.read(8))
        if length == 1:
            length = int.from_bytes(file.read(8).ljust(8, b"\0"), "big")
        elif length == 0:  # to the end of the file
            length = size - position
        if length < 8:
            return
        position += length
        yield kind, position


def _riff_chunks(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """(kind, end) of each top chunk of an AVI file; a length of 0 or 2^32 - 1 was never filled in."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        kind, length = struct.unpack("<4sI", file.read(8))
        if length in (0, 2**32 - 1):
            return
        position += 8 + length
        yield kind, position
        position += length % 2


def _elements(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """(kind, end) of each top element of a Matroska file, up to one of unknown length (a live recording)."""
    position = 0
    while position < size:
        file.seek(position)
        header = file.read(12)
        kind_bytes = 9 - header[0].bit_length()
        if kind_bytes > 4 or len(header) <= kind_bytes or not header[kind_bytes]:
            return
        kind, first = int.from_bytes(header[:kind_bytes], "big"), header[kind_bytes]
        bits = 7 * (length_bytes := 9 - first.bit_length())
        length = int.from_bytes(header[kind_bytes : kind_bytes + length_bytes], "big") & ((1 << bits) - 1)
        if length == (1 << bits) - 1:
            return
        position += kind_bytes + length_bytes + length
        yield kind, position


def _gif_end(file: BinaryIO, start: bytes, size: int) -> int:
    """Where the blocks of a GIF end: at its trailer, or where the last one would."""
    position = 13 + _gif_colours(start[10] if len(start) > 10 else 0)
    while position < size:
        file.seek(position)
        head = file.read(10)
        if head[0] == 0x2C and len(head) == 10:  # an image: its place, its colours, its code size
            position += 11 + _gif_colours(head[9])
        elif head[0] == 0x21:  # an extension
            position += 2
        else:
            return position + 1
        length = 1
        while length:  # pieces of up to 255 bytes, up to one of none
            file.seek(position)
            length = (file.read(1) or b"\1")[0]
            position += 1 + length
            if position > size:
                return position
    return position


def _gif_colours(flags: int) -> int:
    """The bytes of a colour table."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
