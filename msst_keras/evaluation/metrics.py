"""The metrics of salient object detection, for one map and its mask, and their mean over any number of such pairs.

A map is 8 bits here (the file it is published as), so one histogram of its levels, taken apart by mask and by the four
quadrants of the S-measure, holds all that any metric but the weighted F-measure needs. Counts are integers: sums are
exact, and a threshold that falls on a level selects it, whatever the rounding of the machine.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

NUM_LEVELS = 256
BETA_SQUARED = 0.3
# The epsilon that the published codes add to denominators.
EPSILON = sys.float_info.epsilon


@dataclass(frozen=True)
class PixelCounts:
    """How many pixels of a pair have each level.

    Attributes:
      counts: (4, 2, 256) int64: quadrant (left top, right top, left bottom, right bottom), mask (outside, inside),
        level. The first quadrant ends with the pixel of the mask's centroid; others may be empty.
      low: The level whose value is 0.
      span: Levels between value 0 and value 1: the value of a level is (level - low) / span.
    """

    counts: np.ndarray
    low: int
    span: int

    @property
    def values(self) -> np.ndarray:
        """(256,) int64: the value of each level, times `span`."""
        return np.arange(NUM_LEVELS) - self.low

    def by_threshold(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns two (256,) int64: mask pixels, and other pixels, with 255 * value >= t for t = 0..255."""
        binned = self.counts.sum(axis=0)
        if self.span != NUM_LEVELS - 1:
            # In floating point and in the order of MATLAB's mapminmax(im2double(map)), so that a value that should be
            # an integer falls into the same bin as in the published toolboxes.
            value = np.arange(NUM_LEVELS) / 255
            value = (value - value[self.low]) / (value[self.low + self.span] - value[self.low])
            levels = (np.clip(value, 0, 1) * 255).astype(int)
            binned = np.stack([np.bincount(levels, row, NUM_LEVELS) for row in binned]).astype(np.int64)
        outside, inside = binned[:, ::-1].cumsum(axis=1)[:, ::-1]
        return inside, outside

    def above_adaptive_threshold(self) -> tuple[int, int]:
        """Returns how many mask pixels, and other pixels, have value >= min(1, 2 * mean of the map)."""
        outside, inside = self.counts.sum(axis=0)
        count, total = (outside + inside).sum(), (outside + inside) @ self.values
        selected = self.values * count >= min(2 * total, self.span * count)
        return int(inside[selected].sum()), int(outside[selected].sum())

    def moments(self) -> list[list[tuple[int, int, int]]]:
        """Returns, per quadrant, outside and inside the mask: number of pixels, sum and sum of squares of `values`."""
        return (self.counts @ np.stack([self.values**0, self.values, self.values**2], axis=1)).tolist()


def count_pixels(saliency: np.ndarray, mask: np.ndarray, min_max: bool = False, half_up: bool = False) -> PixelCounts:
    """Counts the levels of a map inside and outside a mask.

    Args:
      saliency: (H, W) uint8 map, 255 = salient.
      mask: (H, W) bool, true = object.
      min_max: Whether the map's lowest level becomes 0 and its highest 1. A constant map is left as it is, as MATLAB's
        mapminmax does.
      half_up: How the centroid of the mask, which the quadrants of the S-measure meet at, is rounded where it falls
        half-way between two pixels: up, as MATLAB's round does, or to the even index, as NumPy's and PySODMetrics do.
    """
    height, width = mask.shape
    num_rows, num_columns = np.count_nonzero(mask, axis=1), np.count_nonzero(mask, axis=0)
    area = max(num_rows.sum(), 1)
    # The centroid belongs to the left top quadrant: MATLAB's 1:X includes X.
    to_pixel = (lambda x: np.floor(x + 0.5)) if half_up else np.round
    row = int(to_pixel(num_rows @ np.arange(height) / area)) + 1
    column = int(to_pixel(num_columns @ np.arange(width) / area)) + 1
    codes = np.where(mask, np.uint16(NUM_LEVELS), np.uint16(0)) | saliency
    quadrants = codes[:row, :column], codes[:row, column:], codes[row:, :column], codes[row:, column:]
    counts = np.stack([np.bincount(part.ravel(), minlength=2 * NUM_LEVELS) for part in quadrants])
    low, span = 0, NUM_LEVELS - 1
    if min_max:
        levels = np.flatnonzero(counts.reshape(-1, NUM_LEVELS).any(axis=0))
        if levels[0] != levels[-1]:
            low, span = int(levels[0]), int(levels[-1] - levels[0])
    return PixelCounts(counts.reshape(4, 2, NUM_LEVELS), low, span)


