"""What a generated scene is made of: textures, smooth shapes, and the paths of camera and objects.

A scene is a list of layers from back to front. A layer is a plane with a texture and (but for the background) a shape;
an affine map per frame takes its points to image points. Points are x, y. The world is the background's plane, where a
unit is a pixel at zoom 1. Lengths in `SceneOptions` are in image heights, so that a scene looks the same at every size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from msst_keras.synthetic.affine import compose, invert, similarity
from msst_keras.synthetic.scene_options import SceneOptions
from msst_keras.synthetic.textures import PHOTOS, cut_background, cut_patch

_STEERING_ZONE = 0.55  # share of half the view; objects beyond it turn back, for at the edge they are hard to see
_FOLLOWING = 0.15  # share of the way to its object that a following camera moves in a frame


@dataclasses.dataclass(frozen=True)
class Shape:
    """A smooth outline around the origin: the radius is a short Fourier series of the angle, the axes are stretched.

    Attributes:
      half_axes: (2,) half axes of the ellipse that the shape is without waves, in units of the layer's plane.
      waves: complex (K,), size and phase of the waves that go 2, 3, ... times around; the sizes add up to less than 1.
    """

    half_axes: np.ndarray
    waves: np.ndarray

    def depth(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """How deep points lie in the shape: positive inside, 0 on the outline, negative outside."""
        point = x / self.half_axes[0] + 1j * (y / self.half_axes[1])
        radius = np.abs(point)
        around = point / np.maximum(radius, 1e-9)
        series = np.zeros_like(point)
        for wave in self.waves[::-1]:
            series = (series + wave) * around
        return 1 + (series * around).real - radius

    @property
    def reach(self) -> float:
        """A distance from the origin that no point of the shape exceeds."""
        return float(self.half_axes.max() * (1 + np.abs(self.waves).sum()))


@dataclasses.dataclass(frozen=True)
class Layer:
    """One plane of a scene.

    Attributes:
      kind: "background", "distractor", "object" (the only one that is labelled) or "occluder".
      texture: uint8 (h, w, 3) RGB, `textures.TEXTURE_SCALE` pixels per unit, continued beyond its edges by reflection.
      origin: (2,) the texture's point, x and y, at the plane's origin.
      shape: its outline; None for the background, which covers everything.
      maps: float64 (T + 1, 2, 3), the maps from plane to image for each frame and for the one that would follow.
    """

    kind: str
    texture: np.ndarray
    origin: np.ndarray
    shape: Shape | None
    maps: np.ndarray


def make_scene(
    rng: np.random.Generator, num_frames: int, image_size: tuple[int, int], options: SceneOptions
) -> list[Layer]:
    """Draws a scene: its layers from back to front."""
    height, width = image_size
    photos = list(rng.permutation(PHOTOS))  # the background's is used for nothing else
    texture, origin = cut_background(rng, photos.pop(), image_size)
    camera, paths = _move(rng, num_frames, image_size, options)

    def add(kind: str, half_axes: np.ndarray, path: np.ndarray) -> None:
        """Adds a thing of this kind, with the path of its middle, (num_frames + 1, 2, 3)."""
        shape = _draw_shape(rng, half_axes)
        side = int(np.ceil(2 * shape.reach)) + 3
        texture = cut_patch(rng, photos[rng.integers(len(photos))], side, vivid=kind == "distractor")
        maps = np.stack([compose(view, step) for view, step in zip(camera, path, strict=True)])
        layers.append(Layer(kind, texture, (np.array(texture.shape[1::-1]) - 1) / 2, shape, maps))

    def still(place: np.ndarray, angle: float) -> np.ndarray:
        """The path of a thing that rests on the background."""
        return np.broadcast_to(similarity(1, angle, place), (num_frames + 1, 2, 3))

    layers = [Layer("background", texture, origin, None, camera)]
    for _ in range(rng.integers(*options.num_distractors, endpoint=True)):
        seen_at = np.array([width, height]) * rng.uniform(0.15, 0.85, 2)
        place = invert(camera[rng.integers(num_frames)]) @ [*seen_at, 1]
        add("distractor", _draw_axes(rng, height * rng.uniform(*options.object_radius)), still(place, 0))
    for path in paths:
        tiny = rng.random() < options.tiny_share
        radius = height * rng.uniform(*(options.tiny_radius if tiny else options.object_radius))
        add("object", _draw_axes(rng, radius), path)
    if paths and rng.random() < options.occluder_share:
        half_axes = height * np.array([rng.uniform(0.03, 0.07), rng.uniform(0.4, 0.8)])  # like a post or a trunk
        add("occluder", half_axes, still(paths[0][rng.integers(num_frames), :, 2], rng.normal(0, 0.3)))
    return layers


def _draw_wave(rng: np.random.Generator, max_rate: float) -> Callable[[int], float]:
    """A smooth function of time that starts at 0 and never changes faster than `max_rate` per frame."""
    period, phase = rng.uniform(40, 120), rng.uniform(0, 2 * np.pi)
    amplitude = max_rate * period / (2 * np.pi)
    return lambda time: amplitude * (np.sin(2 * np.pi * time / period + phase) - np.sin(phase))


class _Camera:
    """Where the camera looks: a point of the world, a zoom and an angle, all of them smooth in time."""

    def __init__(self, rng: np.random.Generator, image_size: tuple[int, int], options: SceneOptions):
        self._middle = (np.array(image_size[::-1]) - 1) / 2
        self._target = np.zeros(2)
        self._speed = image_size[0] * rng.uniform(*options.camera_speed)
        self._direction, self._turn = rng.uniform(0, 2 * np.pi), _draw_wave(rng, 0.05)
        self._zoom, self._angle = _draw_wave(rng, options.camera_zoom), _draw_wave(rng, options.camera_rotation)
        self._follows = rng.random() < options.follow_share

    def view(self, time: int) -> np.ndarray:
        """The map from world to image at a time, (2, 3)."""
        turned = similarity(np.exp(self._zoom(time)), self._angle(time), np.zeros(2))
        return np.column_stack([turned[:, :2], self._middle - turned[:, :2] @ self._target])

    def advance(self, time: int, first_object: np.ndarray | None) -> None:
        """Moves on by a frame, and towards the first object if the camera follows it."""
        direction = self._direction + self._turn(time)
        self._target = self._target + self._speed * np.array([np.cos(direction), np.sin(direction)])
        if self._follows and first_object is not None:
            self._target = self._target + _FOLLOWING * (first_object - self._target)


class _Walker:
    """An object's path in the world: it wanders at its own speed, turns back before it leaves the view, and halts."""

    def __init__(self, rng: np.random.Generator, image_size: tuple[int, int], options: SceneOptions):
        self._rng, self._options = rng, options
        self._half_view = np.array(image_size[::-1]) / 2
        self.place = self._half_view * rng.uniform(-0.5, 0.5, 2)
        self._heading = rng.uniform(0, 2 * np.pi)
        self._speed = image_size[0] * rng.uniform(*options.object_speed)
        self._wander = _draw_wave(rng, 0.08)
        self._growth, self._turn = _draw_wave(rng, options.object_growth), _draw_wave(rng, options.object_rotation)
        self._tilt = rng.uniform(0, 2 * np.pi)
        self._steps = 0  # halts do not count, so that what depends on it alone stands still in a halt
        self._halt = 0  # frames still to stand

    def pose(self) -> np.ndarray:
        """The map from the object's plane to the world, (2, 3)."""
        return similarity(np.exp(self._growth(self._steps)), self._tilt + self._turn(self._steps), self.place)

    def advance(self, view: np.ndarray) -> None:
        """Moves on by a frame, or stands still in a halt. `view`, the camera's map, says how near the edge is."""
        if self._halt:
            self._halt -= 1
            return
        seen_at = (view @ [*self.place, 1] + 0.5) / self._half_view - 1
        heading = self._heading + self._wander(self._steps + 1) - self._wander(self._steps)
        if np.abs(seen_at).max() > _STEERING_ZONE:
            back = invert(view)[:, :2] @ (-seen_at * self._half_view)
            off = (np.arctan2(back[1], back[0]) - heading + np.pi) % (2 * np.pi) - np.pi
            heading += np.clip(0.3 * off, -0.3, 0.3)
        self._heading = heading
        self.place = self.place + self._speed * np.array([np.cos(heading), np.sin(heading)])
        self._steps += 1
        if self._options.halt_frames and self._rng.random() < self._options.halt_rate:
            self._halt = int(self._rng.integers(1, self._options.halt_frames, endpoint=True))


