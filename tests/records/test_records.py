"""The record contract: bytes, round trips, manifest, and each error."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib

import pytest
import tensorflow as tf

from msst_keras.records.example import FrameRecord, decode_record, encode_record
from msst_keras.records.manifest import build_manifest, read_manifest, write_manifest
from msst_keras.records.shard_files import describe_shard, read_record, scan_shard, shard_path, write_shard

RECORD = FrameRecord("a", "00000", 0, 2, 3, b"frame", b"mask", "fine", b"prior", b"flow")


def write_folder(folder, shards, description=None):
    for number, shard in enumerate(shards):
        write_shard(shard_path(folder, number, len(shards)), shard)
    manifest = build_manifest(folder, len(shards), description or {"motion": {}})
    write_manifest(folder, manifest)
    return manifest


def test_a_record_survives_encoding():
    assert decode_record(encode_record(RECORD)) == RECORD


def test_absent_parts_stay_absent():
    bare = FrameRecord("a", "00000", 0, 2, 3, b"frame")
    assert decode_record(encode_record(bare)) == bare
    example = tf.train.Example.FromString(encode_record(bare))
    assert "mask" not in example.features.feature


def test_large_records_are_valid_examples():
    # Lengths of one, two, three and four bytes in the outer message.
    for size in (10, 200, 20_000, 3_000_000):
        record = dataclasses.replace(RECORD, frame=b"x" * size)
        example = tf.train.Example.FromString(encode_record(record))
        assert example.features.feature["frame"].bytes_list.value[0] == record.frame


def test_bytes_are_in_the_order_of_the_table():
    encoded = encode_record(RECORD)
    keys = ("version", "sequence", "name", "index", "height", "width", "frame", "mask", "label_kind", "prior", "flow")
    positions = [encoded.index(b"\n" + bytes([len(key)]) + key.encode()) for key in keys]
    assert positions == sorted(positions)


def test_offsets_of_the_manifest_lead_to_the_frames(tmp_path):
    frames = [dataclasses.replace(RECORD, index=i, name=f"{i:05d}", frame=b"x" * (100 * i)) for i in range(3)]
    frames[1] = dataclasses.replace(frames[1], mask=None, label_kind=None)
    manifest = write_folder(tmp_path, [frames, [dataclasses.replace(RECORD, sequence="b")]])
    assert manifest["sequences"]["a"]["labelled"] == {"0": "fine", "2": "fine"}
    assert (manifest["num_frames"], manifest["num_labelled"]) == (4, 3)
    content = (tmp_path / manifest["shards"][0]["name"]).read_bytes()
    for frame, offset in zip(frames, manifest["sequences"]["a"]["offsets"], strict=True):
        length = int.from_bytes(content[offset : offset + 8], "little")
        assert decode_record(content[offset + 12 : offset + 12 + length]) == frame
    assert read_manifest(tmp_path) == json.loads((tmp_path / "manifest.json").read_text())


def test_another_format_version_is_refused(tmp_path, monkeypatch):
    for module in ("example", "manifest"):
        monkeypatch.setattr(f"msst_keras.records.{module}.FORMAT_VERSION", 2)
    write_folder(tmp_path, [[RECORD]])
    encoded = encode_record(RECORD)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="format version 2, but this program reads version 1"):
        read_manifest(tmp_path)
    with pytest.raises(ValueError, match="x.tfrecord: record format version 2"):
        decode_record(encoded, "x.tfrecord")


def test_what_is_no_record_is_refused():
    with pytest.raises(ValueError, match="no tf.train.Example"):
        decode_record(b"\xff\xff\xff", "x.tfrecord")
    features = {"version": tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))}
    example = tf.train.Example(features=tf.train.Features(feature=features))
    with pytest.raises(ValueError, match="without the key 'sequence'"):
        decode_record(example.SerializeToString(), "x.tfrecord")


@pytest.mark.parametrize("position", [3, 14, 60])
def test_a_flipped_bit_is_noticed(tmp_path, position):
    write_folder(tmp_path, [[RECORD]])
    path = shard_path(tmp_path, 0, 1)
    content = bytearray(path.read_bytes())
    content[position] ^= 4
    path.write_bytes(content)
    with pytest.raises(ValueError, match="corrupt after byte 0"):
        list(scan_shard(path))


def test_damaged_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no record folder"):
        read_manifest(tmp_path)
    write_folder(tmp_path, [[RECORD]])
    path = shard_path(tmp_path, 0, 1)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="bytes, but the manifest says"):
        read_manifest(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="this shard is missing"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        read_manifest(tmp_path)


def test_a_frame_twice_or_a_sequence_in_two_shards_is_refused(tmp_path):
    with pytest.raises(ValueError, match="frame 0 of 'a' is out of order or there twice"):
        write_folder(tmp_path / "twice", [[RECORD, RECORD]])
    with pytest.raises(ValueError, match="sequence 'a' is in two shards"):
        write_folder(tmp_path / "two", [[RECORD], [RECORD]])
    with pytest.raises(ValueError, match="no frame at all"):
        write_folder(tmp_path / "empty", [[]])


def test_a_shard_appears_only_when_whole(tmp_path):
    def broken():
        yield RECORD
        raise ValueError("the input ends here")

    with pytest.raises(ValueError, match="ends here"):
        write_shard(tmp_path / "shard", broken())
    assert list(tmp_path.iterdir()) == []


def test_a_shard_is_described_without_holding_it(tmp_path, monkeypatch):
    path = shard_path(tmp_path, 0, 1)
    write_shard(path, [dataclasses.replace(RECORD, index=i, frame=b"x" * 100_000) for i in range(30)])
    content = path.read_bytes()
    monkeypatch.setattr(pathlib.Path, "read_bytes", None)  # the way to hold it
    description = describe_shard(path)
    assert (description["bytes"], description["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert len(description["sequences"]["a"]["offsets"]) == 30
    assert build_manifest(tmp_path, 1, {})["shards"] == [
        {"name": path.name, "bytes": len(content), "sha256": description["sha256"]}
    ]


def test_values_of_wrong_types_are_refused():
    def feature(value):
        kind = {"int64_list": tf.train.Int64List} if isinstance(value, int) else {"bytes_list": tf.train.BytesList}
        return tf.train.Feature(**{name: make(value=[value]) for name, make in kind.items()})

    sound = {"version": 1, **dataclasses.asdict(RECORD)}
    sound = {key: value.encode() if isinstance(value, str) else value for key, value in sound.items()}
    for key, value, message in (
        ("frame", 3, "'frame' is 1 of int64_list, expected 1 of bytes_list"),
        ("height", b"3", "'height' is 1 of bytes_list, expected 1 of int64_list"),
        ("sequence", b"\xff", "'sequence' is no text"),
        ("height", 0, "frame 0 of 0x3 pixels"),
        ("index", -1, "frame -1 of 2x3 pixels"),
        ("label_kind", b"rough", "one of fine, coarse, not rough"),
    ):
        features = tf.train.Features(feature={name: feature(each) for name, each in (sound | {key: value}).items()})
        with pytest.raises(ValueError, match=f"x.tfrecord: .*{message}"):
            decode_record(tf.train.Example(features=features).SerializeToString(), "x.tfrecord")


def test_one_record_is_read_by_its_offset(tmp_path):
    frames = [dataclasses.replace(RECORD, index=index, name=str(index)) for index in range(3)]
    manifest = write_folder(tmp_path, [frames])
    path, offset = shard_path(tmp_path, 0, 1), manifest["sequences"]["a"]["offsets"][2]
    assert read_record(path, offset) == frames[2]
    with pytest.raises(ValueError, match=f"{path}: corrupt at byte {offset + 1}"):
        read_record(path, offset + 1)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(ValueError, match="manifest.json: expected a file, found a folder"):
        read_manifest(tmp_path)
