from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from msst_keras.conversion import new_prior
from msst_keras.conversion.shard_maker import ShardMaker
from msst_keras.conversion.sources import NewShard
from msst_keras.data import datasets, flow_files, images
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.settings import MotionOptions
from msst_keras.pipeline import clip_index
from msst_keras.records.manifest import join_manifest, write_manifest
from msst_keras.records.shard_files import scan_shard, shard_path
from msst_keras.synthetic.still_motion import draw_motion
from msst_keras.synthetic.still_options import StillMotionOptions
from msst_keras.synthetic.stills import MovingStill, _load

SIZE = (96, 128)


def smooth_texture(seed, low, high):
    noise = np.random.default_rng(seed).uniform(-1, 1, (*SIZE, 3)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.clip((low + high) / 2 + noise / np.abs(noise).max() * (high - low) / 2, 0, 255).astype(np.uint8)


def ellipse(centre=(70, 45), axes=(22, 14)):
    mask = np.zeros(SIZE, np.uint8)
    return cv2.ellipse(mask, centre, axes, 20, 0, 360, 255, -1) > 0


def write_still(folder, name="still", mask=None):
    """A dark textured background, a bright textured object."""
    mask = ellipse() if mask is None else mask
    image = np.where(mask[..., None], smooth_texture(1, 150, 255), smooth_texture(2, 0, 110))
    for part, array in (("image", image), ("mask", mask.astype(np.uint8) * 255)):
        (folder / part).mkdir(exist_ok=True)
        Image.fromarray(array).save(folder / part / f"{name}.png")
    return folder


def find_still(folder, seed=0, num_frames=6, **options):
    (still,) = datasets.find_sequences("stills", folder)
    return MovingStill.from_sequence(still, num_frames, seed, **options)


@pytest.fixture
def root(tmp_path):
    return write_still(tmp_path)


def read_all(still):
    frames = [frame for _, _, frame in still.read_frames()]
    return frames, [still.read_mask(index) for index in range(len(still))]


def sample(frame, flow):
    """The frame that the flow leads to, seen from where it starts; and where that lies inside."""
    y, x = np.mgrid[: frame.shape[0], : frame.shape[1]].astype(np.float32)
    x, y = x + flow[..., 0], y + flow[..., 1]
    inside = (x > 1) & (y > 1) & (x < frame.shape[1] - 2) & (y < frame.shape[0] - 2)
    return cv2.remap(frame, x, y, cv2.INTER_LINEAR), inside


@pytest.mark.parametrize(("direction", "step"), [("forward", 1), ("backward", -1)])
@pytest.mark.parametrize("seed", range(4))
def test_the_next_frame_brought_back_by_the_flow_is_the_frame(root, seed, direction, step):
    still = find_still(root, seed)
    frames, masks = [_load(still).render(index) for index in range(6)], read_all(still)[1]
    flows = list(still.read_flows(SIZE, direction, 1))
    compared = moved = 0
    for index in range(len(frames)):
        if not 0 <= index + step < len(frames):
            continue
        warped, inside = sample(frames[index + step], flows[index])
        label, _ = sample(masks[index + step].astype(np.uint8), flows[index])
        outline = cv2.morphologyEx(masks[index].astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((7, 7), np.uint8)) > 0
        other_outline = cv2.morphologyEx(masks[index + step].astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((7, 7)))
        near_other, _ = sample((other_outline > 0).astype(np.uint8), flows[index])
        # Away from outlines, and where the flow leads to the same thing: not covered then.
        valid = inside & ~outline & ~(near_other > 0) & (label == masks[index])
        error = np.abs(warped.astype(np.float32) - frames[index])[valid]
        unmoved = np.abs(frames[index + step].astype(np.float32) - frames[index])[valid]
        assert np.percentile(error, 99) <= 1 and error.max() <= 4  # interpolation
        compared, moved = compared + valid.mean(), moved + unmoved.mean() / error.mean()
    assert compared / (len(frames) - 1) > 0.6
    assert moved / (len(frames) - 1) > 2  # without flow the frames differ more


def test_flow_over_several_frames_and_at_the_ends_follows_the_estimator(root):
    still = find_still(root)
    scene = _load(still)
    for direction, (ends, strides) in {
        "forward": ((2, 3, 4, 5, 5, None), (2, 2, 2, 2, 1, None)),
        "backward": ((None, 0, 0, 1, 2, 3), (None, 1, 2, 2, 2, 2)),
    }.items():
        flows = list(still.read_flows(SIZE, direction, 2))
        for index, (end, stride) in enumerate(zip(ends, strides, strict=True)):
            if end is None:  # the negated flow to the neighbour
                end, stride = (4, -1) if direction == "forward" else (1, -1)
            expected = flow_files.round_flow(scene.flow(index, end, SIZE) / stride)
            np.testing.assert_array_equal(flows[index], expected)
            assert flows[index].dtype == np.float32


def test_flow_of_another_size_is_the_same_motion(root):
    still = find_still(root, seed=1)
    full = list(still.read_flows(SIZE, "forward", 1))[2]
    half = list(still.read_flows((SIZE[0] // 2, SIZE[1] * 2), "forward", 1))[2]
    expected = full.reshape(SIZE[0] // 2, 2, SIZE[1], 2).mean(1).repeat(2, axis=1) * [2, 0.5]
    agree = np.abs(half - expected) < 0.2
    assert agree.mean() > 0.95 and np.abs(full).max() > 1


def test_masks_are_where_the_object_is_seen(root):
    frames, masks = read_all(find_still(root, seed=3))
    for frame, mask in zip(frames, masks, strict=True):
        assert mask.dtype == bool and 0.01 < mask.mean() < 0.4
        bright = frame.mean(axis=-1) > 130
        assert (bright == mask).mean() > 0.98
    assert (masks[0] != masks[-1]).mean() > 0.01


def test_a_clip_depends_on_seed_and_name_alone(root, tmp_path):
    first = [encoded for _, encoded, _ in find_still(root).read_frames()]
    other = find_still(root, seed=1)
    assert [encoded for _, encoded, _ in other.read_frames()] != first
    assert [encoded for _, encoded, _ in find_still(root).read_frames()] == first
    (tmp_path / "renamed").mkdir()
    renamed = write_still(tmp_path / "renamed", "other")
    assert [encoded for _, encoded, _ in find_still(renamed).read_frames()] != first
    for encoded, (_, _, frame) in zip(first, find_still(root).read_frames(), strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")), frame)


def draw_many(mask, count=300):
    return [draw_motion(np.random.default_rng(seed), mask, 8, StillMotionOptions()) for seed in range(count)]


def view_corners(camera):
    height, width = SIZE
    corners = np.array([(x, y, 1) for x in (0, width - 1) for y in (0, height - 1)]).T
    return np.stack([np.linalg.inv(np.vstack([step, [0, 0, 1]]))[:2] @ corners for step in camera])  # (T, 2, 4)


def test_the_camera_never_sees_beyond_the_still():
    for camera, _ in draw_many(ellipse()):
        x, y = view_corners(camera).transpose(1, 0, 2)
        assert x.min() > -1 and x.max() < SIZE[1] and y.min() > -1 and y.max() < SIZE[0]


def test_where_the_still_cuts_the_object_off_stays_out_of_view():
    mask = ellipse((5, 45))
    moved = []
    for camera, motion in draw_many(mask):
        rows = np.nonzero(mask[:, 0])[0]
        cut = np.stack([np.zeros(len(rows)), rows, np.ones(len(rows))])
        for view, step in zip(camera, motion, strict=True):
            seen = view @ np.vstack([step @ cut, np.ones(len(rows))])
            assert seen[0].max() < 0.5
        moved.append(np.abs(motion[0] - motion[-1]).max())
    assert np.median(moved) > 2


def test_shares_of_resting_objects_and_following_cameras():
    identity = np.array([[1, 0, 0], [0, 1, 0]])
    rests, follows = 0, 0
    for camera, motion in draw_many(ellipse()):
        centre = np.array([70, 45, 1.0])
        objects = np.stack([view @ [*(step @ centre), 1] for view, step in zip(camera, motion, strict=True)])
        ground = np.stack([view @ centre for view in camera])
        if np.allclose(motion, identity):
            rests += 1
        elif np.ptp(objects, axis=0).max() < np.ptp(ground, axis=0).max():
            follows += 1
    assert 0.08 < rests / 300 < 0.22
    assert 0.3 < follows / (300 - rests) < 0.6
    assert rests + follows < 300


@pytest.mark.parametrize("value", [False, True])
def test_a_still_without_object_or_without_background_moves_as_a_whole(tmp_path, value):
    still = find_still(write_still(tmp_path, mask=np.full(SIZE, value)))
    frames, masks = read_all(still)
    flow = list(still.read_flows(SIZE, "forward", 1))[0]
    assert all((mask[8:-8, 8:-8] == value).all() for mask in masks)
    assert np.abs(np.diff(flow, axis=1)).max() <= 2 / 16  # one smooth motion
    assert not np.array_equal(frames[0], frames[-1])


def test_wrong_stills_are_refused(root):
    with pytest.raises(ValueError, match="a moving still has 2 frames or more, not 1"):
        find_still(root, num_frames=1)
    Image.fromarray(np.zeros((40, 50), np.uint8)).save(root / "mask" / "still.png")
    with pytest.raises(ValueError, match="this mask is 40x50, but .*still.png is 96x128; bring them to one size"):
        find_still(root).read_mask(0)


def write_records(folder, sequences, stills, **options):
    """A record folder in this process; `convert` would start another."""
    folder.mkdir()
    motion = MotionOptions(FlowSettings("dis", SIZE), None, "magnitude", **options)
    shard = NewShard(shard_path(folder, 0, 1), tuple(sequences), "fine")
    described, _ = ShardMaker(motion).make(shard)
    description = {"dataset": "stills", "split": "all", "label_kind": "fine", "motion": motion.to_dict(), **stills}
    write_manifest(folder, join_manifest(folder, [described], description))
    return folder


def read_folder(folder):
    return [record for _, record in scan_shard(shard_path(folder, 0, 1))]


def test_records_hold_the_exact_flow_or_an_estimate_of_it(root, tmp_path):
    still = find_still(root, seed=2)
    exact = read_folder(write_records(tmp_path / "exact", [still], {}, store_flow=True))
    flows = [flow_files.decode_flow_png(record.flow, "flow") for record in exact]
    for flow, expected in zip(flows, still.read_flows(SIZE, "forward", 1), strict=True):
        np.testing.assert_array_equal(flow, expected)
    assert [record.name for record in exact] == list(still.frame_names)
    for index, record in enumerate(exact):
        np.testing.assert_array_equal(images.decode_frame(record.mask, "mask")[..., 0] > 0, still.read_mask(index))
    guess = find_still(root, seed=2, exact_flow=False)
    estimated = read_folder(write_records(tmp_path / "estimated", [guess], {}, store_flow=True))
    assert [record.frame for record in estimated] == [record.frame for record in exact]
    errors = [
        np.hypot(*(flow_files.decode_flow_png(record.flow, "flow") - flow).transpose(2, 0, 1))
        for record, flow in zip(estimated, flows, strict=True)
    ]
    assert 0 < np.median(errors) < 0.3 < np.max(errors)


def test_moving_stills_train_beside_video_of_estimated_flow(root, tmp_path):
    frames = tmp_path / "video" / "walk"
    frames.mkdir(parents=True)
    for name, _, frame in find_still(root, seed=5, num_frames=3).read_frames():
        Image.fromarray(frame).save(frames / f"{name}.png")
    stills = write_records(tmp_path / "stills", [find_still(root)], {"stills": {"flow": "exact"}})
    video = write_records(tmp_path / "walks", datasets.find_sequences("folder", tmp_path / "video"), {})
    index = clip_index.index_clips([str(stills), str(video)], 4, True)
    assert {name.split("/")[0] for name in index.names} == {"still"}  # the other has no mask
    assert index.motion.flow["method"] == "dis"


def test_a_new_prior_needs_the_exact_flow(root, tmp_path):
    folder = write_records(tmp_path / "stills", [find_still(root)], {"stills": {"flow": "exact"}})
    with pytest.raises(ValueError, match="the exact flow of stills in motion is not stored; make the records again"):
        new_prior.add_prior(folder, "magnitude")