def mean_absolute_error(pixels: PixelCounts) -> float:
    """Returns the mean over pixels of |map - mask| (Perazzi et al., Saliency Filters, CVPR 2012; section 4.1 here).

    Defined for every mask: an empty one leaves the map's mean, a full one 1 minus it. It says little alone: an
    all-black map scores the area of the object.
    """
    outside, inside = pixels.counts.sum(axis=0)
    error = outside @ pixels.values + inside @ (pixels.span - pixels.values)
    return float(error / (pixels.span * pixels.counts.sum()))


def precision_recall(pixels: PixelCounts) -> tuple[np.ndarray, np.ndarray]:
    """Returns precision and recall, each (256,) float64, of the map binarised at 255 * value >= t, t = 0..255.

    Precision is 0 where no pixel passes the threshold, recall is 0 where the mask is empty: a map is not rewarded for a
    frame on which nothing can be found. At t = 0 every pixel passes.
    """
    inside, outside = pixels.by_threshold()
    return inside / np.maximum(inside + outside, 1), inside / max(inside[0], 1)


def f_measure(precision: np.ndarray, recall: np.ndarray, beta_squared: float = BETA_SQUARED) -> np.ndarray:
    """Returns (1 + b) P R / (b P + R), b = `beta_squared` (Achanta et al., CVPR 2009, with 0.3); 0 where P R = 0.

    An empty mask thus scores 0 at every threshold, a constant map the F-measure of selecting everything or nothing.
    """
    product = np.multiply(precision, recall)
    return (1 + beta_squared) * product / np.where(product == 0, 1, beta_squared * precision + recall)


def adaptive_f_measure(pixels: PixelCounts) -> float:
    """Returns the F-measure at the threshold min(1, 2 * mean of the map) (Achanta et al., CVPR 2009).

    An all-black map has threshold 0 and selects every pixel; the cap lets a map that is bright throughout keep its
    pixels of value 1. An empty mask scores 0.
    """
    inside, outside = pixels.above_adaptive_threshold()
    return float(f_measure(inside / max(inside + outside, 1), inside / max(int(pixels.counts[:, 1].sum()), 1)))


def s_measure(pixels: PixelCounts, alpha: float = 0.5) -> float:
    """Returns the structure measure (Fan et al., ICCV 2017): alpha * object term + (1 - alpha) * region term.

    The object term compares mean and deviation inside and outside the mask; the region term is the SSIM of map and mask
    in the four quadrants around the mask's centroid, weighted by area. It is at least 0. An empty mask scores 1 - mean
    of the map, a full one the mean. Of two published edges we depart, for both depend on accidents: a quadrant without
    pixels (an object on the last row or column) has weight 0, not NaN; and where a map is constant over a quadrant its
    variance is 0 exactly (SSIM 1 if the mask is constant there, too), not what rounding leaves of it (SSIM 0).
    """
    quadrants = pixels.moments()
    (num_outside, sum_outside, squares_outside), (num_inside, sum_inside, squares_inside) = (
        [sum(column) for column in zip(*rows, strict=True)] for rows in zip(*quadrants, strict=True)
    )
    span, area = pixels.span, num_outside + num_inside
    if num_inside == 0:
        return 1 - sum_outside / (span * area)
    if num_outside == 0:
        return sum_inside / (span * area)
    object_inside = _object_similarity(num_inside, sum_inside, squares_inside, span, inverted=False)
    object_outside = _object_similarity(num_outside, sum_outside, squares_outside, span, inverted=True)
    object_term = (num_inside * object_inside + num_outside * object_outside) / area
    region_term = sum((outside[0] + inside[0]) * _ssim(outside, inside, span) for outside, inside in quadrants) / area
    return max(0.0, alpha * object_term + (1 - alpha) * region_term)


def _object_similarity(num: int, total: int, squares: int, span: int, inverted: bool) -> float:
    """Returns 2 m / (m^2 + 1 + deviation), m the mean value of `num` pixels, or of 1 - value when `inverted`."""
    mean = total / (num * span)
    mean = 1 - mean if inverted else mean
    variance = (num * squares - total * total) / (num * (num - 1) * span * span) if num > 1 else 0.0
    return 2 * mean / (mean * mean + 1 + math.sqrt(variance) + EPSILON)


