"""How many pixels of a map have each level, inside the mask and outside: what nearly all metrics are made of.

A map has 8 bits here, like the file it is published as. So one histogram of its levels, split by the mask and by the
four quadrants of the S-measure, holds everything that the metrics need, but for the weighted F-measure. Counts are
integers, so that sums are exact, and a threshold that falls on a level selects it, however the machine rounds.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

NUM_LEVELS = 256


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
