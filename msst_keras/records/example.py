"""The record contract: what one `tf.train.Example` holds, how shards are written, and the manifest beside them.

A record folder:

    manifest.json                 what the shards hold and how it was made
    shard-00000-of-00004.tfrecord
    ...

One Example per frame; a sequence lies whole and in order inside one shard. The manifest knows the byte offset of every
frame, so that a clip is read by one seek and training can start at any step.

| key | type | |
|---|---|---|
| version | int64 | FORMAT_VERSION |
| sequence, name | bytes | sequence and frame name |
| index | int64 | position in the sequence |
| height, width | int64 | of the frame |
| frame | bytes | JPEG or PNG as it was on disk |
| mask | bytes | grey PNG, 0 and 255, of the frame's size; absent where there is no label |
| label_kind | bytes | "fine" or "coarse"; absent with the mask |
| prior | bytes | grey 8-bit PNG at motion_size; absent with --prior=none |
| flow | bytes | 16-bit PNG at motion_size (`images.encode_flow_png`); absent without --store_flow |
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from msst_keras.data import images
from msst_keras.files import publish
from msst_keras.records import manifest as record_checks

FORMAT_VERSION = 1
LABEL_KINDS = ("fine", "coarse")
MANIFEST_NAME = "manifest.json"
_INTEGERS = ("index", "height", "width")
_TEXTS = ("sequence", "name", "label_kind")


@dataclasses.dataclass(frozen=True)
class FrameRecord:
    """One frame as it is stored; images are encoded bytes (see the module's table), None where there is none."""

    sequence: str
    name: str
    index: int
    height: int
    width: int
    frame: bytes
    mask: bytes | None = None
    label_kind: str | None = None
    prior: bytes | None = None
    flow: bytes | None = None


def encode_record(record: FrameRecord) -> bytes:
    """Serialises a record to the bytes of a `tf.train.Example`, the same bytes in every process.

    `Example.SerializeToString` orders its features differently from process to process; here they are in a fixed order:
    a message of several parts is those parts one after the other, so each feature is serialised by itself.
    """
    values = {"version": FORMAT_VERSION, **dataclasses.asdict(record)}
    features = b"".join(
        tf.train.Features(feature={key: _feature(value)}).SerializeToString()
        for key, value in values.items()
        if value is not None
    )
    return b"\x0a" + _varint(len(features)) + features  # field 1 of Example, length-delimited


def decode_record(serialized: bytes, path: str | Path = "record") -> FrameRecord:
    """The inverse of `encode_record`.

    Raises:
      ValueError: not an Example, a key is missing or of a wrong type, or another format version; names `path`.
    """
    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except Exception as error:  # protobuf's own DecodeError
        raise ValueError(f"{path}: holds something that is no tf.train.Example ({error})") from error
    version = features["version"].int64_list.value[0] if features["version"].int64_list.value else None
    check_version(version, path)
    values = {}
    for field in dataclasses.fields(FrameRecord):
        feature = features[field.name] if field.name in features else None
        kind = feature.WhichOneof("kind") if feature is not None else None
        content = getattr(feature, kind).value if kind else ()
        if not content:
            if field.default is dataclasses.MISSING:
                raise ValueError(f"{path}: a record without the key '{field.name}'; make the records again")
            continue
        expected = "int64_list" if field.name in _INTEGERS else "bytes_list"
        if kind != expected or len(content) != 1:
            raise ValueError(
                f"{path}: a record whose '{field.name}' is {len(content)} of {kind}, expected 1 of {expected}; "
                "make the records again"
            )
        try:
            values[field.name] = content[0].decode() if field.name in _TEXTS else content[0]
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: a record whose '{field.name}' is no text ({error})") from error
    record = FrameRecord(**values)
    if record.index < 0 or min(record.height, record.width) < 1:
        raise ValueError(
            f"{path}: frame {record.index} of {record.height}x{record.width} pixels; make the records again"
        )
    if (record.mask is None) != (record.label_kind is None) or record.label_kind not in (None, *LABEL_KINDS):
        raise ValueError(
            f"{path}: a mask needs its label kind, one of {', '.join(LABEL_KINDS)}, not {record.label_kind}"
        )
    return record


def check_version(version: int | None, path: str | Path) -> None:
    """Raises ValueError unless `version` is the format version that this program reads and writes."""
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: record format version {version}, but this program reads version {FORMAT_VERSION}; "
            "make the records again with `msst make_records`"
        )


