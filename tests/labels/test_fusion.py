"""Weights by least squares, Otsu's threshold, and the quality of fused labels."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from msst_keras.labels import fusion


def fit(maps, mask, free_offset=True):
    """The weights of maps given as (M, pixels) lists."""
    problem = fusion.WeightFit(len(maps), free_offset)
    problem.add(np.asarray(maps, np.float32)[:, None], np.asarray(mask, bool)[None])
    return problem.solve()


@pytest.mark.parametrize("free_offset", [True, False])
@pytest.mark.parametrize(
    "maps, mask, weights",
    [
        ([[1, 0, 0, 0], [0, 0, 1, 0]], [1, 0, 1, 0], [0.5, 0.5]),  # each has half of the object
        ([[1, 1], [1, 0]], [1, 0], [0, 1]),  # the second is the mask itself
        # Free, the weights were (1, -1); without the second the first remains, whatever its size.
        ([[1, 1, 0], [0, 1, 0]], [1, 0, 0], [1, 0]),
        # Normal equations: 1.25 w1 + .5 w2 = 1.5 and .5 w1 + w2 = 1, so w = (1, .5), of the sum 1.5; nothing is left.
        ([[0.5, 1, 0], [1, 0, 0]], [1, 1, 0], [2 / 3, 1 / 3]),
    ],
)
def test_weights_computed_by_hand(maps, mask, weights, free_offset):
    assert fit(maps, mask, free_offset) == pytest.approx(weights, abs=1e-9)


def test_a_grey_background_does_not_count_against_a_method():
    maps, mask = [[0.5, 0.5, 1], [0, 0.2, 1]], [0, 0, 1]
    assert fit(maps, mask) == pytest.approx([1, 0])  # the first is .5 + .5 * mask
    # 1.5 w1 + 1.1 w2 = 1 and 1.1 w1 + 1.04 w2 = 1 give w1 = -.06 / .35, so the second stands alone.
    assert fit(maps, mask, free_offset=False) == pytest.approx([0, 1])


def best_of_all_supports(maps, mask, free_offset):
    """The non-negative least squares by trying every set of methods: the best one whose own solution is >= 0."""
    offset = [np.ones(len(mask))] * free_offset
    best = (float("inf"), None)
    for count in range(1, len(maps) + 1):
        for support in itertools.combinations(range(len(maps)), count):
            columns = np.stack([*maps[list(support)], *offset], axis=1)
            solution = np.linalg.lstsq(columns, mask, rcond=None)[0]
            error = float(np.sum((mask - columns @ solution) ** 2))
            if solution[:count].min() >= 0 and error < best[0]:
                weights = np.zeros(len(maps))
                weights[list(support)] = solution[:count]
                best = (error, weights)
    return best[1] / best[1].sum()


@pytest.mark.parametrize("free_offset", [True, False])
def test_weights_are_those_of_the_best_set_of_methods(free_offset):
    random = np.random.default_rng(0)
    num_zero = 0
    for _ in range(50):
        maps, mask = random.random((4, 60)).astype(np.float32), random.random(60) < 0.4
        maps[:2] = np.clip(maps[:2] * 0.3 + 0.6 * mask, 0, 1)
        expected = best_of_all_supports(maps.astype(float), mask.astype(float), free_offset)
        assert fit(maps, mask, free_offset) == pytest.approx(expected, abs=1e-6)
        num_zero += np.count_nonzero(expected == 0)
    assert num_zero > 20  # the bound was reached


@pytest.mark.parametrize("free_offset", [True, False])
@pytest.mark.parametrize("grey_levels", [None, 255])  # None: float maps, as they are; 255: as files hold them
def test_an_exact_combination_gives_its_weights_back(free_offset, grey_levels):
    random = np.random.default_rng(1)
    truth = np.array([0.5, 0.2, 0.3])
    problem = fusion.WeightFit(3, free_offset)
    for size in ((40, 60), (20, 30), (33, 51)):
        maps = random.random((3, *size)).astype(np.float32)
        found = np.rint(maps * grey_levels) / grey_levels if grey_levels else maps
        problem.add(found, np.tensordot(truth, maps, 1))
    assert problem.solve() == pytest.approx(truth, rel=1e-3 if grey_levels else 1e-9)
    assert problem.num_frames == 3


def test_a_frame_counts_alike_whatever_its_size():
    mask = np.array([[True, False]])
    small, large = np.stack([mask, mask]) * [[[1.0]], [[0.0]]], np.stack([mask, mask]) * [[[0.0]], [[1.0]]]
    problem = fusion.WeightFit(2)  # each method is right on one frame and black on the other
    problem.add(small, mask)
    problem.add(large.repeat(50, axis=1), mask.repeat(50, axis=0))
    assert problem.solve() == pytest.approx([0.5, 0.5])


def test_without_masks_the_weights_are_equal_and_copies_of_a_method_do_no_harm():
    assert fusion.WeightFit(4).solve().tolist() == [0.25] * 4
    mask = np.random.default_rng(0).random(100) < 0.3
    weights = fit([mask * 0.8, mask * 0.8, ~mask * 0.5], mask)
    assert weights[:2].sum() == pytest.approx(1) and weights.min() >= 0


def test_what_cannot_be_fitted_is_said():
    with pytest.raises(ValueError, match="at least one method"):
        fusion.WeightFit(0)
    with pytest.raises(ValueError, match="no method's maps are brighter where the masks are"):
        fit([[0, 1, 0], [0, 0, 1]], [1, 0, 0])
    with pytest.raises(ValueError, match="no method's maps are brighter where the masks are"):
        fit([[0.5, 0.5], [0, 0]], [1, 0])
    with pytest.raises(ValueError, match=r"expected maps \(2, H, W\) of a mask"):
        fusion.WeightFit(2).add(np.zeros((2, 3, 4)), np.zeros((4, 3), bool))


def test_the_fused_map_is_the_weighted_sum_in_grey_levels():
    maps = np.array([[[0, 1.0]], [[1.0, 1.0]]])
    assert fusion.fuse(maps, np.array([0.25, 0.75])).tolist() == [[191, 255]]  # 191.25


def test_otsu_splits_two_levels_and_says_how_well():
    levels = np.array([[10, 10, 200, 200]], np.uint8)
    threshold, separability = fusion.otsu(levels)
    assert 10 <= threshold < 200 and separability == 1
    assert fusion.label_of(levels).tolist() == [[False, False, True, True]]
    # 0, 0, 4, 10: the split {0, 0, 4 | 10} has between-class variance .75 * .25 * (10 - 4/3)^2 = 14.08, {0, 0 | 4, 10}
    # 12.25; the whole variance is (0 + 0 + 16 + 100) / 4 - 3.5^2 = 16.75.
    threshold, separability = fusion.otsu(np.array([[0, 0, 4, 10]], np.uint8))
    assert 4 <= threshold < 10 and separability == pytest.approx(14.0833 / 16.75, rel=1e-4)


def test_otsu_is_the_best_of_all_thresholds():
    levels = np.random.default_rng(0).integers(0, 256, (40, 50)).astype(np.uint8)
    levels[10:30, 10:30] //= 3

    def between(threshold):
        above = levels > threshold
        if above.all() or not above.any():
            return 0.0
        return above.mean() * (1 - above.mean()) * (levels[above].mean() - levels[~above].mean()) ** 2

    threshold, separability = fusion.otsu(levels)
    assert between(threshold) == pytest.approx(max(map(between, range(256))))
    assert separability == pytest.approx(between(threshold) / levels.var())


@pytest.mark.parametrize("level", [0, 128, 255])
def test_of_a_map_of_one_level_nothing_stands_out(level):
    levels = np.full((5, 6), level, np.uint8)
    assert fusion.otsu(levels) == (255, 0.0) and not fusion.label_of(levels).any()


def test_agreement_is_the_weighted_iou_with_the_fused_label():
    fused = np.array([[True, True, False, False]])
    labels = [fused, np.array([[True, False, False, False]]), ~fused]
    assert fusion.agreement(labels, fused, np.array([0.5, 0.3, 0.2])) == pytest.approx(0.5 + 0.3 * 0.5)
    assert fusion.intersection_over_union(~fused & fused, ~fused & fused) == 1


def make_methods(random, size=(60, 80)):
    """A frame's mask, a disc, and three methods' maps of it, each noisy and wrong in its own way."""
    rows, columns = np.indices(size)
    disc = lambda y, x, r: (rows - y) ** 2 + (columns - x) ** 2 < r**2  # noqa: E731
    y, x = random.uniform(20, 40), random.uniform(20, 60)
    mask = disc(y, x, 12)
    maps = []
    for strength, noise, wrong in ((0.8, 0.25, 8), (0.7, 0.25, 8), (0.3, 0.3, 14)):
        saliency = strength * mask + noise * random.standard_normal(size)
        saliency[disc(random.uniform(0, 60), random.uniform(0, 80), wrong)] += 0.5  # a region that is not salient
        saliency[disc(y + random.uniform(-12, 12), x + random.uniform(-12, 12), 7)] -= 0.4  # a part that it misses
        maps.append(cv2.GaussianBlur(np.clip(saliency, 0, 1), (0, 0), 1.5))
    return np.stack(maps).astype(np.float32), mask


def fit_and_score(seed, free_offset):
    """Mean IoU of the labels of each method, of the plain mean and of the fused maps, on frames kept from the fit."""
    random = np.random.default_rng(seed)
    problem = fusion.WeightFit(3, free_offset)
    for _ in range(10):
        problem.add(*make_methods(random))
    weights, quality = problem.solve(), []
    for _ in range(40):
        maps, mask = make_methods(random)
        labels = [fusion.label_of(fusion.fuse(maps, w)) for w in [*np.eye(3), np.full(3, 1 / 3), weights]]
        quality.append([fusion.intersection_over_union(label, mask) for label in labels])
    return np.mean(quality, axis=0)


@pytest.mark.parametrize("seed", range(3))
def test_the_fused_label_is_better_than_any_method_and_than_the_plain_mean(seed):
    *methods, mean, fused = fit_and_score(seed, free_offset=True)
    assert fused > max(methods) + 0.1 and fused > mean + 0.02
    assert fused > fit_and_score(seed, free_offset=False)[-1] + 0.03
