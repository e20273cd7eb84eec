"""Tests of the metrics: by hand, by property, and against PySODMetrics."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import types

import numpy as np
import pytest

from msst_keras.evaluation import metrics, pixel_counts, weighted_f

# One row of two mask pixels and two others, levels 255, 102, 51, 0: values 1, .4, .2, 0, mean .4.
MASK = np.array([[True, True, False, False]])
MAP = np.array([[255, 102, 51, 0]], np.uint8)


@pytest.fixture
def pixels() -> pixel_counts.PixelCounts:
    return pixel_counts.count_pixels(MAP, MASK)


def test_mean_absolute_error_by_hand(pixels):
    assert metrics.mean_absolute_error(pixels) == pytest.approx((0 + 0.6 + 0.2 + 0) / 4)


def test_precision_and_recall_by_hand(pixels):
    precision, recall = metrics.precision_recall(pixels)
    expected = {0: (2 / 4, 1), 1: (2 / 3, 1), 51: (2 / 3, 1), 52: (1, 1), 102: (1, 1), 103: (1, 0.5), 255: (1, 0.5)}
    assert {t: (precision[t], recall[t]) for t in expected} == expected


def test_precision_is_zero_where_nothing_passes():
    precision, recall = metrics.precision_recall(
        pixel_counts.count_pixels(np.full((2, 2), 100, np.uint8), np.eye(2) > 0)
    )
    assert (precision[100], precision[101], recall[100], recall[101]) == (0.5, 0, 1, 0)


def test_f_measure_by_hand():
    score = metrics.f_measure(np.array([2 / 3, 1.0, 0.0]), np.array([1.0, 0.5, 0.0]))
    np.testing.assert_allclose(score, [1.3 * (2 / 3) / (0.3 * 2 / 3 + 1), 1.3 * 0.5 / 0.8, 0])
    assert metrics.f_measure(np.array(0.5), np.array(1.0), beta_squared=1) == pytest.approx(2 / 3)


def test_adaptive_threshold_by_hand(pixels):
    # Twice the mean is .8: one pixel passes, of the mask.
    assert metrics.adaptive_f_measure(pixels) == pytest.approx(1.3 * 0.5 / (0.3 + 0.5))
    # a = 3/4 and -1/4, b = +-1/2: alignments 12/13, -12/13 (inside, missed) and 4/5 (twice, outside).
    alignments = np.array([2 * 0.375 / 0.8125, -2 * 0.125 / 0.3125, 0.8, 0.8])
    assert metrics.adaptive_e_measure(pixels) == pytest.approx(((alignments + 1) ** 2 / 4).sum() / 3)


def test_adaptive_threshold_is_capped_at_one():
    # Twice the mean is 1.33: capped, the two pixels of value 1 pass.
    pixels = pixel_counts.count_pixels(np.array([[255, 255, 0]], np.uint8), np.array([[True, True, False]]))
    assert metrics.adaptive_f_measure(pixels) == 1


def test_adaptive_threshold_that_falls_on_a_level_selects_it():
    # Min-max: 1, 2/3 and six times 0, with 1 twice: mean 1/3, so the threshold is 2/3 exactly, which floats miss.
    saliency = np.array([[61, 58, 58, 61], [58, 60, 58, 58]], np.uint8)
    pixels = pixel_counts.count_pixels(saliency, np.ones((2, 4), bool), min_max=True)
    assert pixels.above_adaptive_threshold() == (3, 0)


def test_s_measure_by_hand(pixels):
    # Inside: 1, .4 (mean .7, deviation .6 / sqrt 2); outside, inverted: .8, 1 (mean .9, deviation .2 / sqrt 2).
    inside, outside = 1.4 / (0.49 + 1 + 0.6 / math.sqrt(2)), 1.8 / (0.81 + 1 + 0.2 / math.sqrt(2))
    # The centroid, column 0.5, rounds to 0: the left quadrant is one pixel wide and scores 1.
    # Right: map .4, .2, 0 (mean .2, variance .04), mask 1, 0, 0 (mean 1/3, variance 1/3), covariance .1.
    ssim = 4 * 0.2 / 3 * 0.1 / ((0.04 + 1 / 9) * (0.04 + 1 / 3))
    expected = 0.5 * (inside + outside) / 2 + 0.5 * (1 + 3 * ssim) / 4
    assert metrics.s_measure(pixels) == pytest.approx(expected, abs=1e-12)
    assert metrics.s_measure(pixels, alpha=1) == pytest.approx((inside + outside) / 2, abs=1e-12)


def test_s_measure_is_never_negative():
    # An inverted chequerboard: similar objects 0, correlation -1.
    mask = np.indices((8, 8)).sum(axis=0) % 2 == 0
    assert metrics.s_measure(pixel_counts.count_pixels(~mask * np.uint8(255), mask)) == 0


def test_s_measure_of_a_constant_quadrant_is_not_left_to_rounding():
    # 3x10, value 128/255, one mask pixel at the corner: three quadrants are constant in map and mask and score 1, the
    # first is that pixel alone. In floating point the mean of 27 such values is not quite the value.
    mask = np.zeros((3, 10), bool)
    mask[0, 0] = True
    pixels = pixel_counts.count_pixels(np.full((3, 10), 128, np.uint8), mask)
    assert metrics.s_measure(pixels, alpha=0) == 1


@pytest.mark.parametrize("corner", [(0, 0), (0, 4), (3, 0), (3, 4)])
def test_s_measure_of_a_pixel_on_the_last_row_or_column_is_a_number(corner):
    mask = np.zeros((4, 5), bool)
    mask[corner] = True
    assert metrics.s_measure(pixel_counts.count_pixels(mask * np.uint8(255), mask)) == pytest.approx(1)


def test_e_measure_by_hand(pixels):
    curve = metrics.e_curve(pixels)
    assert curve[102] == pytest.approx(4 / 3)  # the mask itself
    assert curve[0] == pytest.approx(4 * 0.25 / 3)  # everything: aligned with nothing


def test_weighted_f_measure_by_hand():
    # One mask pixel in the middle of a row of 41, value .5 there, .2 at distance 10 to its right; all else 0.
    mask, saliency = np.zeros((1, 41), bool), np.zeros((1, 41), np.uint8)
    mask[0, 20], saliency[0, 20], saliency[0, 30] = True, 102, 51
    kernel = np.exp(-(np.arange(-3, 4) ** 2) / 50)
    kernel /= kernel.sum()
    # The neighbours in the row take the error of the mask pixel, .6; above and below is no frame.
    inside = 0.6 * kernel[3]
    outside = 0.2 * (2 - 2 ** (-10 / 5))
    precision, recall = (1 - inside) / (1 - inside + outside), 1 - inside
    score = weighted_f.weighted_f_measure(saliency, mask, pixel_counts.count_pixels(saliency, mask))
    assert score == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-6)


def test_weighted_f_measure_takes_the_left_of_two_equally_near_pixels():
    # Mask pixels of errors 0 (left) and 1 (right) around one other pixel, which stands for the left one.
    mask, saliency = np.zeros((9, 9), bool), np.zeros((9, 9), np.uint8)
    mask[4, 3], mask[4, 5], saliency[4, 3] = True, True, 255
    kernel = np.exp(-(np.arange(-3, 4) ** 2) / 50)
    kernel /= kernel.sum()
    # Columns nearer to the right pixel than to the left one carry its error: 5 and beyond.
    inside = sum(kernel[3 + column - 5] for column in range(5, 9))
    score = weighted_f.weighted_f_measure(saliency, mask, pixel_counts.count_pixels(saliency, mask))
    assert score == pytest.approx(2 * (1 - inside / 2) / (2 - inside / 2), abs=1e-6)


def test_weighted_f_measure_is_the_same_to_the_bit_wherever_memory_lies():
    # OpenCV's distances depend on the alignment of the array they are written to.
    saliency, mask = _random((60, 80), 15), _object(60, 80)
    pixels = pixel_counts.count_pixels(saliency, mask)
    scores, held = set(), []
    for num_bytes in range(16, 1600, 16):
        held.append(np.empty(num_bytes, np.uint8))
        scores.add(weighted_f.weighted_f_measure(saliency, mask, pixels))
    assert len(scores) == 1


def test_arrays_may_lie_in_memory_in_any_order():
    saliency, mask = _random((30, 40), 16), _random((30, 40), 17) > 128
    scores = metrics.score_pair(saliency, mask)
    strided = metrics.score_pair(np.asfortranarray(saliency), np.repeat(mask, 2, axis=1)[:, ::2])
    fortran = metrics.score_pair(saliency[::-1][::-1], np.asfortranarray(mask))
    for name, value in scores.items():
        np.testing.assert_array_equal(strided[name], value)
        np.testing.assert_array_equal(fortran[name], value)


def test_perfect_map():
    mask = np.zeros((20, 30), bool)
    mask[5:12, 8:25] = True
    scores = metrics.score_pair(mask * np.uint8(255), mask)
    scalars = {name: scores[name] for name in ("mae", "adaptive_f", "weighted_f", "s_measure", "adaptive_e")}
    assert scalars == pytest.approx(dict(mae=0, adaptive_f=1, weighted_f=1, s_measure=1, adaptive_e=600 / 599))
    assert scores["f_curve"][1:] == pytest.approx(np.ones(255))
    assert scores["e_curve"][1:] == pytest.approx(np.full(255, 600 / 599))


def test_empty_and_full_mask():
    saliency = np.array([[0, 51], [102, 255]], np.uint8)
    empty = metrics.score_pair(saliency, np.zeros((2, 2), bool))
    full = metrics.score_pair(saliency, np.ones((2, 2), bool))
    assert (empty["mae"], empty["s_measure"]) == pytest.approx((0.4, 0.6))
    assert (empty["weighted_f"], empty["adaptive_f"]) == (0, 0)
    assert (full["mae"], full["s_measure"], full["recall"][52]) == pytest.approx((0.6, 0.4, 0.5))
    assert not empty["f_curve"].any() and not empty["recall"].any()
    assert (empty["e_curve"][52], full["e_curve"][52]) == pytest.approx((2 / 3, 2 / 3))


def test_min_max_stretches_a_map_and_leaves_a_constant_one():
    mask = np.array([[True, False, False]])
    stretched = pixel_counts.count_pixels(np.array([[200, 150, 100]], np.uint8), mask, min_max=True)
    assert metrics.mean_absolute_error(stretched) == pytest.approx(0.5 / 3)
    assert metrics.precision_recall(stretched)[0][[127, 128]] == pytest.approx([0.5, 1])
    constant = pixel_counts.count_pixels(np.full((1, 3), 51, np.uint8), mask, min_max=True)
    assert metrics.mean_absolute_error(constant) == pytest.approx((0.8 + 0.2 + 0.2) / 3)


def test_averages_of_parts_merge_into_the_average_of_all():
    first, second, empty = metrics.Averages(), metrics.Averages(), metrics.Averages()
    first.add({"mae": 0.25, "precision": np.array([1.0, 0.0])})
    first.add({"mae": 0.5, "precision": np.array([0.0, 0.0])})
    second.add({"mae": 0.75, "precision": np.array([0.5, 1.5])})
    second.merge(first)
    second.merge(empty)
    assert (second.num_pairs, second.mean()["mae"]) == (3, 0.5)
    assert second.mean()["precision"].tolist() == [0.5, 0.5]
    assert first.num_pairs == 2 and first.mean()["mae"] == 0.375  # merging leaves the other one alone


def test_averages_of_nothing():
    with pytest.raises(ValueError, match="no pair of map and mask"):
        metrics.Averages().mean()


def _random(shape, seed):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def _object(height, width, seed=0):
    """An object with holes and a ragged edge, away from the frame's last row and column."""
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot((rows - 0.4 * height) / height, (columns - 0.5 * width) / width)
    return distance + np.random.default_rng(seed).uniform(-0.1, 0.1, (height, width)) < 0.25


