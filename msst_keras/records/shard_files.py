"""Shards: the TFRecord files of a record folder, written, scanned, and read from a byte offset on.

A record whose length is larger than its file, the length's own checksum right, is found before TensorFlow takes that
memory (see `check_framing`).
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import tensorflow as tf

from msst_keras.files import hash_file, publish
from msst_keras.records.example import FrameRecord, decode_record, encode_record

MEND = "run the same `msst make_records` with --overwrite"  # of a damaged shard

FRAMING_BYTES = 16  # of a TFRecord: length (8), its CRC (4), the CRC of the data (4)


def shard_path(folder: str | Path, index: int, num_shards: int) -> Path:
    """The path of shard `index` of `num_shards`."""
    return Path(folder) / f"shard-{index:05d}-of-{num_shards:05d}.tfrecord"


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
    check_framing(str(path))
    offset = 0
    try:
        for serialized in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            yield offset, decode_record(serialized, path)
            offset += len(serialized) + FRAMING_BYTES
    except tf.errors.OpError as error:
        reason = error.message.partition("}} ")[2] or error.message  # what comes before names nodes of a graph
        reason = reason.partition(" [Op:")[0]
        raise ValueError(f"{path}: corrupt after byte {offset} ({reason}); {MEND}") from error


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
        raise ValueError(f"{path}: corrupt at byte {offset}; {MEND}") from error
    return decode_record(serialized, f"{path} at byte {offset}")


def describe_shard(path: str | Path) -> dict:
    """Reads a shard back, all checksums verified, and returns what its manifest says of it.

    Memory does not depend on the shard's size, and what is returned on who wrote it when: a manifest that a restarted
    conversion builds is that of an undisturbed one.

    Returns:
      {"name", "bytes", "sha256", "sequences": {name: {"offsets": [...], "labelled": {index: label kind}}}}.

    Raises:
      ValueError: see `scan_shard`; a sequence that is out of order or has a frame twice.
    """
    path = Path(path)
    sequences: dict[str, dict] = {}
    for offset, record in scan_shard(path):
        entry = sequences.setdefault(record.sequence, {"offsets": [], "labelled": {}})
        if record.index != len(entry["offsets"]):
            raise ValueError(f"{path}: frame {record.index} of '{record.sequence}' is out of order or there twice")
        if record.mask is not None:
            entry["labelled"][str(record.index)] = record.label_kind
        entry["offsets"].append(offset)
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": hash_file(path), "sequences": sequences}


def check_framing(path: str, offsets: Collection[int] | None = None) -> list[int]:
    """Checks that each record of a shard, and its last byte, lies inside the file.

    Args:
      path: the shard.
      offsets: where the manifest says that its records begin, all of them; None follows the lengths alone.

    Returns:
      the byte offset of each record.

    Raises:
      FileNotFoundError: no such file.
      ValueError: an empty file; a length that leads beyond the file, or not to where the manifest has the next record.
    """
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        raise FileNotFoundError(f"{path}: no such shard; make the records again")
    size, offset, found = tf.io.gfile.stat(path).length, 0, []
    if not size:
        raise ValueError(f"{path}: no frame at all in this shard; make it again")
    expected = None if offsets is None else {*offsets, size}
    with open(path, "rb") if "://" not in path else tf.io.gfile.GFile(path, "rb") as file:
        while offset < size:
            file.seek(offset)
            header = file.read(12)
            end = offset + FRAMING_BYTES + struct.unpack("<Q", header[:8])[0] if len(header) == 12 else size + 1
            if end > size or (expected is not None and end not in expected):
                where = "inside its file" if end > size else "where the manifest has the next one"
                raise ValueError(f"{path}: corrupt after byte {offset} (the record there does not end {where}); {MEND}")
            found.append(offset)
            offset = end
    if offsets is not None and set(found) != set(offsets):
        raise ValueError(f"{path}: holds {len(found)} records, the manifest knows {len(offsets)}; {MEND}")
    return found
