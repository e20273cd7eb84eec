"""Corrupted inputs and what each reader makes of them; `test_fuzz.py` runs this file in a process of its own.

  python tests/fuzz_cases.py make FOLDER         writes the cases
  python tests/fuzz_cases.py run FOLDER FIRST    prints a JSON line before and after each case

Everything is drawn from fixed seeds.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import resource
import shutil
import struct
import sys
import zlib
from pathlib import Path

import cv2
import h5py
import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from msst_keras.data import datasets, flow_files, images, masks
from msst_keras.inference.overlay import OverlayWriter
from msst_keras.inference.stream import SaliencyModel
from msst_keras.model import vgg16
from msst_keras.motion.prior import MagnitudePrior, MotionPrior
from msst_keras.motion.prior_files import load_prior
from msst_keras.motion.superpixels import SuperpixelSettings
from msst_keras.pipeline import clip_index
from msst_keras.pipeline.batches import flow_batches, validation_batches
from msst_keras.records import shard_files
from msst_keras.records.example import FrameRecord
from msst_keras.records.inspection import verify_folder
from msst_keras.records.manifest import build_manifest, write_manifest
from msst_keras.records.shard_files import shard_path, write_shard
from msst_keras.training import run_dir as run

SIZE = (24, 32)
# Formats in which a changed value is as good as the one before: they carry no checksum, and no reader can tell.
NO_CHECKSUM = ("jpg", "bmp", "ppm", "tif", "webp", "flo", "mp4", "h5", "json", "pb", "txt")
# Trees without a list of their files: a mask that is gone is a frame without a label, a frame that is gone was never
# there. `msst make_records` prints how many frames and labels it found.
UNLISTED = (("davis", "png"), ("folder", "jpg"))
MAX_GROWTH = 700 * 2**10  # KiB; MAX_PIXELS as RGB take 260 MiB, and twice that while modes are converted
MOTION = {"flow": {"method": "dis"}, "superpixels": None, "prior": {"kind": "magnitude"}, "flow_stored": True}


# --- readers: path -> what can be compared ---------------------------------------------------------------------------


def read_frame(path):
    frame = images.read_frame(path)
    assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3
    images.is_plain(path.read_bytes())
    assert images.read_image_size(path) == frame.shape[:2]
    return frame


def read_mask(rule):
    def read(path):
        mask = masks.read_mask(path, rule)
        assert mask.dtype == bool and mask.ndim == 2
        return mask

    return read


def read_map(path):
    saliency = images.read_map(path)
    assert saliency.dtype == np.float32 and 0 <= saliency.min() and saliency.max() <= 1
    return saliency


def read_flow(path):
    flow = flow_files.read_flow(path)
    assert flow.dtype == np.float32 and flow.ndim == 3 and flow.shape[2] == 2 and not np.isinf(flow).any()
    return flow


def read_flow_folder(path):
    flow = list(flow_files.read_flows(path, "ball", ["0", "1", "2"], SIZE))
    assert all(each.shape == (*SIZE, 2) and np.isfinite(each).all() for each in flow)
    return np.stack(flow)


def read_sequences(dataset, split="all"):
    def read(path):
        content = []
        for sequence in datasets.find_sequences(dataset, path, split):
            for index, (name, _, frame) in enumerate(sequence.read_frames()):
                assert frame.dtype == np.uint8 and frame.ndim == 3
                content.append((sequence.name, name, frame.tobytes(), sequence.read_mask(index)))
        return content

    return read


def scan_shard(path):
    return list(shard_files.scan_shard(path))


def read_records(path):
    index = clip_index.index_clips([str(path)], 2, with_prior=True)
    batches = list(validation_batches(index, 2, 2, SIZE).as_numpy_iterator())
    assert all(np.isfinite(value).all() for batch in batches for value in batch.values())
    flow_index, _ = clip_index.index_flow([str(path)])
    flow = list(flow_batches(flow_index, 2, 0, 0, 3).as_numpy_iterator())
    assert all(np.abs(batch["flow"]).max() < flow_files.MAX_FLOW for batch in flow)
    return batches, flow


def read_run(path):
    found = run.read_run(path)
    assert isinstance(found, dict)
    return found


def read_prior(path):
    prior = load_prior(path)
    return [weight.numpy() for weight in prior.weights], prior.get_config()


def read_model(path):
    model = SaliencyModel(path)
    return model.settings, model.encode(frame=tf.ones([1, 2, 2, 3]))["maps"].numpy()


READERS = {
    "read_frame": read_frame, "read_mask nonzero": read_mask("nonzero"), "read_mask half": read_mask("half"),
    "read_mask fbms": read_mask("fbms"), "read_map": read_map, "read_flow": read_flow,
    "flow folder": read_flow_folder, "video": read_sequences("video"), "davis": read_sequences("davis", "train"),
    "stills": read_sequences("stills"), "folder": read_sequences("folder"), "scan_shard": scan_shard,
    "pipeline": read_records, "verify": lambda path: verify_folder(str(path)), "load_prior": read_prior,
    "read_vgg16": vgg16.read_vgg16, "read_run": read_run, "SaliencyModel": read_model,
}  # fmt: skip


# --- what is right, one file or folder per reader --------------------------------------------------------------------


def make_seeds(folder):
    """Writes sound inputs; returns (reader, path) of each. A folder's path is followed by the file to spoil."""
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (SIZE[0] // 4, SIZE[1] // 4, 3), np.uint8)
    frame = cv2.resize(small, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    mask = np.zeros(SIZE, np.uint8)
    mask[6:18, 8:24] = 255
    flow = flow_files.round_flow(generator.normal(0, 3, (*SIZE, 2)))
    seeds = []

    def add(reader, path, spoiled=None):
        seeds.append((reader, path, spoiled or path))

    for suffix in ("jpg", "png", "bmp", "ppm", "tif", "webp"):
        path = folder / f"frame.{suffix}"
        Image.fromarray(frame).save(path)
        add("read_frame", path)
    for rule, suffix in (("nonzero", "png"), ("half", "png"), ("fbms", "ppm")):
        path = folder / f"mask_{rule}.{suffix}"
        Image.fromarray(mask if suffix == "png" else np.where(mask[..., None], frame, 255).astype(np.uint8)).save(path)
        add(f"read_mask {rule}", path)
    images.write_map(folder / "map.png", mask.astype(np.float32) / 255)
    add("read_map", folder / "map.png")
    for suffix in ("flo", "png"):
        flow_files.write_flow(folder / f"flow.{suffix}", flow)
        add("read_flow", folder / f"flow.{suffix}")
        for name in "012":
            (folder / f"flow_{suffix}" / "ball").mkdir(parents=True, exist_ok=True)
            flow_files.write_flow(folder / f"flow_{suffix}" / "ball" / f"{name}.{suffix}", flow)
        add("flow folder", folder / f"flow_{suffix}", folder / f"flow_{suffix}" / "ball" / f"1.{suffix}")
    with OverlayWriter(folder / "video.mp4", 10, (48, 64)) as writer:
        for index in range(20):
            writer.write(np.roll(cv2.resize(frame, (64, 48)), index, axis=1))
    add("video", folder / "video.mp4")
    make_trees(folder, frame, mask, add)
    make_records(folder / "records", frame, mask, flow)
    add("scan_shard", shard_path(folder / "records", 0, 2))
    for reader in ("pipeline", "verify"):
        add(reader, folder / "records", shard_path(folder / "records", 0, 2))
        add(reader, folder / "records", folder / "records" / "manifest.json")
    MagnitudePrior().save(folder / "magnitude.keras")
    add("load_prior", folder / "magnitude.keras")
    superpixels = SuperpixelSettings(num_levels=1, max_regions=16)
    MotionPrior(superpixels=superpixels, width=0.02).save(folder / "network.keras")
    add("load_prior", folder / "network.keras")
    make_weights(folder, generator, add)
    (folder / "run").mkdir()
    (folder / "run" / "run.json").write_text(json.dumps({"model": {}, "motion": None, "image_size": [321, 321]}))
    add("read_run", folder / "run", folder / "run" / "run.json")
    make_model(folder / "model")
    for name in ("assets/msst.json", "saved_model.pb", "variables/variables.index"):
        add("SaliencyModel", folder / "model", folder / "model" / name)
    add("SaliencyModel", folder / "model", next((folder / "model" / "variables").glob("*.data*")))
    return seeds


def make_trees(folder, frame, mask, add):
    davis, stills, plain = folder / "davis", folder / "stills", folder / "plain"
    for path in (davis / "JPEGImages/480p/ball", davis / "Annotations/480p/ball", davis / "ImageSets/480p",
                 stills / "image", stills / "mask", plain):  # fmt: skip
        path.mkdir(parents=True)
    (davis / "ImageSets/480p/train.txt").write_text("ball\n")
    for index in range(3):
        for path in (davis / "JPEGImages/480p/ball", stills / "image", plain):
            Image.fromarray(frame).save(path / f"{index:05d}.jpg")
        for path in (davis / "Annotations/480p/ball", stills / "mask"):
            Image.fromarray(mask).save(path / f"{index:05d}.png")
    add("davis", davis, davis / "JPEGImages/480p/ball/00001.jpg")
    add("davis", davis, davis / "Annotations/480p/ball/00001.png")
    add("davis", davis, davis / "ImageSets/480p/train.txt")
    add("stills", stills, stills / "mask/00001.png")
    add("folder", plain, plain / "00001.jpg")


def make_records(folder, frame, mask, flow):
    parts = {
        "frame": images.encode_png(frame), "mask": images.encode_png(mask), "label_kind": "fine",
        "prior": images.encode_png(mask // 2), "flow": flow_files.encode_flow_png(flow),
    }  # fmt: skip
    for number, sequence in enumerate(("a", "b")):
        shard = [FrameRecord(sequence, f"{index:05d}", index, *SIZE, **parts) for index in range(3)]
        write_shard(shard_path(folder, number, 2), shard)
    write_manifest(folder, build_manifest(folder, 2, {"dataset": "davis", "motion": MOTION}))


def make_weights(folder, generator, add):
    """A VGG16 of four channels: readers look at names, and the shapes are the network's business."""
    arrays = {}
    for name in vgg16.CONVOLUTIONS:
        arrays[f"{name}/kernel"] = generator.normal(size=(3, 3, 4, 4)).astype(np.float32)
        arrays[f"{name}/bias"] = generator.normal(size=4).astype(np.float32)
    np.savez(folder / "vgg16.npz", **arrays)
    with h5py.File(folder / "vgg16.h5", "w") as file:
        for key, array in arrays.items():
            file[key] = array
    add("read_vgg16", folder / "vgg16.npz")
    add("read_vgg16", folder / "vgg16.h5")


def make_model(folder):
    class Model(tf.Module):
        def __init__(self):
            self.scale = tf.Variable([2.0, 3.0, 4.0])

        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32, "frame")])
        def encode(self, frame):
            return {"maps": frame * self.scale}

    model = Model()
    encode = model.encode.get_concrete_function()
    tf.saved_model.save(model, str(folder), signatures={"encode": encode, "fuse": encode})
    (folder / "assets").mkdir(exist_ok=True)
    settings = {"num_frames": 4, "image_size": [321, 321], "motion": None}
    (folder / "assets" / "msst.json").write_text(json.dumps(settings))


