"""Hostile inputs through the jobs: one sentence each, nothing made, nothing written elsewhere, memory bounded.

Each row of the tables is one input of one job, called in this process as from Python. An input that a job can use is
no row here: the tests of its part have what it gives. Workers of `make_records` are played by this process, so that
TensorFlow is loaded once.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from made_videos import pictures, write_video
from PIL import Image

from msst_keras.conversion import workers
from msst_keras.conversion.options import FlowOptions, MakeRecordsOptions
from msst_keras.evaluation.options import EvaluateOptions
from msst_keras.inference.options import RefineOptions
from msst_keras.jobs.evaluate import evaluate
from msst_keras.jobs.inspect_records import inspect_records
from msst_keras.jobs.make_records import make_records
from msst_keras.jobs.refine import refine
from msst_keras.records.options import InspectRecordsOptions

SIZE = (24, 32)
MAX_MEMORY = 2 << 30  # of this process with all its libraries, while a job runs
CASES = []


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

SOUND_VIDEO = None  # written once, by `sound_video`
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


# --- the table -------------------------------------------------------------------------------------------------------


def case(name, job):
    """Registers a row: a function that gets the folder of a sound tree, spoils it, and returns the job's options."""
    return lambda spoil: CASES.append(pytest.param(job, spoil, id=name))


def run_make_records(folder, dataset, root, **options):
    motion = FlowOptions(prior="none")
    return MakeRecordsOptions(
        dataset=dataset, root=str(root), output_dir=str(folder / "out/records"), num_shards=1, num_workers=1,
        motion=motion, **options,
    )  # fmt: skip


def run_evaluate(folder, **options):
    options = {"baselines": False, "report": False, "num_workers": 1, "protocol": ("all",)} | options
    return EvaluateOptions(
        predictions=str(folder / "maps"), ground_truth=str(folder / "davis"), output_dir=str(folder / "out/scores"),
        **options,
    )  # fmt: skip


def run_refine(folder):
    return RefineOptions(
        maps=str(folder / "maps"), frames=str(folder / "davis/JPEGImages/480p"), output_dir=str(folder / "out/refined"),
        num_workers=1,
    )  # fmt: skip


PLACES = {  # where a bad image may lie -> the job that reads it there, and its options
    "davis/JPEGImages/480p/ball/00001.png": (make_records, lambda f: run_make_records(f, "davis", f / "davis")),
    "davis/Annotations/480p/ball/00001.png": (make_records, lambda f: run_make_records(f, "davis", f / "davis")),
    "stills/image/1.png": (make_records, lambda f: run_make_records(f, "stills", f / "stills")),
    "stills/mask/1.png": (make_records, lambda f: run_make_records(f, "stills", f / "stills")),
    "maps/ball/00001.png": (evaluate, run_evaluate),
    " davis/Annotations/480p/ball/00001.png": (evaluate, run_evaluate),
    " maps/ball/00001.png": (refine, run_refine),
    " davis/JPEGImages/480p/ball/00001.png": (refine, run_refine),
}
for _place, (_job, _options) in PLACES.items():
    for _name, _content in BAD_IMAGES.items():

        @case(f"{_job.__name__}, {_place.strip()}: {_name}", _job)
        def _(folder, place=_place, content=_content, options=_options):
            (folder / place.strip()).write_bytes(content)
            return options(folder)


for _name, _content in BAD_VIDEOS.items():

    @case(f"make_records, video: {_name}", make_records)
    def _(folder, content=_content):
        path = folder / "video/clip.mp4"
        path.write_bytes(content(path.read_bytes()) if callable(content) else content)
        return run_make_records(folder, "video", path)


def spoil_manifest(change):
    def spoil(folder):
        path = folder / "records/manifest.json"
        manifest = json.loads(path.read_text())
        path.write_text(change(manifest) if callable(change) else change)
        return InspectRecordsOptions(records=(str(folder / "records"),), verify=True)

    return spoil


def changed(*where, value):
    def change(manifest):
        place = manifest
        for key in where[:-1]:
            place = place[key]
        place[where[-1]] = value
        return json.dumps(manifest)

    return change


def renamed(name):
    def change(manifest):
        manifest["sequences"] = {name: manifest["sequences"]["ball"]}
        return json.dumps(manifest)

    return change


for _name, _change in {
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
}.items():  # fmt: skip
    case(f"inspect_records, manifest: {_name}", inspect_records)(spoil_manifest(_change))


@case("inspect_records, a shard that is cut off", inspect_records)
def _(folder):
    path = next((folder / "records").glob("*.tfrecord"))
    path.write_bytes(path.read_bytes()[:-20])
    return InspectRecordsOptions(records=(str(folder / "records"),), verify=True)


