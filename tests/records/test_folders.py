"""Record folders together: what two of them must not share, and manifests and shards that contradict each other."""

from __future__ import annotations

import json

import pytest

from msst_keras.records import folders
from msst_keras.records.example import FrameRecord
from msst_keras.records.manifest import (
    build_manifest,
    check_manifest,
    check_motion,
    parse_json,
    read_manifest,
    write_manifest,
)
from msst_keras.records.options import LABEL_KINDS
from msst_keras.records.shard_files import check_framing, shard_path, write_shard


def write(folder, name="dog", frame=b"frame", dataset="davis", labelled=(0, 1), count=2):
    shard = [
        FrameRecord(name, str(i), i, 2, 3, frame, *((b"mask", "fine") if i in labelled else (None, None)))
        for i in range(count)
    ]
    write_shard(shard_path(folder, 0, 1), shard)
    write_manifest(folder, build_manifest(folder, 1, {"dataset": dataset}))
    return str(folder)


def test_a_sequence_to_train_and_to_validate_on_is_refused(tmp_path):
    train = write(tmp_path / "train")
    with pytest.raises(ValueError, match="the sequence 'dog' is in .*train to train on and in .*val to validate on"):
        folders.check_disjoint([train], [write(tmp_path / "val", frame=b"resized")])  # DAVIS has one dog
    with pytest.raises(ValueError, match="'dog' is in"):  # the same bytes
        folders.check_disjoint([train], [write(tmp_path / "copy", dataset="folder")])
    folders.check_disjoint([train], [write(tmp_path / "other", dataset="fbms", frame=b"another dog")])
    stills = [write(tmp_path / name, dataset="stills", frame=name.encode()) for name in ("duts", "msra")]
    folders.check_disjoint(stills[:1], stills[1:])  # "0001" of two datasets


def test_a_frame_labelled_in_two_folders_is_refused(tmp_path):
    first, second = write(tmp_path / "a", labelled=(0, 1)), write(tmp_path / "b", labelled=(1,))
    with pytest.raises(ValueError, match="frame 1 of the sequence 'dog' is labelled in both .*a and .*b"):
        folders.read_manifests([first, second])
    fine, coarse = write(tmp_path / "fine", labelled=(0,)), write(tmp_path / "coarse", labelled=(1,))
    assert list(folders.read_manifests([fine, coarse])) == [fine, coarse]
    cat = write(tmp_path / "cat", name="cat")
    assert list(folders.read_manifests([first, cat])) == [first, cat]


def test_a_shard_that_is_not_what_the_manifest_says_is_refused(tmp_path):
    folder = write(tmp_path / "a")
    path = shard_path(folder, 0, 1)
    content = path.read_bytes()
    half = len(content) // 2
    # Records of other lengths, with right checksums, in a file of the same size.
    write_shard(path, [FrameRecord("dog", "0", 0, 2, 3, b"x" * (len(content) - 200))])
    path.write_bytes(path.read_bytes().ljust(len(content), b"\0")[: len(content)])
    with pytest.raises(ValueError, match="corrupt after byte 0"):
        folders.read_manifests([folder])
    path.write_bytes(content)
    assert check_framing(str(path)) == [0, half]
    with pytest.raises(ValueError, match="holds 2 records, the manifest knows 3"):
        check_framing(str(path), {0, half, half + 1})
    path.write_bytes(content[: half + 5])
    with pytest.raises(ValueError, match=f"corrupt after byte {half} .the record there does not end inside its file"):
        check_framing(str(path))
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="no frame at all in this shard"):
        check_framing(str(path))
    path.unlink()
    with pytest.raises(FileNotFoundError, match="no such shard"):
        check_framing(str(path))


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("shards",), {}, "expected a list of shards, found '{}'"),
        (("sequences",), {}, "expected sequences, by name"),
        (("shards", 0), "x", "expected name, bytes, sha256"),
        (("shards", 0, "name"), "../x.tfrecord", "file name, without folders, found '../x.tfrecord'"),
        (("shards", 0, "bytes"), -1, "expected the bytes of shard-"),
        (("shards", 0, "sha256"), 1, "expected the SHA-256 of shard-"),
        (("sequences", "dog"), [], "expected shard, offsets, labelled of 'dog'"),
        (("sequences", "dog", "shard"), 1, "the number of a shard for 'dog', found '1'"),
        (("sequences", "dog", "offsets"), [4, 4], "ascending offsets of the frames of 'dog'"),
        (("sequences", "dog", "offsets"), [0, 10**9], "offsets of 'dog' inside its shard"),
        (("sequences", "dog", "labelled"), {"2": "fine"}, "the labelled frames of 'dog', 0 to 1"),
        (("sequences", "dog", "labelled"), {"1": "rough"}, "label kinds of 'dog' .fine, coarse."),
        (("num_frames",), 3, "num_frames to be the 2 of its sequences, found '3'"),
        (("num_labelled",), True, "num_labelled to be the 2 of its sequences"),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path, where, value, message):
    folder = write(tmp_path / "a")
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    inner = manifest
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    write_manifest(folder, manifest)
    with pytest.raises(ValueError, match=message):
        read_manifest(folder)


def test_two_sequences_at_one_place_and_two_shards_of_one_name_are_refused(tmp_path):
    folder = write(tmp_path / "a")
    manifest = read_manifest(folder)
    twice = {**manifest, "sequences": {name: manifest["sequences"]["dog"] for name in ("dog", "cat")}}
    with pytest.raises(ValueError, match="offsets of 'cat' that no other sequence has"):
        check_manifest(twice, "m", LABEL_KINDS)
    with pytest.raises(ValueError, match="expected each shard once"):
        check_manifest({**manifest, "shards": manifest["shards"] * 2}, "m", LABEL_KINDS)
    with pytest.raises(ValueError, match="m: expected motion settings"):
        check_motion({"motion": {"flow": {}}}, "m")
    with pytest.raises(ValueError, match="m: expected a JSON object, found list"):
        parse_json(b"[]", "m")
