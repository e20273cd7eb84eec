from __future__ import annotations

import numpy as np
import pytest

from msst_keras.synthetic.relief import Relief

SIZE = (96, 128)


def points():
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float64)
    return x, y


def draw(seed, amount=0.7, way=(5.0, -2.0)):
    places = np.outer([-0.5, 0.5], way)
    return Relief.draw(np.random.default_rng(seed), amount, SIZE, places)


def test_what_is_half_as_near_again_is_shifted_half_as_far_against_the_camera():
    relief = Relief(np.full(SIZE, 0.5), np.array([[4.0, -2.0], [0.0, 0.0]]))
    x, y = points()
    shifted = relief.shift(0, x, y)
    np.testing.assert_allclose(shifted, (x - 2, y + 1), atol=1e-4)
    np.testing.assert_allclose(relief.shift(1, x, y), (x, y), atol=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_undoing_finds_the_points_again(seed):
    relief = draw(seed)
    x, y = points()
    found = relief.undo(0, *relief.shift(0, x, y))
    np.testing.assert_allclose(found, (x, y), atol=0.03)
    assert np.abs(np.subtract(relief.shift(0, x, y), (x, y))).max() > 0.5


@pytest.mark.parametrize("seed", range(8))
def test_a_long_way_of_the_camera_folds_nothing(seed):
    relief = draw(seed, way=(80.0, 80.0))
    x, y = relief.shift(0, *points())
    assert np.diff(x, axis=1).min() > 0.3 and np.diff(y, axis=0).min() > 0.3
    found = relief.undo(1, *relief.shift(1, *points()))
    np.testing.assert_allclose(found, points(), atol=0.03)


def test_hills_and_two_planes_are_drawn_as_often_and_reach_the_amount():
    planes = 0
    for seed in range(200):
        nearness = draw(seed, 0.5, (1.0, 0.0)).nearness
        assert 0.4 < np.abs(nearness).max() <= 0.5 + 1e-6
        planes += (np.abs(nearness) > 0.45).mean() > 0.5
    assert 70 < planes < 130
