"""The weighted linear combination of several methods' maps, and the coarse label that Otsu's threshold makes of it.

The paper (section 3.3) fuses the maps of three methods by the weighted linear combination of [11] and thresholds the
result by Otsu's method. In [11] the weights w solve min ||A - sum_m w_m A_m||^2, with the mask A and the maps A_m of
annotated frames. Here they may not be negative and are divided by their sum, so that the fused map lies in 0..1; the
label does not depend on that scale. Each frame counts equally, whatever its size.

Nor does the label depend on what is added to a whole map, so by default a constant is free in each frame: the residual
is A - c - sum_m w_m A_m. Without c a method is punished for a background that is grey rather than black, which does not
matter to Otsu's threshold. On generated maps of three methods (tests/labels/test_fusion.py) c raises the IoU of the
fused labels by .05; without it they are worse than those of the plain mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import scipy.optimize

# If the squared error grows less than this share of the largest along a direction in the space of weights, as with two
# copies of one method, that growth is rounding noise, and no weight may follow from it.
_SMALLEST_SHARE = 1e-12


class WeightFit:
    """The least-squares problem of the weights, gathered frame by frame in M x M numbers.

    Args:
      num_methods: M.
      free_offset: whether a constant is free in each frame; False is exactly the problem of [11].
    """

    def __init__(self, num_methods: int, free_offset: bool = True):
        if num_methods < 1:
            raise ValueError("a combination needs at least one method's maps")
        self.num_frames = 0
        self._free_offset = free_offset
        self._products = np.zeros((num_methods, num_methods))  # of the maps of each two methods
        self._matches = np.zeros(num_methods)  # of each method's maps and the masks

    def add(self, maps: np.ndarray, mask: np.ndarray) -> None:
        """Adds an annotated frame.

        Args:
          maps: float (M, H, W) in [0, 1].
          mask: bool (H, W), True = object; or float, a mask of grey edges.

        Raises:
          ValueError: the number of methods or the size of the mask does not fit.
        """
        if maps.shape != (len(self._matches), *mask.shape):
            raise ValueError(
                f"expected maps ({len(self._matches)}, H, W) of a mask (H, W), not {maps.shape} of {mask.shape}"
            )
        pixels, truth = maps.reshape(len(maps), -1).astype(np.float64), mask.reshape(-1).astype(np.float64)
        if self._free_offset:  # the best constant takes the means away from each other
            pixels, truth = pixels - pixels.mean(1, keepdims=True), truth - truth.mean()
        self._products += pixels @ pixels.T / mask.size
        self._matches += pixels @ truth / mask.size
        self.num_frames += 1

    def solve(self) -> np.ndarray:
        """Returns the weights: float64 (M,), none negative, their sum 1. Without annotated frames they are equal.

        Raises:
          ValueError: no method's maps resemble the masks.
        """
        num_methods = len(self._matches)
        if not self.num_frames:
            return np.full(num_methods, 1 / num_methods)
        # ||A - sum w_m A_m||^2 is w'Pw - 2 m'w + const. With P = Q diag(v) Q' that is ||R w - d||^2 + const for
        # R = diag(sqrt(v)) Q' and d = diag(1 / sqrt(v)) Q' m, a problem of M rows in place of all pixels.
        values, vectors = np.linalg.eigh(self._products)
        kept = values > _SMALLEST_SHARE * values[-1]
        roots, directions = np.sqrt(values[kept]), vectors[:, kept].T
        weights = np.zeros(num_methods)
        if kept.any():  # not all maps of one level
            weights, _ = scipy.optimize.nnls(roots[:, None] * directions, directions @ self._matches / roots)
        if not weights.any():
            raise ValueError(
                "no method's maps are brighter where the masks are than elsewhere, so no combination of them resembles "
                "the masks; look at the maps, or fuse without the masks"
            )
        return weights / weights.sum()


def fuse(maps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted linear combination.

    Args:
      maps: float (M, H, W) in [0, 1].
      weights: (M,), none negative, their sum 1.

    Returns:
      uint8 (H, W): grey levels, 255 = 1.
    """
    return np.rint(255 * np.tensordot(weights, maps, 1)).astype(np.uint8)


def otsu(levels: np.ndarray) -> tuple[int, float]:
    """Otsu's threshold of a map, and how well it separates.

    Args:
      levels: uint8 (H, W).

    Returns:
      the threshold, above which is the object; and the separability, the share of the variance that lies between the
      two classes: 1 for a map of two levels. A map of one level has the threshold 255 and the separability 0, because
      nothing stands out.
    """
    variance = float(levels.var())
    if variance == 0:
        return 255, 0.0
    threshold = int(cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[0])
    above = levels > threshold
    share = above.mean()
    between = share * (1 - share) * (levels[above].mean() - levels[~above].mean()) ** 2
    return threshold, float(between / variance)


def label_of(levels: np.ndarray) -> np.ndarray:
    """The label that Otsu's threshold makes of a map: bool (H, W) of uint8 (H, W)."""
    return levels > otsu(levels)[0]


def intersection_over_union(first: np.ndarray, second: np.ndarray) -> float:
    """IoU of two labels, bool (H, W); 1 where both are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0


def agreement(labels: Sequence[np.ndarray], fused: np.ndarray, weights: np.ndarray) -> float:
    """How far the methods agree on a frame: the weighted mean of the IoU of each method's label and the fused label.

    Args:
      labels: each method's own label by Otsu's threshold, bool (H, W).
      fused: the label of the fused map, bool (H, W).
      weights: (M,), their sum 1.
    """
    return float(sum(w * intersection_over_union(label, fused) for w, label in zip(weights, labels, strict=True)))
