"""Conversion: what was on disk is in the records, interrupted or not."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from msst_keras.data import convert, images, records
from msst_keras.data.datasets import find_sequences
from msst_keras.motion.flow import FlowEstimator, FlowSettings, magnitude_prior
from msst_keras.motion.prior import MagnitudePrior

FLOW = FlowSettings("farneback", motion_size=(32, 48))
DESCRIPTION = {"dataset": "davis", "split": "all"}


def make_davis(root, lengths=(3, 2)):
    """Frames of noise that shifts by two pixels a frame, with a mask on all but the first frame."""
    generator = np.random.default_rng(0)
    for number, length in enumerate(lengths):
        texture = cv2.GaussianBlur(generator.integers(0, 256, (64, 96 + 2 * length, 3)).astype(np.uint8), (0, 0), 2)
        for index in range(length):
            frames = root / "JPEGImages" / "480p" / f"s{number}"
            masks = root / "Annotations" / "480p" / f"s{number}"
            frames.mkdir(parents=True, exist_ok=True)
            masks.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(frames / f"{index:05d}.jpg"), texture[:, 2 * index : 2 * index + 96])
            if index:
                mask = np.zeros((64, 96), np.uint8)
                mask[10:30, 10 + index : 40] = 255
                cv2.imwrite(str(masks / f"{index:05d}.png"), mask)
    return root


def make_motion(*, prior="magnitude", store_flow=True):
    model = MagnitudePrior() if prior == "magnitude" else None
    return convert.MotionOptions(FLOW, None, model, {"kind": prior}, store_flow)


def read(folder):
    manifest = records.read_manifest(folder)
    found = [record for shard in manifest["shards"] for _, record in records.scan_shard(folder / shard["name"])]
    return {(record.sequence, record.index): record for record in found}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def davis(tmp_path):
    return make_davis(tmp_path / "davis")


def test_records_hold_what_was_on_disk_and_what_was_computed(davis, tmp_path):
    sequences = find_sequences("davis", davis)
    manifest = convert.convert(sequences, tmp_path / "out", make_motion(), DESCRIPTION, "coarse", num_shards=8)
    assert len(manifest["shards"]) == 2  # never more than sequences
    assert (manifest["num_frames"], manifest["num_labelled"], manifest["dataset"]) == (5, 3, "davis")
    found = read(tmp_path / "out")
    assert sorted(found) == [("s0", 0), ("s0", 1), ("s0", 2), ("s1", 0), ("s1", 1)]
    for sequence in sequences:
        frames = [images.read_frame(path) for path in sequence.frame_paths]
        for index, flow in enumerate(FlowEstimator(FLOW).flows(frames)):
            record = found[sequence.name, index]
            assert record.frame == sequence.frame_paths[index].read_bytes()
            assert (record.name, record.height, record.width) == (f"{index:05d}", 64, 96)
            assert record.label_kind == ("coarse" if index else None)
            if index:
                mask = cv2.imdecode(np.frombuffer(record.mask, np.uint8), cv2.IMREAD_UNCHANGED)
                np.testing.assert_array_equal(mask, sequence.read_mask(index) * np.uint8(255))
            else:
                assert record.mask is None
            np.testing.assert_array_equal(images.decode_flow_png(record.flow, "flow"), flow)
            prior = cv2.imdecode(np.frombuffer(record.prior, np.uint8), cv2.IMREAD_UNCHANGED)
            np.testing.assert_allclose(prior / 255, magnitude_prior(flow), atol=0.5 / 255 + 1e-6)


def test_without_motion_none_is_computed(davis, tmp_path, monkeypatch):
    monkeypatch.delattr(FlowEstimator, "push")
    motion = make_motion(prior="none", store_flow=False)
    convert.convert(find_sequences("davis", davis), tmp_path / "out", motion, DESCRIPTION)
    assert all(record.flow is None and record.prior is None for record in read(tmp_path / "out").values())


def test_an_interrupted_conversion_goes_on_and_ends_the_same(davis, tmp_path, monkeypatch):
    sequences = find_sequences("davis", davis)
    arguments = (make_motion(), DESCRIPTION, "fine", 2)
    convert.convert(sequences, tmp_path / "whole", *arguments)

    written, write = [], records.write_shard

    def write_one(path, frames):
        if written:
            (path.parent / ".partial-1-shard").write_bytes(b"half")  # as a kill leaves it
            raise KeyboardInterrupt
        written.append(path)
        write(path, frames)

    monkeypatch.setattr(records, "write_shard", write_one)
    with pytest.raises(KeyboardInterrupt):
        convert.convert(sequences, tmp_path / "parts", *arguments)
    assert not (tmp_path / "parts" / "manifest.json").exists()
    with pytest.raises(FileNotFoundError, match="has not finished"):
        records.read_manifest(tmp_path / "parts")
    monkeypatch.setattr(records, "write_shard", lambda path, frames: (written.append(path), write(path, frames)))
    convert.convert(sequences, tmp_path / "parts", *arguments)
    assert len(written) == 2  # the first shard was not made again
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    convert.convert(sequences, tmp_path / "parts", *arguments)
    assert len(written) == 2  # all was there


def test_other_flags_or_inputs_do_not_mix(davis, tmp_path):
    sequences = find_sequences("davis", davis)
    convert.convert(sequences, tmp_path / "out", make_motion(), DESCRIPTION)
    for arguments in (
        (sequences[:1], make_motion(), DESCRIPTION),
        (sequences, make_motion(store_flow=False), DESCRIPTION),
        (sequences, make_motion(), {**DESCRIPTION, "split": "train"}),
    ):
        with pytest.raises(ValueError, match="holds other records"):
            convert.convert(arguments[0], tmp_path / "out", *arguments[1:])
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "plan.json").write_text(json.dumps({"plan": "other"}))
    with pytest.raises(ValueError, match="holds other records"):
        convert.convert(sequences, tmp_path / "unfinished", make_motion(), DESCRIPTION)
    with pytest.raises(ValueError, match="is not empty and holds no records"):
        convert.convert(sequences, davis, make_motion(), DESCRIPTION)


def test_bad_arguments_are_refused(davis, tmp_path):
    sequences = find_sequences("davis", davis)
    with pytest.raises(ValueError, match="label_kind must be one of fine, coarse"):
        convert.convert(sequences, tmp_path, make_motion(), DESCRIPTION, "rough")
    with pytest.raises(ValueError, match="two sequences are called s0"):
        convert.convert([*sequences, sequences[0]], tmp_path, make_motion(), DESCRIPTION)
    with pytest.raises(ValueError, match="num_shards must be at least 1"):
        convert.convert(sequences, tmp_path, make_motion(), DESCRIPTION, num_shards=0)


def test_a_bad_frame_leaves_nothing_half_written(davis, tmp_path):
    path = davis / "JPEGImages" / "480p" / "s1" / "00001.jpg"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match="s1/00001.jpg: cut off or damaged"):
        convert.convert(find_sequences("davis", davis), tmp_path / "out", make_motion(), DESCRIPTION, num_shards=1)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["plan.json"]


def test_flow_may_come_from_files(davis, tmp_path):
    sequences = find_sequences("davis", davis)
    flow_dir = tmp_path / "flow"
    given = {}
    for sequence in sequences:
        for index, name in enumerate(sequence.frame_names[:-1]):  # N - 1 files, as flow programs write them
            flow = np.full((64, 96, 2), (4 + index, -2), np.float32)
            (flow_dir / sequence.name).mkdir(parents=True, exist_ok=True)
            images.write_flow(flow_dir / sequence.name / f"{name}.flo", flow)
            given[sequence.name, index] = (2 + index / 2, -1)  # half the size: half the pixels
        given[sequence.name, len(sequence) - 1] = given[sequence.name, len(sequence) - 2]
    settings = FlowSettings("files", motion_size=(32, 48))
    motion = convert.MotionOptions(settings, None, None, {"kind": "none"}, True, flow_dir)
    manifest = convert.convert(sequences, tmp_path / "out", motion, DESCRIPTION)
    assert FlowSettings.from_dict(manifest["motion"]["flow"]) == settings
    for key, record in read(tmp_path / "out").items():
        flow = images.decode_flow_png(record.flow, "flow")
        np.testing.assert_array_equal(flow, np.broadcast_to(np.float32(given[key]), (32, 48, 2)))

    with pytest.raises(ValueError, match="comes from files; give the folder"):
        FlowEstimator(settings)
    images.write_flow(flow_dir / "s0" / "00001.flo", np.full((64, 96, 2), np.nan, np.float32))
    with pytest.raises(ValueError, match="00001.flo: 6144 vectors are unknown"):
        convert.convert(sequences, tmp_path / "unknown", motion, DESCRIPTION)
    (flow_dir / "s0" / "00001.flo").unlink()
    (flow_dir / "s0" / "00000.flo").unlink()
    with pytest.raises(FileNotFoundError, match="no 00000.flo or 00000.png"):
        convert.convert(sequences, tmp_path / "missing", motion, DESCRIPTION)
    (flow_dir / "s0").rename(flow_dir / "moved")
    with pytest.raises(FileNotFoundError, match="the flow of 's0' is expected in it"):
        convert.convert(sequences, tmp_path / "folder", motion, DESCRIPTION)