# --- corruptions -----------------------------------------------------------------------------------------------------


def spoil(content, generator, others):
    """Yields (kind, bytes) of a file's content."""
    for _ in range(5):
        flipped = bytearray(content)
        flipped[generator.integers(len(content))] ^= 1 << generator.integers(8)
        yield "bit flip", bytes(flipped)
    for _ in range(2):
        torn = bytearray(content)
        start = generator.integers(len(content))
        torn[start : start + 64] = generator.bytes(len(torn[start : start + 64]))
        yield "torn block", bytes(torn)
    for share in (0.02, 0.5, 0.97):
        yield "cut off", content[: int(len(content) * share)]
    yield "empty", b""
    yield "zeros", bytes(len(content))
    yield "noise", generator.bytes(len(content))
    yield "another file", others[generator.integers(len(others))]


def replace_file(path, kind):
    """Puts something that is no file in a file's place."""
    path.unlink()
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path.name)


def png(width, height, depth=8, color=2, chunks=(), data=b""):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data or zlib.compress(bytes(100))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def hostile_images(sound_jpeg):
    """Headers that promise more than there is, and data that unfolds to more than it seems."""
    bomb = zlib.compress(bytes(300 << 20), 9)
    yield "60000.png", png(60000, 60000)
    yield "widest.png", png(2**31 - 1, 1)
    yield "none.png", png(0, 0)
    yield "bomb.png", png(16, 16, data=bomb)
    yield "text.png", png(16, 16, chunks=[(b"zTXt", b"a\0\0" + bomb)])
    yield "profile.png", png(16, 16, chunks=[(b"iCCP", b"a\0\0" + bomb)])
    start = sound_jpeg.index(b"\xff\xc0") + 5
    yield "65500.jpg", sound_jpeg[:start] + struct.pack(">HH", 65500, 65500) + sound_jpeg[start + 4 :]
    yield "tall.jpg", sound_jpeg[:start] + struct.pack(">HH", 65500, 32) + sound_jpeg[start + 4 :]
    yield "60000.bmp", b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0)
    yield "upside.bmp", b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 9, -(2**31), 1, 24, *[0] * 6)
    yield "60000.ppm", b"P6 60000 60000 255\n" + bytes(100)
    yield "digits.ppm", b"P6 " + b"9" * 5000 + b" 1 255\n"
    tags = [(256, 60000), (257, 60000), (258, 8), (259, 1), (262, 1), (273, 8), (278, 60000), (279, 2**31)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    yield "60000.tif", b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)


