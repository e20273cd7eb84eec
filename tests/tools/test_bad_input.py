"""What is wrong with an input is said in one sentence, with exit status 1, and nothing half-written is left."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from forked import msst

from msst_keras.records.example import FrameRecord
from msst_keras.records.manifest import build_manifest, write_manifest
from msst_keras.records.shard_files import shard_path, write_shard


@pytest.fixture
def davis(tmp_path):
    """One sequence of three frames with their masks."""
    generator = np.random.default_rng(0)
    for folder, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
        path = tmp_path / "davis" / folder / "480p" / "ball"
        path.mkdir(parents=True)
        for index in range(3):
            image = generator.integers(0, 256, (48, 64, 3) if suffix == "jpg" else (48, 64)).astype(np.uint8)
            cv2.imwrite(str(path / f"{index:05d}.{suffix}"), image if suffix == "jpg" else (image > 127) * 255)
    return tmp_path / "davis"


def missing_root(davis):
    return davis.rename(davis.with_name("moved")), "davis: no such folder"


def mask_without_frame(davis):
    (davis / "JPEGImages/480p/ball/00001.jpg").unlink()
    return None, "00001.png"


def frames_of_two_sizes(davis):
    cv2.imwrite(str(davis / "JPEGImages/480p/ball/00002.jpg"), np.zeros((50, 64, 3), np.uint8))
    return None, "frame 00002 is 50x64, but 00000 is 48x64"


def truncated_jpeg(davis):
    path = davis / "JPEGImages/480p/ball/00001.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    return None, "00001.jpg: cut off or damaged"


@pytest.mark.parametrize("spoil", [missing_root, mask_without_frame, frames_of_two_sizes, truncated_jpeg])
def test_a_bad_dataset(davis, tmp_path, spoil):
    message = spoil(davis)[1]
    result = msst("make_records", "--dataset=davis", f"--root={davis}", f"--output_dir={tmp_path}/out", "--prior=none")
    assert_one_sentence(result, "make_records", message)
    left = [path.name for path in (tmp_path / "out").glob("*")]
    assert left in ([], ["plan.json"])  # no shard, no manifest, nothing of another name


def test_an_unreadable_video(tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"no video at all" * 100)
    result = msst("make_records", "--dataset=video", f"--root={tmp_path}/film.mp4", f"--output_dir={tmp_path}/out")
    assert_one_sentence(result, "make_records", "film.mp4: not a readable video")
    assert not (tmp_path / "out").exists()


def test_records_of_another_format_version(tmp_path):
    folder = tmp_path / "records"
    write_shard(shard_path(folder, 0, 1), [FrameRecord("a", "0", 0, 2, 2, b"")])
    manifest = build_manifest(folder, 1, {"motion": {}})
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format_version": 7}))
    result = msst("train", f"--records={folder}", f"--run_dir={tmp_path}/run")
    assert_one_sentence(result, "train", "record format version 7, but this program reads version 1")
    assert not (tmp_path / "run").exists()


def write_records(folder, sequences=("a",), grey=0, motion=None):
    image = np.full((48, 64, 3), grey, np.uint8)
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 10:30] = 255
    encoded = [cv2.imencode(".png", each)[1].tobytes() for each in (image, mask, mask)]
    frames = [FrameRecord(name, "0", 0, 48, 64, encoded[0], encoded[1], "fine", encoded[2]) for name in sequences]
    write_shard(shard_path(folder, 0, 1), frames)
    motion = {"flow": {}, "superpixels": None, "prior": {"kind": "magnitude"}, "flow_stored": False} | (motion or {})
    write_manifest(folder, build_manifest(folder, 1, {"dataset": "davis", "motion": motion}))
    return folder


def test_records_that_are_damaged(tmp_path):
    folder = write_records(tmp_path / "records")
    shard = shard_path(folder, 0, 1)
    content = bytearray(shard.read_bytes())
    content[200] ^= 1
    shard.write_bytes(content)
    place = f"{shard}: corrupt after byte 0"
    train = ("train", f"--records={folder}", f"--run_dir={tmp_path}/run", "--variant=os", "--weights=none")
    result = msst(*train, "--width=0.05", "--image_sizes=33x33", "--steps=2")  # met while training
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1 and last.startswith("msst train: ") and place in last, result.stderr
    assert "Traceback" not in result.stderr
    result = msst("inspect_records", f"--records={folder}", "--verify")
    assert result.returncode == 1 and f"msst inspect_records: {shard}: SHA-256" in result.stderr.splitlines()[-1]
    result = msst("inspect_records", f"--records={folder}", f"--output={tmp_path}/sheet.png")
    assert result.returncode == 1 and f"{shard}: corrupt at byte 0" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "sheet.png").exists()
    (folder / "manifest.json").write_text('{"format_version": 1, "shards": {}}')
    assert_one_sentence(msst("inspect_records", f"--records={folder}"), "inspect_records", "expected a list of shards")


def test_validation_on_what_is_trained_on(tmp_path):
    folder, val = write_records(tmp_path / "train", ("a", "b")), write_records(tmp_path / "val", ("b", "c"), grey=9)
    result = msst("train", f"--records={folder}", f"--val_records={val}", f"--run_dir={tmp_path}/run", "--variant=os")
    assert_one_sentence(result, "train", f"the sequence 'b' is in {folder} to train on and in {val} to validate on")
    assert not (tmp_path / "run").exists()


def test_a_model_folder_that_is_none(davis, tmp_path):
    frames = davis / "JPEGImages/480p/ball"
    result = msst("predict", f"--model={tmp_path}/davis", f"--input={frames}", f"--output_dir={tmp_path}/maps")
    assert_one_sentence(result, "predict", "no SavedModel here")
    assert not (tmp_path / "maps").exists()


def test_maps_that_do_not_fit_the_masks(davis, tmp_path):
    arguments = (f"--predictions={tmp_path}/maps", f"--ground_truth={davis}", f"--output_dir={tmp_path}/out")
    assert_one_sentence(msst("evaluate", *arguments), "evaluate", "maps: no such folder")
    maps = tmp_path / "maps" / "ball"
    maps.mkdir(parents=True)
    for name in ("00000", "00001", "extra"):
        cv2.imwrite(str(maps / f"{name}.png"), np.zeros((48, 64), np.uint8))
    result = msst("evaluate", *arguments)
    assert_one_sentence(
        result, "evaluate", "1 of 3 masks have no map (ball/00002); 1 maps belong to no frame (ball/extra)"
    )
    (maps / "extra.png").rename(maps / "00002.png")
    cv2.imwrite(str(maps / "00001.png"), np.zeros((48, 64, 3), np.uint8))
    assert_one_sentence(msst("evaluate", *arguments), "evaluate", "ball/00001.png: a map must be 8-bit grey")
    assert not (tmp_path / "out").exists()


def assert_one_sentence(result, job, message):
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1, result.stderr
    assert last.startswith(f"msst {job}: ") and message in last, last
    assert "Traceback" not in result.stderr and result.stdout == ""
