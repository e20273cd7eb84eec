"""The metrics of salient object detection, for one map and its mask, and their mean over any number of such pairs.

All but the weighted F-measure are made of `pixel_counts.PixelCounts`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from msst_keras.evaluation.pixel_counts import EPSILON, PixelCounts, count_pixels
from msst_keras.evaluation.weighted_f import weighted_f_measure

BETA_SQUARED = 0.3


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
