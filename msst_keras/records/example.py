"""The record contract: what a record folder is, and what one `tf.train.Example` in it holds.

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
| prior | bytes | 8-bit PNG at motion_size, grey, or RGB with --prior=flow; absent with --prior=none |
| flow | bytes | 16-bit PNG at motion_size (`flow_files.encode_flow_png`); absent without --store_flow |
"""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import numpy as np
import tensorflow as tf

from msst_keras.data import flow_files, images
from msst_keras.data.file_names import printable
from msst_keras.records.options import LABEL_KINDS

FORMAT_VERSION = 1
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
    for text in (record.sequence, record.name):
        if printable(text) != text:
            raise ValueError(f"{path}: a record of '{printable(text)}', a name of control characters; make it again")
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


def check_images(record: FrameRecord, place: str) -> None:
    """Decodes the images of a record.

    Raises:
      ValueError: one is damaged, or not of the size that the record gives; names `place` and the image.
    """
    size = (record.height, record.width)
    for key in ("frame", "mask"):
        encoded = getattr(record, key)
        found = size if encoded is None else images.header_size(encoded, f"{place}: {key}")
        if found != size:  # known before it is decoded
            raise ValueError(f"{place}: {key} of size {found}, expected {size}; make the records again")
    for key in ("frame", "mask", "prior"):
        if (encoded := getattr(record, key)) is not None:
            images.decode_frame(encoded, f"{place}: {key}")
    if record.flow is not None and np.isnan(flow_files.decode_flow_png(record.flow, f"{place}: flow")).any():
        raise ValueError(f"{place}: flow that is unknown in places; make the records again")


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
