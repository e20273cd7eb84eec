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
from collections.abc import Iterable, Iterator
from pathlib import Path

import tensorflow as tf

from msst_keras.files import publish

FORMAT_VERSION = 1
LABEL_KINDS = ("fine", "coarse")
MANIFEST_NAME = "manifest.json"
_FRAMING_BYTES = 16  # of a TFRecord: length (8), its CRC (4), the CRC of the data (4)


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
      ValueError: not an Example, a key is missing, or another format version; names `path`.
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
        text = field.name in ("sequence", "name", "label_kind")
        values[field.name] = content[0].decode() if text else content[0]
    return FrameRecord(**values)


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
    offset = 0
    try:
        for serialized in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            yield offset, decode_record(serialized, path)
            offset += len(serialized) + _FRAMING_BYTES
    except (tf.errors.DataLossError, tf.errors.OutOfRangeError) as error:
        raise ValueError(f"{path}: corrupt after byte {offset} ({error.message}); make this shard again") from error


def shard_path(folder: str | Path, index: int, num_shards: int) -> Path:
    """The path of shard `index` of `num_shards`."""
    return Path(folder) / f"shard-{index:05d}-of-{num_shards:05d}.tfrecord"


def build_manifest(folder: str | Path, num_shards: int, description: dict) -> dict:
    """Reads the shards of a folder back and returns their manifest: `description` and what the shards hold.

    `description` tells how the records were made (dataset, split, motion: flow, superpixel and prior settings).

    Raises:
      ValueError: a sequence that is in two shards, out of order or has a frame twice; no frame at all.
    """
    shards, sequences = [], {}
    for number in range(num_shards):
        path = shard_path(folder, number, num_shards)
        for offset, record in scan_shard(path):
            entry = sequences.setdefault(
                record.sequence,
                {"shard": number, "offsets": [], "labelled": {}},
            )
            if entry["shard"] != number or record.index != len(entry["offsets"]):
                raise ValueError(f"{path}: frame {record.index} of '{record.sequence}' is out of order or there twice")
            if record.mask is not None:
                entry["labelled"][str(record.index)] = record.label_kind
            entry["offsets"].append(offset)
        content = path.read_bytes()
        shards.append({"name": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    if not sequences:
        raise ValueError(f"{folder}: no frame at all was written; look at the input")
    return {
        "format_version": FORMAT_VERSION,
        **description,
        "num_frames": sum(len(entry["offsets"]) for entry in sequences.values()),
        "num_labelled": sum(len(entry["labelled"]) for entry in sequences.values()),
        "shards": shards,
        "sequences": dict(sorted(sequences.items())),
    }


def write_manifest(folder: str | Path, manifest: dict) -> None:
    """Writes `manifest.json`; the last file of a record folder, so that a folder with one is whole."""
    with publish(Path(folder) / MANIFEST_NAME) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n")


def read_manifest(folder: str | Path) -> dict:
    """Reads and checks the manifest of a record folder (a local path or one that `tf.io.gfile` knows).

    Raises:
      FileNotFoundError: no manifest (the conversion never ended, or this is no record folder), or a shard is missing.
      ValueError: another format version, or a shard of another size than when it was written.
    """
    path = f"{folder}/{MANIFEST_NAME}"
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(f"{path}: not found; this is no record folder, or `msst make_records` has not finished")
    with tf.io.gfile.GFile(path) as file:
        try:
            manifest = json.load(file)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not valid JSON ({error}); make the records again") from error
    check_version(manifest.get("format_version"), path)
    for shard in manifest["shards"]:
        shard_file = f"{folder}/{shard['name']}"
        if not tf.io.gfile.exists(shard_file):
            raise FileNotFoundError(f"{shard_file}: this shard is missing; run the same `msst make_records` again")
        size = tf.io.gfile.stat(shard_file).length
        if size != shard["bytes"]:
            raise ValueError(f"{shard_file}: {size} bytes, but the manifest says {shard['bytes']}; make it again")
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