def _ssim(outside: tuple[int, int, int], inside: tuple[int, int, int], span: int) -> float:
    """Returns the structural similarity of map and mask in one quadrant: 1 where both are constant, or one is at 0."""
    num, total, squares = (a + b for a, b in zip(outside, inside, strict=True))
    if num < 2:
        return float(num)
    # Python's integers: sums of squares of a large frame do not overflow, and a constant map has variance 0, not 1e-33.
    norm = num * (num - 1 + EPSILON)
    mean_map, mean_mask = total / (num * span), inside[0] / num
    covariance = (num * inside[1] - total * inside[0]) / (norm * span)
    variances = (num * squares - total * total) / (norm * span * span) + inside[0] * outside[0] / norm
    numerator = 4 * mean_map * mean_mask * covariance
    denominator = (mean_map * mean_map + mean_mask * mean_mask) * variances
    return numerator / (denominator + EPSILON) if numerator else float(denominator == 0)


def e_curve(pixels: PixelCounts) -> np.ndarray:
    """Returns the enhanced-alignment measure (Fan et al., IJCAI 2018), (256,) float64, at 255 * value >= t, t = 0..255.

    The sum over pixels of (1 + 2ab / (a^2 + b^2))^2 / 4, a and b the binarised map and the mask minus their means,
    divided by N - 1 as published: a perfect map scores N / (N - 1). An empty mask scores the pixels left out, a full
    one the pixels selected. A constant map is aligned with nothing: 0.25 N / (N - 1) for any other mask.
    """
    return _enhanced_alignment(pixels, *pixels.by_threshold())


def adaptive_e_measure(pixels: PixelCounts) -> float:
    """Returns the enhanced-alignment measure at the threshold min(1, 2 * mean of the map); see `e_curve`."""
    return float(_enhanced_alignment(pixels, *pixels.above_adaptive_threshold()))


