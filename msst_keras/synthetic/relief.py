"""Parallax of a flat picture: a smooth map of how near its points are, so that a moving camera shifts near ones more.

A homography explains the motion of a picture that moves as one plane, but the background of few real videos. Where the
background stands nearer or farther, some flow is left after the camera's is subtracted, and a network that has never
seen this takes it for objects.

The map is smooth: it bends the picture and does not tear it. So nothing is uncovered that would have to be invented,
and the map between two frames can be inverted everywhere, which keeps the flow exact. Points are x, y.
"""

from __future__ import annotations

import cv2
import numpy as np

_STEEPEST = 0.4  # slope of the shifts; below 1 nothing folds, and each step of `undo` has 0.4 times the error
_CLOSE_ENOUGH = 0.01  # pixels; flow is rounded to 1/16
_MAX_STEPS = 20  # 0.4 ** 20 of any shift is nothing
_EDGE = (0.02, 0.08)  # width of the slope between two planes, in short sides; wider where it would be too steep
_GRID = (3, 6)  # points of low-frequency noise along a side, for hills of a sixth to a half of the picture


class Relief:
    """How near the points of a plane are, and where the camera is in each frame.

    Attributes:
      nearness: float32 (H, W), -1 < nearness < 1; a point is shifted 1 + nearness times as far as the plane is.
    """

    def __init__(self, nearness: np.ndarray, camera_places: np.ndarray):
        """Takes `nearness` and the camera's places, (T, 2), in pixels of the plane from where nothing is shifted."""
        self.nearness, self._places = nearness.astype(np.float32), camera_places
        slope = np.hypot(*np.gradient(self.nearness)).max() * np.hypot(*camera_places.T).max()
        if slope > _STEEPEST:
            self.nearness *= np.float32(_STEEPEST / slope)

    @classmethod
    def draw(cls, rng: np.random.Generator, amount: float, size: tuple[int, int], camera_places: np.ndarray) -> Relief:
        """Draws hills of low-frequency noise or, equally often, two planes with a soft edge between them.

        Args:
          rng: what to draw from.
          amount: the largest nearness, in 0..1.
          size: (H, W) of the plane.
          camera_places: see `Relief`.
        """
        if rng.random() < 0.5:
            hills = rng.normal(size=rng.integers(*_GRID, size=2, endpoint=True))
            shape = cv2.resize(hills.astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
            shape -= shape.mean()
            return cls(amount * shape / max(np.abs(shape).max(), 1e-6), camera_places)
        angle, (x, y) = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 0.75, 2) * size[::-1]
        rows, columns = np.mgrid[: size[0], : size[1]]
        across = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
        # If the camera moves far, the edge must be wide; otherwise the limit of the slope would flatten both planes.
        least = amount * np.hypot(*camera_places.T).max() / _STEEPEST
        return cls(amount * np.tanh(across / max(min(size) * rng.uniform(*_EDGE), least)), camera_places)

    def shift(self, index: int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the camera of frame `index` sees points of the plane, as points of the plane seen flat."""
        points = x.astype(np.float32, copy=False), y.astype(np.float32, copy=False)
        nearness = cv2.remap(self.nearness, *points, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        away_x, away_y = self._places[index].astype(np.float32)  # what the camera sees moves against it
        return x - away_x * nearness, y - away_y * nearness

    def undo(self, index: int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The points that `shift` takes to x, y, to a hundredth of a pixel."""
        x, y = x.astype(np.float32), y.astype(np.float32)  # exact to 1e-4 pixels, and twice as fast
        found_x, found_y = x, y
        for _ in range(_MAX_STEPS):
            seen_x, seen_y = self.shift(index, found_x, found_y)
            off_x, off_y = x - seen_x, y - seen_y
            found_x, found_y = found_x + off_x, found_y + off_y
            if max(cv2.norm(off_x, cv2.NORM_INF), cv2.norm(off_y, cv2.NORM_INF)) < _CLOSE_ENOUGH:
                break
        return found_x, found_y