def hostile_flow():
    for width, height in ((2**31 - 1, 2**31 - 1), (-4, -4), (0, 5), (65536, 65536), (10**6, 10**6), (1, 2**30)):
        yield "size.flo", b"PIEH" + struct.pack("<ii", width, height) + bytes(64)
    for value in (np.nan, np.inf, -np.inf, 1e30, 1e8):
        yield "value.flo", b"PIEH" + struct.pack("<ii", 4, 4) + np.full(32, value, "<f4").tobytes()
    yield "60000.png", png(60000, 60000, 16)
    yield "bomb.png", png(16, 16, 16, data=zlib.compress(bytes(300 << 20), 9))
    yield "grey.png", png(16, 16, 16, 0)
    yield "eight.png", png(16, 16, 8, 2)


def manifest_changes():
    """(where, value): a manifest of wrong types, of negative and hostile numbers, and one that leads elsewhere."""
    wrong = (None, -1, 10**30, 1e300, float("nan"), "x", [], {}, True, [None], {"a": 1}, "../../etc/passwd")
    places = (
        (), ("format_version",), ("shards",), ("sequences",), ("num_frames",), ("shards", 0), ("shards", 0, "name"),
        ("shards", 0, "bytes"), ("sequences", "a"), ("sequences", "a", "shard"), ("sequences", "a", "offsets"),
        ("sequences", "a", "offsets", 1), ("sequences", "a", "labelled"), ("sequences", "a", "labelled", "1"),
        ("motion",), ("motion", "prior"), ("motion", "prior", "kind"), ("motion", "flow_stored"),
    )  # fmt: skip
    for number, place in enumerate(places):
        for step in range(4):
            yield place, wrong[(number * 5 + step * 3) % len(wrong)]


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def hostile_shard(length):
    """A record whose length is any number and whose checksums are right."""
    header = struct.pack("<Q", length)
    return header + struct.pack("<I", crc32c(header)) + bytes(64)


