"""`msst train_prior`: a prior with features of the frame, its report on held-out records, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from msst_keras.data import flow_files, images
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.prior import load_prior
from msst_keras.pipeline import clip_index
from msst_keras.pipeline.batches import flow_batches
from msst_keras.records.example import FrameRecord
from msst_keras.records.manifest import build_manifest, write_manifest
from msst_keras.records.shard_files import shard_path, write_shard

SIZE = (48, 64)
FLOW = FlowSettings("farneback", SIZE)


def make_records(folder, sequence, flow=FLOW):
    """Five frames, twice the size of the flow; a red square moves, the rest stands still."""
    frames = []
    for index in range(5):
        mask = np.zeros(SIZE, bool)
        mask[10:30, 5 + 4 * index : 30 + 4 * index] = True
        flow_map = np.where(mask[..., None], np.float32([4, 0]), np.float32([0, 0]))
        big = mask.repeat(2, axis=0).repeat(2, axis=1)
        frame = np.where(big[..., None], np.uint8([200, 0, 0]), np.uint8([0, 40 * index, 90]))
        frames.append(FrameRecord(
            sequence, f"{index:05d}", index, *big.shape, images.encode_png(frame),
            images.encode_png(big.astype(np.uint8) * 255), "fine", None, flow_files.encode_flow_png(flow_map),
        ))  # fmt: skip
    write_shard(shard_path(folder, 0, 1), frames)
    motion = {"flow": flow.to_dict(), "superpixels": None, "prior": {"kind": "none"}, "flow_stored": True}
    write_manifest(folder, build_manifest(folder, 1, {"dataset": "", "motion": motion}))
    return folder


def train_prior(folder, *arguments):
    command = [sys.executable, "-m", "msst_keras", "train_prior", f"--output={folder}/prior.keras", "--weights=none"]
    command += ["--width=0.0625", "--max_regions=32", "--num_levels=2", "--steps=3", "--batch_size=2", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_flow_batches_give_the_frame_at_the_size_of_the_flow(tmp_path):
    index, settings = clip_index.index_flow([str(make_records(tmp_path / "a", "s"))])
    assert settings == FLOW.to_dict()
    (batch,) = flow_batches(index, 5, 0, 0, 1, with_frames=True).as_numpy_iterator()
    assert batch["frame"].shape == (5, *SIZE, 3)
    inside = batch["mask"] > 0
    np.testing.assert_array_equal(inside, batch["flow"][..., 0] == 4)
    # Where all of the eight pixels around are of one kind, resampling changes nothing.
    inner = inside[:, 1:-1, 1:-1] & inside[:, 2:, 1:-1] & inside[:, :-2, 1:-1] & inside[:, 1:-1, 2:]
    inner &= inside[:, 1:-1, :-2]
    np.testing.assert_allclose(batch["frame"][:, 1:-1, 1:-1][inner][..., 0], 200, atol=15)
    assert batch["frame"][~inside][..., 0].mean() < 10
    (batch,) = flow_batches(index, 5, 0, 0, 1).as_numpy_iterator()
    assert "frame" not in batch


@pytest.mark.slow
def test_the_report_is_of_held_out_records(tmp_path):
    train, val = make_records(tmp_path / "train", "a"), make_records(tmp_path / "val", "b")
    given = [f"--records={train}", "--rgb_features", "--camera=affine"]
    result = train_prior(tmp_path, *given, f"--val_records={val}", "--val_frames=4")
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "prior.json").read_text())
    assert report["training"]["steps"] == 3
    validation = report["validation"]
    assert validation["num_frames"] == 4
    assert set(validation["maps"]) == {"prior", "flow magnitude", "all black"}
    # The square alone moves: magnitude is its mask.
    assert validation["maps"]["flow magnitude"] == {"mae": 0, "max_f": 1, "s_measure": pytest.approx(1)}
    assert 0 < validation["regions"]["num_salient_regions"] < validation["regions"]["num_regions"]
    assert "held out, 4 frames" in result.stdout
    prior = load_prior(tmp_path / "prior.keras")
    assert prior.needs_frames
    assert prior.flow_settings == FLOW
    assert prior.get_config()["camera"] == "affine"


@pytest.mark.slow
def test_without_held_out_records_it_says_so(tmp_path):
    result = train_prior(tmp_path, f"--records={make_records(tmp_path / 'train', 'a')}")
    assert result.returncode == 0, result.stderr
    assert "nothing was held out" in result.stdout
    assert json.loads((tmp_path / "prior.json").read_text())["validation"] is None


@pytest.mark.slow
def test_validation_records_that_do_not_fit_are_refused(tmp_path):
    train = make_records(tmp_path / "train", "a")
    other = make_records(tmp_path / "other", "b", FlowSettings("dis", SIZE))
    result = train_prior(tmp_path, f"--records={train}", f"--val_records={other}")
    assert result.returncode == 1
    assert "--val_records were made with other flow settings than --records" in result.stderr
    same = make_records(tmp_path / "same", "a")
    result = train_prior(tmp_path, f"--records={train}", f"--val_records={same}")
    assert result.returncode == 1
    assert "the sequence 'a' is in" in result.stderr
