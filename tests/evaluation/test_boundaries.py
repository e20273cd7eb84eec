"""Tests of J and F: by hand, and against the definition written out pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest

from msst_keras.evaluation.boundaries import boundary_f_measure, boundary_pixels, region_similarity


def _slow_boundary(mask):
    """A pixel is on the boundary when its right, lower or lower right neighbour differs; see DAVIS's seg2bmap."""
    height, width = mask.shape
    boundary = np.zeros(mask.shape, bool)
    for y in range(height):
        for x in range(width):
            right = x + 1 < width and mask[y, x] != mask[y, x + 1]
            below = y + 1 < height and mask[y, x] != mask[y + 1, x]
            diagonal = x + 1 < width and y + 1 < height and mask[y, x] != mask[y + 1, x + 1]
            boundary[y, x] = right or below or diagonal
    return boundary


def _slow_boundary_f(segmentation, mask, tolerance):
    """The definition: boundaries dilated with a disk of radius ceil(tolerance * diagonal), then P, R and F."""
    radius = math.ceil(tolerance * math.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2))
    found = list(zip(*np.nonzero(_slow_boundary(segmentation)), strict=True))
    wanted = list(zip(*np.nonzero(_slow_boundary(mask)), strict=True))

    def near(pixel, others):
        return any((pixel[0] - y) ** 2 + (pixel[1] - x) ** 2 <= radius**2 for y, x in others)

    if not found and wanted:
        precision, recall = 1, 0
    elif found and not wanted:
        precision, recall = 0, 1
    elif not found and not wanted:
        precision, recall = 1, 1
    else:
        precision = sum(near(pixel, wanted) for pixel in found) / len(found)
        recall = sum(near(pixel, found) for pixel in wanted) / len(wanted)
    return 0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def _blob(seed, height=40, width=60):
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    row, column = generator.uniform(0, height), generator.uniform(0, width)  # often cut by the frame's edge
    distance = np.hypot(rows - row, columns - column) + generator.uniform(-2, 2, (height, width))
    return distance < generator.uniform(2, 20)


EMPTY, FULL = np.zeros((40, 60), bool), np.ones((40, 60), bool)
DOT = np.arange(2400).reshape(40, 60) == 20 * 60 + 30
CORNER = np.arange(2400).reshape(40, 60) == 2399
CASES = {
    **{f"blobs {seed}": (_blob(seed), _blob(seed + 100)) for seed in range(12)},
    **{f"shifted {shift}": (np.roll(_blob(3), shift, axis=1), _blob(3)) for shift in (1, 2, 5, 9)},
    "noise": tuple(np.random.default_rng(5).random((2, 16, 20)) > 0.5),
    "same": (_blob(1), _blob(1)),
    "both empty": (EMPTY, EMPTY),
    "empty segmentation": (EMPTY, DOT),
    "empty mask": (DOT, EMPTY),
    "both full": (FULL, FULL),
    "full and empty": (FULL, EMPTY),
    "full and a blob": (FULL, _blob(2)),
    "a dot": (DOT, _blob(7)),
    "the last pixel": (CORNER, DOT),
    "one row": (np.arange(20)[None] > 5, np.arange(20)[None] > 7),
    "one column": (np.arange(20)[:, None] > 5, np.arange(20)[:, None] > 15),
}


@pytest.mark.parametrize("tolerance", [0.008, 0.05])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_definition(name, tolerance):
    segmentation, mask = CASES[name]
    np.testing.assert_array_equal(boundary_pixels(mask), _slow_boundary(mask))
    expected = _slow_boundary_f(segmentation, mask, tolerance)
    assert boundary_f_measure(segmentation, mask, tolerance) == pytest.approx(expected, abs=1e-12)


def test_equals_dilation_with_a_disk_at_full_size():
    morphology = pytest.importorskip("skimage.morphology")
    mask, segmentation = _blob(11, 480, 854), _blob(12, 480, 854)
    mask[100:300, 200:500], segmentation[107:290, 195:508] = True, True
    found, wanted, disk = boundary_pixels(segmentation), boundary_pixels(mask), morphology.disk(8)
    precision = (found & morphology.dilation(wanted, disk)).sum() / found.sum()
    recall = (wanted & morphology.dilation(found, disk)).sum() / wanted.sum()
    assert 0.1 < precision < 0.99
    assert boundary_f_measure(segmentation, mask) == pytest.approx(2 * precision * recall / (precision + recall))


def test_a_shift_within_the_tolerance_costs_nothing_and_beyond_it_everything():
    mask, near, far = (np.zeros((100, 100), bool) for _ in range(3))  # tolerance: ceil(.008 * 141) = 2 pixels
    mask[:, 50:], near[:, 52:], far[:, 53:] = True, True, True
    assert (boundary_f_measure(near, mask), boundary_f_measure(far, mask)) == (1, 0)


def test_region_similarity_by_hand():
    mask = np.array([[True, True, False, False]])
    assert region_similarity(np.array([[False, True, True, False]]), mask) == pytest.approx(1 / 3)
    assert region_similarity(mask, mask) == 1
    assert region_similarity(~mask, mask) == 0


def test_region_similarity_of_nothing():
    assert region_similarity(EMPTY, EMPTY) == 1
    assert region_similarity(EMPTY, DOT) == region_similarity(DOT, EMPTY) == 0
