from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import skimage.data

from msst_keras.data import flow_files, images
from msst_keras.motion.flow import EDGE_RULE, FLOW_METHODS, FlowEstimator, FlowSettings, reduce_frame
from msst_keras.motion.flow_pictures import flow_to_color, magnitude_prior

SIZE = (64, 96)


def shifted_photo(offset, size=SIZE):
    """A crop of a photograph whose content stands `offset` (x, y) pixels further than in the crop of offset (0, 0)."""
    matrix = np.float32([[1, 0, 150 - offset[0]], [0, 1, 100 - offset[1]]])
    return cv2.warpAffine(skimage.data.chelsea(), matrix, size[::-1], flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)


def moving_photo(num_frames, velocity=(2.0, -1.0), size=SIZE):
    return [shifted_photo((velocity[0] * t, velocity[1] * t), size) for t in range(num_frames)]


@pytest.mark.parametrize("method", FLOW_METHODS)
def test_translation_has_its_flow(method):
    offset = (3.25, -2.0)
    estimator = FlowEstimator(FlowSettings(method, (96, 144)))
    flow = estimator.between(shifted_photo((0, 0), (96, 144)), shifted_photo(offset, (96, 144)))
    errors = np.linalg.norm(flow - np.float32(offset), axis=-1)[12:-12, 12:-12]
    assert np.median(errors) < 0.1
    assert errors.mean() < 0.1


def test_flow_is_in_pixels_of_the_reduced_frame():
    frames = shifted_photo((0, 0), (192, 192)), shifted_photo((8, 8), (192, 192))
    flow = FlowEstimator(FlowSettings(motion_size=(96, 48))).between(*frames)
    assert np.median(flow[10:-10, 10:-10], axis=(0, 1)) == pytest.approx([2, 4], abs=0.1)


def test_rubberwhale(real_data):
    encoded = (real_data / "flow/rubberwhale/flow10.flo").read_bytes()
    width, height = np.frombuffer(encoded, np.int32, 2, 4)
    truth = np.frombuffer(encoded, np.float32, -1, 12).reshape(height, width, 2)
    first, second = (images.read_frame(real_data / f"flow/rubberwhale/frame{number}.png") for number in (10, 11))
    for method, limit in (("dis", 0.13), ("dis_fast", 0.25), ("deepflow", 0.25)):
        flow = FlowEstimator(FlowSettings(method, (int(height), int(width)))).between(first, second)
        errors = np.linalg.norm(flow - truth, axis=-1)[np.abs(truth).max(axis=-1) < 1e9]
        assert errors.mean() < limit, method


def test_frames_are_reduced_by_areas_and_enlarged_bilinearly():
    frame = np.zeros((128, 128, 3), np.uint8)
    frame[::4, ::4] = 255  # of each 4x4 area a sixteenth, far from its middle
    assert (reduce_frame(frame, (32, 32)) == 16).all()
    edge = np.zeros((64, 32, 3), np.uint8)
    edge[:, 16:] = 200
    enlarged = reduce_frame(edge, (32, 128))  # one side shrinks, the other grows
    np.testing.assert_array_equal(enlarged[:, 61:67], np.tile([0, 25, 75, 125, 175, 200], (32, 1)))


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("num_frames", [2, 3, 6])
def test_every_frame_gets_the_flow_that_the_edge_rule_names(direction, stride, num_frames):
    frames = moving_photo(num_frames)
    settings = FlowSettings("dis_fast", SIZE, direction, stride)
    estimator = FlowEstimator(settings)
    expected, last = [], num_frames - 1
    for t in range(num_frames):
        if direction == "forward":
            other, sign = (min(t + stride, last), 1) if t < last else (t - 1, -1)
        else:
            other, sign = (max(t - stride, 0), 1) if t else (1, -1)
        flow = estimator._calculate(reduce_frame(frames[t], SIZE), reduce_frame(frames[other], SIZE))
        expected.append(np.round(sign * flow / abs(other - t) * 16) / 16)
    np.testing.assert_array_equal(list(estimator.flows(frames)), expected)
    velocity = [2, -1] if direction == "forward" else [-2, 1]
    np.testing.assert_allclose(np.median(expected, axis=(1, 2)), np.tile(velocity, (num_frames, 1)), atol=0.1)


def test_one_frame_has_no_flow_and_no_frame_none():
    estimator = FlowEstimator(FlowSettings(motion_size=SIZE))
    (flow,) = estimator.flows(moving_photo(1))
    np.testing.assert_array_equal(flow, np.zeros((*SIZE, 2), np.float32))
    assert list(estimator.flows([])) == []


