"""The temporal filter: it follows what moves, forgets what is uncovered, and knows no more than the frames around."""

from __future__ import annotations

import json
import types

import numpy as np
import pytest

from msst_keras.inference import saved_models
from msst_keras.inference.motion_stream import MovingFrame
from msst_keras.inference.saliency_stream import SaliencyStream, open_filter
from msst_keras.inference.stream import stream_maps
from msst_keras.inference.temporal_filter import MAX_BEFORE, NUM_FRAMES, NoFilter, TemporalFilter
from msst_keras.motion.flow import FlowEstimator, FlowSettings
from msst_keras.motion.settings import MotionSettings, PriorSettings

SIZE = (48, 64)
FLOW = FlowSettings(motion_size=SIZE)
SHARE = 0.7
TOGETHER = 4  # maps that wait for those after them come four at a time


def scene(num_frames=12, speed=2):
    """A texture that moves to the right, frames uint8 and exact flow from each to the next."""
    texture = np.random.default_rng(0).integers(0, 128, (12, 40, 3)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    frames = [np.ascontiguousarray(texture[:, 64 - speed * t : 128 - speed * t]) for t in range(num_frames)]
    return frames, np.full((*SIZE, 2), (speed, 0), np.float32)


def run(maps, frames, flows, settings=FLOW, times=None, look_ahead=0, first=0):
    """The filtered maps, each as soon as it may come."""
    filtering = TemporalFilter(SHARE, settings, look_ahead, first)
    times = times or [None] * len(frames)
    filtered = []
    for number, (frame, flow, time, saliency) in enumerate(zip(frames, flows, times, maps, strict=True)):
        filtered += filtering.push(MovingFrame(frame, flow, time=time), saliency)
        num_ready = max(first, first + number + 1 - look_ahead)
        assert first + len(filtered) == (max(first, num_ready // TOGETHER * TOGETHER) if look_ahead else num_ready)
    filtered += filtering.close()
    assert len(filtered) == len(frames) and filtering.close() == []
    return filtered


def map_of(value, columns=slice(None)):
    saliency = np.full(SIZE, 0.05, np.float32)
    saliency[:, columns] = value
    return saliency


def test_doubt_is_settled_by_what_was_seen_of_the_same_points():
    frames, flow = scene()
    # An object 16 pixels wide that moves with the texture; in the last frame the network is in doubt about it.
    maps = [map_of(0.95, slice(10 + 2 * t, 26 + 2 * t)) for t in range(11)] + [map_of(0.4, slice(32, 48))]
    filtered = run(maps, frames, [flow] * 12)
    assert filtered[-1][:, 34:46].min() > 0.7 > 0.4
    assert filtered[-1][:, :30].max() < 0.1 and filtered[-1][:, 50:].max() < 0.1
    misled = run(maps, frames, [-flow] * 12)  # with a wrong flow hardly any points are alike
    assert np.median(misled[-1][:, 34:46]) < 0.55 < 0.85 < np.median(filtered[-1][:, 34:46])


def test_the_first_map_is_as_it_was_and_a_new_scene_forgets_the_old_one():
    frames, flow = scene()
    others = [frame + 128 for frame in frames]
    maps = [map_of(0.95)] * 6 + [map_of(0.2)] * 2
    filtered = run(maps, [*frames[:6], *others[6:8]], [flow] * 8)
    np.testing.assert_array_equal(filtered[0], maps[0])
    assert np.abs(filtered[6] - 0.2).mean() < 0.02


def test_what_comes_in_at_the_edge_has_no_past():
    frames, flow = scene(speed=8)
    maps = [map_of(0.95)] * 5 + [map_of(0.2)]
    last = run(maps, frames[:6], [flow] * 6)[-1]
    np.testing.assert_allclose(last[:, :8], 0.2, atol=1e-6)
    assert last[4:-4, 20:-4].min() > 0.5


def test_a_frame_counts_less_with_each_step_away():
    """In a scene at rest, the mean of logits with weights of powers of the share."""
    num_frames = 3 * NUM_FRAMES
    frames, _ = scene(num_frames, speed=0)
    logits = np.random.default_rng(0).normal(size=num_frames)
    maps = [np.full(SIZE, 1 / (1 + np.exp(-value)), np.float32) for value in logits]
    numbers = np.arange(num_frames)
    begin = (numbers // NUM_FRAMES - 1) * NUM_FRAMES  # of the older of the two sums
    for look_ahead in (0, 1, 7):
        end = (numbers // TOGETHER + 1) * TOGETHER - 1 + look_ahead if look_ahead else numbers
        counts = (numbers >= begin[:, None]) & (numbers <= end[:, None])
        weights = SHARE ** np.abs(np.subtract.outer(numbers, numbers)) * counts
        assert (counts.sum(axis=1)[NUM_FRAMES : -look_ahead or None] > NUM_FRAMES + look_ahead).all()
        filtered = run(maps, frames, [np.zeros((*SIZE, 2), np.float32)] * num_frames, look_ahead=look_ahead)
        expected = 1 / (1 + np.exp(-(weights @ logits) / weights.sum(axis=1)))
        np.testing.assert_allclose([saliency.mean() for saliency in filtered], expected, atol=1e-5)


def test_where_all_frames_count_time_has_no_direction():
    frames, flow = scene()
    maps = list(np.random.default_rng(1).random((12, *SIZE)).astype(np.float32))
    forth = run(maps, frames, [flow] * 12, look_ahead=12)
    backward = FlowSettings(motion_size=SIZE, direction="backward")
    # Played from its end, the flow from each frame to the next is what led from the next to it.
    back = run(maps[::-1], frames[::-1], [flow] * 12, settings=backward, look_ahead=12)
    np.testing.assert_allclose(back[::-1], forth, atol=1e-5)
    one_sided = run(maps, frames, [flow] * 12)
    np.testing.assert_allclose(forth[-1], one_sided[-1], atol=1e-6)  # nothing comes after it
    assert np.abs(forth[5] - one_sided[5]).mean() > 0.02


def test_what_comes_after_settles_doubt_too():
    frames, flow = scene()
    maps = [map_of(0.4, slice(10, 26))] + [map_of(0.95, slice(10 + 2 * t, 26 + 2 * t)) for t in range(1, 12)]
    first = run(maps, frames, [flow] * 12, look_ahead=3)[0]
    assert first[:, 12:24].min() > 0.7 and first[:, 28:].max() < 0.1
    np.testing.assert_array_equal(run(maps, frames, [flow] * 12)[0], maps[0])


@pytest.mark.parametrize("look_ahead", [0, 3])
@pytest.mark.parametrize("first", [1, 5, NUM_FRAMES])
def test_a_video_can_be_gone_on_with_in_its_middle(look_ahead, first):
    frames, flow = scene(3 * NUM_FRAMES + 4, speed=1)
    maps = list(np.random.default_rng(1).random((len(frames), *SIZE)).astype(np.float32))
    whole = run(maps, frames, [flow] * len(maps), look_ahead=look_ahead)
    later = run(maps[first:], frames[first:], [flow] * (len(maps) - first), look_ahead=look_ahead, first=first)
    begin = first + MAX_BEFORE
    assert len(whole) > begin
    np.testing.assert_array_equal(later[begin - first :], whole[begin:])
    changed = [1 - maps[0], *maps[1:]]
    others = run(changed, frames, [flow] * len(maps), look_ahead=look_ahead)
    same = [np.array_equal(one, other) for one, other in zip(whole, others, strict=True)]
    assert not any(same[:NUM_FRAMES]) and all(same[1 + MAX_BEFORE :])


def test_backward_flow_and_missing_frames_give_the_same():
    frames, flow = scene()
    maps = list(np.random.default_rng(1).random((6, *SIZE)).astype(np.float32))
    expected = run(maps, frames[:6], [flow] * 6)
    backward = FlowSettings(motion_size=SIZE, direction="backward")
    np.testing.assert_allclose(run(maps, frames[:6], [-flow] * 6, settings=backward), expected, atol=1e-5)
    # Every second frame of a video that is half as fast: the flow in pixels per frame is half, the time between is 2.
    times = [2.0 * t for t in range(6)]
    np.testing.assert_allclose(run(maps, frames[:6], [flow / 2] * 6, times=times), expected, atol=1e-5)


def test_maps_stay_maps_at_any_size():
    frames, flow = scene()
    frames = [frame.repeat(2, 0).repeat(3, 1) for frame in frames]
    maps = [np.random.default_rng(t).integers(0, 2, (96, 192)).astype(np.float32) for t in range(12)]
    for saliency in run(maps, frames, [flow] * 12):
        assert saliency.shape == (96, 192) and saliency.dtype == np.float32
        assert saliency.min() >= 0 and saliency.max() <= 1


class Model:
    """A model of four frames, which sees none mirrored; its maps are what it is given; no network."""

    def __init__(self, maps, settings, has_motion=True):
        self.maps, self.settings = maps, {"num_frames": 4} | settings
        self.motion = MotionSettings(FLOW.to_dict(), None, PriorSettings("flow")) if has_motion else None

    def open_maps(self):
        maps = iter(self.maps)
        return types.SimpleNamespace(push=lambda moving: next(maps))


def test_a_stream_filters_as_its_model_says():
    frames, _ = scene()
    maps = list(np.random.default_rng(1).random((12, *SIZE)).astype(np.float32))

    def stream(settings):
        stream = SaliencyStream(Model(maps, settings))
        return np.stack([saliency for frame in frames for saliency in stream.push(frame)] + stream.close())

    np.testing.assert_array_equal(stream({}), maps)
    flows = list(FlowEstimator(FLOW).flows(frames))
    np.testing.assert_array_equal(stream({"temporal_filter": SHARE}), run(maps, frames, flows))


@pytest.mark.parametrize("how", [{}, {"temporal_filter": 0.4}, {"look_ahead": 3}, {"first": 3}])
def test_a_mirrored_video_is_filtered_as_the_plain_one(how):
    """With `mirror`, each map is the mean of both videos' filtered maps."""
    frames, _ = scene(20)
    maps = np.random.default_rng(1).random((2, 20, *SIZE)).astype(np.float32)

    def stream(maps, frames, **more):
        model, videos = Model([], {"temporal_filter": SHARE}), iter(maps)
        model.open_maps = lambda: Model(next(videos), {}).open_maps()
        return np.stack([saliency for *_, saliency in stream_maps(model, enumerate(frames), **how, **more)])

    plain, other = stream(maps[:1], frames), stream(maps[1:], [frame[:, ::-1].copy() for frame in frames])
    np.testing.assert_array_equal(stream(maps, frames, mirror=True), (plain + other[:, :, ::-1]) / 2)
    assert not how or (plain != run(maps[0], frames, list(FlowEstimator(FLOW).flows(frames)))).any()


def test_what_cannot_be_filtered_is_said():
    assert isinstance(open_filter(Model([], {}, has_motion=False)), NoFilter)
    assert isinstance(open_filter(Model([], {"temporal_filter": SHARE}, has_motion=False), 0.0), NoFilter)
    with pytest.raises(ValueError, match="sees no motion, along which maps could be carried; set --temporal_filter=0"):
        open_filter(Model([], {}, has_motion=False), SHARE)


@pytest.mark.parametrize("share", ["0.7", -0.1, 0.95, float("nan"), None, [0.7], True])
def test_a_damaged_share_is_refused(tmp_path, share):
    folder = tmp_path / "assets"
    folder.mkdir()
    (folder / "msst.json").write_text(
        json.dumps({"num_frames": 1, "image_size": [32, 32], "motion": None, "temporal_filter": share})
    )
    with pytest.raises(ValueError, match="msst.json: damaged .expected a number of 0 to 0.9 in temporal_filter"):
        saved_models.read_settings(tmp_path)
