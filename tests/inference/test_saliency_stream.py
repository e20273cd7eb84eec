"""An error leaves a stream as it was, so that a frame can be pushed again or left out."""

from __future__ import annotations

import itertools
import types
import zlib

import numpy as np
import pytest

from msst_keras.data import images
from msst_keras.inference.saliency_stream import SaliencyStream
from msst_keras.inference.stream import SaliencyModel
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.settings import MotionSettings, PriorSettings
from msst_keras.serving.client import RemoteMaps

SIZE = (48, 64)
NUM_FRAMES = 7


class Maps:
    """Maps that depend on all frames and flows so far; `fails` says whether the next one fails."""

    def __init__(self, fails):
        self._fails, self._sum = fails, np.zeros(SIZE, np.float32)

    def push(self, moving):
        if self._fails():
            raise TimeoutError("no answer")
        flow = 0 if moving.flow is None else np.abs(moving.flow).sum(axis=2)
        self._sum = self._sum / 2 + moving.frame[..., 0] / np.float32(600) + np.float32(0.01) * flow
        return np.clip(self._sum, 0, 1)


def make_model(direction, stride=1, share=0.0, failing=()):
    """A model that looks at one frame, so that every second one is mirrored where its maps are filtered.

    The pushes of these numbers fail, counted with those that failed.
    """
    flow = FlowSettings("dis_fast", SIZE, direction or "forward", stride).to_dict()
    motion = MotionSettings(flow, None, PriorSettings("flow")) if direction else None
    numbers = itertools.count()
    return types.SimpleNamespace(
        motion=motion,
        settings={"num_frames": 1, "temporal_filter": share},
        open_maps=lambda: Maps(lambda: next(numbers) in failing),
    )


def make_frames(count=NUM_FRAMES):
    texture = np.random.default_rng(0).integers(0, 256, (12, 40, 3)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    return [np.ascontiguousarray(texture[:, 2 * t * t : 2 * t * t + 64]) for t in range(count)]


def run(stream, frames, left_out=None):
    """The maps of a video, whose frames are pushed until they are taken, but for one that is left out if it fails."""
    maps = []
    for number, frame in enumerate(frames):
        maps += again(lambda: stream.push(frame, time=number), 1 if number == left_out else 4)  # noqa: B023
    return maps + again(stream.close, 4)


def again(call, num_tries):
    for _ in range(num_tries):
        try:
            return call()
        except TimeoutError:
            continue
    assert num_tries == 1
    return []


KINDS = [(None, 1, 0.0), *itertools.product(("forward", "backward"), (1, 2), (0.0, 0.7))]


@pytest.mark.parametrize(("direction", "stride", "share"), KINDS)
def test_a_frame_can_be_pushed_again(direction, stride, share):
    expected = run(SaliencyStream(make_model(direction, stride, share)), make_frames())
    assert len({saliency.tobytes() for saliency in expected}) == len(expected) == NUM_FRAMES
    for failing in ({0}, {1}, {4}, {NUM_FRAMES - 1}, {1, 2, 5, 8}):
        found = run(SaliencyStream(make_model(direction, stride, share, failing)), make_frames())
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("direction", "stride", "share"), KINDS)
def test_a_frame_that_failed_can_be_left_out(direction, stride, share):
    """Even the one that brings two maps, and whose second fails."""
    number = 1 if direction == "backward" else 4
    failing = number - stride if direction == "forward" else number
    found = run(SaliencyStream(make_model(direction, stride, share, {failing})), make_frames(), number)
    stream, expected = SaliencyStream(make_model(direction, stride, share)), []
    for time, frame in enumerate(make_frames()):
        expected += stream.push(frame, time=time) if time != number else []
    np.testing.assert_array_equal(found, expected + stream.close())
    assert len(found) == NUM_FRAMES - 1


@pytest.mark.parametrize("signature", ["encode", "fuse"])
def test_a_network_that_fails_once_forgets_nothing(saved_model, signature, monkeypatch):
    model = SaliencyModel(saved_model)
    expected = run(SaliencyStream(model), make_frames())
    work, numbers = getattr(model, signature), itertools.count()

    def fail(**inputs):
        if next(numbers) in (0, 3, 6):
            raise TimeoutError("no room")
        return work(**inputs)

    monkeypatch.setattr(model, signature, fail)
    np.testing.assert_array_equal(run(SaliencyStream(model), make_frames()), expected)


def test_a_server_that_fails_once_is_given_the_right_state():
    """Its answer depends on the state that it gave last, and the second of the two first maps fails."""

    def open_maps(failing):
        numbers = itertools.count()

        def ask(signature, files):
            if next(numbers) in failing:
                raise TimeoutError("no answer")
            seen = zlib.crc32(files["state_bytes"] + files["frame_bytes"])
            level = np.full(SIZE, seen % 256, np.uint8)
            return {"saliency_bytes": images.encode_png(level), "state_bytes": seen.to_bytes(4)}

        inputs = ("frame_bytes", "state_bytes")
        return RemoteMaps(types.SimpleNamespace(frame_size=None, frame_quality=100, inputs=inputs, ask=ask))

    def make(failing):
        model = make_model("backward")
        model.open_maps = lambda: open_maps(failing)
        return SaliencyStream(model)

    expected = run(make(()), make_frames())
    assert len(np.unique(expected)) == NUM_FRAMES
    np.testing.assert_array_equal(run(make({1, 4}), make_frames()), expected)
