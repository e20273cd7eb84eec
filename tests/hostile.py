"""Hostile files, and what a job that is given one must not do; used by the tests of hostile inputs."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msst_keras import cli

SIZE = (24, 32)
MAX_MEMORY = 2 << 30  # of this process with all its libraries, while a job runs


# --- hostile files ---------------------------------------------------------------------------------------------------


def encode(image, image_format="PNG", **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, image_format, **options)
    return buffer.getvalue()


def png(width, height, depth=8, colour=0, data=b"", chunks=()):
    """A PNG file by hand; its data need not be what its header promises."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data or zlib.compress(bytes(100))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


GREY = np.random.default_rng(0).integers(0, 2, SIZE, np.uint8) * 255
SOUND_PNG, SOUND_JPEG = encode(GREY), encode(GREY, "JPEG")
TRANSPARENT = np.dstack([GREY, GREY, GREY, np.full(SIZE, 128, np.uint8)])
BAD_IMAGES = {
    "empty": b"",
    "text": b"not an image",
    "zeros": bytes(500),
    "cut png": SOUND_PNG[: len(SOUND_PNG) // 2],
    "cut jpeg": SOUND_JPEG[: len(SOUND_JPEG) // 2],
    "no end": SOUND_JPEG[:-2] + bytes(2),
    "wrong checksum": SOUND_PNG[:-14] + bytes([SOUND_PNG[-14] ^ 1]) + SOUND_PNG[-13:],
    "60000 png": png(60000, 60000),
    "widest png": png(2**31 - 1, 1),
    "nothing png": png(0, 0),
    "unfolding text": png(*SIZE[::-1], chunks=[(b"zTXt", b"a\0\0" + zlib.compress(bytes(100 << 20), 9))]),
    "65500 jpeg": SOUND_JPEG.replace(struct.pack(">HH", *SIZE), struct.pack(">HH", 65500, 65500), 1),
    "60000 bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60000, 60000, 1, 24, *[0] * 6),
    "60000 ppm": b"P6 60000 60000 255\n" + bytes(100),
    "16 bits": encode(np.full(SIZE, 40000, np.uint16)),
    "cmyk": encode(Image.new("CMYK", SIZE[::-1]), "JPEG"),
    "transparent": encode(TRANSPARENT),
    "gif": encode(Image.fromarray(GREY), "GIF"),
    "script": b"#!/bin/sh\ntouch PWNED\n",
    "html": b"<html><script>alert(1)</script></html>",
}

BAD_VIDEOS = {
    "empty": b"", "text": b"no video", "zeros": bytes(5000), "m3u8": b"#EXTM3U\n#EXTINF:1,\n../secret.mp4\n",
    "ffconcat": b"ffconcat version 1.0\nfile ../secret.mp4\n",
    "concat of urls": b"ffconcat version 1.0\nfile http://127.0.0.1:9/\n",
    "dash": b'<?xml version="1.0"?><MPD><BaseURL>file:///etc/passwd</BaseURL></MPD>',
    "sdp": b"v=0\nm=video 9 RTP/AVP 96\n",
    "image": SOUND_PNG, "elf": b"\x7fELF" + bytes(400), "riff": b"RIFF\xff\xff\xff\x7fAVI " + bytes(100),
    "box": struct.pack(">I4sQ", 1, b"ftyp", 2**63 - 1) + bytes(40), "ebml": b"\x1a\x45\xdf\xa3\x9f" + bytes(60),
    "cut by half": lambda sound: sound[: len(sound) // 2], "cut at the end": lambda sound: sound[:-200],
    "header alone": lambda sound: sound[:200], "no header": lambda sound: sound[200:],
    "spoiled header": lambda sound: sound.replace(b"moov", b"mooo"),
    "no frames": lambda sound: sound.replace(b"avc1", b"xxxx"),
    "huge gif": b"GIF89a" + b"\xff" * 4 + b"\0\0\0,\0\0\0\0" + b"\xff" * 4 + b"\0\2\2L\1\0;",
}  # fmt: skip


NAMES = (b"\xff\xfe.png", b"a\nb1.png", b"\x1b[2J1.png", b"\xe2\x80\xae1.png", b"no number.png", b"00001.jpg")
BAD_FLOW = {
    "empty": b"",
    "text": b"no flow",
    "cut": lambda sound: sound[:-40],
    "longer": lambda sound: sound + bytes(8),
    "another kind": lambda sound: b"FLOW" + sound[4:],
    "huge": lambda sound: sound[:4] + struct.pack("<ii", 2**31 - 1, 2**31 - 1) + sound[12:],
    "negative": lambda sound: sound[:4] + struct.pack("<ii", -24, -32) + sound[12:],
    "nan": lambda sound: sound[:12] + struct.pack("<f", float("nan")) + sound[16:],
    "infinite": lambda sound: sound[:12] + struct.pack("<f", float("inf")) + sound[16:],
    "unknown": lambda sound: sound[:12] + struct.pack("<f", 1e10) + sound[16:],
    "too long": lambda sound: sound[:12] + struct.pack("<f", 1e8) + sound[16:],
}
BAD_JSON = {
    "empty": b"", "null": b"null", "list": b"[]", "deep": b"[" * 100_000, "no text": b"\xff\xfe", "cut": b'{"a": ',
    "digits": b'{"num_frames": ' + b"9" * 5000 + b"}", "nothing": b"{}",
}  # fmt: skip


def spoil_manifest(change):
    """A function that changes the manifest of tree/records: text, or a function of what it holds."""

    def spoil(folder):
        path = folder / "records/manifest.json"
        path.write_text(change(json.loads(path.read_text())) if callable(change) else change)

    return spoil


def changed(*where, value):
    def change(found):
        place = found
        for key in where[:-1]:
            place = place[key]
        place[where[-1]] = value
        return json.dumps(found)

    return change


def renamed(name):
    def change(manifest):
        manifest["sequences"] = {name: manifest["sequences"]["ball"]}
        return json.dumps(manifest)

    return change


BAD_MANIFESTS = {
    "empty": "", "null": "null", "list": "[]", "deep": "[" * 100_000,
    "digits": '{"format_version": ' + "9" * 5000 + "}",
    "version": changed("format_version", value=99), "no shards": changed("shards", value=[]),
    "shard elsewhere": changed("shards", 0, "name", value="../../etc/passwd"),
    "absolute shard": changed("shards", 0, "name", value="/etc/passwd"),
    "bytes": changed("shards", 0, "bytes", value=2**70), "negative": changed("shards", 0, "bytes", value=-1),
    "offset": changed("sequences", "ball", "offsets", value=[0, 2**62]),
    "offsets": changed("sequences", "ball", "offsets", value=[5, 3]),
    "kind": changed("sequences", "ball", "labelled", value={"0": "\x1b[2J"}),
    "frames": changed("num_frames", value=10**9),
    "motion": changed("motion", value=None), "no sequence": changed("sequences", value={}),
    "terminal": renamed("\x1b]0;pwn\x07"), "two lines": renamed("a\nb"), "right to left": renamed("\u202eabc"),
}  # fmt: skip


def _flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


BAD_SHARDS = {
    "cut": lambda sound: sound[:-20], "another byte": _flip, "zeros": lambda sound: bytes(len(sound)),
    "longer": lambda sound: sound + b"more", "empty": b"", "missing": None, "a folder": "folder",
}  # fmt: skip


def spoil_shard(change):
    """A function that changes the one shard of tree/records."""

    def spoil(folder):
        path = next((folder / "records").glob("*.tfrecord"))
        if change is None or change == "folder":
            path.unlink()
            path.mkdir() if change else None
        else:
            spoil_file(path, change)

    return spoil


def spoil_file(path, content):
    """Gives a file other content: bytes, or a function of what it holds."""
    path.write_bytes(content(path.read_bytes()) if callable(content) else content)


# --- what a job leaves ------------------------------------------------------------------------------------------------


def list_files(folder):
    """Every path below a folder but for what lies in its tree/out, with its content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.relative_to(folder).parts[1:2] != ("out",):
            found[str(path)] = path.read_bytes() if path.is_file() and not path.is_symlink() else None
    return found


def forget_peak_memory():
    """Makes Linux count the peak of this process's memory anew."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_memory():
    """Bytes at most since `forget_peak_memory`."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def list_children():
    """The processes that this one has started and that live on."""
    children = []
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            children += path.read_text().split()
    return set(children)


@contextlib.contextmanager
def one_sentence_and_nothing_else(folder, capfd):
    """A job runs in this block on a tree that lies alone in a folder, and is to refuse it: see the assertions.

    What it writes goes to tree/out, and what was there already stays as it is.
    """
    before = list_files(folder)
    there = {path: path.read_bytes() for path in (folder / "tree/out").rglob("*") if path.is_file()}
    children = list_children()
    forget_peak_memory()
    with pytest.raises(Exception) as caught:
        yield caught
    sentence = cli.describe_error(caught.value)
    assert sentence is not None, repr(caught.value)  # None: a traceback would be printed
    assert 10 < len(sentence) < 900 and " ".join(sentence.split()).isprintable(), sentence
    assert list_files(folder) == before
    assert {path: path.read_bytes() for path in there if path.is_file()} == there
    assert peak_memory() < MAX_MEMORY
    assert not list_children() - children
    assert "Traceback" not in "".join(capfd.readouterr())
