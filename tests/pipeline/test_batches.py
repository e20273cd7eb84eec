"""Clips out of records: which frames, in which order, and how they are augmented."""

from __future__ import annotations

from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from msst_keras.data.flow_files import encode_flow_png
from msst_keras.model.options import ModelOptions
from msst_keras.pipeline import clip_index
from msst_keras.pipeline.batches import flow_batches, picture_clips, take_turns, training_batches, validation_batches
from msst_keras.pipeline.options import Augmentation
from msst_keras.pipeline.share import Share
from msst_keras.records.example import FrameRecord
from msst_keras.records.manifest import build_manifest, read_manifest, write_manifest
from msst_keras.records.shard_files import shard_path, write_shard
from msst_keras.training.options import ClipOptions, TrainingOptions

MOTION = {"flow": {"method": "dis"}, "superpixels": None, "prior": {"kind": "magnitude"}, "flow_stored": False}
WHOLE = Augmentation(flip=False, min_scale=1.0)


def png(image):
    return cv2.imencode(".png", image)[1].tobytes()


def make_folder(
    folder, lengths, size=(16, 24), motion=MOTION, labelled=lambda index: True, first=0, dataset="",
    kind=lambda index: "fine",
):  # fmt: skip
    """Sequences of frames whose every pixel is first + 10 * sequence + frame; the left half of each mask is salient."""
    mask = np.zeros(size, np.uint8)
    mask[:, : size[1] // 2] = 255
    frames = []
    for number, length in enumerate(lengths):
        for index in range(length):
            grey = np.full((*size, 3), first + 10 * number + index, np.uint8)
            has_mask = labelled(index)
            frames.append(
                FrameRecord(
                    f"s{number}",
                    f"{index:05d}",
                    index,
                    *size,
                    png(grey),
                    png(mask) if has_mask else None,
                    kind(index) if has_mask else None,
                    png(mask[::2, ::2] // 5 * 2),
                )  # fmt: skip
            )
    write_shard(shard_path(folder, 0, 1), frames)
    write_manifest(folder, build_manifest(folder, 1, {"dataset": dataset, "motion": motion}))
    return str(folder)


def collect(dataset):
    return [{name: value.numpy() for name, value in batch.items()} for batch in dataset]


def train(index, *, first=0, last=4, num_frames=1, batch_size=2, sizes=((16, 24),), seed=0, augmentation=WHOLE):
    return collect(training_batches(index, num_frames, batch_size, sizes, seed, first, last, augmentation))


def test_a_clip_ends_on_its_labelled_frame_and_repeats_the_first(tmp_path):
    folder = make_folder(tmp_path / "a", [3, 6], labelled=lambda index: index in (1, 5))
    index = clip_index.index_clips([folder], 4, with_prior=True)
    assert index.names == ("s0/1", "s1/1", "s1/5")
    (batch,) = collect(validation_batches(index, 4, 8, (16, 24)))
    np.testing.assert_array_equal(batch["frames"][:, :, 0, 0, 0], [[0, 0, 0, 1], [10, 10, 10, 11], [12, 13, 14, 15]])
    assert batch["frames"].dtype == np.float32 and batch["frames"].shape == (3, 4, 16, 24, 3)


def test_frame_prior_and_mask_stay_aligned_under_flips_and_crops(tmp_path):
    folder = make_folder(tmp_path / "a", [1])
    index = clip_index.index_clips([folder], 1, with_prior=True)
    augmentation = Augmentation(flip=True, min_scale=0.5)
    batches = train(index, last=20, batch_size=1, augmentation=augmentation, sizes=((32, 48),))
    flipped = 0
    for batch in batches:
        mask, prior = batch["mask"][0, :, :, 0], batch["prior"][0, 0, :, :, 0]
        assert set(np.unique(mask)) <= {0.0, 1.0}
        edge = np.abs(np.diff(mask[16]))
        away = np.ones(48, bool)
        if edge.any():  # the prior is half as fine as the mask: look away from the edge
            away[max(0, edge.argmax() - 5) : edge.argmax() + 7] = False
        np.testing.assert_allclose(prior[16][away], mask[16][away] * 102 / 255, atol=1e-6)
        flipped += mask[16, -1] == 1
    assert 3 < flipped < 17


def make_ramp(folder, mask):
    """One frame whose red is ten times its column and green ten times its row, with a mask of the same size."""
    height, width = mask.shape
    frame = np.zeros((height, width, 3), np.uint8)
    frame[..., 0], frame[..., 1] = 10 * np.arange(width), 10 * np.arange(height)[:, None]
    record = FrameRecord("s", "0", 0, height, width, png(frame[..., ::-1]), png(mask), "fine", png(mask[::2, ::2]))
    write_shard(shard_path(folder, 0, 1), [record])
    write_manifest(folder, build_manifest(folder, 1, {"dataset": "", "motion": MOTION}))
    return clip_index.index_clips([str(folder)], 1, with_prior=True)


def test_crops_are_of_the_sizes_that_they_may_have_and_lie_anywhere(tmp_path):
    index = make_ramp(tmp_path, np.full((24, 24), 255, np.uint8))
    batches = train(
        index, last=40, batch_size=1, sizes=((24, 24),), augmentation=Augmentation(flip=False, min_scale=0.5)
    )
    # The ramp's slope in the crop is the share of the side that it shows; where the ramp is 0 lies left of the crop.
    inner = np.stack([batch["frames"][0, 0, 8:16, 8:16, :2] for batch in batches]) / 10
    scales = np.stack([np.diff(inner[..., 0], axis=2).mean((1, 2)), np.diff(inner[..., 1], axis=1).mean((1, 2))])
    np.testing.assert_allclose(scales[0], scales[1], atol=0.02)
    assert 0.48 <= scales.min() < 0.6 and 0.9 < scales.max() <= 1.02
    middles = np.stack([inner[..., channel].mean((1, 2)) - 11.5 for channel in (0, 1)])
    room = 12 * (1 - scales)  # how far the middle of a crop may lie from that of the frame
    assert (np.abs(middles) <= room + 0.5).all()
    assert (middles[0] < -1.5).any() and (middles[0] > 1.5).any() and (middles[1] < -1.5).any()
    assert abs(np.corrcoef(middles)[0, 1]) < 0.6  # drawn apart


def test_a_resized_mask_is_object_where_half_of_a_pixel_or_more_is(tmp_path):
    for columns, expected in ((9, 2), (11, 3)):  # of four columns that become one a quarter, and three quarters
        mask = np.zeros((16, 24), np.uint8)
        mask[:, :columns] = 255
        (batch,) = train(make_ramp(tmp_path / str(columns), mask), last=1, batch_size=1, sizes=((4, 6),))
        np.testing.assert_array_equal(batch["mask"][0, :, :, 0], np.tile(np.arange(6) < expected, (4, 1)))


def test_every_epoch_has_every_clip_once_in_another_order(tmp_path):
    index = clip_index.index_clips([make_folder(tmp_path / "a", [5, 5])], 1, with_prior=True)
    clips = np.concatenate([batch["clip"] for batch in train(index, last=10)]).reshape(2, 10)
    assert sorted(clips[0]) == sorted(clips[1]) == list(range(10))
    assert list(clips[0]) != list(clips[1]) and list(clips[0]) != list(range(10))
    other = np.concatenate([batch["clip"] for batch in train(index, last=5, seed=1)])
    assert list(other) != list(clips[0])


def test_starting_at_a_step_gives_the_batches_of_the_whole_run(tmp_path):
    index = clip_index.index_clips([make_folder(tmp_path / "a", [5, 7])], 2, with_prior=True)
    options = {"num_frames": 2, "sizes": ((16, 24), (32, 32)), "augmentation": Augmentation()}
    whole, rest = train(index, last=9, **options), train(index, first=4, last=6, **options)
    assert len({batch["frames"].shape for batch in whole}) == 2  # both sizes occur
    for expected, found in zip(whole[4:6], rest, strict=True):
        for name in expected:
            np.testing.assert_array_equal(expected[name], found[name])


def test_two_folders_are_one_set(tmp_path):
    folders = [make_folder(tmp_path / name, [2], first=first) for name, first in (("a", 0), ("b", 50))]
    assert clip_index.find_record_folders([str(tmp_path / "*"), folders[0]]) == folders
    index = clip_index.index_clips(folders, 1, with_prior=True)
    assert len(index) == 4 and len(index.paths) == 2
    assert list(index.path_ids) == [0, 0, 1, 1]


def test_validation_sees_each_clip_once_also_in_a_short_batch(tmp_path):
    index = clip_index.index_clips([make_folder(tmp_path / "a", [5])], 1, with_prior=True)
    batches = collect(validation_batches(index, 1, 2, (16, 24)))
    assert [list(batch["clip"]) for batch in batches] == [[0, 1], [2, 3], [4]]


def test_resizing_is_what_the_exported_model_does(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
    frame = FrameRecord("a", "0", 0, 40, 70, png(noise[..., ::-1]), png(noise[..., 0]), "fine", png(noise[:9, :9, 1]))
    write_shard(shard_path(tmp_path, 0, 1), [frame])
    write_manifest(tmp_path, build_manifest(tmp_path, 1, {"motion": MOTION}))
    index = clip_index.index_clips([str(tmp_path)], 1, with_prior=True)
    (batch,) = train(index, last=1, batch_size=1, sizes=((33, 21),))
    expected = keras.ops.image.resize(noise[None].astype("float32"), (33, 21), antialias=True)
    np.testing.assert_allclose(batch["frames"][0], expected, atol=1e-3)


def test_bad_records_and_arguments_are_refused(tmp_path):
    plain = make_folder(tmp_path / "plain", [1])
    bare = make_folder(tmp_path / "bare", [1], motion={**MOTION, "prior": {"kind": "none"}}, first=50)
    other = make_folder(tmp_path / "other", [1], motion={**MOTION, "flow": {"method": "farneback"}}, first=100)
    with pytest.raises(ValueError, match="bare holds no motion prior"):
        clip_index.index_clips([bare], 1, with_prior=True)
    assert clip_index.index_clips([plain, bare], 1, with_prior=False).motion is None
    with pytest.raises(ValueError, match="other was made with other motion settings"):
        clip_index.index_clips([plain, other], 1, with_prior=True)
    with pytest.raises(ValueError, match="num_frames must be at least 1"):
        clip_index.index_clips([plain], 0, with_prior=True)
    with pytest.raises(ValueError, match="no frame has a label"):
        clip_index.index_clips([make_folder(tmp_path / "none", [2], labelled=lambda i: False)], 1, with_prior=True)
    with pytest.raises(ValueError, match="plain holds no flow"):
        clip_index.index_flow([plain])
    with pytest.raises(FileNotFoundError, match="no record folder matches"):
        clip_index.find_record_folders([str(tmp_path / "nothing*")])
    with pytest.raises(ValueError, match="min_scale must lie in"):
        Augmentation(min_scale=0)


def test_a_record_that_cannot_be_used_is_named(tmp_path):
    folder = make_folder(tmp_path / "a", [3, 3])
    index = clip_index.index_clips([folder], 2, with_prior=True)
    manifest = read_manifest(folder)
    path, offset = shard_path(folder, 0, 1), manifest["sequences"]["s1"]["offsets"][1]
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[offset + 100] ^= 1
    path.write_bytes(flipped)
    for batches in (validation_batches(index, 2, 2, (16, 24)), training_batches(
        index, 2, 2, ((16, 24),), 0, 0, 9, WHOLE
    )):  # fmt: skip
        with pytest.raises(ValueError, match=f"{path}: corrupt after byte {offset} .corrupted record"):
            collect(batches)
        with pytest.raises(ValueError, match=f"{path}: corrupt after byte {offset}"):
            list(batches.as_numpy_iterator())
    path.write_bytes(content)
    assert len(collect(validation_batches(index, 2, 2, (16, 24)))) == 3


def test_records_of_other_frames_than_the_manifest_says_are_refused(tmp_path):
    folder = make_folder(tmp_path / "a", [3, 3])
    manifest = read_manifest(folder)
    sequences = manifest["sequences"]
    sequences["s0"]["offsets"], sequences["s1"]["offsets"] = sequences["s1"]["offsets"], sequences["s0"]["offsets"]
    write_manifest(folder, manifest)
    index = clip_index.index_clips([folder], 2, with_prior=True)
    with pytest.raises(ValueError, match="cannot be used .s./.: other frames than the manifest says"):
        collect(validation_batches(index, 2, 2, (16, 24)))


def test_images_that_are_none_are_named(tmp_path):
    frames = [FrameRecord("s", "0", 0, 4, 4, b"no image", png(np.zeros((4, 4), np.uint8)), "fine")]
    write_shard(shard_path(tmp_path, 0, 1), frames)
    write_manifest(tmp_path, build_manifest(tmp_path, 1, {"motion": MOTION}))
    index = clip_index.index_clips([str(tmp_path)], 1, with_prior=False)
    with pytest.raises(ValueError, match="byte 0, frame 0 of 's': frame: not a readable image"):
        collect(validation_batches(index, 1, 1, (8, 8)))


@pytest.mark.parametrize("key", ["frame", "mask"])
@pytest.mark.parametrize("encode", [png, lambda image: cv2.imencode(".jpg", image)[1].tobytes()])
def test_images_of_another_size_than_their_record_are_refused_before_they_are_decoded(tmp_path, key, encode):
    parts = {"frame": png(np.zeros((4, 6, 3), np.uint8)), "mask": png(np.zeros((4, 6), np.uint8))}
    parts[key] = encode(np.zeros((500, 10) if key == "mask" else (500, 10, 3), np.uint8))
    write_shard(shard_path(tmp_path, 0, 1), [FrameRecord("s", "0", 0, 4, 6, label_kind="fine", **parts)])
    write_manifest(tmp_path, build_manifest(tmp_path, 1, {"motion": MOTION}))
    index = clip_index.index_clips([str(tmp_path)], 1, with_prior=False)
    with pytest.raises(ValueError, match=rf"frame 0 of 's': {key} of size \(500, 10\), expected \(4, 6\)"):
        collect(validation_batches(index, 1, 1, (8, 8)))


def test_a_prior_that_would_fill_the_memory_is_not_decoded(tmp_path):
    image, mask = png(np.zeros((4, 6, 3), np.uint8)), png(np.zeros((4, 6), np.uint8))
    prior = bytearray(mask)
    prior[16:24] = (60000).to_bytes(4, "big") * 2
    frames = [FrameRecord("s", "0", 0, 4, 6, image, mask, "fine", prior=bytes(prior))]
    write_shard(shard_path(tmp_path, 0, 1), frames)
    write_manifest(tmp_path, build_manifest(tmp_path, 1, {"motion": MOTION}))
    index = clip_index.index_clips([str(tmp_path)], 1, with_prior=True)
    with pytest.raises(ValueError, match="prior: "):
        collect(validation_batches(index, 1, 1, (8, 8)))


def test_flow_that_is_unknown_is_refused(tmp_path):
    flow = np.zeros((4, 6, 2), np.float32)
    flow[1, 2] = np.nan
    image, mask = png(np.zeros((4, 6, 3), np.uint8)), png(np.zeros((4, 6), np.uint8))
    frames = [FrameRecord("s", "0", 0, 4, 6, image, mask, "fine", flow=encode_flow_png(flow))]
    write_shard(shard_path(tmp_path, 0, 1), frames)
    motion = {**MOTION, "flow_stored": True}
    write_manifest(tmp_path, build_manifest(tmp_path, 1, {"motion": motion}))
    index, _ = clip_index.index_flow([str(tmp_path)])
    with pytest.raises(ValueError, match="flow that is unknown in places"):
        collect(flow_batches(index, 1, 0, 0, 1))


def test_the_shares_of_all_replicas_are_the_batches_of_one_process(tmp_path):
    index = clip_index.index_clips([make_folder(tmp_path / "a", [5, 7])], 2, with_prior=True)
    sizes, weights = ((16, 24), (32, 32)), {"fine": 0.5, "coarse": 2.0}

    def read(first, share):
        return collect(training_batches(index, 2, 4, sizes, 3, first, 6, Augmentation(), share, label_weights=weights))

    whole = read(0, Share())
    assert len({batch["frames"].shape for batch in whole}) == 2  # both sizes occur
    assert set(np.concatenate([batch["weight"] for batch in whole])) == {0.5}
    for first in (0, 4):
        shares = [read(first, Share(worker, 2, 2)) for worker in range(2)]
        for number, expected in enumerate(whole[first:]):
            parts = [share[2 * number + replica] for share in shares for replica in range(2)]
            for name, value in expected.items():
                np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), value)


@pytest.mark.parametrize("share", [Share(), Share(1, 2, 1), Share(1, 2, 2)])
def test_what_a_service_loses_and_disorders_is_the_same_in_the_end(tmp_path, monkeypatch, share):
    index = clip_index.index_clips([make_folder(tmp_path / "a", [5, 6])], 2, with_prior=True)

    def read(first, **options):
        sizes = (16, 24), (24, 16)
        return collect(training_batches(index, 2, 4, sizes, 3, first, 9, Augmentation(), share, **options))

    def serve(dataset, address):
        assert address == "grpc://there"
        batches = list(dataset)
        return batches[1::2] + batches[6::4]

    monkeypatch.setattr("msst_keras.pipeline.batches.serve", serve)
    for first in (0, 3):
        expected, found = read(first), read(first, service="grpc://there")
        assert len(found) == len(expected) == (9 - first) * share.num_replicas
        for batch, served in zip(expected, found, strict=True):
            assert batch.keys() == served.keys()
            for name, value in batch.items():
                np.testing.assert_array_equal(served[name], value)


def test_validation_shares_lose_and_double_no_clip(tmp_path):
    index = clip_index.index_clips([make_folder(tmp_path / "a", [5, 6])], 1, with_prior=True)
    clips = [
        batch["clip"]
        for worker in range(2)
        for batch in collect(validation_batches(index, 1, 4, (16, 24), Share(worker, 2, 1)))
    ]
    assert [len(part) for part in clips] == [2] * 6  # every replica has as many batches
    clips = np.concatenate(clips)
    assert sorted(clips[clips >= 0]) == list(range(11)) and np.sum(clips < 0) == 1


def test_replicas_that_cannot_share_a_batch_equally_are_refused(tmp_path):
    index = clip_index.index_clips([make_folder(tmp_path / "a", [2])], 1, with_prior=True)
    with pytest.raises(ValueError, match="a batch of 3 cannot be shared equally by 2 replicas"):
        training_batches(index, 1, 3, ((16, 24),), 0, 0, 1, WHOLE, Share(0, 1, 2))


def test_clips_of_other_label_kinds_are_left_out(tmp_path):
    index = clip_index.index_clips([make_folder(tmp_path / "a", [3])], 1, True, ["fine"])
    assert index.label_kinds == ("fine",) * 3
    with pytest.raises(ValueError, match="no frame has a coarse label"):
        clip_index.index_clips([str(tmp_path / "a")], 1, True, ["coarse"])


def test_pictures_have_the_flow_where_it_is_stored(tmp_path):
    index = clip_index.index_clips([make_folder(tmp_path / "a", [4])], 2, with_prior=True)
    clips = picture_clips(index, [3, 1], 2, (16, 24))
    assert "flow" not in clips
    np.testing.assert_array_equal(clips["frames"][:, :, 0, 0, 0], [[2, 3], [0, 1]])


def test_records_are_read_from_file_systems_of_tensorflow(tmp_path):
    folder = make_folder(tmp_path / "a", [4])
    remote = f"ram://records/{tmp_path.name}"
    tf.io.gfile.makedirs(remote)
    for path in (tmp_path / "a").iterdir():
        tf.io.gfile.copy(str(path), f"{remote}/{path.name}")
    found = clip_index.find_record_folders([f"{remote[:-1]}*"])
    assert found == [remote]
    here, there = (clip_index.index_clips([name], 2, with_prior=True) for name in (folder, remote))
    for expected, value in zip(train(here, num_frames=2), train(there, num_frames=2), strict=True):
        for name in expected:
            np.testing.assert_array_equal(value[name], expected[name])


def test_groups_take_turns_by_their_shares(tmp_path):
    first = make_folder(tmp_path / "a", [4])
    second = make_folder(tmp_path / "b", [2, 1], first=100)
    groups = clip_index.find_record_groups([f"{first}:3", f"{second}:1"])
    assert groups == {(first,): 3, (second,): 1}
    index = clip_index.index_groups(groups, 1, with_prior=True)
    assert index.groups == ((4, 3), (3, 1))
    batches = train(index, last=4, batch_size=4)
    clips = np.stack([batch["clip"] for batch in batches])
    np.testing.assert_array_equal(clips < 4, [[True, True, False, True]] * 4)
    assert sorted(clips[clips < 4][:4]) == [0, 1, 2, 3] and sorted(clips[:3, 2]) == [4, 5, 6]  # each group's epoch
    later = train(index, first=2, last=4, batch_size=4)
    np.testing.assert_array_equal(np.stack([batch["clip"] for batch in later]), clips[2:])
    assert clip_index.find_record_groups([first, second]) == {(first, second): 1}
    with pytest.raises(ValueError, match="a share must be 1 or more"):
        clip_index.find_record_groups([f"{first}:0"])
    with pytest.raises(ValueError, match="is in two groups"):
        clip_index.find_record_groups([f"{first}:1", f"{first}:2"])


@pytest.mark.parametrize("shares", [(1,), (3, 1), (6, 2, 1, 1), (1, 1, 2), (50, 2), (50000, 2000)])
def test_a_batch_shorter_than_a_turn_has_the_shares_too(shares):
    groups, ranks = take_turns(shares)
    assert len(groups) == sum(shares)
    for group, share in enumerate(shares):
        np.testing.assert_array_equal(ranks[groups == group], np.arange(share))
        seen = np.cumsum(np.tile(groups, 30) == group)
        for length in (4, 26):  # in any batch of so many, less than two clips away from the share
            expected = length * share / sum(shares)
            assert np.abs(seen[length:] - seen[:-length] - expected).max() < 2


FLOW = {**MOTION, "prior": {"kind": "flow", "channels": 3}}


def make_flow_folder(folder, motion=FLOW):
    """Two frames whose motion is level 228 in x (right), 128 in y (none) and 228 in length."""
    frame, mask = np.zeros((16, 24, 3), np.uint8), np.zeros((16, 24), np.uint8)
    flow = np.full((16, 24, 3), (228, 128, 228), np.uint8)[..., ::-1]
    frames = [
        FrameRecord("s", f"{index}", index, 16, 24, png(frame), png(mask), "fine", png(np.ascontiguousarray(flow)))
        for index in range(2)
    ]
    write_shard(shard_path(folder, 0, 1), frames)
    write_manifest(folder, build_manifest(folder, 1, {"dataset": "", "motion": motion}))
    return str(folder)


def test_a_mirrored_frame_moves_the_other_way(tmp_path):
    index = clip_index.index_clips([make_flow_folder(tmp_path / "a")], 1, with_prior=True)
    batches = train(index, last=20, batch_size=1, augmentation=Augmentation(flip=True, min_scale=1.0))
    levels = {tuple(np.rint(batch["prior"][0, 0, 5, 5] * 255).astype(int)) for batch in batches}
    assert levels == {(228, 128, 228), (28, 128, 228)}


def test_missing_motion_is_none_and_turned_motion_keeps_its_length(tmp_path):
    index = clip_index.index_clips([make_flow_folder(tmp_path / "a")], 1, with_prior=True)
    lost = train(index, last=200, batch_size=1, augmentation=Augmentation(False, 1.0, missing_motion=0.25))
    values = [batch["prior"][0, 0, 5, 5] * 255 for batch in lost]
    missing = [np.allclose(value, 128) for value in values]
    kept = [np.allclose(value, (228, 128, 228)) for value in values]
    assert 0.15 < np.mean(missing) < 0.35 and all(np.logical_xor(missing, kept))
    turned = train(index, last=20, batch_size=1, augmentation=Augmentation(False, 1.0, turn_motion=True))
    vectors = np.stack([batch["prior"][0, 0, 5, 5] * 255 - 128 for batch in turned])
    np.testing.assert_allclose(np.hypot(vectors[:, 0], vectors[:, 1]), 100, atol=1e-3)
    np.testing.assert_allclose(vectors[:, 2], 100, atol=1e-3)
    assert len({round(float(x), 3) for x in vectors[:, 0]}) == 20


def test_flow_as_an_image_may_span_other_frames_in_training(tmp_path):
    flows = [{"method": "dis", "direction": direction, "stride": 1} for direction in ("forward", "backward")]
    folders = [make_flow_folder(tmp_path / flow["direction"], {**FLOW, "flow": flow}) for flow in flows]
    index = clip_index.index_clips(folders, 1, with_prior=True)
    assert len(index) == 4 and index.motion.flow["direction"] == "forward"  # the first folder's


def test_options_of_a_training_weigh_its_clips_by_the_kind_of_their_labels(tmp_path):
    from msst_keras.jobs.train import _index_training, _make_batches
    from msst_keras.training.options import TrainOptions
    from msst_keras.training.strategy import Devices

    folder = make_folder(tmp_path / "a", [8], kind=lambda index: "coarse" if index % 2 else "fine")

    def weights(**given):
        options = TrainOptions(
            records=(folder,), run_dir="run", model=ModelOptions(variant="os"),
            clips=ClipOptions(image_sizes=((16, 24),), batch_size=4, **given), training=TrainingOptions(steps=2),
        )  # fmt: skip
        index = _index_training(options, {(folder,): 1})
        found = {}
        for batch in collect(_make_batches(options, index, Devices())(0)):
            for clip, weight in zip(batch["clip"], batch.get("weight", np.ones(4)), strict=True):
                found.setdefault(index.label_kinds[clip], set()).add(float(weight))
        return found

    assert weights() == {"fine": {1.0}, "coarse": {1.0}}
    assert weights(fine_weight=0.25, coarse_weight=0.5) == {"fine": {0.25}, "coarse": {0.5}}
    assert weights(coarse_weight=0.0) == {"fine": {1.0}}


def test_a_folder_that_is_there_is_no_pattern_and_has_no_share(tmp_path):
    folders = [str(tmp_path / name) for name in ("a[b]*", "12:30", "12")]
    for folder in folders:
        Path(folder).mkdir()
    assert clip_index.find_record_folders([*folders, folders[0] + "/"]) == folders
    assert clip_index.find_record_groups([folders[0], folders[1]]) == {(folders[0], folders[1]): 1}
    assert clip_index.find_record_groups([folders[1] + ":2", folders[2]]) == {(folders[1],): 2, (folders[2],): 1}
