"""The weighted F-measure, which minds where a wrong pixel lies."""

from __future__ import annotations

import math

import cv2
import numpy as np

from msst_keras.evaluation.pixel_counts import EPSILON, PixelCounts

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
