"""The lattice filter against results worked out by hand and against the exact Gaussian sum."""

from __future__ import annotations

import numpy as np
import pytest

from msst_keras.inference.permutohedral import PermutohedralLattice


def test_one_dimension_by_hand():
    # The lattice of one dimension is a line of vertices sqrt(3) / 2 apart, both of its directions run along it, and the
    # points touch the vertices 0 and 1. The value 1 at vertex 0 is blurred to (1, 0.5), then to (1.25, 1). The second
    # point lies 0.5 / (sqrt(3) / 2) = 0.57735 of the way from the one to the other. The constant is 1 / (1 + 1 / 2).
    lattice = PermutohedralLattice(np.array([[0, 0.5]], np.float32))
    assert lattice.num_vertices == 2
    expected = [1.25 / 1.5, ((1 - 0.57735) * 1.25 + 0.57735 * 1) / 1.5]
    np.testing.assert_allclose(lattice.filter(np.array([1, 0], np.float32)), expected, rtol=1e-5)


@pytest.mark.parametrize("dimension", [1, 2, 3, 5])
def test_approximates_the_gaussian_sum(dimension):
    # Points everywhere in a cube of four standard deviations, from the fractional parts of multiples of square roots.
    roots = np.sqrt([2, 3, 5, 7, 11])[:dimension, None]
    features = (4 * (np.arange(2000) * roots % 1)).astype(np.float32)
    values = np.sin(features.sum(axis=0))
    distances = ((features[:, :, None] - features[:, None]) ** 2).sum(axis=0)
    gaussian = np.exp(-distances / 2)
    exact = gaussian @ values / gaussian.sum(axis=1)
    lattice = PermutohedralLattice(features)
    filtered = lattice.filter(values) / lattice.filter(np.ones(2000, np.float32))
    assert np.abs(filtered - exact).mean() < 0.03  # the approximation's own error; `exact` spreads by 0.16 to 0.34
    assert np.corrcoef(filtered, exact)[0, 1] > 0.985


def test_far_points_do_not_mix():
    lattice = PermutohedralLattice(np.array([[0, 0, 40], [0, 0, 0]], np.float32))
    near, same, far = lattice.filter(np.array([1, 0, 0], np.float32))
    assert near == same > 0.5
    assert far == 0


def test_points_beyond_one_block_are_located_alike():
    # More points than are located at a time: repeating them multiplies every sum and changes nothing else.
    few = np.stack([np.arange(500) * 0.37 % 5, np.arange(500) * 0.11 % 3]).astype(np.float32)
    values = np.cos(np.arange(500, dtype=np.float32))
    many = PermutohedralLattice(np.tile(few, 60)).filter(np.tile(values, 60))
    np.testing.assert_allclose(many.reshape(60, 500), np.tile(PermutohedralLattice(few).filter(values) * 60, (60, 1)),
                               atol=2e-2)  # fmt: skip


@pytest.mark.parametrize(
    "features, message",
    [
        (np.zeros((2, 5)), "float32 array with d of 1 to 7, got shape .2, 5. of float64"),
        (np.zeros((8, 5), np.float32), "d of 1 to 7, got shape .8, 5."),
        (np.zeros((2, 0), np.float32), "got shape .2, 0."),
        (np.zeros(5, np.float32), "got shape .5,."),
        (np.array([[0, np.nan]], np.float32), "finite"),
        (np.tile(np.array([0, 1e6], np.float32), (5, 1)), "span 1e.06.*use wider Gaussians"),
    ],
)
def test_wrong_features(features, message):
    with pytest.raises(ValueError, match=message):
        PermutohedralLattice(features)