def write_shard(path: str | Path, records: Iterable[FrameRecord]) -> None:
    """Writes one TFRecord shard; it appears under its name only when whole."""
    with publish(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
        for record in records:
            writer.write(encode_record(record))


def scan_shard(path: str | Path) -> Iterator[tuple[int, FrameRecord]]:
    """Yields (byte offset, record) of every frame in a shard, all checksums verified.

    Raises:
      ValueError: a truncated or corrupt shard, or records of another format version.
    """
    record_checks.check_framing(str(path))
    offset = 0
    try:
        for serialized in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            yield offset, decode_record(serialized, path)
            offset += len(serialized) + record_checks.FRAMING_BYTES
    except tf.errors.OpError as error:
        reason = error.message.partition("}} ")[2] or error.message  # what comes before names nodes of a graph
        reason = reason.partition(" [Op:")[0]
        raise ValueError(f"{path}: corrupt after byte {offset} ({reason}); make this shard again") from error


def read_serialized(path: tf.Tensor, offset: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """`count` consecutive records of a shard from a byte offset on, checksums verified: (count,) strings.

    Works in a graph too. Errors are TensorFlow's own (`tf.errors.OpError`).
    """
    # The public TFRecordDataset cannot start at an offset; its operation can.
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[path], compression_type="", buffer_size=tf.constant(1 << 18, tf.int64), byte_offsets=[offset]
    )
    dataset = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))
    return dataset.take(count).batch(count).get_single_element()


def read_record(path: str | Path, offset: int) -> FrameRecord:
    """Reads the record at a byte offset of a shard (one that the manifest knows), its checksum verified.

    Raises:
      ValueError: it is corrupt; names `path` and the offset.
    """
    try:
        (serialized,) = read_serialized(str(path), offset, 1).numpy()
    except tf.errors.OpError as error:
        raise ValueError(f"{path}: corrupt at byte {offset}; make this shard again") from error
    return decode_record(serialized, f"{path} at byte {offset}")


def check_images(record: FrameRecord, place: str) -> None:
    """Decodes the images of a record.

    Raises:
      ValueError: one is damaged, or not of the size that the record gives; names `place` and the image.
    """
    size = (record.height, record.width)
    decoded = {"frame": images.decode_frame(record.frame, f"{place}: frame").shape[:2]}
    for key in ("mask", "prior"):
        encoded = getattr(record, key)
        if encoded is not None:
            decoded[key] = images.decode_frame(encoded, f"{place}: {key}").shape[:2]
    for key in ("frame", "mask"):
        if decoded.get(key, size) != size:
            raise ValueError(f"{place}: {key} of size {decoded[key]}, expected {size}; make the records again")
    if record.flow is not None and np.isnan(images.decode_flow_png(record.flow, f"{place}: flow")).any():
        raise ValueError(f"{place}: flow that is unknown in places; make the records again")


def shard_path(folder: str | Path, index: int, num_shards: int) -> Path:
    """The path of shard `index` of `num_shards`."""
    return Path(folder) / f"shard-{index:05d}-of-{num_shards:05d}.tfrecord"


def describe_shard(path: str | Path) -> dict:
    """Reads a shard back, all checksums verified, and returns what its manifest says of it.

    Memory does not depend on the shard's size, and what is returned on who wrote it when: a manifest that a restarted
    conversion builds is that of an undisturbed one.

    Returns:
      {"name", "bytes", "sha256", "sequences": {name: {"offsets": [...], "labelled": {index: label kind}}}}.

    Raises:
      ValueError: see `scan_shard`; a sequence that is out of order or has a frame twice.
    """
    path, sequences = Path(path), {}
    for offset, record in scan_shard(path):
        entry = sequences.setdefault(record.sequence, {"offsets": [], "labelled": {}})
        if record.index != len(entry["offsets"]):
            raise ValueError(f"{path}: frame {record.index} of '{record.sequence}' is out of order or there twice")
        if record.mask is not None:
            entry["labelled"][str(record.index)] = record.label_kind
        entry["offsets"].append(offset)
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": hash_file(path), "sequences": sequences}


