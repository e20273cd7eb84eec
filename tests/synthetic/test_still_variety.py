"""Stills shrunk, with parallax, distractors, crowds: the flow stays exact, and nothing else of the clip changes."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from forked import msst
from PIL import Image

from msst_keras.data import datasets
from msst_keras.synthetic import crowds
from msst_keras.synthetic.still_options import StillMotionOptions
from msst_keras.synthetic.stills import _load, set_in_motion

SIZE = (96, 128)
ALL = {"shrunk_share": 1.0, "parallax_share": 1.0, "distractor_share": 1.0}
CROWDED = {"crowd_share": 1.0}


def texture(seed, low, high):
    noise = cv2.GaussianBlur(np.random.default_rng(seed).uniform(-1, 1, (*SIZE, 3)).astype(np.float32), (0, 0), 3)
    return np.clip((low + high) / 2 + noise / np.abs(noise).max() * (high - low) / 2, 0, 255).astype(np.uint8)


def ellipse(centre, axes):
    return cv2.ellipse(np.zeros(SIZE, np.uint8), centre, axes, 20, 0, 360, 255, -1) > 0


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Dark backgrounds with bright objects: those of a to d lie whole within, that of edge is cut off."""
    folder = tmp_path_factory.mktemp("stills")
    objects = {
        "a": ((64, 48), (30, 20)), "b": ((60, 44), (26, 22)), "c": ((70, 52), (24, 18)), "d": ((64, 40), (28, 16)),
        "edge": ((4, 48), (40, 30)),
    }  # fmt: skip
    (folder / "image").mkdir()
    (folder / "mask").mkdir()
    for number, (name, shape) in enumerate(objects.items()):
        mask = ellipse(*shape)
        image = np.where(mask[..., None], texture(number, 160, 255), texture(100 + number, 0, 110))
        Image.fromarray(image).save(folder / "image" / f"{name}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "mask" / f"{name}.png")
    return folder


def move(root, seed=0, num_frames=4, **shares):
    stills = datasets.find_sequences("stills", root)
    moving = set_in_motion(stills, num_frames, seed, options=StillMotionOptions(**shares))
    return {still.name: still for still in moving}


def sample(frame, flow):
    y, x = np.mgrid[: frame.shape[0], : frame.shape[1]].astype(np.float32)
    x, y = x + flow[..., 0], y + flow[..., 1]
    inside = (x > 1) & (y > 1) & (x < frame.shape[1] - 2) & (y < frame.shape[0] - 2)
    return cv2.remap(frame, x, y, cv2.INTER_LINEAR), inside


def layers(scene, index):
    """Which thing is seen where, its outline's surroundings -1: int8 (H, W), 0 the background."""
    grid = np.meshgrid(*(np.arange(side, dtype=np.float64) for side in SIZE[::-1]))
    seen, unclear = np.zeros(SIZE, np.int8), np.zeros(SIZE, bool)
    for number, thing in enumerate(scene._things, 1):
        cover = thing.cover(index, *grid)
        seen[cover > 0.5] = number
        unclear |= cv2.dilate(((cover > 0.001) & (cover < 0.999)).astype(np.uint8), np.ones((5, 5))) > 0
    seen[unclear] = -1
    return seen


@pytest.mark.parametrize(
    "shares", [*({name: 1.0} for name in ALL), ALL, CROWDED, ALL | CROWDED], ids=[*ALL, "all", "crowd", "all_crowded"]
)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_next_frame_brought_back_by_the_flow_is_the_frame(root, shares, direction):
    step = 1 if direction == "forward" else -1
    compared, better = [], []
    for seed in range(4):
        for still in move(root, seed, **shares).values():
            scene = _load(still)
            frames, seen = [scene.render(index) for index in range(4)], [layers(scene, index) for index in range(4)]
            flows = list(still.read_flows(SIZE, direction, 1))
            for index in range(4):
                if not 0 <= index + step < 4:
                    continue
                warped, inside = sample(frames[index + step], flows[index])
                grid = np.mgrid[: SIZE[0], : SIZE[1]][::-1].astype(np.float32) + flows[index].transpose(2, 0, 1)
                there = cv2.remap(seen[index + step].astype(np.int16), *grid, cv2.INTER_NEAREST)
                # Away from outlines, and where the flow leads to the same thing: not covered then.
                valid = inside & (seen[index] >= 0) & (there == seen[index])
                error = np.abs(warped.astype(np.float32) - frames[index])[valid]
                unmoved = np.abs(frames[index + step].astype(np.float32) - frames[index])[valid]
                assert np.percentile(error, 99) <= 3 and error.max() <= 12, (still.name, seed)
                compared.append(valid.mean())
                better.append(unmoved.mean() / max(error.mean(), 0.05))
    # A crowd is full of outlines.
    assert np.mean(compared) > (0.25 if "crowd_share" in shares else 0.6) and np.median(better) > 3


def test_a_shrunk_object_is_a_video_objects_share_of_the_frame(root):
    zooms, middles = [], []
    for seed in range(30):
        plain, shrunk = move(root, seed), move(root, seed, shrunk_share=1.0)
        for name in "abcd":
            covers = [shrunk[name].read_mask(index).mean() for index in range(4)]
            assert 0.025 < min(covers) and max(covers) < 0.31
            zooms.append(np.sqrt(np.linalg.det(_load(shrunk[name])._camera[1][:, :2])))
            middles.append(np.mean(np.nonzero(shrunk[name].read_mask(1)), axis=1))
        for first, second in zip(plain["edge"].read_frames(), shrunk["edge"].read_frames(), strict=True):
            assert first[1] == second[1]  # left as it is
    assert 0.43 < min(zooms) < 0.55 and 0.85 < max(zooms) < 0.97
    assert np.ptp(middles, axis=0).min() > 20  # not always in the middle


def test_a_shrunk_stills_surround_is_its_mirrored_background(root):
    """Nothing bright, which only objects are, is seen but the object."""
    for still in move(root, 3, shrunk_share=1.0).values():
        if still.name == "edge":
            continue
        for index, (_, _, frame) in enumerate(still.read_frames()):
            bright, mask = frame.mean(axis=-1) > 140, still.read_mask(index)
            assert (bright == mask).mean() > 0.98


def fit_homography(flow, background):
    """The largest error, in pixels, of the homography that fits the background's flow best."""
    rows, columns = np.nonzero(background)
    start = np.stack([columns, rows], axis=1).astype(np.float32)
    end = start + flow[background]
    matrix, _ = cv2.findHomography(start, end, 0)
    fitted = cv2.perspectiveTransform(start[:, None], matrix)[:, 0]
    return np.percentile(np.hypot(*(fitted - end).T), 95)


def test_no_homography_explains_a_background_with_parallax(root):
    flat, deep = [], []
    for seed in range(10):
        for errors, shares in ((flat, {}), (deep, {"parallax_share": 1.0})):
            still = move(root, seed, num_frames=2, **shares)["a"]
            errors.append(fit_homography(next(still.read_flows(SIZE, "forward", 1)), ~still.read_mask(0)))
    assert max(flat) < 0.1  # flow is rounded to 1/16
    assert np.median(deep) > 0.3 and min(deep) > 0.1


def test_the_camera_never_sees_beyond_a_still_with_parallax(root):
    height, width = SIZE
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    nearest = np.inf
    for seed in range(12):
        for still in move(root, seed, num_frames=12, parallax_share=1.0).values():
            scene = _load(still)
            for index in range(12):
                inverse = np.linalg.inv(np.vstack([scene._camera[index], [0, 0, 1]]))[:2]
                flat = np.tensordot(inverse, np.stack([columns, rows, np.ones(SIZE)]), 1)
                x, y = scene._relief.undo(index, *flat)
                room = min(x.min() + 1, width - x.max(), y.min() + 1, height - y.max())
                assert room > 0, (still.name, seed)
                nearest = min(nearest, room)
    assert nearest < 3  # the room is used


def test_a_distractor_is_smaller_slower_behind_and_no_object(root):
    grid = np.meshgrid(*(np.arange(side, dtype=np.float64) for side in SIZE[::-1]))
    found, resting, tested = 0, 0, 0
    for seed in range(20):
        plain, with_other = move(root, seed), move(root, seed, distractor_share=1.0)
        for name, still in with_other.items():
            tested += 1
            scene = _load(still)
            if len(scene._things) == 1:
                continue
            found += 1
            other, own = scene._things
            masks = [still.read_mask(index) for index in range(4)]
            frames = [frame for _, _, frame in still.read_frames()]
            assert (other._alpha > 0.5).sum() <= 0.5 * (own._alpha > 0.5).sum()
            covers = [other.cover(index, *grid) for index in range(4)]
            before = list(plain[name].read_frames())
            for index, mask in enumerate(masks):
                np.testing.assert_array_equal(mask, plain[name].read_mask(index))  # the same clip, and no object more
                changed = np.abs(frames[index].astype(int) - before[index][2]).max(axis=-1) > 40
                near = cv2.dilate((covers[index] > 0).astype(np.uint8), np.ones((17, 17))) > 0  # JPEG's blocks
                assert not changed[~near].any()
                assert not changed[cv2.erode(mask.astype(np.uint8), np.ones((9, 9))) > 0].any()  # it is behind
            speeds = []
            for thing in scene._things:
                height, width = thing._alpha.shape
                rows, columns = np.nonzero(thing._alpha > 0.5)
                point = [columns.mean(), rows.mean(), 1]
                places = [np.linalg.inv(np.vstack([view, [0, 0, 1]]))[:2] @ [*(step @ point), 1]
                          for view, step in zip(scene._camera, thing.maps, strict=True)]  # fmt: skip
                speeds.append(np.hypot(*(places[-1] - places[0])))
            assert speeds[0] <= 0.75 * speeds[1] + 1e-6
            resting += speeds[0] < 1e-6 < speeds[1]
    assert found > 0.8 * tested
    assert 0.15 < resting / found < 0.5


def test_a_crowd_rests_is_as_large_as_the_object_behind_it_and_no_object(root):
    sizes, areas, hidden = [], [], []
    for seed in range(20):
        plain, crowded = move(root, seed), move(root, seed, crowd_share=1.0)
        for name, still in crowded.items():
            scene = _load(still)
            *members, own = scene._things
            camera = [np.linalg.inv(np.vstack([view, [0, 0, 1]])) for view in scene._camera]
            in_plane = [[inverse[:2, :2] @ step[:, :2] for inverse, step in zip(camera, thing.maps, strict=True)]
                        for thing in members]  # fmt: skip
            for maps in in_plane:
                np.testing.assert_allclose(maps, np.repeat(np.eye(2)[None], len(maps), axis=0), atol=1e-9)
            sizes.append(len(members))
            areas += [(member._alpha > 0.5).sum() / (own._alpha > 0.5).sum() for member in members]
            before = list(plain[name].read_frames())
            for index, (_, _, frame) in enumerate(still.read_frames()):
                mask = still.read_mask(index)
                np.testing.assert_array_equal(mask, plain[name].read_mask(index))  # the same clip, and no object more
                inside = cv2.erode(mask.astype(np.uint8), np.ones((9, 9))) > 0  # JPEG's blocks
                assert np.abs(frame.astype(int) - before[index][2]).max(axis=-1)[inside].max(initial=0) <= 40
            grid = np.meshgrid(*(np.arange(side, dtype=np.float64) for side in SIZE[::-1]))
            cover = own.cover(1, *grid) > 0.5
            scale = np.linalg.det(scene._camera[1][:, :2])
            hidden += [(cover & (member.cover(1, *grid) > 0.5)).sum() / (member._alpha > 0.5).sum() / scale
                       for member in members]  # fmt: skip
    there = [size for size in sizes if size]
    assert max(there) == 7 and len(there) > 0.6 * len(sizes) and np.median(there) >= 4
    assert 0.25 < min(areas) and max(areas) < 1.7 and np.mean(np.array(areas) > 1) > 0.2
    assert max(hidden) < 0.75 and np.mean(np.array(hidden) > 0.2) > 0.05


def test_only_an_object_that_moves_has_a_crowd(root):
    still = move(root, 0)["a"]
    image, mask = next(still.read_frames())[2], still.read_mask(0)
    others = [(image, mask)]
    camera = np.repeat(np.eye(2, 3)[None], 3, axis=0)

    def draw(pixels):
        motion = camera + [[[0, 0, pixels * index], [0, 0, 0]] for index in range(3)]
        return crowds.draw(np.random.default_rng(0), image, mask, others, camera, motion, StillMotionOptions())

    assert draw(0) == [] == draw(0.006 * SIZE[0]) and len(draw(0.008 * SIZE[0])) >= 3
    edge = mask.copy()
    edge[0] = True  # it is cut off, so that there are no copies of it, and nothing else was at hand
    assert crowds.draw(np.random.default_rng(0), image, edge, [], camera, camera + [[[0, 0, 5]] * 2] *
                       np.arange(3)[:, None, None], StillMotionOptions()) == []  # fmt: skip


def test_each_share_is_drawn_by_itself(root):
    counts = np.zeros(3)
    for seed in range(60):
        for still in move(root, seed, shrunk_share=0.5, parallax_share=0.5, distractor_share=0.5).values():
            if still.name == "edge":
                continue
            scene = _load(still)
            counts += [np.linalg.det(scene._camera[0][:, :2]) < 1, scene._relief is not None, len(scene._things) > 1]
    assert (counts / 240 > 0.38).all() and (counts / 240 < 0.62).all()


def test_the_share_of_crowds_is_drawn_by_itself(root):
    crowded, possible = 0, 0
    for seed in range(40):
        always, half = move(root, seed, **CROWDED), move(root, seed, crowd_share=0.5)
        for name in always:
            most, found = len(_load(always[name])._things), len(_load(half[name])._things)
            assert found in (1, most)
            possible += most > 1
            crowded += found > 1
    assert possible > 100 and 0.38 < crowded / possible < 0.62


def test_a_clip_is_a_function_of_seed_and_names(root):
    def render(seed):
        stills = move(root, seed, **ALL, **CROWDED)
        return {name: [encoded for _, encoded, _ in still.read_frames()] for name, still in stills.items()}

    first, other = render(1), render(2)
    _load.cache_clear()
    assert render(1) == first
    assert all(other[name] != first[name] for name in first)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_share_is_between_0_and_1(value):
    with pytest.raises(ValueError, match="parallax_share must be between 0 and 1, not"):
        StillMotionOptions(parallax_share=value)


def make_records(root, output, *arguments):
    given = ["--dataset=stills", f"--root={root}", f"--output_dir={output}"]
    return msst("make_records", *given, "--motion_size=32x48", "--num_shards=1", "--num_workers=1", *arguments)


def test_the_tool_records_the_shares_that_are_not_0(root, tmp_path):
    result = make_records(root, tmp_path / "r", "--still_frames=2", "--still_shrunk=1", "--still_distractors=.5")
    assert result.returncode == 0, result.stderr
    manifest = json.loads((tmp_path / "r" / "manifest.json").read_text())
    assert manifest["stills"] == {"num_frames": 2, "seed": 0, "flow": "exact", "shrunk": 1.0, "distractors": 0.5}
    result = make_records(root, tmp_path / "r", "--still_frames=2", "--still_shrunk=1")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "holds other records: stills distractors 0.5 (now none)" in result.stderr
    result = make_records(root, tmp_path / "none", "--still_frames=2", "--still_parallax=0")
    assert result.returncode == 0, result.stderr
    manifest = json.loads((tmp_path / "none" / "manifest.json").read_text())
    assert manifest["stills"] == {"num_frames": 2, "seed": 0, "flow": "exact"}  # as before there were shares
    result = make_records(root, tmp_path / "one", "--still_parallax=.5")
    assert result.returncode == 1 and "--still_parallax is for stills in motion; give --still_frames=2" in result.stderr
