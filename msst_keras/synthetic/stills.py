"""A still image with its mask becomes a clip: camera and object move on smooth paths of their own, with exact flow.

So datasets of stills (DUTS, MSRA) train all three parts of the network: spatial stream, temporal stream, ConvLSTM.

    still ── mask ──▶ object with soft edges ── own path ──┐
      └── object painted over ▶ background ── camera path ─┴─▶ frames, masks, flow

All is a function of the seed and the image's name alone. Points are x, y; an affine map is (2, 3).

Where the object leaves, the background is painted in from the hole's rim (Telea's method), as in Lucid Data Dreaming
(Khoreva et al. 2017). The original cannot stay there, an object without a label; another image's background would
give the object away by its light and sharpness. Paths are short, so that little of the painting is seen, and cross the
still's own arrangement in the middle of the clip.

The flow is exact, where an estimator's is blurred at outlines and wrong where little texture is: in use the network
sees an estimator's. Both can be had (see `MovingStill.exact_flow`).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np

from msst_keras.data import flow_files, images
from msst_keras.data.datasets import Sequence
from msst_keras.synthetic.affine import apply, compose, invert, similarity_around

_SOFTNESS = 0.7  # pixels, standard deviation of the blur of the object's outline: that of a sharp photograph
_HOLE_RIM = 3  # pixels around the object that are painted over with it: they hold some of its colour
_PAINT_RADIUS = 5  # pixels that the painting looks around


@dataclasses.dataclass(frozen=True)
class StillMotionOptions:
    """How a still moves. Speeds are in short sides of the still per frame; ranges are drawn evenly.

    Those that `scenes.SceneOptions` has too are its values, for the reasons given there.

    Attributes:
      zoom: by which the view is smaller than the still, so that the camera has room to move in.
      camera_speed, camera_zoom, camera_rotation: of the camera; the latter at most, as a factor less 1 and in radians.
      object_speed, object_growth, object_rotation: of the object relative to the background, likewise.
      follow_share: the share of clips in which the camera follows the object: the background moves, the object little.
      rest_share: the share of clips in which the object rests on the background. Motion alone is no perfect cue, in
        real video neither: 15 % keep the network from relying on it and leave most clips for learning it.
    """

    zoom: tuple[float, float] = (1.15, 1.4)
    camera_speed: tuple[float, float] = (0.0, 0.012)
    camera_zoom: float = 0.003
    camera_rotation: float = 0.004
    object_speed: tuple[float, float] = (0.014, 0.035)
    object_growth: float = 0.006
    object_rotation: float = 0.03
    follow_share: float = 0.5
    rest_share: float = 0.15


@dataclasses.dataclass(frozen=True)
class MovingStill:
    """A generated sequence, to `convert` as a `datasets.Sequence` is; nothing is held in memory but the last one used.

    Attributes:
      name: of the sequence, and of the image.
      image_path, mask_path: the still.
      num_frames: 2 or more.
      seed: of all motion.
      exact_flow: True, the default: the flow stored, and seen by the prior, is that of the motion. False: it is
        estimated from the generated frames as from any video, with an estimator's errors, as in use.
      mask_rule: how the mask is read, one of `images.MASK_RULES`.
    """

    name: str
    image_path: Path
    mask_path: Path
    num_frames: int
    seed: int = 0
    exact_flow: bool = True
    mask_rule: str = "half"

    def __post_init__(self):
        if self.num_frames < 2:
            raise ValueError(f"a moving still has 2 frames or more, not {self.num_frames}; 1 is the still itself")

    @classmethod
    def from_sequence(cls, still: Sequence, num_frames: int, seed: int = 0, exact_flow: bool = True) -> MovingStill:
        """A still of `datasets.find_sequences("stills", ...)`, set in motion."""
        (image_path,), (mask_path,) = still.frame_paths, still.mask_paths[0]
        return cls(still.name, image_path, mask_path, num_frames, seed, exact_flow, still.mask_rule)

    def __len__(self) -> int:
        return self.num_frames

    @property
    def frame_names(self) -> tuple[str, ...]:
        return tuple(f"{index:05d}" for index in range(self.num_frames))

    @property
    def mask_paths(self) -> Mapping[int, tuple[Path, ...]]:
        """The still's mask, which every frame's mask is made of."""
        return {index: (self.mask_path,) for index in range(self.num_frames)}

    def read_frames(self) -> Iterator[tuple[str, bytes, np.ndarray]]:
        """Yields (name, encoded, frame): JPEG of quality 95, as a video's frames, and uint8 (H, W, 3) RGB.

        Raises:
          FileNotFoundError, ValueError: see `images.read_frame` and `images.read_mask`; a mask of another size.
        """
        scene = _load(self)
        for index, name in enumerate(self.frame_names):
            encoded = images.encode_jpeg(scene.render(index))
            yield name, encoded, images.decode_frame(encoded, f"{self.image_path}, frame {name}")

    def read_mask(self, index: int) -> np.ndarray:
        """The mask of frame `index`, bool (H, W): where the object covers more than half a pixel.

        Raises:
          FileNotFoundError, ValueError: see `read_frames`.
        """
        scene = _load(self)
        return scene.cover(index, *_grid(scene.size, scene.size)) > 0.5

    def read_flows(self, motion_size: tuple[int, int], direction: str, stride: int) -> Iterator[np.ndarray]:
        """Yields the exact flow of each frame, where and as `motion.flow.FlowEstimator.flows` gives estimated flow.

        Yields:
          (h, w, 2) float32, x then y, pixels of `motion_size` per frame, rounded as all flow.
        """
        scene = _load(self)
        for index in range(self.num_frames):
            end, sign = (self.num_frames - 1, 1) if direction == "forward" else (0, -1)
            steps = min(stride, abs(end - index))
            # The frame at the end has nowhere to lead: the negated flow to its neighbour.
            other, divisor = (index + sign * steps, steps) if steps else (index - sign, -1)
            yield flow_files.round_flow(scene.flow(index, other, motion_size) / np.float32(divisor))


class _Scene:
    """A still taken apart, and its motion: frame t shows the plane of the still through `camera[t]`.

    The object's points are first moved within the plane by `motion[t]`.
    """

    def __init__(self, image: np.ndarray, mask: np.ndarray, camera: np.ndarray, motion: np.ndarray):
        self.size = image.shape[:2]
        self._image, self._background = image, _paint_over(image, mask)
        self._alpha = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), _SOFTNESS)
        self._camera = camera
        self._object = np.stack([compose(*pair) for pair in zip(camera, motion, strict=True)])

    def render(self, index: int) -> np.ndarray:
        """Frame `index`, uint8 (H, W, 3)."""
        background = self._warp(self._background, self._camera[index])
        alpha = self._warp(self._alpha, self._object[index], border=cv2.BORDER_CONSTANT)[..., None]
        front = self._warp(self._image, self._object[index])
        return np.round(background + alpha * (front.astype(np.float32) - background)).astype(np.uint8)

    def cover(self, index: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """What share of frame `index` at the points is the object: float32 in 0..1."""
        x, y = apply(invert(self._object[index]), x, y)
        points = x.astype(np.float32), y.astype(np.float32)
        return cv2.remap(self._alpha, *points, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)

    def flow(self, first: int, second: int, size: tuple[int, int]) -> np.ndarray:
        """Where the points of frame `first` go until frame `second`, (h, w, 2) float32 in pixels of `size`."""
        x, y = _grid(size, self.size)
        is_object = self.cover(first, x, y) > 0.5
        steps = [compose(maps[second], invert(maps[first])) for maps in (self._camera, self._object)]
        (back_x, back_y), (front_x, front_y) = (apply(step, x, y) for step in steps)
        flow = np.stack([np.where(is_object, front_x, back_x) - x, np.where(is_object, front_y, back_y) - y], axis=-1)
        return (flow * (size[1] / self.size[1], size[0] / self.size[0])).astype(np.float32)

    def _warp(self, plane: np.ndarray, affine: np.ndarray, border: int = cv2.BORDER_REFLECT_101) -> np.ndarray:
        return cv2.warpAffine(plane, affine, self.size[::-1], flags=cv2.INTER_LINEAR, borderMode=border)


@functools.lru_cache(maxsize=1)  # a still's frames, masks and flow are read in turn
def _load(still: MovingStill) -> _Scene:
    image, mask = images.read_frame(still.image_path), images.read_mask(still.mask_path, still.mask_rule)
    if mask.shape != image.shape[:2]:
        raise ValueError(
            f"{still.mask_path}: this mask is {mask.shape[0]}x{mask.shape[1]}, but {still.image_path} is "
            f"{image.shape[0]}x{image.shape[1]}; bring them to one size"
        )
    digest = hashlib.sha256(still.name.encode()).digest()
    rng = np.random.default_rng([still.seed, *np.frombuffer(digest, np.uint32)])
    return _Scene(image, mask, *_draw_motion(rng, mask, still.num_frames, StillMotionOptions()))


def _paint_over(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The background, painted in where the object was; without one, or without background, the image."""
    hole = cv2.dilate(mask.astype(np.uint8), np.ones((2 * _HOLE_RIM + 1,) * 2, np.uint8))
    if not hole.any() or hole.all():
        return image
    return cv2.inpaint(image, hole, _PAINT_RADIUS, cv2.INPAINT_TELEA)


