"""Every second frame is shown to the network mirrored, so that the temporal filter averages both views."""

from types import SimpleNamespace

import numpy as np
import pytest

from msst_keras.inference.motion_stream import MovingFrame
from msst_keras.inference.options import PredictOptions
from msst_keras.inference.saliency_stream import AlternatingMaps, SaliencyStream, open_maps
from msst_keras.inference.stream import SaliencyModel, stream_maps
from msst_keras.inference.temporal_filter import NoFilter, TemporalFilter
from msst_keras.jobs import live
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.settings import MotionSettings, PriorSettings


class Maps:
    """Remembers what it was shown; its map is bright where the frame's first channel is."""

    def __init__(self):
        self.shown = []

    def push(self, moving):
        self.shown.append(moving)
        return moving.frame[:, :, 0].astype(np.float32) / 255


def make_frames(count):
    generator = np.random.default_rng(0)
    for _ in range(count):
        frame = generator.integers(0, 256, (6, 8, 3)).astype(np.uint8)
        yield MovingFrame(
            frame, generator.normal(size=(3, 4, 2)).astype(np.float32), np.arange(12, dtype=np.int32).reshape(3, 4, 1)
        )


@pytest.mark.parametrize("first", [0, 7])
def test_odd_frames_are_shown_mirrored_and_their_maps_turned_back(first):
    seen = Maps()
    maps = AlternatingMaps(seen, first)
    for number, moving in enumerate(make_frames(4), first):
        np.testing.assert_array_equal(maps.push(moving), moving.frame[:, :, 0].astype(np.float32) / 255)
        shown, step = seen.shown[-1], -1 if number % 2 else 1
        np.testing.assert_array_equal(shown.frame, moving.frame[:, ::step])
        np.testing.assert_array_equal(shown.flow, moving.flow[:, ::step] * [step, 1])
        np.testing.assert_array_equal(shown.superpixels, moving.superpixels[:, ::step])


def test_frames_without_motion_are_mirrored_too():
    moving = MovingFrame(np.arange(18, dtype=np.uint8).reshape(2, 3, 3))
    mirrored = moving.mirror()
    np.testing.assert_array_equal(mirrored.frame, moving.frame[:, ::-1])
    assert mirrored.flow is None and mirrored.superpixels is None


def test_one_view_stays_where_nothing_averages_both():
    """Without a filter, and for a ConvLSTM, whose last frames have to show one view."""
    filtering = TemporalFilter(0.5, FlowSettings())
    for num_frames, settings, alternate, expected in (
        (1, filtering, True, AlternatingMaps),
        (1, filtering, False, Maps),
        (1, NoFilter(), True, Maps),
        (4, filtering, True, Maps),
    ):
        model = SimpleNamespace(open_maps=Maps, settings={"num_frames": num_frames})
        assert type(open_maps(model, settings, alternate)) is expected


@pytest.mark.parametrize("first", [0, 3])
def test_a_video_that_is_gone_on_with_keeps_its_views(first):
    """Whether a frame is mirrored depends on its number in the video, not on where the work begins."""
    frames, seen = [moving.frame for moving in make_frames(4)], Maps()
    motion = MotionSettings(FlowSettings(motion_size=(32, 48)).to_dict(), None, PriorSettings("flow"))
    settings = {"num_frames": 1, "temporal_filter": 0.5}
    model = SimpleNamespace(open_maps=lambda: seen, settings=settings, motion=motion)
    assert len(list(stream_maps(model, enumerate(frames), first=first))) == 4
    for number, (frame, shown) in enumerate(zip(frames, seen.shown, strict=True), first):
        np.testing.assert_array_equal(shown.frame, frame[:, ::-1] if number % 2 else frame)


def test_the_installed_model_alternates_unless_told_otherwise():
    """In a stream and in a pipeline: the first map is of the plain view in any case, the second is not."""
    model, generator = SaliencyModel(), np.random.default_rng(0)
    frames = [generator.integers(0, 256, (96, 160, 3)).astype(np.uint8) for _ in range(2)]
    run = lambda **how: [saliency for _, _, saliency in stream_maps(model, enumerate(frames), **how)]  # noqa: E731
    plain, alternating = run(alternate_mirror=False), run()
    np.testing.assert_array_equal(plain[0], alternating[0])
    assert np.abs(plain[1] - alternating[1]).max() > 1e-4
    for how, expected in ({}, alternating), ({"alternate_mirror": False}, plain):
        stream = SaliencyStream(model, **how)
        np.testing.assert_array_equal([*stream.push(frames[0]), *stream.push(frames[1]), *stream.close()], expected)
    unfiltered = [run(temporal_filter=0.0, alternate_mirror=alternate) for alternate in (False, True)]
    np.testing.assert_array_equal(*unfiltered)


def test_a_live_video_is_filtered_and_mirrored_as_its_options_say():
    model, generator = SaliencyModel(), np.random.default_rng(0)
    frames = [(n, generator.integers(0, 256, (96, 160, 3)).astype(np.uint8), float(n)) for n in range(2)]
    found = []
    for changes, same in (
        ({}, {}),
        ({"alternate_mirror": False}, {"alternate_mirror": False}),
        ({"temporal_filter": 0.0}, {"temporal_filter": 0.0}),
    ):
        options = PredictOptions(input=("0",), output_dir="maps", live=True, **changes)
        found.append([saliency for *_, saliency in live._make_maps(options, model, frames, lambda: None)])
        np.testing.assert_array_equal(found[-1], [saliency for *_, saliency in stream_maps(model, frames, **same)])
    assert all(np.abs(found[0][1] - other[1]).max() > 1e-4 for other in found[1:])
