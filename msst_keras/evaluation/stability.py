"""Temporal stability: how much a video's maps flicker, seen along the motion. It needs no ground truth.

The map of frame t is compared with that of frame t + 1 where flow says each pixel has gone (the warping error of Lai et
al., Learning Blind Video Temporal Consistency, ECCV 2018, with the absolute difference in place of the squared one, so
that its unit is that of MAE). Flow is given as arrays, forward and backward.
"""

from __future__ import annotations

import cv2
import numpy as np


def flicker(first: np.ndarray, second: np.ndarray, forward: np.ndarray, backward: np.ndarray) -> float | None:
    """Returns the mean over visible pixels x of |first(x) - second(x + forward(x))|.

    0 means that the maps move with the video and nothing else changes, 1 that every visible pixel changes from 0 to 1
    or back; small is good. It does not measure quality alone, since a constant map scores 0. Even maps that follow the
    motion exactly do not score 0, because their edges are interpolated and flow has errors.

    The maps are compared as they are (no normalisation) and at flow's size, to which they are resized by averaging over
    areas (bilinearly if a side grows); `second` is sampled bilinearly. A pixel is visible if it lands within the frame
    and is not occluded, which means that forward and backward flow lead it to where it started:
    |w + v|^2 < 0.01 (|w|^2 + |v|^2) + 0.5, with w = forward(x) and v = backward(x + w) (Sundaram et al., Dense Point
    Trajectories by GPU-accelerated Large Displacement Optical Flow, ECCV 2010).

    Args:
      first: (H, W) uint8 map of frame t, or float in [0, 1].
      second: (H, W) map of frame t + 1, of the same kind.
      forward: (h, w, 2) float, x then y, in pixels of its own size, from frame t to t + 1.
      backward: (h, w, 2), from frame t + 1 to t.

    Returns:
      A float in [0, 1], or None if no pixel is visible, as at a cut, so that nothing can be compared.

    Raises:
      ValueError: the shapes of maps or flows do not belong together.
    """
    if first.ndim != 2 or first.shape != second.shape:
        raise ValueError(f"two maps of one size, (H, W), are compared, not {first.shape} and {second.shape}")
    if forward.ndim != 3 or forward.shape[2] != 2 or forward.shape != backward.shape:
        raise ValueError(f"two flows of one size, (h, w, 2), are needed, not {forward.shape} and {backward.shape}")
    size = forward.shape[:2]
    rows, columns = np.indices(size, np.float32)
    x, y = columns + forward[..., 0].astype(np.float32), rows + forward[..., 1].astype(np.float32)
    visible = (x >= 0) & (x <= size[1] - 1) & (y >= 0) & (y <= size[0] - 1)
    back = _sample(backward.astype(np.float32), x, y)
    missed = np.square(forward + back).sum(axis=2)
    visible &= missed < 0.01 * (np.square(forward) + np.square(back)).sum(axis=2) + 0.5
    if not visible.any():
        return None
    first, second = _resize(first, size), _resize(second, size)
    return float(np.abs(first - _sample(second, x, y))[visible].mean(dtype=np.float64))


def _resize(saliency: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the map as float32 in [0, 1] of `size`, (height, width)."""
    shrinks = size[0] <= saliency.shape[0] and size[1] <= saliency.shape[1]
    scaled = saliency.astype(np.float32) / np.float32(255 if saliency.dtype == np.uint8 else 1)
    return cv2.resize(scaled, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _sample(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns `image` at the points (x, y), bilinearly; beyond the frame its edge continues."""
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