def _enhanced_alignment(pixels: PixelCounts, inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Returns E for binary maps that select `inside` pixels of the mask and `outside` others."""
    num_outside, num_inside = (int(number) for number in pixels.counts.sum(axis=(0, 2)))
    area = num_outside + num_inside
    if num_inside == 0:
        total = area - outside
    elif num_outside == 0:
        total = inside
    else:
        mean_map, mean_mask = (inside + outside) / area, num_inside / area
        total = 0
        parts = ((inside, 1, 1), (outside, 1, 0), (num_inside - inside, 0, 1), (num_outside - outside, 0, 0))
        for count, map_value, mask_value in parts:
            a, b = map_value - mean_map, mask_value - mean_mask
            alignment = 2 * a * b / (a * a + b * b + EPSILON)
            total = total + count * (alignment + 1) ** 2 / 4
    return total / (area - 1 + EPSILON)


# Where to look for the nearest mask pixel of a pixel that the 7x7 window of the weighted F-measure reaches: the nearest
# first, and of those equally near the one furthest left, then up, which is the one that SciPy's transform gives.
_REACH, _WINDOW = 4, 3
_NEAREST = sorted(
    ((x, y) for x in range(-_REACH, _REACH + 1) for y in range(-_REACH, _REACH + 1) if 0 < x * x + y * y <= 18),
    key=lambda offset: (offset[0] ** 2 + offset[1] ** 2, offset),
)
_GAUSSIAN = np.exp(-(np.arange(-_WINDOW, _WINDOW + 1) ** 2) / (2 * 5.0**2))
_GAUSSIAN /= _GAUSSIAN.sum()


def weighted_f_measure(saliency: np.ndarray, mask: np.ndarray, pixels: PixelCounts, beta_squared: float = 1.0) -> float:
    """Returns the weighted F-measure (Margolin et al., How to Evaluate Foreground Maps?, CVPR 2014).

    Errors inside the mask are eased where their neighbours (a 7x7 Gaussian of sigma 5, each neighbour outside standing
    for its nearest mask pixel) err less; errors outside weigh 2 - 2^(-d / 5) at distance d from the mask. An empty mask
    scores 0; a full mask has precision 1. An all-black map scores 0 if the object keeps 3 pixels from the frame's edge:
    beyond it the published filter sees no error and eases what it can reach.

    Args:
      saliency: (H, W) uint8 map.
      mask: (H, W) bool.
      pixels: What `count_pixels` gave for the two.
      beta_squared: Weight of precision; 1 as published.
    """
    area = int(pixels.counts[:, 1].sum())
    if area == 0:
        return 0.0
    error_inside = _eased_error_inside(saliency, mask, pixels) / pixels.span
    error_outside = _weighted_error_outside(saliency, mask, pixels) / pixels.span
    recall = 1 - error_inside / area
    precision = (area - error_inside) / (area - error_inside + error_outside + EPSILON)
    return (1 + beta_squared) * recall * precision / (recall + beta_squared * precision + EPSILON)


def _eased_error_inside(saliency: np.ndarray, mask: np.ndarray, pixels: PixelCounts) -> float:
    """Returns the sum over the mask of min(error, smoothed error), times `span`."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    # Around the object alone, in a border wide enough for the window and for the search from the window's corners.
    border = _REACH + _WINDOW
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    inside = np.pad(mask[box], border)
    error = np.zeros(inside.shape)
    np.subtract(pixels.low + pixels.span, np.pad(saliency[box], border), out=error, where=inside)
    reached = cv2.dilate(inside.view(np.uint8), np.ones((2 * _WINDOW + 1,) * 2, np.uint8)).view(bool) & ~inside
    # Beyond the frame the smoothed image is 0.
    top, left = border - rows[0], border - columns[0]
    reached[: max(top, 0)], reached[:, : max(left, 0)] = False, False
    reached[max(top + mask.shape[0], 0) :], reached[:, max(left + mask.shape[1], 0) :] = False, False
    flat_error, flat_inside, pending = error.ravel(), inside.ravel(), np.flatnonzero(reached)
    for x, y in _NEAREST:
        nearest = pending + (y * inside.shape[1] + x)
        found = flat_inside[nearest]
        flat_error[pending[found]] = flat_error[nearest[found]]
        pending = pending[~found]
    smoothed = cv2.sepFilter2D(error, cv2.CV_64F, _GAUSSIAN, _GAUSSIAN, borderType=cv2.BORDER_CONSTANT)
    return float(np.minimum(error, smoothed).sum(where=inside))


def _weighted_error_outside(saliency: np.ndarray, mask: np.ndarray, pixels: PixelCounts) -> float:
    """Returns the sum outside the mask of value * (2 - 2^(-distance / 5)), times `span`."""
    # The box that holds the mask and every error: beyond it there is nothing to weigh, and distances in it are whole.
    concerned = (saliency > pixels.low) | mask
    rows, columns = np.flatnonzero(concerned.any(axis=1)), np.flatnonzero(concerned.any(axis=0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    saliency, mask = saliency[box], mask[box]
    distance = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # The last bits of OpenCV's distances depend on where the array lies in memory; their squares are integers.
    distance = np.sqrt(np.rint(distance * distance))
    near = np.exp(distance * np.float32(-math.log(2) / 5))
    # Pixels of the mask, at distance 0, would count as errors.
    near[mask] = 0
    near *= saliency - np.uint8(pixels.low)
    far = 2 * float(pixels.counts[:, 0].sum(axis=0) @ pixels.values)
    return far - float(near.sum(dtype=np.float64))


def score_pair(
    saliency: np.ndarray, mask: np.ndarray, min_max: bool = False, half_up: bool = False, weighted_f: bool = True
) -> dict[str, float | np.ndarray]:
    """Scores one map by every metric of salient object detection.

    Args:
      saliency: (H, W) uint8 map, 255 = salient.
      mask: (H, W) bool.
      min_max: Whether the map is stretched to [0, 1] first, see `count_pixels`.
      half_up: How the mask's centroid is rounded, see `count_pixels`.
      weighted_f: Whether to compute the weighted F-measure, which takes most of the time.

    Returns:
      "mae", "adaptive_f", "weighted_f" (if asked for), "s_measure", "adaptive_e": floats; and over the 256 thresholds
      "precision", "recall", "f_curve", "e_curve": (256,) float64.
    """
    pixels = count_pixels(saliency, mask, min_max, half_up)
    precision, recall = precision_recall(pixels)
    return {
        "mae": mean_absolute_error(pixels),
        "adaptive_f": adaptive_f_measure(pixels),
        **({"weighted_f": weighted_f_measure(saliency, mask, pixels)} if weighted_f else {}),
        "s_measure": s_measure(pixels),
        "adaptive_e": adaptive_e_measure(pixels),
        "precision": precision,
        "recall": recall,
        "f_curve": f_measure(precision, recall),
        "e_curve": e_curve(pixels),
    }


@dataclass
class Averages:
    """The mean scores of any number of pairs, in the memory of one; two of them merge into the mean of both."""

    num_pairs: int = 0
    sums: dict[str, float | np.ndarray] = field(default_factory=dict)

    def add(self, scores: Mapping[str, float | np.ndarray]) -> None:
        """Adds the scores of one pair, as `score_pair` gives them."""
        self.merge(Averages(1, dict(scores)))

    def merge(self, other: Averages) -> None:
        """Adds the pairs of `other`."""
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in other.sums.items()} or self.sums
        self.num_pairs += other.num_pairs

    def mean(self) -> dict[str, float | np.ndarray]:
        """Returns the mean of each score. Raises ValueError when there is none."""
        if not self.num_pairs:
            raise ValueError("there is no pair of map and mask to average over; add one first")
        return {name: value / self.num_pairs for name, value in self.sums.items()}