def hash_file(path: str | Path) -> str:
    """The SHA-256 of a file, read piece by piece."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def join_manifest(folder: str | Path, shards: Sequence[dict], description: dict) -> dict:
    """The manifest of a folder from what `describe_shard` says of its shards, in order.

    `description` tells how the records were made (dataset, split, motion: flow, superpixel and prior settings).

    Raises:
      ValueError: a sequence that is in two shards; no frame at all.
    """
    sequences = {}
    for number, shard in enumerate(shards):
        for name, entry in shard["sequences"].items():
            if name in sequences:
                raise ValueError(f"{folder}: sequence '{name}' is in two shards; make the records again")
            sequences[name] = {"shard": number, **entry}
    if not sequences:
        raise ValueError(f"{folder}: no frame at all was written; look at the input")
    return {
        "format_version": FORMAT_VERSION,
        **description,
        "num_frames": sum(len(entry["offsets"]) for entry in sequences.values()),
        "num_labelled": sum(len(entry["labelled"]) for entry in sequences.values()),
        "shards": [{key: shard[key] for key in ("name", "bytes", "sha256")} for shard in shards],
        "sequences": dict(sorted(sequences.items())),
    }


def build_manifest(folder: str | Path, num_shards: int, description: dict) -> dict:
    """Reads the shards of a folder back, one after the other, and returns their manifest; see `join_manifest`."""
    shards = [describe_shard(shard_path(folder, number, num_shards)) for number in range(num_shards)]
    return join_manifest(folder, shards, description)


def write_manifest(folder: str | Path, manifest: dict) -> None:
    """Writes `manifest.json`; the last file of a record folder, so that a folder with one is whole."""
    with publish(Path(folder) / MANIFEST_NAME) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n")


def read_manifest(folder: str | Path) -> dict:
    """Reads and checks the manifest of a record folder (a local path or one that `tf.io.gfile` knows) and its shards.

    Raises:
      FileNotFoundError: no manifest (the conversion never ended, or this is no record folder), or a shard is missing.
      ValueError: another format version, a damaged manifest, or a shard of another size than when it was written.
    """
    manifest = load_manifest(folder)
    for shard in manifest["shards"]:
        shard_file = f"{folder}/{shard['name']}"
        if not tf.io.gfile.exists(shard_file):
            raise FileNotFoundError(f"{shard_file}: this shard is missing; run the same `msst make_records` again")
        size = tf.io.gfile.stat(shard_file).length
        if size != shard["bytes"]:
            raise ValueError(
                f"{shard_file}: {size} bytes, but the manifest says {shard['bytes']}; run the same "
                "`msst make_records` again"
            )
    return manifest


def load_manifest(folder: str | Path) -> dict:
    """Reads and checks the manifest alone; the shards may be missing.

    Raises:
      FileNotFoundError: no manifest.
      ValueError: another format version, or a damaged manifest.
    """
    path = f"{folder}/{MANIFEST_NAME}"
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(f"{path}: not found; this is no record folder, or `msst make_records` has not finished")
    if tf.io.gfile.isdir(path):
        raise ValueError(f"{path}: expected a file, found a folder; make the records again")
    with tf.io.gfile.GFile(path, "rb") as file:
        manifest = record_checks.parse_json(file.read(), path)
    check_version(manifest.get("format_version"), path)
    record_checks.check_manifest(manifest, path, LABEL_KINDS)
    return manifest


def _feature(value: int | str | bytes) -> tf.train.Feature:
    if isinstance(value, int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    data = value.encode() if isinstance(value, str) else value
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes(encoded + struct.pack("B", value))
