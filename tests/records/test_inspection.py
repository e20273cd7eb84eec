"""What inspect_records says of a folder, and what --verify finds that no checksum does."""

from __future__ import annotations

import numpy as np
import pytest

from msst_keras.data import flow_files, images
from msst_keras.records import inspection
from msst_keras.records.example import FrameRecord
from msst_keras.records.manifest import build_manifest, write_manifest
from msst_keras.records.shard_files import shard_path, write_shard

IMAGE = np.arange(96, dtype=np.uint8).reshape(4, 8, 3)
GREY = images.encode_png(IMAGE[..., 0])
MOTION = {"flow": {"method": "dis"}, "superpixels": None, "prior": {"kind": "magnitude"}, "flow_stored": False}


def write(folder, lengths=(3, 1), **changed):
    frames = []
    for number, length in enumerate(lengths):
        for index in range(length):
            mask = {"mask": GREY, "label_kind": "coarse"} if index < 2 else {}
            parts = {"frame": images.encode_png(IMAGE), "prior": GREY, **mask, **changed}
            frames.append(FrameRecord(f"s{number}", f"{index:05d}", index, 4, 8, **parts))
    write_shard(shard_path(folder, 0, 1), frames)
    manifest = build_manifest(folder, 1, {"dataset": "davis", "split": "val", "motion": MOTION})
    write_manifest(folder, manifest)
    return manifest


def test_counts_and_settings_are_said(tmp_path):
    lines = inspection.describe_folder("here", write(tmp_path))
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert rows["sequence"] == ["frames", "fine", "coarse", "unlabelled"]
    assert (rows["s0"], rows["s1"], rows["all"]) == (["3", "0", "2", "1"], ["1", "0", "1", "0"], ["4", "0", "3", "1"])
    assert rows["shard-00000-of-00001.tfrecord"][0] == "4"
    assert "  dataset davis, split val" in lines and "  flow: method dis; not stored" in lines


def test_frames_are_chosen_evenly(tmp_path):
    manifest = write(tmp_path, (4, 1, 9))
    assert inspection.choose_frames(manifest, 2) == [("s0", 1), ("s2", 1)]  # of the labelled, the middle
    assert inspection.choose_frames(manifest, 7) == [("s0", 0), ("s0", 1), ("s1", 0), ("s2", 0), ("s2", 1)]
    record = inspection.read_frame_record(str(tmp_path), manifest, "s2", 1)
    assert (record.sequence, record.index) == ("s2", 1)
    with pytest.raises(ValueError, match="holds frame 0 of 's0', expected frame 0 of 's1'"):
        manifest["sequences"]["s1"]["offsets"] = [0]
        inspection.read_frame_record(str(tmp_path), manifest, "s1", 0)


def test_sizes_are_means_of_the_frames_that_have_the_feature(tmp_path):
    write(tmp_path)
    sizes = inspection.verify_folder(str(tmp_path))
    assert sizes == pytest.approx({"frame": len(images.encode_png(IMAGE)) / 1024, "mask": len(GREY) / 1024,
                                   "prior": len(GREY) / 1024})  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"frame": b"no image"}, "byte 0, frame 0 of 's0': frame: not a readable image"),
        ({"prior": GREY[:-9]}, "prior: cut off or damaged"),
        ({"mask": images.encode_png(IMAGE[:2, :, 0]), "label_kind": "fine"}, "mask of size .2, 8., expected .4, 8."),
        (
            {"flow": flow_files.encode_flow_png(np.full((4, 8, 2), np.nan, np.float32))},
            "flow that is unknown in places",
        ),
        ({"flow": GREY}, "flow: a flow PNG has 16 bits"),
    ],
)
def test_images_that_are_none_are_found(tmp_path, changed, message):
    write(tmp_path, **changed)
    with pytest.raises(ValueError, match=message):
        inspection.verify_folder(str(tmp_path))


def test_another_hash_or_label_is_found(tmp_path):
    manifest = write(tmp_path)
    manifest["sequences"]["s0"]["labelled"] = {"0": "fine", "1": "coarse"}
    write_manifest(tmp_path, manifest)
    with pytest.raises(ValueError, match=r"byte 0 holds \('s0', 0, 'coarse'\), the manifest says \('s0', 0, 'fine'\)"):
        inspection.verify_folder(str(tmp_path))
    manifest["shards"][0]["sha256"] = "0"
    write_manifest(tmp_path, manifest)
    with pytest.raises(ValueError, match="SHA-256 .*, but the manifest says 0; run the same"):
        inspection.verify_folder(str(tmp_path))
