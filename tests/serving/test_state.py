"""The state of a stream: what goes into it comes out of it, to a level, in few bytes."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from msst_keras.serving.state import StateFormat

MODEL = "0123456789abcdef"
SHAPES = {"paper": {"middle": (5, 7, 2), "last": (3, 4, 2)}, "light": {"memory": (6, 9, 32)}}


def make_windows(kind, rows=2, num_frames=3):
    generator = np.random.default_rng(0)
    return {
        name: tf.constant(generator.normal(3, 5, (rows, num_frames, *shape)), tf.float32)
        for name, shape in SHAPES[kind].items()
    }


@pytest.mark.parametrize("kind", SHAPES)
def test_the_maps_of_the_last_frames_come_back(kind):
    state, windows = StateFormat(MODEL, 3, SHAPES[kind]), make_windows(kind)
    packed = state.check(state.pack(windows))
    current = {name: value[:, -1] + 1 for name, value in windows.items()}
    found = state.unpack(packed, current)
    levels = 65535 if kind == "paper" else 255
    for name, value in windows.items():
        past = value.numpy()[:, 1:]
        spans = past.max(axis=(2, 3), keepdims=True) - past.min(axis=(2, 3), keepdims=True)
        assert (np.abs(found[name][:, :-1] - past) <= 0.51 / levels * spans + 1e-5).all()
        np.testing.assert_array_equal(found[name][:, -1], current[name])
    again = state.unpack(state.pack({name: tf.gather(x, [0, 0, 1], axis=1) for name, x in found.items()}), current)
    for name, value in found.items():  # rounded once, not again with every frame
        np.testing.assert_allclose(again[name], value, atol=1e-5)


@pytest.mark.parametrize("kind", SHAPES)
def test_an_empty_state_starts_a_stream(kind):
    state = StateFormat(MODEL, 3, SHAPES[kind])
    windows = make_windows(kind)
    full = state.pack(windows)
    current = {name: value[:, -1] for name, value in windows.items()}
    found = state.unpack(tf.concat([[b""], full[1:]], axis=0), current)
    for name, value in found.items():
        np.testing.assert_array_equal(value[0], np.repeat(current[name][:1], 3, axis=0))
        assert np.abs(value[1, 0] - current[name][1]).max() > 1


def test_flat_maps_come_back():
    state = StateFormat(MODEL, 2, {"last": (2, 3, 1)})
    windows = {"last": tf.fill((1, 2, 2, 3, 1), -7.25)}
    np.testing.assert_array_equal(state.unpack(state.pack(windows), {"last": windows["last"][:, 1]})["last"], -7.25)


def test_one_frame_needs_no_past():
    state = StateFormat(MODEL, 1, SHAPES["light"])
    windows = make_windows("light", num_frames=1)
    packed = state.check(state.pack(windows))
    assert packed.numpy().tolist() == [b"msst state 2 0123456789abcdef\n"] * 2
    current = {"memory": windows["memory"][:, 0]}
    np.testing.assert_array_equal(state.unpack(packed, current)["memory"], windows["memory"])
    with pytest.raises(tf.errors.InvalidArgumentError, match="start a stream"):
        state.check(packed + b"x")


def test_what_is_no_state_of_this_model_is_refused():
    state = StateFormat(MODEL, 3, SHAPES["light"])
    (packed,) = state.pack(make_windows("light", rows=1)).numpy()
    other = StateFormat(MODEL[::-1], 3, SHAPES["light"]).pack(make_windows("light", rows=1))
    longer = StateFormat(MODEL, 4, SHAPES["light"]).pack(make_windows("light", rows=1, num_frames=4))
    for wrong in (other[0], longer[0], packed[:-1], packed[:30], packed[:-12] + bytes(4000) + packed[-12:]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="start a stream"):
            state.check(tf.stack([packed, wrong]))
    state.check(tf.stack([packed, b""]))
