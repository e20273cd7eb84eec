"""The camera's motion in a flow map: a smooth motion of the whole map, fitted robustly and removed (section 3.1).

The paper does not say whether the camera's motion is removed before flow is coloured. Without it a map shows what moves
by itself, and also parallax, which no motion of a plane explains.

This is the NumPy version; `regions.subtract_camera` is the same in the graph.
"""

from __future__ import annotations

import numpy as np

from msst_keras.data.flow_files import FLOW_STEP

CAMERAS = ("none", "median", "affine", "homography")

FIT_STEP = 4  # the fit sees every fourth row and column: 6,480 points of 240x432
# First come steps of least absolute residuals, which a large object pulls less than least squares, then steps of
# Tukey's biweight, for which points far off do not count. Their numbers are fixed, so that the exported graph has no
# loop.
ROBUST_STEPS = 8
BIWEIGHT_STEPS = 8
# Where the biweight ends, in medians of the residuals: its usual 4.685 standard deviations are 4 medians of a
# two-dimensional normal residual. A median below MIN_RESIDUAL, the rounding of flow, counts as MIN_RESIDUAL.
CUTOFF = 4.0
MIN_RESIDUAL = FLOW_STEP
# Added to the normal equations, whose diagonal is near 1 or far above, so that a map of one column has a solution too.
RIDGE = 1e-6


def check_camera(camera: str) -> str:
    """Returns `camera`.

    Raises:
        ValueError: It is none of CAMERAS.
    """
    if camera not in CAMERAS:
        raise ValueError(f"camera must be one of {', '.join(CAMERAS)}, found {camera!r}.")
    return camera


def subtract_camera(flow: np.ndarray, camera: str) -> np.ndarray:
    """Removes the camera's motion from a flow map.

    "median" takes each component's median. "affine" fits a linear function of the position for each component: 6
    numbers, for pan, zoom, roll and shear. "homography" fits the flow of a plane under any small motion of the camera:
    8 numbers (Longuet-Higgins), in which it is linear: u = a + bx + cy + gxx + hxy, v = d + ex + fy + gxy + hyy. Both
    are fitted by least squares that are reweighted a fixed number of times, so that objects drop out.

    Args:
        flow: (h, w, 2) float, x then y, pixels per frame.
        camera: One of CAMERAS; "none" removes nothing.

    Returns:
        (h, w, 2) float64.

    Raises:
        ValueError: The camera is unknown.
    """
    flow = np.asarray(flow, np.float64)
    if check_camera(camera) == "none":
        return flow
    if camera == "median":
        return flow - np.median(flow, axis=(0, 1))
    basis = camera_basis(flow.shape[0], flow.shape[1], camera)
    points = basis[::FIT_STEP, ::FIT_STEP].reshape(-1, 2, basis.shape[-1])
    observed = flow[::FIT_STEP, ::FIT_STEP].reshape(-1, 2)
    weights = np.ones(len(points))
    for step in range(ROBUST_STEPS + BIWEIGHT_STEPS):
        weighted = points * (weights / weights.sum())[:, None, None]
        normal = np.einsum("nci,ncj->ij", weighted, points) + RIDGE * np.eye(basis.shape[-1])
        motion = np.linalg.solve(normal, np.einsum("nci,nc->i", weighted, observed))
        residual = np.linalg.norm(observed - points @ motion, axis=1)
        if step < ROBUST_STEPS:
            weights = 1 / np.maximum(residual, MIN_RESIDUAL)
        else:
            cutoff = CUTOFF * max(np.median(residual), MIN_RESIDUAL)
            weights = np.maximum(1 - (residual / cutoff) ** 2, 0) ** 2
    return flow - basis @ motion


def camera_basis(height: int, width: int, camera: str) -> np.ndarray:
    """What each of the camera's numbers adds to the flow: (height, width, 2, 6 or 8) float64, for x and for y.

    Positions count from the middle of the map, in halves of its longer side.
    """
    half = max(height, width, 2) / 2
    rows, columns = np.indices((height, width))
    x, y = (columns - (width - 1) / 2) / half, (rows - (height - 1) / 2) / half
    zero, one = np.zeros_like(x), np.ones_like(x)
    right, down = [one, x, y, zero, zero, zero], [zero, zero, zero, one, x, y]
    if camera == "homography":
        right, down = [*right, x * x, x * y], [*down, x * y, y * y]
    return np.stack([np.stack(right, -1), np.stack(down, -1)], axis=2)
