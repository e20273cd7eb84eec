"""The metrics of salient object detection, for one map and its mask, and their mean over any number of such pairs.

A map has 8 bits here, like the file it is published as. So one histogram of its levels, split by the mask and by the
four quadrants of the S-measure, holds everything that the metrics need, but for the weighted F-measure. Counts are
integers, so that sums are exact, and a threshold that falls on a level selects it, however the machine rounds.
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
      span: How many levels lie between value 0 and value 1, so that the value of a level is (level - low) / span.
    """

    counts: np.ndarray
    low: int
    span: int

    @property
    def values(self) -> np.ndarray:
        """The value of each level, times `span`: (256,) int64."""
        return np.arange(NUM_LEVELS) - self.low

    def by_threshold(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns two (256,) int64: mask pixels, and other pixels, with 255 * value >= t for t = 0..255."""
        binned = self.counts.sum(axis=0)
        if self.span != NUM_LEVELS - 1:
            # This is computed in floating point and in the order of MATLAB's mapminmax(im2double(map)), so that a value
            # that should be an integer falls into the same bin as in the published toolboxes.
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
      half_up: How the centroid of the mask, where the quadrants of the S-measure meet, is rounded if it is half-way
        between two pixels: up, as MATLAB's round does, or to the even index, as NumPy and PySODMetrics do.
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

    It is defined for every mask: for an empty one it is the map's mean, for a full one 1 less the mean. It says little
    alone, because an all-black map scores the area of the object.
    """
    outside, inside = pixels.counts.sum(axis=0)
    error = outside @ pixels.values + inside @ (pixels.span - pixels.values)
    return float(error / (pixels.span * pixels.counts.sum()))


def precision_recall(pixels: PixelCounts) -> tuple[np.ndarray, np.ndarray]:
    """Returns precision and recall, each (256,) float64, of the map binarised at 255 * value >= t, t = 0..255.

    Precision is 0 where no pixel passes the threshold, and recall is 0 if the mask is empty, so that a map is not
    rewarded for a frame on which nothing can be found. At t = 0 every pixel passes.
    """
    inside, outside = pixels.by_threshold()
    return inside / np.maximum(inside + outside, 1), inside / max(inside[0], 1)


def f_measure(
    precision: np.ndarray | float, recall: np.ndarray | float, beta_squared: float = BETA_SQUARED
) -> np.ndarray:
    """Returns (1 + b) P R / (b P + R), b = `beta_squared` (Achanta et al., CVPR 2009, with 0.3); 0 where P R = 0.

    So an empty mask scores 0 at every threshold, and a constant map scores as if everything or nothing were selected.
    """
    product = np.multiply(precision, recall)
    return (1 + beta_squared) * product / np.where(product == 0, 1, beta_squared * precision + recall)


def adaptive_f_measure(pixels: PixelCounts) -> float:
    """Returns the F-measure at the threshold min(1, 2 * mean of the map) (Achanta et al., CVPR 2009).

    An all-black map has threshold 0 and selects every pixel. The cap at 1 lets a map that is bright throughout keep its
    pixels of value 1. An empty mask scores 0.
    """
    inside, outside = pixels.above_adaptive_threshold()
    return float(f_measure(inside / max(inside + outside, 1), inside / max(int(pixels.counts[:, 1].sum()), 1)))


def s_measure(pixels: PixelCounts, alpha: float = 0.5) -> float:
    """Returns the structure measure (Fan et al., ICCV 2017): alpha * object term + (1 - alpha) * region term.

    The object term compares mean and deviation inside and outside the mask; the region term is the SSIM of map and mask
    in the four quadrants around the mask's centroid, weighted by area. It is at least 0. An empty mask scores 1 - mean
    of the map, a full one the mean. In two cases we depart from the published code, whose result depends on accidents
    there. A quadrant without pixels (an object on the last row or column) has weight 0, not NaN. And the variance of a
    map that is constant over a quadrant is exactly 0 (SSIM 1 if the mask is constant there, too), not what rounding
    leaves of it (SSIM 0).
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
    """Returns the structural similarity of map and mask in one quadrant: 1 if both are constant, or one is at 0."""
    num, total, squares = (a + b for a, b in zip(outside, inside, strict=True))
    if num < 2:
        return float(num)
    # These are Python's integers, so the squares of a large frame do not overflow, and a constant map has variance 0.
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
    divided by N - 1 as published, so that a perfect map scores N / (N - 1). An empty mask scores the share of pixels
    left out, a full one that of pixels selected. A constant map scores 0.25 N / (N - 1) for any other mask.
    """
    return np.asarray(_enhanced_alignment(pixels, *pixels.by_threshold()))


def adaptive_e_measure(pixels: PixelCounts) -> float:
    """Returns the enhanced-alignment measure at the threshold min(1, 2 * mean of the map); see `e_curve`."""
    return float(_enhanced_alignment(pixels, *pixels.above_adaptive_threshold()))


def _enhanced_alignment(pixels: PixelCounts, inside: np.ndarray | int, outside: np.ndarray | int) -> np.ndarray | float:
    """Returns E for binary maps that select `inside` pixels of the mask and `outside` others."""
    num_outside, num_inside = (int(number) for number in pixels.counts.sum(axis=(0, 2)))
    area = num_outside + num_inside
    total: np.ndarray | float
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


# Where to look for the nearest mask pixel of a pixel that the 7x7 window of the weighted F-measure reaches. The nearest
# comes first, and of equally near ones the one furthest left, then furthest up, as SciPy's transform gives it.
_REACH, _WINDOW = 4, 3
_NEAREST = sorted(
    ((x, y) for x in range(-_REACH, _REACH + 1) for y in range(-_REACH, _REACH + 1) if 0 < x * x + y * y <= 18),
    key=lambda offset: (offset[0] ** 2 + offset[1] ** 2, offset),
)
_GAUSSIAN = np.exp(-(np.arange(-_WINDOW, _WINDOW + 1) ** 2) / (2 * 5.0**2))
_GAUSSIAN /= _GAUSSIAN.sum()


def weighted_f_measure(saliency: np.ndarray, mask: np.ndarray, pixels: PixelCounts, beta_squared: float = 1.0) -> float:
    """Returns the weighted F-measure (Margolin et al., How to Evaluate Foreground Maps?, CVPR 2014).

    Errors inside the mask count less where their neighbours err less. (The neighbours are those of a 7x7 Gaussian of
    sigma 5; a neighbour outside the mask has the error of its nearest mask pixel.) Errors outside weigh
    2 - 2^(-d / 5) at distance d from the mask. An empty mask scores 0; a full mask has precision 1. An all-black map
    scores 0 if the object is 3 pixels or more from the frame's edge; nearer to the edge the published filter sees no
    error beyond the frame and lets errors count less.

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
    # Only the object's box is needed, with a border wide enough for the window and for the search from its corners.
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
    # The box holds the mask and every error: outside it nothing has to be weighed, and distances inside it are right.
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
    """The mean scores of any number of pairs, in the memory of one. Two such means can be merged."""

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
        """Returns the mean of each score.

        Raises:
          ValueError: there is no pair.
        """
        if not self.num_pairs:
            raise ValueError("there is no pair of map and mask to average over; add one first")
        return {name: value / self.num_pairs for name, value in self.sums.items()}
