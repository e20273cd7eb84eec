"""A still taken apart into a background and things in front of it, and what it shows in motion: frames, masks, flow.

Points are x, y; an affine map is (2, 3).
"""

from __future__ import annotations

import cv2
import numpy as np

from msst_keras.synthetic.affine import apply, compose, invert
from msst_keras.synthetic.relief import Relief

_SOFTNESS = 0.7  # pixels, standard deviation of the blur of the object's outline, as in a sharp photograph
_HOLE_RIM = 3  # pixels around the object that are painted over too, because they hold some of its colour
_PAINT_RADIUS = 5  # pixels; how far around a pixel the painting looks


class Cutout:
    """A thing in front of the background; `maps` (T, 2, 3) take the points of its image to those of each frame."""

    def __init__(self, image: np.ndarray, alpha: np.ndarray, maps: np.ndarray):
        self._image, self._alpha, self.maps = image, alpha, maps

    @classmethod
    def with_soft_edge(cls, image: np.ndarray, cover: np.ndarray, maps: np.ndarray, deviation: float) -> Cutout:
        """Cuts a thing out of its image, its outline as soft as that of a photograph.

        Args:
          image: uint8 (h, w, 3).
          cover: (h, w), bool or float32 in 0..1, where the thing is.
          maps: see `Cutout`.
          deviation: standard deviation, in pixels, of a blur of image and outline; 0 for none.
        """
        alpha = cv2.GaussianBlur(cover.astype(np.float32), (0, 0), np.hypot(_SOFTNESS, deviation))
        return cls(blur(image, deviation), alpha, maps)

    def paste(self, index: int, frame: np.ndarray) -> None:
        """Draws the thing into the frame, float32 (H, W, 3)."""
        affine, size = self.maps[index], frame.shape[1::-1]
        alpha = _warp(self._alpha, affine, size, border=cv2.BORDER_CONSTANT)
        x, y, width, height = cv2.boundingRect((alpha > 0).view(np.uint8))
        box = slice(y, y + height), slice(x, x + width)  # nothing changes outside it
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


class Scene:
    """A still taken apart, and its motion: frame t shows the plane of the still through `camera[t]`.

    Before that, the motion of a thing moves its points within the plane, and the relief of the background, if it has
    one, moves the points of the background.
    """

    def __init__(self, background: np.ndarray, camera: np.ndarray, things: list[Cutout], relief: Relief | None):
        """Takes the things from back to front; the last is the object."""
        self.size = background.shape[:2]
        self._background, self._camera, self._things, self._relief = background, camera, things, relief

    def render(self, index: int) -> np.ndarray:
        """Frame `index`, uint8 (H, W, 3)."""
        frame = self._render_background(index).astype(np.float32)
        for thing in self._things:
            thing.paste(index, frame)
        return np.round(frame).astype(np.uint8)

    def mask(self, index: int) -> np.ndarray:
        """Bool (H, W): where the object covers more than half a pixel of frame `index`."""
        return self._things[-1].cover(index, *_grid(self.size, self.size)) > 0.5

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


def paint_over(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The background, painted in where the object was; the image itself if it has no object or no background."""
    hole = cv2.dilate(mask.astype(np.uint8), np.ones((2 * _HOLE_RIM + 1,) * 2, np.uint8))
    if not hole.any() or hole.all():
        return image
    return cv2.inpaint(image, hole, _PAINT_RADIUS, cv2.INPAINT_TELEA)


def blur(image: np.ndarray, deviation: float) -> np.ndarray:
    """The image, Gaussian-blurred by `deviation` pixels, or as it is for 0."""
    return cv2.GaussianBlur(image, (0, 0), deviation) if deviation else image


def _warp(
    plane: np.ndarray, affine: np.ndarray, size: tuple[int, int], border: int = cv2.BORDER_REFLECT_101
) -> np.ndarray:
    return cv2.warpAffine(plane, affine, size, flags=cv2.INTER_LINEAR, borderMode=border)


def _grid(size: tuple[int, int], frame_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The points x, y of the frame, (h, w) each, at the pixel centres of a map of the frame that has `size`."""
    y, x = ((np.arange(side) + 0.5) * frame / side - 0.5 for side, frame in zip(size, frame_size, strict=True))
    return np.meshgrid(x, y)
