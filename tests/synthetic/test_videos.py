"""Generated sequences: frames, masks and flow agree with one another, and scenes hold what their options say."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys

import cv2
import numpy as np
import pytest

from msst_keras.data import datasets, images
from msst_keras.synthetic import scenes, textures, videos
from msst_keras.synthetic.affine import compose, invert
from msst_keras.synthetic.scenes import SceneOptions
from msst_keras.synthetic.videos import generate_sequence, write_davis

SIZE = (96, 144)
PIXELS = np.stack(np.meshgrid(np.arange(SIZE[1]), np.arange(SIZE[0])), axis=-1).astype(np.float32)
STILL_CAMERA = {"camera_speed": (0, 0), "camera_zoom": 0, "camera_rotation": 0, "follow_share": 0}
BUSY = SceneOptions(num_objects=(3, 3), num_distractors=(2, 2), occluder_share=1)


def flow_against_background(sequence, t):
    """Flow of frame t less the background's motion, continued behind all else; float64 (H, W, 2).

    Every layer moves by an affine map, so the background's is known from the pixels at which it is seen.
    """
    points = np.dstack([PIXELS, np.ones(SIZE)]).astype(np.float64)
    seen = sequence.visible[t] == 0
    affine = np.linalg.lstsq(points[seen], sequence.flow[t][seen].astype(np.float64), rcond=None)[0]
    return sequence.flow[t] - points @ affine


@pytest.mark.parametrize("seed", range(4))
def test_flow_leads_to_the_same_texture_in_the_next_frame(seed):
    sequence = generate_sequence(seed, 8, SIZE, BUSY)
    # Detail of the size of a pixel, which no resampling keeps, is smoothed away.
    frames = [cv2.GaussianBlur(frame.astype(np.float32), (0, 0), 0.8) for frame in sequence.frames]
    compared = set()
    for t in range(7):

        def error(*shift, t=t):
            warped = cv2.remap(frames[t + 1], PIXELS + sequence.flow[t] + np.float32(shift), None, cv2.INTER_CUBIC)
            return np.abs(warped - frames[t]).mean(axis=2)

        errors = error(0, 0)
        off = [error(*shift) for shift in ((0.4, 0), (-0.4, 0), (0, 0.4), (0, -0.4))]
        for layer, kind in enumerate(sequence.kinds):
            # Three pixels from the outline, where layers blend, in this frame and in the next.
            here, there = (cv2.erode(np.uint8(v == layer), np.ones((7, 7))) for v in sequence.visible[t : t + 2])
            both = (here > 0) & (cv2.remap(there, PIXELS + sequence.flow[t], None, cv2.INTER_NEAREST) > 0)
            if both.sum() > 200:
                compared.add(kind)
                assert errors[both].mean() < 2
                assert errors[both].mean() < min(other[both].mean() for other in off)
    assert {"background", "object"} <= compared


def test_camera_translation_is_the_flow():
    speed = 0.02
    camera = {**STILL_CAMERA, "camera_speed": (speed, speed)}
    sequence = generate_sequence(5, 4, SIZE, SceneOptions(**camera, num_objects=(0, 0), num_distractors=(1, 1)))
    motion = sequence.flow[:, 0, 0]
    np.testing.assert_allclose(np.linalg.norm(motion, axis=1), speed * SIZE[0], rtol=1e-5)
    np.testing.assert_allclose(sequence.flow, np.broadcast_to(motion[:, None, None], sequence.flow.shape), atol=1e-5)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in sequence.frames[:2]]
    aligned = cv2.findTransformECC(*grey, np.eye(2, 3, dtype=np.float32), cv2.MOTION_TRANSLATION)[1]
    np.testing.assert_allclose(aligned, [[1, 0, motion[0, 0]], [0, 1, motion[0, 1]]], atol=0.1)
    assert not sequence.masks.any() and "distractor" in sequence.kinds


def test_camera_and_objects_that_stand_still_give_no_flow():
    options = SceneOptions(**STILL_CAMERA, object_speed=(0, 0), object_rotation=0, object_growth=0)
    sequence = generate_sequence(0, 3, SIZE, options)
    assert sequence.masks.any()
    np.testing.assert_allclose(sequence.flow, 0, atol=1e-9)
    np.testing.assert_array_equal(sequence.frames[0], sequence.frames[2])


@pytest.mark.parametrize("seed", range(3))
def test_the_mask_moves_with_its_flow(seed):
    options = SceneOptions(num_objects=(1, 1), tiny_share=0, occluder_share=0)
    sequence = generate_sequence(seed, 10, SIZE, options)
    for t in range(9):
        target = np.rint((PIXELS + sequence.flow[t])[sequence.masks[t]]).astype(int)
        inside = ((target >= 0) & (target < SIZE[::-1])).all(axis=1)
        x, y = target[inside].T
        outline = cv2.dilate(sequence.masks[t + 1].astype(np.uint8), np.ones((3, 3))) > 0
        assert outline[y, x].all()  # rounding may step over the outline, by a pixel
        assert sequence.masks[t + 1][y, x].mean() > 0.9


def test_what_belongs_to_the_background_moves_with_it_and_objects_do_not():
    checked = set()
    for seed in range(4):
        sequence = generate_sequence(seed, 12, SIZE, BUSY)
        for t in range(12):
            relative = np.linalg.norm(flow_against_background(sequence, t), axis=2)
            for layer, kind in enumerate(sequence.kinds):
                seen = sequence.visible[t] == layer
                if kind in ("distractor", "occluder") and seen.any():
                    assert relative[seen].max() < 1e-3
                    checked.add(kind)
    assert checked == {"distractor", "occluder"}


def test_objects_move_visibly():
    speeds = []
    for seed in range(6):
        sequence = generate_sequence(seed, 10, SIZE, SceneOptions(halt_frames=0))
        for t in range(10):
            relative = np.linalg.norm(flow_against_background(sequence, t), axis=2)
            speeds += [
                relative[sequence.visible[t] == layer].mean() * 128 / SIZE[0]  # as at 128x192
                for layer, kind in enumerate(sequence.kinds)
                if kind == "object" and (sequence.visible[t] == layer).any()
            ]
    assert len(speeds) > 60 and min(speeds) > 1


def test_objects_halt_for_one_to_three_frames_and_stay_labelled():
    options = SceneOptions(num_objects=(1, 1), tiny_share=0, occluder_share=0, num_distractors=(0, 0), halt_rate=0.5)
    runs = set()
    for seed in range(4):
        sequence = generate_sequence(seed, 30, SIZE, options)
        assert sequence.masks.any(axis=(1, 2)).all()
        relative = [np.linalg.norm(flow_against_background(sequence, t)[sequence.masks[t]], axis=1) for t in range(30)]
        halted = "".join("h" if values.max() < 1e-3 else "m" for values in relative)
        assert all(values.min() > 0.1 for values, letter in zip(relative, halted, strict=True) if letter == "m")
        runs |= {len(run) for run in halted.rstrip("h").split("m") if run}
    assert runs == {1, 2, 3}


def test_a_following_camera_keeps_its_object_in_the_middle():
    distances = {}
    for follows in (0, 1):
        options = SceneOptions(num_objects=(1, 1), follow_share=follows, occluder_share=0, camera_speed=(0, 0))
        sequences = [generate_sequence(seed, 40, SIZE, options) for seed in range(4)]
        middles = [PIXELS[mask].mean(axis=0) for sequence in sequences for mask in sequence.masks[20:]]
        distances[follows] = np.linalg.norm(np.array(middles) - np.array(SIZE[::-1]) / 2, axis=1).mean()
    assert distances[1] < 0.8 * distances[0]


def test_objects_stay_in_view_and_the_scenes_differ():
    sequences = [generate_sequence(seed, 40, SIZE) for seed in range(6)]
    shares = np.array([sequence.masks.mean(axis=(1, 2)) for sequence in sequences])
    assert (shares > 0).mean() > 0.98 and shares.max() < 0.5
    assert len({sequence.frames[0].tobytes() for sequence in sequences}) == 6
    for sequence in sequences:
        assert sequence.frames.std() > 20
        assert set(np.unique(sequence.visible)) <= set(range(len(sequence.kinds)))
        labelled = [layer for layer, kind in enumerate(sequence.kinds) if kind == "object"]
        np.testing.assert_array_equal(sequence.masks, np.isin(sequence.visible, labelled))


def test_tiny_objects_are_tiny():
    sequence = generate_sequence(1, 2, (128, 192), SceneOptions(tiny_share=1, num_objects=(1, 1), occluder_share=0))
    assert 20 < sequence.masks[0].sum() < 250


def test_shape_depth_by_hand():
    ellipse = scenes.Shape(np.array([4.0, 2.0]), np.zeros(3, complex))
    depth = ellipse.depth(np.array([0.0, 4, 0, 8]), np.array([0.0, 0, -2, 0]))
    np.testing.assert_allclose(depth, [1, 0, 0, -1], atol=1e-12)
    lobed = scenes.Shape(np.array([1.0, 1.0]), np.array([0.25, 0.5j]))  # 1 + .25 cos(2a) - .5 sin(3a)
    angle = np.array([0.0, np.pi / 2, np.pi / 6])
    radius = np.array([1.25, 1.25, 1 + 0.125 - 0.5])
    np.testing.assert_allclose(lobed.depth(radius * np.cos(angle), radius * np.sin(angle)), 0, atol=1e-12)
    assert lobed.reach == 1.75


def test_masks_are_the_outlines_of_the_shapes():
    options = SceneOptions(num_objects=(1, 1), tiny_share=0, occluder_share=0, num_distractors=(0, 0))
    for seed in range(4):
        mask = generate_sequence(seed, 1, SIZE, options).masks[0]
        layer = scenes.make_scene(np.random.default_rng(seed), 1, SIZE, options)[-1]
        angle = np.linspace(0, 2 * np.pi, 4000)
        radius = 1 + sum((wave * np.exp(1j * k * angle)).real for k, wave in enumerate(layer.shape.waves, start=2))
        ellipse = layer.shape.half_axes[:, None] * np.stack([np.cos(angle), np.sin(angle)])
        outline = (layer.maps[0] @ np.vstack([radius * ellipse, np.ones(4000)])).T.astype(np.float32)
        inside = [cv2.pointPolygonTest(outline, tuple(map(float, pixel)), False) > 0 for pixel in PIXELS.reshape(-1, 2)]
        np.testing.assert_array_equal(mask, np.reshape(inside, SIZE))
        assert mask.sum() > 200


def test_the_first_view_lies_within_its_photograph():
    for seed, name in enumerate(textures.PHOTOS):
        texture, place = textures.cut_background(np.random.default_rng(seed), name, SIZE)
        half_view = np.array(SIZE[::-1]) / 2 * textures.TEXTURE_SCALE
        assert (place - half_view >= -1).all() and (place + half_view <= np.array(texture.shape[1::-1]) + 1).all()
        assert texture.std() > 20


def test_affine_maps_by_hand():
    turn = np.array([[0.0, -2, 5], [2, 0, 7]])  # a quarter turn, twice the size
    np.testing.assert_array_equal(turn @ [1, 0, 1], [5, 9])
    np.testing.assert_allclose(invert(turn) @ [5, 9, 1], [1, 0], atol=1e-12)
    np.testing.assert_allclose(compose(invert(turn), turn), np.eye(3)[:2], atol=1e-12)
    np.testing.assert_array_equal(compose(turn, np.array([[1.0, 0, 1], [0, 1, 0]])) @ [0, 0, 1], [5, 9])


def test_the_same_seed_gives_the_same_sequence_in_another_process():
    program = (
        "import hashlib; from msst_keras.synthetic.videos import generate_sequence;"
        "g = generate_sequence(3, 2, (48, 64));"
        "print(hashlib.sha256(g.frames.tobytes() + g.masks.tobytes() + g.flow.tobytes()).hexdigest())"
    )
    np.random.seed(0)
    sequence = generate_sequence(3, 2, (48, 64))
    content = sequence.frames.tobytes() + sequence.masks.tobytes() + sequence.flow.tobytes()
    theirs = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    assert hashlib.sha256(content).hexdigest() == theirs
    assert np.random.randint(10**6) == np.random.RandomState(0).randint(10**6)  # the global generator is not touched


def test_photographs_need_no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("tried to reach the network")

    monkeypatch.setattr(socket, "socket", refuse)
    textures._load_photo.cache_clear()
    for name in textures.PHOTOS:
        assert textures._load_photo(name).shape[2] == 3


def test_davis_tree_is_read_back(tmp_path):
    write_davis(tmp_path, 3, 2, (48, 64), seed=7, num_val=1)
    names = {split: [s.name for s in datasets.find_sequences("davis", tmp_path, split)] for split in ("train", "val")}
    assert names == {"train": ["generated_000", "generated_001"], "val": ["generated_002"]}
    for i, sequence in enumerate(datasets.find_sequences("davis", tmp_path)):
        made = generate_sequence([7, i], 2, (48, 64))
        for t, (name, encoded, frame) in enumerate(sequence.read_frames()):
            assert (name, encoded) == (f"{t:05d}", images.encode_jpeg(made.frames[t]))
            assert np.abs(frame.astype(int) - made.frames[t]).mean() < 6
            np.testing.assert_array_equal(sequence.read_mask(t), made.masks[t])
    assert set(np.unique(cv2.imread(str(sequence.mask_paths[1][0]), cv2.IMREAD_UNCHANGED))) == {0, 255}
    with pytest.raises(ValueError, match="480p holds sequences already; choose another folder"):
        write_davis(tmp_path, 1, 2, (48, 64), seed=7)


def test_a_sequence_depends_on_its_number_alone(tmp_path):
    for count in (1, 2):
        write_davis(tmp_path / str(count), count, 1, (48, 64), seed=1, prefix="toy")
    one, two = (tmp_path / count / "JPEGImages/480p/toy_000/00000.jpg" for count in "12")
    assert one.read_bytes() == two.read_bytes()


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr(videos.images, "encode_png", fail)
    with pytest.raises(OSError, match="disk full"):
        write_davis(tmp_path, 1, 2, (48, 64), seed=0)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() or path.name.startswith("generated")]


def test_arguments_out_of_range():
    for num_frames, size in ((0, SIZE), (1, (31, 64))):
        with pytest.raises(ValueError, match="expected frames of 32x32 or more, 1 or more of them, not"):
            generate_sequence(0, num_frames, size)
    for num_sequences, num_val in ((0, 0), (2, 3), (2, -1)):
        with pytest.raises(ValueError, match="expected 0 <= num_val <= num_sequences >= 1, not"):
            write_davis("nowhere", num_sequences, 1, SIZE, 0, num_val=num_val)
    with pytest.raises(ValueError, match="object_speed must be at least 0 and in order, not"):
        SceneOptions(object_speed=(0.02, 0.01))
    with pytest.raises(ValueError, match="tiny_share must be between 0 and 1, not 1.5"):
        SceneOptions(tiny_share=1.5)