def test_push_gives_flows_as_soon_as_they_are_known():
    frames = moving_photo(5)
    for settings, num_pushed, num_left in (
        (FlowSettings("dis_fast", SIZE), [0, 1, 1, 1, 1], 1),
        (FlowSettings("dis_fast", SIZE, stride=2), [0, 0, 1, 1, 1], 2),
        (FlowSettings("dis_fast", SIZE, "backward"), [0, 2, 1, 1, 1], 0),
        (FlowSettings("dis_fast", SIZE, "backward", 3), [0, 2, 1, 1, 1], 0),
    ):
        estimator = FlowEstimator(settings)
        for _ in range(2):  # closing makes it as new
            pushed = [estimator.push(frame) for frame in frames]
            left = estimator.close()
            assert [len(flows) for flows in pushed] == num_pushed
            assert len(left) == num_left
            np.testing.assert_array_equal([*sum(pushed, []), *left], list(estimator.flows(frames)))


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("stride", [1, 2])
def test_flow_is_divided_by_the_true_time_between_frames(direction, stride):
    stream = FlowEstimator(FlowSettings("dis", SIZE, direction, stride))
    found = []
    for time in (0, 1, 2, 4, 4.5, 6):  # some frames never came, and one came between two
        found += stream.push(shifted_photo((2.0 * time, -1.0 * time)), time)
    found += stream.close()
    assert len(found) == 6
    sign = 1 if direction == "forward" else -1
    for flow in found:
        assert np.median(flow, axis=(0, 1)) == pytest.approx([2 * sign, -sign], abs=0.15)


def test_times_of_frames_must_rise():
    stream = FlowEstimator(FlowSettings(motion_size=(32, 32)))
    stream.push(np.zeros((32, 32, 3), np.uint8), 3.5)
    with pytest.raises(ValueError, match="Times of frames must rise, found 3.5 after 3.5"):
        stream.push(np.zeros((32, 32, 3), np.uint8), 3.5)


def test_flows_and_push_do_not_meet():
    estimator = FlowEstimator(FlowSettings("dis_fast", SIZE))
    frames = moving_photo(3)
    estimator.push(frames[2])
    assert len(list(estimator.flows(frames))) == 3
    np.testing.assert_array_equal(estimator.push(frames[0])[0], estimator.between(frames[2], frames[0]))


def test_frames_are_taken_one_at_a_time():
    taken = []

    def frames():
        for t, frame in enumerate(moving_photo(6)):
            taken.append(t)
            yield frame

    flows = FlowEstimator(FlowSettings("dis_fast", SIZE, stride=2)).flows(frames())
    next(flows)
    assert taken == [0, 1, 2]


@pytest.mark.parametrize("method", FLOW_METHODS)
def test_flow_depends_on_its_frames_alone(method):
    num_threads = cv2.getNumThreads()
    settings = FlowSettings(method, SIZE)
    frames = moving_photo(3, (1.5, 0.75))
    used = FlowEstimator(settings)
    try:
        cv2.setNumThreads(1)
        expected = FlowEstimator(settings).between(frames[0], frames[1])
        for threads in (2, 5):
            cv2.setNumThreads(threads)
            used.between(frames[2], frames[0])
            np.testing.assert_array_equal(used.between(frames[0], frames[1]), expected)
    finally:
        cv2.setNumThreads(num_threads)


def test_flow_is_what_its_file_holds():
    flow = FlowEstimator(FlowSettings(motion_size=SIZE)).between(*moving_photo(2, (1.3, -0.4)))
    assert flow.dtype == np.float32
    decoded = flow_files.decode_flow_png(flow_files.encode_flow_png(flow), "flow")
    assert decoded.tobytes() == flow.tobytes()  # to the bit, so no negative zeros either


@pytest.mark.parametrize("value", [2047.98, -2048.0, np.nan])
def test_flow_that_a_file_cannot_hold(value, monkeypatch):
    estimator = FlowEstimator(FlowSettings(motion_size=SIZE))
    monkeypatch.setattr(estimator, "_calculate", lambda first, second: np.full((*SIZE, 2), value, np.float32))
    with pytest.raises(ValueError, match="finite and below 2048 pixels, found (2048|nan).* 'dis'"):
        estimator.between(*moving_photo(2))


def test_settings_make_the_round_trip_through_json():
    settings = FlowSettings("tvl1", (48, 64), "backward", 2)
    stored = json.loads(json.dumps(settings.to_dict()))
    assert stored["rounding"] == 1 / 16
    assert stored["edge_rule"] == EDGE_RULE
    assert FlowSettings.from_dict(stored) == settings
    assert FlowSettings.from_dict(FlowSettings("files").to_dict()) == FlowSettings("files")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "magic"}, "method must be one of dis, .*, found 'magic'"),
        ({"motion_size": [16, 64]}, r"\(height, width\), both from 32 on, found \[16, 64\]"),
        ({"motion_size": [64]}, r"\(height, width\)"),
        ({"motion_size": [64.5, 64]}, r"\(height, width\)"),
        ({"direction": "sideways"}, "forward or backward, found 'sideways'"),
        ({"stride": 0}, "whole number of frames, 1 or more, found 0"),
        ({"rounding": 1 / 64}, "made with rounding 0.015625, this program's is 0.0625"),
        ({"edge_rule": "repeat"}, "made with edge_rule 'repeat'"),
        ({"colour": 1}, "must have the keys method, .*, found .*colour"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(ValueError, match=message):
        FlowSettings.from_dict({**FlowSettings().to_dict(), **change})


def test_flow_from_files_is_not_computed():
    with pytest.raises(ValueError, match="comes from files"):
        FlowEstimator(FlowSettings("files"))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((*SIZE, 3), np.float32), r"uint8 \(H, W, 3\) RGB array, found float32 \(64, 96, 3\)"),
        (np.zeros(SIZE, np.uint8), r"found uint8 \(64, 96\)"),
        (np.zeros((*SIZE, 4), np.uint8), r"found uint8 \(64, 96, 4\)"),
        ([[0]], "found list"),
    ],
)
def test_bad_frames(frame, message):
    estimator = FlowEstimator(FlowSettings(motion_size=SIZE))
    for take in (
        estimator.push,
        lambda frame: estimator.between(frame, frame),
        lambda frame: list(estimator.flows([frame])),
    ):
        with pytest.raises(ValueError, match=message):
            take(frame)


