"""A still image with its mask becomes a clip: camera and object move on smooth paths of their own, with exact flow.

So datasets of stills (DUTS, MSRA) train all three parts of the network: spatial stream, temporal stream, ConvLSTM.

    still ── mask ──▶ object with soft edges ── own path ──┐
          another still's object ── own slower path ───────┤
      └── object painted over ▶ background ── camera path ─┴─▶ frames, masks, flow

All is a function of the seed and the image's name alone. Points are x, y; an affine map is (2, 3).

Where the object leaves, the background is painted in from the hole's rim (Telea's method), as in Lucid Data Dreaming
(Khoreva et al. 2017). The original cannot stay there, an object without a label; another image's background would
give the object away by its light and sharpness. Paths are short, so that little of the painting is seen, and cross the
still's own arrangement in the middle of the clip.

The flow is exact, where an estimator's is blurred at outlines and wrong where little texture is: in use the network
sees an estimator's. Both can be had (see `MovingStill.exact_flow`).

A still's object fills more of the frame than a video's, its background is one plane, and nothing else moves. So a share
of the clips can be shrunk, have parallax (`relief`) and a second thing in motion (`distractors`). Each is drawn from
numbers of its own: what a clip is like without one of them does not depend on the share of it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np

from msst_keras.data import flow_files, images
from msst_keras.data.datasets import Sequence
from msst_keras.synthetic import distractors
from msst_keras.synthetic.affine import apply, compose, invert, similarity_around
from msst_keras.synthetic.relief import Relief

_SOFTNESS = 0.7  # pixels, standard deviation of the blur of the object's outline: that of a sharp photograph
_HOLE_RIM = 3  # pixels around the object that are painted over with it: they hold some of its colour
_PAINT_RADIUS = 5  # pixels that the painting looks around
_SHRINKING, _PARALLAX, _DISTRACTOR = 1, 2, 3  # end the seed of each one's numbers; the motion's ends without


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
      shrunk_share: the share of stills that are seen from farther away, of those whose object lies whole within. The
        background goes on mirrored around them. An object in the middle that fills a third of the frame is what
        photographers make; a network that knows nothing else paints too much in video.
      shrunk_zoom, shrunk_cover: by which, and what share of the frame the object then is. DAVIS's cover 1 to 30 %;
        below 3 % little of a still of 256 pixels is left. Where no such zoom gives such a share, the still is left as
        it is.
      parallax_share: the share of stills whose background is near here and far there, so that no homography explains
        its motion; else all that a homography leaves is the object, as it never is in real video.
      parallax: how much farther than the plane the nearest of it moves when the camera does, as a factor less 1. At .7
        the nearest is six times as near as the farthest: a street more than a landscape.
      parallax_camera_speed: of the camera there. One that rests shows no parallax; this is a walk beside the object.
      distractor_share: the share of stills with another still's object between object and background, which the mask
        leaves out: not all that has an outline of its own, or moves by itself, is the object.
      distractor_cover: its area as a share of the object's, less than a half lest a viewer be in doubt.
      distractor_speed: its own speed as a share of the object's, so that where the object rests it does too.
      distractor_rest_share: the share of distractors that rest in any case, as most things in a street.
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
    shrunk_share: float = 0.0
    shrunk_zoom: tuple[float, float] = (0.45, 0.95)
    shrunk_cover: tuple[float, float] = (0.03, 0.3)
    parallax_share: float = 0.0
    parallax: tuple[float, float] = (0.3, 0.7)
    parallax_camera_speed: tuple[float, float] = (0.01, 0.03)
    distractor_share: float = 0.0
    distractor_cover: tuple[float, float] = (0.15, 0.45)
    distractor_speed: tuple[float, float] = (0.2, 0.6)
    distractor_rest_share: float = 1 / 3

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_share") and not 0 <= value <= 1:
                raise ValueError(f"{field.name} must be between 0 and 1, not {value}")


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
      options: how it moves.
      others: (image, mask) of stills whose objects may be its distractor; the first that will do is. See
        `set_in_motion`.
    """

    name: str
    image_path: Path
    mask_path: Path
    num_frames: int
    seed: int = 0
    exact_flow: bool = True
    mask_rule: str = "half"
    options: StillMotionOptions = StillMotionOptions()
    others: tuple[tuple[Path, Path], ...] = ()

    def __post_init__(self):
        if self.num_frames < 2:
            raise ValueError(f"a moving still has 2 frames or more, not {self.num_frames}; 1 is the still itself")

    @classmethod
    def from_sequence(cls, still: Sequence, num_frames: int, seed: int = 0, exact_flow: bool = True) -> MovingStill:
        """A still of `datasets.find_sequences("stills", ...)`, set in motion."""
        (image_path,), (mask_path,) = still.frame_paths, still.mask_paths[0]
        return cls(still.name, image_path, mask_path, num_frames, seed, exact_flow, still.mask_rule)

    def draw(self, *purpose: int) -> np.random.Generator:
        """The random numbers of one purpose, which depend on seed and name alone."""
        digest = hashlib.sha256(self.name.encode()).digest()
        return np.random.default_rng([self.seed, *np.frombuffer(digest, np.uint32), *purpose])

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