def _pixel(height, width, row, column):
    return np.arange(height * width).reshape(height, width) == row * width + column


PAIRS = {
    "random map": (_random((48, 61), 0), _object(48, 61)),
    "random mask": (_random((33, 40), 1), _random((33, 40), 2) > 128),
    "sparse mask": (_random((50, 50), 3), _random((50, 50), 4) > 250),
    "frame": (_random((480, 854), 5) // 2 + _object(480, 854) * np.uint8(90), _object(480, 854, seed=1)),
    "few levels": (_random((40, 30), 6) // 20 * 7 + 30, _object(40, 30)),
    "binary map": ((_random((31, 32), 7) > 128) * np.uint8(255), _object(31, 32)),
    "narrow range": (_random((31, 32), 8) // 16 + 100, _object(31, 32)),
    "object at the border": (_random((20, 20), 9), np.arange(400).reshape(20, 20) < 45),
    "perfect": (_object(40, 50) * np.uint8(255), _object(40, 50)),
    "inverted": (~_object(40, 50) * np.uint8(255), _object(40, 50)),
    "empty mask": (_random((12, 9), 10), np.zeros((12, 9), bool)),
    "full mask": (_random((12, 9), 11), np.ones((12, 9), bool)),
    "black map": (np.zeros((16, 32), np.uint8), _object(16, 32)),
    "white map": (np.full((16, 32), 255, np.uint8), _object(16, 32)),
    # The mean of equal values is exact in floating point where their number is a power of two, as in these quadrants.
    "grey map": (np.full((16, 32), 128, np.uint8), _pixel(16, 32, 7, 15)),
    "black map, empty mask": (np.zeros((8, 8), np.uint8), np.zeros((8, 8), bool)),
    "white map, full mask": (np.full((8, 8), 255, np.uint8), np.ones((8, 8), bool)),
    "grey map, full mask": (np.full((8, 8), 128, np.uint8), np.ones((8, 8), bool)),
    "one pixel": (_random((25, 31), 12), _pixel(25, 31, 11, 20)),
    "one pixel in the corner": (_random((25, 31), 13), _pixel(25, 31, 0, 0)),
    "2x2": (np.array([[255, 3], [60, 0]], np.uint8), _pixel(2, 2, 0, 0)),
    "2x3": (np.array([[9, 3, 7], [60, 0, 200]], np.uint8), np.array([[True, True, False], [True, False, False]])),
    "1x2": (np.array([[200, 100]], np.uint8), np.array([[False, False]])),
    "one row": (_random((1, 40), 14), np.zeros((1, 40), bool)),
}


@pytest.fixture(scope="module")
def reference():
    """PySODMetrics' module of metrics, without the rest of its package, which needs scikit-learn."""
    package = importlib.util.find_spec("py_sod_metrics")
    if package is None:
        pytest.skip("PySODMetrics is not installed")
    name = "py_sod_metrics_without_the_rest"
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = list(package.submodule_search_locations)
    return importlib.import_module(f"{name}.sod_metrics")


def _scores_of(reference, saliency, mask):
    """PySODMetrics' scores of one pair, under our names, curves from threshold 0 up."""
    names = ("MAE", "Fmeasure", "Smeasure", "Emeasure", "WeightedFmeasure")
    measures = {name: getattr(reference, name)() for name in names}
    for measure in measures.values():
        measure.step(saliency, mask * np.uint8(255))
    results = {name: measure.get_results() for name, measure in measures.items()}
    f, e = results["Fmeasure"], results["Emeasure"]["em"]
    return {
        "mae": results["MAE"]["mae"],
        "s_measure": results["Smeasure"]["sm"],
        "weighted_f": results["WeightedFmeasure"]["wfm"],
        "adaptive_f": f["fm"]["adp"],
        "adaptive_e": e["adp"],
        "precision": f["pr"]["p"][::-1],
        "recall": f["pr"]["r"][::-1],
        "f_curve": f["fm"]["curve"][::-1],
        "e_curve": e["curve"][::-1],
    }


_DEPRECATED = "ignore:This class will be removed in the future, please use FmeasureV2:UserWarning"


@pytest.mark.filterwarnings(_DEPRECATED)
@pytest.mark.parametrize("name", PAIRS)
def test_equals_pysodmetrics(reference, name):
    saliency, mask = PAIRS[name]
    expected = _scores_of(reference, saliency, mask)
    scores = metrics.score_pair(saliency, mask, min_max=True)
    assert scores.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(scores[key], value, rtol=0, atol=1e-6, err_msg=key)


def _random_pair(seed):
    """A pair of 3x3 to 20x24 pixels: any kind of map with any kind of mask."""
    generator = np.random.default_rng(seed)
    shape = height, width = generator.integers(3, 21), generator.integers(3, 25)
    top, left = generator.integers(0, height), generator.integers(0, width)
    box = np.zeros(shape, bool)
    box[top : top + generator.integers(1, height + 1), left : left + generator.integers(1, width + 1)] = True
    masks = (box, generator.random(shape) > 0.5, generator.random(shape) > 0.95, np.zeros(shape, bool), ~box,
             np.ones(shape, bool), _pixel(*shape, top, left))  # fmt: skip
    mask = masks[generator.choice(len(masks), p=(0.5, 0.15, 0.1, 0.05, 0.1, 0.05, 0.05))]
    noise = generator.random(shape)
    maps = (noise, 0.5 * mask + 0.5 * noise, mask * 1.0, noise > 0.7, 0.4 + 0.05 * noise, np.round(4 * noise) / 4,
            0 * noise, 0 * noise + 1)  # fmt: skip
    saliency = maps[generator.choice(len(maps), p=(0.25, 0.25, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05))]
    return np.rint(255 * saliency).astype(np.uint8), mask


def _has_accident(saliency, mask):
    """Whether PySODMetrics' S depends on what `s_measure` says that it should not: see there."""
    rows, columns = np.nonzero(mask)
    if not 0 < len(rows) < mask.size:
        return False
    row, column = int(np.round(rows.mean())) + 1, int(np.round(columns.mean())) + 1
    halves = saliency[:row], saliency[row:]
    quadrants = [part for half in halves for part in (half[:, :column], half[:, column:])]
    # The mean of equal values is exact in floating point where they are 0 or 1 after the map is stretched.
    exact = (0, 255) if saliency.min() == saliency.max() else (saliency.min(), saliency.max())
    return any(part.size == 0 or (part.min() == part.max() and part.min() not in exact) for part in quadrants)


@pytest.mark.filterwarnings(_DEPRECATED, "ignore:Mean of empty slice", "ignore:invalid value encountered")
def test_equals_pysodmetrics_on_a_thousand_pairs(reference):
    num_accidents = 0
    for seed in range(1000):
        saliency, mask = _random_pair(seed)
        expected, scores = _scores_of(reference, saliency, mask), metrics.score_pair(saliency, mask, min_max=True)
        if _has_accident(saliency, mask):
            num_accidents += 1
            assert 0 <= scores.pop("s_measure") <= 1
        for key, value in scores.items():
            np.testing.assert_allclose(value, expected[key], rtol=0, atol=1e-6, err_msg=f"{key}, seed {seed}")
    assert num_accidents < 200


@pytest.mark.slow
@pytest.mark.filterwarnings(_DEPRECATED)
def test_equals_pysodmetrics_on_published_maps(reference, real_data, capsys):
    """SegFlow's maps of ten sequences of DAVIS, and all the means that a protocol makes of them."""
    from msst_keras.data import datasets, images

    worst, totals, averages = {}, metrics.Averages(), metrics.Averages()
    for sequence in datasets.find_sequences("davis", real_data / "davis16"):
        for index, name in enumerate(sequence.frame_names):
            path = real_data / "results/segflow" / sequence.name / f"{name}.png"
            saliency = np.rint(images.read_map(path) * 255).astype(np.uint8)
            mask = sequence.read_mask(index)
            expected, scores = _scores_of(reference, saliency, mask), metrics.score_pair(saliency, mask, min_max=True)
            totals.add(expected)
            averages.add(scores)
            for key, value in scores.items():
                worst[key] = max(worst.get(key, 0), float(np.abs(value - expected[key]).max()))
    means = {key: float(np.abs(value - totals.mean()[key]).max()) for key, value in averages.mean().items()}
    with capsys.disabled():
        print(f"\n{averages.num_pairs} pairs, largest difference of a pair: {worst}\nof the means: {means}")
    assert averages.num_pairs == 717 and max(worst.values()) < 1e-6
