"""Textures for generated scenes, cut from the photographs that scikit-image carries."""

from __future__ import annotations

import functools

import cv2
import numpy as np
import skimage.data

# What scikit-image has in its wheel (nothing is fetched), is public domain or CC0, and is well textured.
PHOTOS = (
    *("astronaut", "chelsea", "coffee", "immunohistochemistry", "rocket"),
    *("brick", "camera", "coins", "grass", "gravel"),  # grey; they are tinted
)
# Texture pixels per unit (a pixel of the image at zoom 1). Textures are first reduced to a pixel per unit, so that
# nothing aliases, then enlarged. Linear sampling of the enlarged texture is sharp and at most 1/128 pixel off, while
# OpenCV's cubic sampling is up to 1/20 pixel off.
TEXTURE_SCALE = 2
_MIN_CONTRAST = 30  # standard deviation of grey levels; on a plain sky no motion can be seen


def cut_background(rng: np.random.Generator, name: str, image_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Makes a texture of a photograph that is larger than the view.

    Returns:
      the texture, uint8 (h, w, 3) RGB, and the point of it, x and y, at which the middle of the view lies within it.
    """
    photo = _load_photo(name)
    size = np.array(photo.shape[1::-1])
    view = np.array(image_size[::-1])
    factor = (view / size).max() * rng.uniform(1.2, 2)
    texture = _resize(photo, np.ceil(size * factor).astype(int))
    places = [view / 2 + (texture.shape[1::-1] - view) * rng.random(2) for _ in range(10)]

    def contrast(place: np.ndarray) -> float:
        """The standard deviation of the view at a place, in levels of 255."""
        left, top = (place - view / 2).astype(int)
        return texture[top : top + view[1], left : left + view[0]].std()

    place = next((place for place in places if contrast(place) > _MIN_CONTRAST), max(places, key=contrast))
    texture = _enlarge(_recolour(rng, texture, max_turn=20))
    if rng.random() < 0.5:
        texture, place = texture[:, ::-1], np.array([texture.shape[1] / TEXTURE_SCALE - place[0], place[1]])
    return np.ascontiguousarray(texture), place * TEXTURE_SCALE


def cut_patch(rng: np.random.Generator, name: str, side: int, vivid: bool) -> np.ndarray:
    """A square piece of a photograph, `side` units wide, uint8 RGB; with strong contrast and colour if `vivid`."""
    photo = _load_photo(name)
    patches = []
    for _ in range(10):
        cut = int(min(min(photo.shape[:2]) * rng.uniform(0.35, 0.9), 6 * side))  # more would average all detail away
        top, left = (int(rng.integers(length - cut, endpoint=True)) for length in photo.shape[:2])
        patches.append(_resize(photo[top : top + cut, left : left + cut], (side, side)))
        if patches[-1].std() > _MIN_CONTRAST:
            break
    patch = _recolour(rng, max(patches, key=np.std), max_turn=60)
    if not vivid:
        return _enlarge(patch)
    strong = cv2.normalize(patch, None, 0, 255, cv2.NORM_MINMAX)
    colour = rng.permutation([1.0, rng.uniform(0.2, 0.9), 0.15])
    return _enlarge(np.rint(0.4 * strong + 0.6 * strong.max(axis=2, keepdims=True) * colour).astype(np.uint8))


@functools.cache
def _load_photo(name: str) -> np.ndarray:
    photo = getattr(skimage.data, name)()
    return photo if photo.ndim == 3 else np.dstack([photo] * 3)


def _recolour(rng: np.random.Generator, image: np.ndarray, max_turn: int) -> np.ndarray:
    """Turns the hue of a colour image by up to `max_turn` degrees, and tints a grey one like earth, leaves or stone."""
    if not np.array_equal(image[..., 0], image[..., 2]):
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        turn = int(rng.integers(-max_turn, max_turn, endpoint=True)) // 2  # OpenCV's hue has 180 steps
        hsv[..., 0] = (hsv[..., 0].astype(int) + turn) % 180
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return np.rint(image * rng.uniform((0.85, 0.88, 0.6), (1, 1, 0.9))).astype(np.uint8)


def _enlarge(texture: np.ndarray) -> np.ndarray:
    return cv2.resize(texture, None, fx=TEXTURE_SCALE, fy=TEXTURE_SCALE, interpolation=cv2.INTER_CUBIC)


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shrinks = size[0] < image.shape[1]
    return cv2.resize(image, tuple(map(int, size)), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