def test_frames_of_two_sizes():
    small, large = np.zeros((40, 50, 3), np.uint8), np.zeros((80, 50, 3), np.uint8)
    estimator = FlowEstimator(FlowSettings(motion_size=SIZE))
    with pytest.raises(ValueError, match=r"found \(40, 50, 3\) and \(80, 50, 3\)"):
        estimator.between(small, large)
    with pytest.raises(ValueError, match=r"found \(40, 50, 3\), then \(80, 50, 3\) at frame 2"):
        list(estimator.flows([small, small, large]))


def test_colors_of_directions():
    flow = np.float32([[(2, 0), (1, 0), (0, 0), (4, 0)], [(-2, 0), (0, 2), (0, -2), (-2, -1e-9)]])
    colors = flow_to_color(flow, max_magnitude=2)
    np.testing.assert_array_equal(colors[0], [(255, 0, 0), (255, 128, 128), (255, 255, 255), (255, 0, 0)])
    # Half, a quarter and three quarters of the 55 colours further: 27.5 is 2.5 of the 11 steps from cyan to blue, 13.75
    # that many of the 15 from red to yellow, 41.25 5.25 of the 13 from blue to magenta.
    expected = [(0, 197, 255), (255, 234, 0), (103, 0, 255), (0, 197, 255)]
    np.testing.assert_allclose(colors[1].astype(int), expected, atol=1)


def test_colors_have_no_seam():
    angles = np.linspace(0, 2 * np.pi, 2000)
    flow = np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)[None]
    steps = np.abs(np.diff(flow_to_color(flow, max_magnitude=1).astype(int), axis=1))
    assert steps.max() <= 3  # the steepest part of the wheel: 4 colours, so 1/4 a colour, 255 * 55 / 4 / 2000 = 1.8


def test_colors_without_a_given_magnitude():
    flow = np.zeros((100, 100, 2), np.float32)
    flow[:2, :, 0] = 8.0  # 2 % of the map: the 99th percentile
    flow[0, 0, 0] = 800.0
    np.testing.assert_array_equal(flow_to_color(flow), flow_to_color(flow, max_magnitude=8))
    noise = np.float32([[[0.5, 0], [-0.5, 0]]])
    np.testing.assert_array_equal(flow_to_color(noise), flow_to_color(noise, max_magnitude=1))


def test_magnitude_prior_of_an_object_under_a_moving_camera():
    flow = np.full((40, 50, 2), (5, -3), np.float32)
    flow[10:20, 10:20] += (0, 4)  # 5 % of the map
    flow[30, 30] += (2, 0)
    flow[31, 31] += (300, 0)
    expected = np.zeros((40, 50), np.float32)
    expected[10:20, 10:20] = expected[31, 31] = 1
    expected[30, 30] = 0.5
    np.testing.assert_array_equal(magnitude_prior(flow), expected)


def test_magnitude_prior_of_little_motion():
    flow = np.zeros((40, 50, 2), np.float32)
    assert (magnitude_prior(flow) == 0).all()
    flow[3, 4] = (0, 1)  # less than a hundredth of the map
    assert magnitude_prior(flow)[3, 4] == 1
    assert magnitude_prior(flow).sum() == 1


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        (np.zeros((4, 5, 3), np.float32), r"float \(H, W, 2\) array, x then y, found float32 \(4, 5, 3\)"),
        (np.zeros((4, 5, 2), np.int32), "found int32"),
        (np.full((4, 5, 2), np.nan, np.float32), "must be finite"),
    ],
)
def test_bad_flow(flow, message):
    for function in (flow_to_color, magnitude_prior):
        with pytest.raises(ValueError, match=message):
            function(flow)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_frame_whose_flow_is_refused_leaves_no_trace(direction):
    settings = FlowSettings("dis_fast", SIZE, direction)
    frames = moving_photo(3)
    expected = list(FlowEstimator(settings).flows(frames))
    estimator = FlowEstimator(settings)
    found = estimator.push(frames[0], 0)
    with pytest.raises(ValueError, match="Flow must be finite and below"):
        estimator.push(frames[2], 1e-6)  # so soon that what moved is too fast
    for number, frame in enumerate(frames[1:], 1):
        found += estimator.push(frame, number)
    np.testing.assert_array_equal([*found, *estimator.close()], expected)