def set_in_motion(
    stills: Iterable[Sequence], num_frames: int, seed: int = 0, exact_flow: bool = True,
    options: StillMotionOptions | None = None,
) -> list[MovingStill]:  # fmt: skip
    """Stills as `MovingStill.from_sequence` has them, each with the others that its distractor may come from.

    Which these are depends on seed, names and order of the stills alone; their files are read when the clip is made.
    """
    options = options or StillMotionOptions()
    moving = [
        dataclasses.replace(MovingStill.from_sequence(still, num_frames, seed, exact_flow), options=options)
        for still in stills
    ]
    if not options.distractor_share:
        return moving
    paths = [(still.image_path, still.mask_path) for still in moving]
    candidates = distractors.choose_candidates([still.name for still in moving], seed)
    return [
        dataclasses.replace(still, others=tuple(paths[index] for index in indices))
        for still, indices in zip(moving, candidates, strict=True)
    ]


class _Cutout:
    """A thing in front of the background; `maps` (T, 2, 3) take the points of its image to those of each frame."""

    def __init__(self, image: np.ndarray, alpha: np.ndarray, maps: np.ndarray):
        self._image, self._alpha, self.maps = image, alpha, maps

    def paste(self, index: int, frame: np.ndarray) -> None:
        """Draws the thing into the frame, float32 (H, W, 3)."""
        affine, size = self.maps[index], frame.shape[1::-1]
        alpha = _warp(self._alpha, affine, size, border=cv2.BORDER_CONSTANT)
        x, y, width, height = cv2.boundingRect((alpha > 0).view(np.uint8))
        box = slice(y, y + height), slice(x, x + width)  # all else stays
        front = _warp(self._image, affine, size)[box].astype(np.float32)
        frame[box] += alpha[box][..., None] * (front - frame[box])

    def cover(self, index: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """What share of frame `index` at the points is the thing: float32 in 0..1."""
        x, y = apply(invert(self.maps[index]), x, y)
        points = x.astype(np.float32), y.astype(np.float32)
        return cv2.remap(self._alpha, *points, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)

    def move(self, first: int, second: int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where points of frame `first` are in frame `second`."""
        return apply(compose(self.maps[second], invert(self.maps[first])), x, y)


class _Scene:
    """A still taken apart, and its motion: frame t shows the plane of the still through `camera[t]`.

    The points of things are first moved within the plane by the things' own motion; those of the background by its
    relief, if it has one.
    """

    def __init__(self, background: np.ndarray, camera: np.ndarray, things: list[_Cutout], relief: Relief | None):
        """Takes the things from back to front; the last is the object."""
        self.size = background.shape[:2]
        self._background, self._camera, self._things, self._relief = background, camera, things, relief

    def render(self, index: int) -> np.ndarray:
        """Frame `index`, uint8 (H, W, 3)."""
        frame = self._render_background(index).astype(np.float32)
        for thing in self._things:
            thing.paste(index, frame)
        return np.round(frame).astype(np.uint8)

    def cover(self, index: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """What share of frame `index` at the points is the object: float32 in 0..1."""
        return self._things[-1].cover(index, x, y)

    def flow(self, first: int, second: int, size: tuple[int, int]) -> np.ndarray:
        """Where the points of frame `first` go until frame `second`, (h, w, 2) float32 in pixels of `size`."""
        x, y = _grid(size, self.size)
        to_x, to_y = self._move_background(first, second, x, y)
        for thing in self._things:
            is_thing = thing.cover(first, x, y) > 0.5
            thing_x, thing_y = thing.move(first, second, x, y)
            to_x, to_y = np.where(is_thing, thing_x, to_x), np.where(is_thing, thing_y, to_y)
        flow = np.stack([to_x - x, to_y - y], axis=-1)
        return (flow * (size[1] / self.size[1], size[0] / self.size[0])).astype(np.float32)

    def _render_background(self, index: int) -> np.ndarray:
        if self._relief is None:
            return _warp(self._background, self._camera[index], self.size[::-1])
        x, y = self._relief.undo(index, *apply(invert(self._camera[index]), *_grid(self.size, self.size)))
        return cv2.remap(
            self._background, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )  # fmt: skip

    def _move_background(self, first: int, second: int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._relief is None:
            return apply(compose(self._camera[second], invert(self._camera[first])), x, y)
        x, y = self._relief.undo(first, *apply(invert(self._camera[first]), x, y))
        return apply(self._camera[second], *self._relief.shift(second, x, y))


def _warp(plane: np.ndarray, affine: np.ndarray, size: tuple[int, int], border: int = cv2.BORDER_REFLECT_101):
    return cv2.warpAffine(plane, affine, size, flags=cv2.INTER_LINEAR, borderMode=border)


@functools.lru_cache(maxsize=1)  # a still's frames, masks and flow are read in turn
def _load(still: MovingStill) -> _Scene:
    image, mask = images.read_frame(still.image_path), images.read_mask(still.mask_path, still.mask_rule)
    if mask.shape != image.shape[:2]:
        raise ValueError(
            f"{still.mask_path}: this mask is {mask.shape[0]}x{mask.shape[1]}, but {still.image_path} is "
            f"{image.shape[0]}x{image.shape[1]}; bring them to one size"
        )
    options, shrunk = still.options, _draw_shrinking(still.draw(_SHRINKING), mask, still.options)
    relief_rng, parallax = still.draw(_PARALLAX), 0.0
    if relief_rng.random() < options.parallax_share:
        parallax = relief_rng.uniform(*options.parallax)
        options = dataclasses.replace(options, camera_speed=options.parallax_camera_speed)
    camera, motion = _draw_motion(still.draw(), mask, still.num_frames, options, shrunk, parallax)
    relief = Relief.draw(relief_rng, parallax, mask.shape, _camera_places(camera, mask.shape)) if parallax else None
    # From farther away a camera sees less detail; without this, pixels between those that are looked at would be lost.
    blur = np.sqrt(1 / shrunk.zoom**2 - 1) / 2 if shrunk else 0.0

    def cut(image: np.ndarray, cover: np.ndarray, motion: np.ndarray) -> _Cutout:
        alpha = cv2.GaussianBlur(cover.astype(np.float32), (0, 0), np.hypot(_SOFTNESS, blur))
        maps = np.stack([compose(*pair) for pair in zip(camera, motion, strict=True)])
        return _Cutout(_blur(image, blur), alpha, maps)

    things = [cut(image, mask, motion)]
    distractor = _draw_distractor(still, mask, camera, motion)
    if distractor:
        things.insert(0, cut(*distractor))
    return _Scene(_blur(_paint_over(image, mask), blur), camera, things, relief)


def _blur(image: np.ndarray, deviation: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), deviation) if deviation else image


def _paint_over(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The background, painted in where the object was; without one, or without background, the image."""
    hole = cv2.dilate(mask.astype(np.uint8), np.ones((2 * _HOLE_RIM + 1,) * 2, np.uint8))
    if not hole.any() or hole.all():
        return image
    return cv2.inpaint(image, hole, _PAINT_RADIUS, cv2.INPAINT_TELEA)


@dataclasses.dataclass(frozen=True)
class _Shrinking:
    """How a still is seen from farther away: `zoom` below 1, `place` (2,) of the view's middle off the still's."""

    zoom: float
    place: np.ndarray


def _draw_shrinking(rng: np.random.Generator, mask: np.ndarray, options: StillMotionOptions) -> _Shrinking | None:
    """Draws whether and how far a still is shrunk; None: it is not, or cannot be."""
    drawn, share, offset = rng.random(), rng.random(), rng.uniform(-0.5, 0.5, 2)
    if drawn >= options.shrunk_share or not mask.any() or _touches_edge(mask):
        return None
    # Evenly by zoom, between those at which the object is as small and as large as it may be.
    low, high = np.clip(np.sqrt(np.array(options.shrunk_cover) / mask.mean()), *options.shrunk_zoom)
    if not options.shrunk_cover[0] <= mask.mean() * high**2 or low >= high:
        return None
    zoom = float(low + share * (high - low))
    # Half of the room is the still's to lie in: always in the middle it would teach that objects are there.
    return _Shrinking(zoom, offset * np.array(mask.shape[::-1]) * (1 / zoom - 1) / 2)


def _camera_places(camera: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(T, 2) where in the plane the middle of the view is, off its mean."""
    middle = (np.array(size[::-1]) - 1) / 2
    places = np.stack([invert(view) @ [*middle, 1] for view in camera])
    return places - places.mean(axis=0)


def _draw_distractor(
    still: MovingStill, mask: np.ndarray, camera: np.ndarray, motion: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Draws another still's object: image, cover, and where in the plane it is, (T, 2, 3); None: there is none."""
    rng, options = still.draw(_DISTRACTOR), still.options
    if rng.random() >= options.distractor_share or not 0 < mask.sum() < mask.size:
        return None
    other = distractors.read_first(still.others, still.mask_rule)
    piece = other and distractors.cut_out(*other, rng.uniform(*options.distractor_cover) * mask.sum())
    if not piece:
        return None
    height, width = mask.shape
    corners = np.array([(0, 0), (width - 1, height - 1)]) @ np.eye(2, 3) + [0, 0, 1]
    place = distractors.find_place(rng, piece[1], mask, np.sort(corners @ invert(camera[len(camera) // 2]).T, axis=0))
    if place is None:
        return None
    centres = motion @ [*_corners(*np.nonzero(mask)[::-1]).mean(axis=0), 1]
    speed = np.hypot(*(centres[-1] - centres[0])) / (len(motion) - 1) * rng.uniform(*options.distractor_speed)
    if rng.random() < options.distractor_rest_share or not speed:
        speed = growth = turn = 0.0
    else:
        growth, turn = options.object_growth / 2, options.object_rotation / 2
    path = _Path(rng, len(motion), speed, growth, turn)
    middle = place + (np.array(piece[1].shape[::-1]) - 1) / 2
    start = np.column_stack([np.eye(2), place])
    return *piece, np.stack([compose(step, start) for step in path.maps(1.0, middle)])


def _draw_motion(
    rng: np.random.Generator, mask: np.ndarray, num_frames: int, options: StillMotionOptions,
    shrunk: _Shrinking | None = None, parallax: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Draws the paths: plane to frame, and the object's motion in the plane, (T, 2, 3) each."""
    height, width = mask.shape
    zoom, place_of_view = rng.uniform(*options.zoom), np.zeros(2)
    room = np.array([width, height]) * (1 - 1 / zoom) / 2  # between the edges of view and still
    if shrunk:
        # Until the still leaves the view; and where the view is hardly larger than it, as at the least zoom else: then
        # a strip of the still may leave, and mirrored background comes in.
        zoom, place_of_view = shrunk.zoom, shrunk.place
        room = np.array([width, height]) * max((1 / zoom - 1) / 4, (1 - 1 / options.zoom[0]) / 2)
    room = room / (1 + parallax)  # the nearest goes so much farther
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
        window[:, 2] += place_of_view + place
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