def make_cases(folder):
    """Writes sound inputs and their corruptions; returns the cases: reader, format, corruption, path."""
    seeds = make_seeds(folder / "sound")
    generator = np.random.default_rng(1)
    contents = [spoiled.read_bytes() for _, _, spoiled in seeds]
    cases = []

    def place(reader, kind, suffix):
        directory = folder / f"case-{len(cases):04d}"
        directory.mkdir()
        cases.append({"reader": reader, "format": suffix, "corruption": kind, "directory": directory.name})
        return directory

    def copy(reader, kind, path, spoiled):
        directory = place(reader, kind, spoiled.suffix[1:] or "file")
        target = directory / path.name
        shutil.copytree(path, target) if path.is_dir() else shutil.copy(path, target)
        cases[-1] |= {"path": str(target), "sound": str(path)}
        return target / spoiled.relative_to(path) if path.is_dir() else target

    for reader, path, spoiled in seeds:
        for kind, content in spoil(spoiled.read_bytes(), generator, contents):
            copy(reader, kind, path, spoiled).write_bytes(content)
        for kind in ("folder", "link loop"):
            replace_file(copy(reader, kind, path, spoiled), kind)
        copy(reader, "gone", path, spoiled).unlink()

    def single(reader, kind, name, content):
        directory = place(reader, kind, name.rpartition(".")[2])
        (directory / name).write_bytes(content)
        cases[-1] |= {"path": str(directory / name), "sound": None}

    sound = folder / "sound"
    for name, content in hostile_images((sound / "frame.jpg").read_bytes()):
        kind = "bomb" if name == "bomb.png" else "hostile size"
        single("read_frame", kind, name, content)
        single("read_map", kind, name, content)
    for name, content in hostile_flow():
        single("read_flow", "bomb" if name == "bomb.png" else "hostile size", name, content)
    for length in (2**20, 2**31, 2**40, 10**15, 2**63 - 1, 2**64 - 16, 2**64 - 1):
        single("scan_shard", "hostile size", "shard.tfrecord", hostile_shard(length))
        shard = copy("pipeline", "hostile size", sound / "records", shard_path(sound / "records", 0, 2))
        shard.write_bytes(hostile_shard(length).ljust(shard.stat().st_size, b"\0"))
    for where, value in manifest_changes():
        path = copy("pipeline", "wrong value", sound / "records", sound / "records" / "manifest.json")
        path.write_text(json.dumps(changed(json.loads(path.read_text()), where, value)))
    for content in ("[" * 100_000, "9" * 10_000, '{"format_version": 1}', "\x00", "null"):
        copy("pipeline", "wrong value", sound / "records", sound / "records" / "manifest.json").write_text(content)
        copy("read_run", "wrong value", sound / "run", sound / "run" / "run.json").write_text(content)
    for name in (b"\xff\xfe.jpg", b"a\nb.jpg", b"no number.jpg", b"00001.png"):
        path = copy("folder", "odd name", sound / "plain", sound / "plain" / "00001.jpg")
        shutil.copy(path, os.path.join(os.fsencode(path.parent), name))
    for content in ("..\n", "../../sound/davis/JPEGImages/480p/ball\n", "/\n", "nobody\n", "/a/../b.jpg\n"):
        path = copy("davis", "leads elsewhere", sound / "davis", sound / "davis/ImageSets/480p/train.txt")
        path.write_text(content)
    path = copy("folder", "link loop", sound / "plain", sound / "plain" / "00001.jpg")
    (path.parent / "again").symlink_to(".")
    (folder / "cases.json").write_text(json.dumps(cases))


