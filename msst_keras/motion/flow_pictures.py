"""Flow as a picture: its colours, and its magnitude as a map of what moves by itself (section 3.1)."""

from __future__ import annotations

import numpy as np

from msst_keras.data.flow_files import FLOW_STEP
from msst_keras.motion.camera import subtract_camera
from msst_keras.motion.flow import check_flow


def _make_color_wheel() -> np.ndarray:
    corners = np.array([(1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 0, 0)], np.float32)
    steps = (15, 6, 4, 11, 13, 6)  # more colours where the eye tells more apart
    parts = [a + (b - a) * np.arange(n)[:, None] / n for a, b, n in zip(corners, corners[1:], steps, strict=False)]
    return np.concatenate(parts).astype(np.float32)


COLOR_WHEEL = _make_color_wheel()  # (55, 3) RGB in 0..1, Middlebury's


def flow_to_color(flow: np.ndarray, max_magnitude: float | None = None) -> np.ndarray:
    """Colours of flow: hue is its direction, saturation its magnitude, white where nothing moves (Middlebury's wheel).

    Unlike in Middlebury's own program, the wheel is closed (no seam where the angle wraps), and magnitudes above the
    largest are shown as the largest.

    Args:
        flow: (H, W, 2) float32, x then y.
        max_magnitude: The magnitude of full saturation, > 0. None takes the 99th percentile of the map, so that a
            few wrong vectors cannot pale it, and at least 1 pixel, so that noise is not shown as motion.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: The array is not a flow map.
    """
    flow = check_flow(flow)
    x, y = flow[..., 0], flow[..., 1]
    magnitude = np.hypot(x, y)
    if max_magnitude is None:
        max_magnitude = max(np.percentile(magnitude, 99), 1.0)
    position = (np.arctan2(-y, -x) / np.pi + 1) / 2 * len(COLOR_WHEEL)
    index = np.floor(position).astype(int)
    share = (position - index)[..., None]
    hue = COLOR_WHEEL[index % len(COLOR_WHEEL)] * (1 - share) + COLOR_WHEEL[(index + 1) % len(COLOR_WHEEL)] * share
    saturation = np.minimum(magnitude / max_magnitude, 1)[..., None]
    return np.round(255 * (1 - saturation * (1 - hue))).astype(np.uint8)


def magnitude_prior(flow: np.ndarray, camera: str = "median") -> np.ndarray:
    """The magnitude of residual flow as a motion prior: the baseline that a trained prior must beat.

    The camera's motion is removed. Magnitudes are divided by their 99th percentile and clipped to 1. If that percentile
    is less than FLOW_STEP, all but a hundredth of the map stands still, and they are divided by FLOW_STEP.

    Args:
        flow: (h, w, 2) float32, x then y, pixels per frame.
        camera: See `camera.subtract_camera`.

    Returns:
        (h, w) float32 in 0..1.

    Raises:
        ValueError: The array is not a flow map, or the camera is unknown.
    """
    residual = subtract_camera(check_flow(flow), camera)
    magnitude = np.hypot(residual[..., 0], residual[..., 1])
    scale = max(np.percentile(magnitude, 99), FLOW_STEP)
    return np.minimum(magnitude / scale, 1).astype(np.float32)
