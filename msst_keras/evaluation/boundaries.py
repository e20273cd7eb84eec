"""The two measures of DAVIS (Perazzi et al., CVPR 2016) for a segmentation and its mask: regions J and boundaries F.

A segmentation is a bool (H, W) array; a saliency map becomes one at a threshold (0.5 in the protocol `davis16`).
"""

from __future__ import annotations

import math

import cv2
import numpy as np

# How far apart two boundary pixels may lie to match, as a share of the frame's diagonal: 8 pixels at 480x854.
BOUNDARY_TOLERANCE = 0.008


def region_similarity(segmentation: np.ndarray, mask: np.ndarray) -> float:
    """Returns J, the Jaccard index: pixels in both over pixels in either.

    It is 1 if both are empty and 0 if one is, so that nothing should be found on a frame where there is nothing.

    Args:
      segmentation: (H, W) bool.
      mask: (H, W) bool.
    """
    union = np.count_nonzero(segmentation | mask)
    return np.count_nonzero(segmentation & mask) / union if union else 1.0


def boundary_pixels(mask: np.ndarray) -> np.ndarray:
    """Returns the (H, W) bool boundary of a (H, W) bool mask, one pixel wide.

    A pixel is on it if it differs from its right, its lower or its lower right neighbour. In the last row only the
    right neighbour counts, in the last column only the lower one, and the last pixel is never on it. So the boundary
    lies half a pixel to the upper left of the edge between two pixels. The frame's edge is no boundary, so a mask that
    covers the frame has none.
    """
    boundary = np.zeros(mask.shape, bool)
    boundary[:, :-1] = mask[:, :-1] != mask[:, 1:]
    boundary[:-1] |= mask[:-1] != mask[1:]
    boundary[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return boundary


def boundary_f_measure(segmentation: np.ndarray, mask: np.ndarray, tolerance: float = BOUNDARY_TOLERANCE) -> float:
    """Returns the contour accuracy F: 2 P R / (P + R) of the boundary pixels, matched within a distance.

    A boundary pixel of one matches if a boundary pixel of the other lies within r = ceil(tolerance * diagonal) pixels,
    in Euclidean distance, which is what the official code gets by dilation with a disk of radius r. As in the
    benchmark, this stands for the bipartite matching of Martin et al. (PAMI 2004) and comes close to it.

    Two empty boundaries score 1, one empty boundary 0 (precision 1 and recall 0, or the other way round), and so do
    boundaries of which no pixel matches. A mask that covers the frame has an empty boundary, too.

    Args:
      segmentation: (H, W) bool.
      mask: (H, W) bool.
      tolerance: Share of the diagonal, above 0 and below 1.
    """
    found, wanted = boundary_pixels(segmentation), boundary_pixels(mask)
    num_found, num_wanted = np.count_nonzero(found), np.count_nonzero(wanted)
    if not num_found or not num_wanted:
        return float(num_found == num_wanted)
    radius = math.ceil(tolerance * math.hypot(*mask.shape))
    precision = np.count_nonzero(_within(wanted, radius)[found]) / num_found
    recall = np.count_nonzero(_within(found, radius)[wanted]) / num_wanted
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _within(boundary: np.ndarray, radius: int) -> np.ndarray:
    """Returns (H, W) bool: whether a pixel of `boundary` lies within `radius`."""
    distance = cv2.distanceTransform((~boundary).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Squared distances are integers, so half a unit keeps rounding off the edge of the disk.
    return distance * distance < radius * radius + 0.5