def _draw_motion(
    rng: np.random.Generator, mask: np.ndarray, num_frames: int, options: StillMotionOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the paths: plane to frame, and the object's motion in the plane, (T, 2, 3) each."""
    height, width = mask.shape
    zoom = rng.uniform(*options.zoom)
    room = np.array([width, height]) * (1 - 1 / zoom) / 2  # between the edges of view and still
    follows, rests = rng.random() < options.follow_share, rng.random() < options.rest_share

    def draw(speed, growth, turn):
        return _Path(rng, num_frames, min(mask.shape) * rng.uniform(*speed), growth, turn)

    camera = draw(options.camera_speed, options.camera_zoom, options.camera_rotation)
    own = draw(options.object_speed, options.object_growth, options.object_rotation)
    rows, columns = np.nonzero(mask)
    strength = 0.0 if rests or not 0 < len(rows) < mask.size else 1.0
    outline = _corners(columns, rows) if strength else np.zeros((4, 2))
    if strength and _touches_edge(mask):
        # Where the still cuts the object off, the cut must stay out of view: half of the room is the object's.
        room = room / 2
        strength *= min(1.0, (room / own.reach(outline)).min())
    if follows and strength:
        camera.places = camera.places * 0.2 + strength * own.places
    middle = (np.array([width, height]) - 1) / 2
    camera_strength = min(
        1.0, (room / camera.reach(_corners(np.array([0, width - 1]), np.array([0, height - 1])))).min()
    )
    views = []
    for place, scale, angle in camera.steps(camera_strength):
        # The view is a window that moves and turns on the plane; what takes the plane to the frame is its inverse.
        window = similarity_around(scale / zoom, angle, middle)
        window[:, 2] += place
        views.append(invert(window))
    return np.stack(views), own.maps(strength, outline.mean(0))


class _Path:
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
        """(T, 2, 3): scaled and turned around `middle`, then moved."""
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


def _touches_edge(mask: np.ndarray) -> bool:
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def _corners(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The corners of the box around points, (4, 2)."""
    return np.array([(a, b) for a in (x.min(), x.max()) for b in (y.min(), y.max())], np.float64)


def _grid(size: tuple[int, int], frame_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The frame's points x, y, (h, w) each, at the centres of the pixels of a map of `size` of it."""
    y, x = ((np.arange(side) + 0.5) * frame / side - 0.5 for side, frame in zip(size, frame_size, strict=True))
    return np.meshgrid(x, y)