def changed(value, where, new):
    if not where:
        return new
    value[where[0]] = changed(value[where[0]], where[1:], new)
    return value


# --- running ---------------------------------------------------------------------------------------------------------


def digest(value):
    """A hash of what a reader returned."""
    return hashlib.sha256(pickle.dumps(value)).hexdigest()


def run_case(case, sound):
    """(outcome, message) of one case."""
    try:
        found = digest(READERS[case["reader"]](Path(case["path"])))
    except (ValueError, OSError) as error:
        message = " ".join(str(error).split())
        is_named = case["directory"] in message
        return ("refused" if is_named else "nameless"), f"{type(error).__name__}: {message}"
    except BaseException as error:
        return "wrong error", f"{type(error).__name__}: {error}"[:500]
    if found == sound.get((case["reader"], case["sound"])):
        return "unchanged", ""
    if case["corruption"] == "gone":
        return ("unlisted" if (case["reader"], case["format"]) in UNLISTED else "silent"), ""
    if case["corruption"] == "bomb":
        return "bounded", ""
    if case["corruption"] == "another file":
        return "undetectable", ""
    return ("undetectable" if case["format"] in NO_CHECKSUM else "silent"), ""


def run_cases(folder, first):
    cases = json.loads((folder / "cases.json").read_text())
    sound = {}
    for reader, path in {(case["reader"], case["sound"]) for case in cases if case["sound"]}:
        sound[reader, path] = digest(READERS[reader](Path(path)))
    print(json.dumps({"ready": True}), flush=True)
    for number in range(first, len(cases)):
        print(json.dumps({"started": number}), flush=True)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        outcome, message = run_case(cases[number], sound)
        growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        if growth > MAX_GROWTH:
            outcome, message = "memory", f"{growth >> 10} MiB; {message}"
        print(json.dumps({"number": number, "outcome": outcome, "message": message}), flush=True)


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    if sys.argv[1] == "make":
        Path(sys.argv[2], "sound").mkdir()
        make_cases(Path(sys.argv[2]))
    else:
        run_cases(Path(sys.argv[2]), int(sys.argv[3]))
