"""Tests of temporal stability: maps that follow known motion, maps that do not, and what is not seen."""

from __future__ import annotations

import numpy as np
import pytest

from msst_keras.evaluation.stability import flicker

SIZE = 40, 60


def _flow(x, y=0.0, size=SIZE):
    return np.broadcast_to(np.float32([x, y]), (*size, 2)).copy()


def _noise(seed=0, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8)


def test_a_map_that_moves_with_the_flow_does_not_flicker():
    first = _noise()
    second = np.roll(first, (2, 3), axis=(0, 1))  # what leaves at one side is not looked for at the other
    assert flicker(first, second, _flow(3, 2), _flow(-3, -2)) == 0
    assert flicker(first, second, _flow(0), _flow(0)) > 0.2
    assert flicker(first, second, _flow(3, 2)[..., ::-1], _flow(-3, -2)[..., ::-1]) > 0.2


def test_by_hand():
    first, second = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    second[:, 30:] = 51
    assert flicker(first, second, _flow(0), _flow(0)) == pytest.approx(0.2 * 30 / 60)
    # Half a pixel to the right: column 29 sees half of it, and column 59 is not within the frame any more.
    assert flicker(first, second, _flow(0.5), _flow(-0.5)) == pytest.approx((0.2 * 29 + 0.1) / 59)


def test_range():
    black, white = np.zeros(SIZE, np.uint8), np.full(SIZE, 255, np.uint8)
    assert flicker(black, black, _flow(1), _flow(-1)) == 0
    assert flicker(black, white, _flow(1), _flow(-1)) == 1
    assert flicker(black.astype(float), white / 255, _flow(1), _flow(-1)) == 1


def test_occluded_pixels_do_not_count():
    # The left half moves right by 10 and covers what stands still there: those pixels do not find back.
    forward, backward = _flow(0), _flow(0)
    forward[:, :30, 0], backward[:, 10:40, 0] = 10, -10
    first, second = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    first[:, 30:40] = 255  # the covered ones
    assert flicker(first, second, forward, backward) == 0
    first[:, 40:50] = 255
    assert flicker(first, second, forward, backward) == pytest.approx(10 / 50)


def test_small_disagreement_of_the_flows_is_no_occlusion():
    first = _noise()
    assert flicker(first, first, _flow(0.3), _flow(0.3)) is not None  # |.6|^2 = .36 < .5
    assert flicker(first, first, _flow(0.4), _flow(0.4)) is None  # |.8|^2 = .64 > .01 * .32 + .5
    assert flicker(first, first, _flow(10), _flow(-8.9)) is not None  # 1.21 < .01 * 179.2 + .5


def test_nothing_is_visible():
    assert flicker(_noise(), _noise(), _flow(100), _flow(-100)) is None


def test_maps_are_brought_to_the_size_of_flow_by_averaging():
    small = np.random.default_rng(0).integers(0, 2, SIZE).astype(np.uint8) * 255
    large = np.kron(small, np.ones((2, 2), np.uint8))
    assert flicker(large, large[::-1], _flow(0), _flow(0)) == pytest.approx(
        flicker(small, small[::-1], _flow(0), _flow(0))
    )
    # A chequerboard and its inverse are the same grey at half the size.
    board = np.indices((80, 120)).sum(axis=0) % 2 * np.uint8(255)
    assert flicker(board, 255 - board, _flow(0), _flow(0)) == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((_noise(), _noise()[1:], _flow(0), _flow(0)), r"two maps of one size, .* not \(40, 60\) and \(39, 60\)"),
        ((_noise()[None], _noise()[None], _flow(0), _flow(0)), "two maps of one size"),
        ((_noise(), _noise(), _flow(0), _flow(0)[1:]), r"two flows of one size, .* \(39, 60, 2\)"),
        ((_noise(), _noise(), _flow(0)[..., :1], _flow(0)[..., :1]), "two flows of one size"),
    ],
)
def test_shapes_that_do_not_belong_together(arguments, message):
    with pytest.raises(ValueError, match=message):
        flicker(*arguments)