def _move(
    rng: np.random.Generator, num_frames: int, image_size: tuple[int, int], options: SceneOptions
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Moves camera and objects: (T + 1, 2, 3) maps from world to image, and from each object's plane to the world."""
    camera = _Camera(rng, image_size, options)
    walkers = [_Walker(rng, image_size, options) for _ in range(rng.integers(*options.num_objects, endpoint=True))]
    views, poses = [], []
    for time in range(num_frames + 1):
        views.append(camera.view(time))
        poses.append([walker.pose() for walker in walkers])
        for walker in walkers:
            walker.advance(views[-1])
        camera.advance(time, walkers[0].place if walkers else None)
    return np.stack(views), [np.stack(path) for path in zip(*poses, strict=True)]


def _draw_axes(rng: np.random.Generator, radius: float) -> np.ndarray:
    stretch = np.sqrt(rng.uniform(1, 2))
    return radius * np.array([stretch, 1 / stretch])


def _draw_shape(rng: np.random.Generator, half_axes: np.ndarray) -> Shape:
    sizes = rng.uniform(0, 1, 5) / np.arange(2, 7)
    sizes *= rng.uniform(0.1, 0.45) / sizes.sum()
    return Shape(half_axes, sizes * np.exp(1j * rng.uniform(0, 2 * np.pi, 5)))