@case("inspect_records, a shard with another byte", inspect_records)
def _(folder):
    path = next((folder / "records").glob("*.tfrecord"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return InspectRecordsOptions(records=(str(folder / "records"),), verify=True)


for _name in (b"\xff\xfe.png", b"a\nb1.png", b"\x1b[2J1.png", b"no number.png", b"00001.jpg", b"\xe2\x80\xae1.png"):

    @case(f"make_records, a frame called {_name!a}", make_records)
    def _(folder, name=_name):
        place = folder / "davis/JPEGImages/480p/ball"
        shutil.copy(place / "00001.png", bytes(place) + b"/" + name)
        return run_make_records(folder, "folder", place)


@case("make_records, a link to itself", make_records)
def _(folder):
    path = folder / "davis/JPEGImages/480p/ball/00002.png"
    path.unlink()
    path.symlink_to("00002.png")
    return run_make_records(folder, "davis", folder / "davis")


@case("make_records, a folder called as a frame", make_records)
def _(folder):
    (folder / "davis/JPEGImages/480p/ball/00003.png").mkdir()
    return run_make_records(folder, "davis", folder / "davis")


@case("make_records, a list that leads elsewhere", make_records)
def _(folder):
    (folder / "davis/ImageSets/480p").mkdir(parents=True)
    (folder / "davis/ImageSets/480p/train.txt").write_text("../../..\n..\n")
    return run_make_records(folder, "davis", folder / "davis", split="train")


@case("make_records, an output that is a file", make_records)
def _(folder):
    (folder / "out").mkdir()
    (folder / "out/records").touch()
    return run_make_records(folder, "davis", folder / "davis")


@case("make_records, a folder of nothing", make_records)
def _(folder):
    (folder / "nothing").mkdir()
    return run_make_records(folder, "folder", folder / "nothing")


@case("evaluate, maps of 0 and 1", evaluate)
def _(folder):
    for path in (folder / "maps/ball").iterdir():
        path.write_bytes(encode(GREY // 255))
    return run_evaluate(folder)


@case("evaluate, maps of another shape", evaluate)
def _(folder):
    (folder / "maps/ball/00001.png").write_bytes(encode(np.zeros((50, 7), np.uint8)))
    return run_evaluate(folder)


@case("evaluate, a map too many", evaluate)
def _(folder):
    shutil.copy(folder / "maps/ball/00001.png", folder / "maps/ball/00009.png")
    return run_evaluate(folder)


@case("evaluate, the masks themselves", evaluate)
def _(folder):
    shutil.rmtree(folder / "maps")
    (folder / "maps").symlink_to(folder / "davis/Annotations/480p")
    return run_evaluate(folder)


@case("refine, maps as frames", refine)
def _(folder):
    shutil.rmtree(folder / "davis/JPEGImages/480p/ball")
    return run_refine(folder)


# --- running ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A sound tree of everything, and records of it."""
    folder = tmp_path_factory.mktemp("sound")
    for place in (*PLACES, "davis/JPEGImages/480p/ball/00000.png", "davis/Annotations/480p/ball/00000.png",
                  "davis/JPEGImages/480p/ball/00002.png", "davis/Annotations/480p/ball/00002.png",
                  "maps/ball/00000.png", "maps/ball/00002.png"):  # fmt: skip
        path = folder / place.strip()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(SOUND_PNG)
    (folder / "video").mkdir()
    write_video(folder / "video/clip.mp4", pictures(6), muxer={"movflags": "+faststart"})
    with pytest.MonkeyPatch.context() as patch:
        play_workers(patch)
        make_records(run_make_records(folder, "davis", folder / "davis"))
    (folder / "out/records").rename(folder / "records")
    (folder / "out").rmdir()
    return folder


def play_workers(patch):
    from msst_keras.conversion.shard_maker import ShardMaker

    def make_shards(shards, motion, num_workers, *rest):
        maker = ShardMaker(motion)
        return [maker.make(shard)[0] for shard in shards]

    patch.setattr(workers, "make_shards", make_shards)


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
    paths = Path("/proc/self/task").glob("*/children")
    return {int(child) for path in paths for child in path.read_text().split()}


def test_there_are_enough():
    assert len(CASES) >= 150


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("job, spoil", CASES)
def test_one_sentence_and_nothing_else(job, spoil, sound, tmp_path, monkeypatch, capfd):
    play_workers(monkeypatch)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "tree"
    shutil.copytree(sound, folder)
    options = spoil(folder)
    before = list_files(tmp_path)
    children = list_children()
    forget_peak_memory()
    with pytest.raises((ValueError, OSError)) as caught:
        job(options)
    message = str(caught.value)
    assert type(caught.value) in (ValueError, FileNotFoundError) or isinstance(caught.value, OSError)
    assert 10 < len(message) < 700 and message.isprintable(), message
    assert list_files(tmp_path) == before
    assert peak_memory() < MAX_MEMORY
    assert not list_children() - children
    made = [path.name for path in (folder / "out").rglob("*") if path.is_file()] if (folder / "out").is_dir() else []
    assert not {"manifest.json", "metrics.json", "report.html"}.intersection(made)
    assert "Traceback" not in "".join(capfd.readouterr())
