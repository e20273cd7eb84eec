"""The motion of a still and its parts: smooth paths of camera and things, and from how far away the still is seen.

Points are x, y; an affine map is (2, 3). The plane is the still's own, where a unit is a pixel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from msst_keras.synthetic.affine import invert, similarity_around
from msst_keras.synthetic.still_options import StillMotionOptions


@dataclasses.dataclass(frozen=True)
class Shrinking:
    """How a still is seen from farther away: `zoom` below 1, `place` (2,) of the view's middle off the still's."""

    zoom: float
    place: np.ndarray


def draw_shrinking(rng: np.random.Generator, mask: np.ndarray, options: StillMotionOptions) -> Shrinking | None:
    """Draws whether and how far a still is shrunk; None if it is not, or cannot be."""
    drawn, share, offset = rng.random(), rng.random(), rng.uniform(-0.5, 0.5, 2)
    if drawn >= options.shrunk_share or not mask.any() or touches_edge(mask):
        return None
    # The zoom is drawn evenly between those at which the object is as small and as large as it may be.
    low, high = np.clip(np.sqrt(np.array(options.shrunk_cover) / mask.mean()), *options.shrunk_zoom)
    if not options.shrunk_cover[0] <= mask.mean() * high**2 or low >= high:
        return None
    zoom = float(low + share * (high - low))
    # The still may lie anywhere in half of the room. Always in the middle, it would teach that objects are there.
    return Shrinking(zoom, offset * np.array(mask.shape[::-1]) * (1 / zoom - 1) / 2)


def draw_motion(
    rng: np.random.Generator, mask: np.ndarray, num_frames: int, options: StillMotionOptions,
    shrunk: Shrinking | None = None, parallax: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Draws the paths: the maps from plane to frame, and the object's motion in the plane, (T, 2, 3) each."""
    height, width = mask.shape
    zoom, place_of_view = rng.uniform(*options.zoom), np.zeros(2)
    room = np.array([width, height]) * (1 - 1 / zoom) / 2  # between the edges of view and still
    if shrunk:
        # The camera may move until the still leaves the view. Where the view is hardly larger than the still, it may
        # move as far as at other clips' least zoom: a strip of the still leaves, and mirrored background comes in.
        zoom, place_of_view = shrunk.zoom, shrunk.place
        room = np.array([width, height]) * max((1 / zoom - 1) / 4, (1 - 1 / options.zoom[0]) / 2)
    room = room / (1 + parallax)  # the nearest point moves so much farther
    follows, rests = rng.random() < options.follow_share, rng.random() < options.rest_share

    def draw(speed: tuple[float, float], growth: float, turn: float) -> MotionPath:
        """Draws the path of the camera or of an object."""
        return MotionPath(rng, num_frames, min(mask.shape) * rng.uniform(*speed), growth, turn)

    camera = draw(options.camera_speed, options.camera_zoom, options.camera_rotation)
    own = draw(options.object_speed, options.object_growth, options.object_rotation)
    rows, columns = np.nonzero(mask)
    strength = 0.0 if rests or not 0 < len(rows) < mask.size else 1.0
    outline = box_corners(columns, rows) if strength else np.zeros((4, 2))
    if strength and touches_edge(mask):
        # Where the still cuts the object off, the cut must stay out of view, so half of the room is for the object.
        room = room / 2
        strength *= min(1.0, (room / own.reach(outline)).min())
    if follows and strength:
        camera.places = camera.places * 0.2 + strength * own.places
    middle = (np.array([width, height]) - 1) / 2
    camera_strength = min(
        1.0, (room / camera.reach(box_corners(np.array([0, width - 1]), np.array([0, height - 1])))).min()
    )
    views = []
    for place, scale, angle in camera.steps(camera_strength):
        # The view is a window that moves and turns on the plane; its inverse takes the plane to the frame.
        window = similarity_around(scale / zoom, angle, middle)
        window[:, 2] += place_of_view + place
        views.append(invert(window))
    return np.stack(views), own.maps(strength, outline.mean(0))


def find_view(camera: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What is seen in the middle of a clip of frames of `size`: (2, 2), the smallest and the largest x, y of the plane.

    Where the camera turns, that is of two opposite corners.
    """
    height, width = size
    corners = np.array([(0, 0), (width - 1, height - 1)]) @ np.eye(2, 3) + [0, 0, 1]
    return np.sort(corners @ invert(camera[len(camera) // 2]).T, axis=0)


def camera_places(camera: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Where in the plane the middle of the view is, relative to its mean: (T, 2)."""
    middle = (np.array(size[::-1]) - 1) / 2
    places = np.stack([invert(view) @ [*middle, 1] for view in camera])
    return places - places.mean(axis=0)


class MotionPath:
    """A smooth motion: places (T, 2), logarithms of scale and angles (T,), all 0 around the middle of the clip."""

    def __init__(self, rng: np.random.Generator, num_frames: int, speed: float, max_growth: float, max_turn: float):
        times = np.arange(num_frames) - (num_frames - 1) / 2
        heading = rng.uniform(0, 2 * np.pi) + rng.uniform(-0.08, 0.08) * times
        steps = speed * np.stack([np.cos(heading), np.sin(heading)], axis=1)
        places = np.cumsum(steps, axis=0)
        self.places = places - places.mean(axis=0)
        self._scales, self._angles = (rng.uniform(-most, most) * times for most in (max_growth, max_turn))

    def steps(self, strength: float) -> Iterator[tuple[np.ndarray, float, float]]:
        """(place, scale, angle) of each frame, the whole motion weakened to `strength`."""
        for place, scale, angle in zip(self.places, self._scales, self._angles, strict=True):
            yield strength * place, float(np.exp(strength * scale)), strength * angle

    def maps(self, strength: float, middle: np.ndarray) -> np.ndarray:
        """The maps of the motion, (T, 2, 3): each scales and turns around `middle`, then moves."""
        maps = [
            similarity_around(scale, angle, middle) + [[0, 0, x], [0, 0, y]]
            for (x, y), scale, angle in self.steps(strength)
        ]
        return np.stack(maps)

    def reach(self, points: np.ndarray) -> np.ndarray:
        """The farthest that the motion takes any of the points, along x and along y; never 0."""
        maps = self.maps(1.0, points.mean(0))
        moved = np.einsum("tij,nj->tni", maps[:, :, :2], points) + maps[:, None, :, 2]
        return np.maximum(np.abs(moved - points).max(axis=(0, 1)), 1e-6)


def touches_edge(mask: np.ndarray) -> bool:
    """Whether the mask reaches the edge of the still, where the object is then cut off."""
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def box_corners(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The corners of the box around points, (4, 2)."""
    return np.array([(a, b) for a in (x.min(), x.max()) for b in (y.min(), y.max())], np.float64)
