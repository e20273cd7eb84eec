"""Affine maps of the plane, (2, 3) float64: points are x, y."""

from __future__ import annotations

import numpy as np


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """The affine map (2, 3) that applies `inner`, then `outer`."""
    return outer @ np.vstack([inner, [0, 0, 1]])


def invert(affine: np.ndarray) -> np.ndarray:
    """The inverse of an affine map (2, 3)."""
    inverse = np.linalg.inv(affine[:, :2])
    return np.column_stack([inverse, -inverse @ affine[:, 2]])


def similarity(scale: float, angle: float, place: np.ndarray) -> np.ndarray:
    """The map that scales, turns by `angle` and takes the origin to `place`."""
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cosine, -sine, place[0]], [sine, cosine, place[1]]])


def similarity_around(scale: float, angle: float, middle: np.ndarray) -> np.ndarray:
    """The map that scales and turns by `angle` around `middle`."""
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([turn, middle - turn @ middle])


def apply(affine: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where points, x and y of any one shape, are taken."""
    (a, b, c), (d, e, f) = affine
    return a * x + b * y + c, d * x + e * y + f
