"""The three kinds of sequence have one interface, and a shard is made of each of them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from msst_keras.conversion.shard_maker import ShardMaker
from msst_keras.conversion.sources import NewShard
from msst_keras.data import flow_files, images
from msst_keras.data.datasets import find_sequences
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.settings import MotionOptions
from msst_keras.records.shard_files import scan_shard
from msst_keras.synthetic.stills import MovingStill
from msst_keras.synthetic.videos import generate_sequence

SIZE, MOTION_SIZE = (48, 64), (32, 48)


@pytest.fixture(params=["files", "still", "scene"])
def sequence(request, tmp_path):
    """A sequence of four frames of each kind, all with masks."""
    scene = generate_sequence(0, 4, SIZE, name="scene")
    if request.param == "scene":
        return scene
    for part in ("image", "mask"):
        (tmp_path / part).mkdir()
    Image.fromarray(scene.frames[0]).save(tmp_path / "image" / "still.png")
    Image.fromarray(scene.masks[0]).save(tmp_path / "mask" / "still.png")
    if request.param == "still":
        return MovingStill.from_sequence(find_sequences("stills", tmp_path)[0], 4)
    for folder in ("JPEGImages/walk", "Annotations/walk"):
        (tmp_path / folder).mkdir(parents=True)
    for index, (frame, mask) in enumerate(zip(scene.frames, scene.masks, strict=True)):
        Image.fromarray(frame).save(tmp_path / "JPEGImages" / "walk" / f"{index}.png")
        Image.fromarray(mask).save(tmp_path / "Annotations" / "walk" / f"{index}.png")
    return find_sequences("davis", tmp_path)[0]


def test_a_shard_holds_what_the_sequence_gives(sequence, tmp_path):
    motion = MotionOptions(FlowSettings(motion_size=MOTION_SIZE), store_flow=True)
    ShardMaker(motion).make(NewShard(tmp_path / "shard", (sequence,), "fine"))
    records = [record for _, record in scan_shard(tmp_path / "shard")]
    given = list(sequence.read_frames())
    assert len(records) == len(given) == len(sequence) == 4
    assert [record.name for record in records] == [name for name, *_ in given] == list(sequence.frame_names)
    for index, (record, (name, encoded, frame)) in enumerate(zip(records, given, strict=True)):
        assert (record.sequence, record.frame) == (sequence.name, encoded)
        np.testing.assert_array_equal(images.decode_frame(encoded, name), frame)
        mask = images.decode_frame(record.mask, name)[..., 0] > 0
        np.testing.assert_array_equal(mask, sequence.read_mask(index))
        assert record.label_kind == "fine" and sequence.read_coarse_label(index) is None
    flows = sequence.read_flows(MOTION_SIZE, "forward", 1)
    stored = [flow_files.decode_flow_png(record.flow, record.name) for record in records]
    assert (flows is None) == (sequence.name == "walk")  # of files it has to be estimated
    if flows is not None:
        np.testing.assert_array_equal(stored, list(flows))


def test_what_a_sequence_is_made_of_tells_it_from_another(sequence):
    content = sequence.describe_content()
    assert content == sequence.describe_content()
    other = generate_sequence(1, 4, SIZE, name=sequence.name)
    assert content != other.describe_content()


def test_the_flow_of_a_scene_is_resized_in_its_own_pixels():
    scene = generate_sequence(0, 2, SIZE)
    (first, _) = scene.read_flows((24, 32), "forward", 1)
    means = scene.flow[0].reshape(24, 2, 32, 2, 2).mean(axis=(1, 3)) / 2  # half the size, half the pixels
    np.testing.assert_array_equal(first, np.round(means * 16) / 16)
    assert scene.read_flows((24, 32), "backward", 1) is None
    assert scene.read_flows((24, 32), "forward", 2) is None


def test_flow_of_files_needs_its_folder(tmp_path):
    still = NewShard(tmp_path / "shard", (find_a_folder(tmp_path),), "fine")
    motion = MotionOptions(FlowSettings("files", MOTION_SIZE), store_flow=True)
    with pytest.raises(ValueError, match="flow from files needs the folder that they are in; give --flow_dir"):
        ShardMaker(motion).make(still)


def find_a_folder(tmp_path):
    (tmp_path / "frames").mkdir()
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "frames" / "0.png")
    return find_sequences("folder", tmp_path / "frames")[0]
