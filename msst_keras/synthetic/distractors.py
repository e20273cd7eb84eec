"""Another still's object as a distractor, which draws the eye but is background: its choice, cutout, place and motion.

If a still's object is the only thing with an outline of its own, a network learns that whatever has an outline is the
object. A distractor is smaller, slower and behind the object, and the network must learn to see that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from msst_keras.data import images
from msst_keras.data.masks import read_mask
from msst_keras.synthetic.affine import compose
from msst_keras.synthetic.still_motion import MotionPath, box_corners, find_view, touches_edge
from msst_keras.synthetic.still_options import StillMotionOptions

NUM_CANDIDATES = 4  # about half of DUTS's stills are suitable, so that one of 16 draws finds none
_COVER = (0.02, 0.4)  # share of its own image; smaller is too blurred when enlarged, larger is hardly an object
_MAX_SCALE = 1.25  # enlarged further, its blur would give it away
_MIN_AREA = 64  # pixels; less is a speck
_RIM = 4  # pixels kept around the object, for its soft outline
_NUM_PLACES = 8
_MAX_HIDDEN = 0.5  # share of the distractor that the object may hide at the best place found
_GOOD_ENOUGH = 0.2  # where the object hides less, no better place is looked for


def choose_candidates(names: Sequence[str], seed: int) -> Iterator[tuple[int, ...]]:
    """Yields for each of the names the indices of the others that its distractor may come from, in order of preference.

    Each choice depends on the seed, its own name, and the list. It has fewer than NUM_CANDIDATES only in a short list.
    """
    for own, name in enumerate(names):
        digest = hashlib.sha256(f"distractor of {name}".encode()).digest()
        rng = np.random.default_rng([seed, *np.frombuffer(digest, np.uint32)])
        drawn = rng.integers(max(len(names) - 1, 1), size=min(NUM_CANDIDATES, len(names) - 1))
        yield tuple(int(index) + (index >= own) for index in dict.fromkeys(drawn.tolist()))


def read_first(candidates: Sequence[tuple[Path, Path]], mask_rule: str) -> tuple[np.ndarray, np.ndarray] | None:
    """The first (image, mask) whose object is whole and neither too small nor too large; None if there is none.

    Raises:
      FileNotFoundError, ValueError: see `images.read_frame` and `masks.read_mask`.
    """
    return next(read_suitable(candidates, mask_rule), None)


def read_suitable(candidates: Sequence[tuple[Path, Path]], mask_rule: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the (image, mask) of all whose object is whole and neither too small nor too large; see `read_first`."""
    for image_path, mask_path in candidates:
        mask = read_mask(mask_path, mask_rule)
        if touches_edge(mask) or not _COVER[0] <= mask.mean() <= _COVER[1]:
            continue
        image = images.read_frame(image_path)
        if image.shape[:2] == mask.shape:
            yield image, mask


def cut_out(image: np.ndarray, mask: np.ndarray, area: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Cuts the object out and brings it to about `area` pixels, or to fewer if it would be blurred.

    Args:
      image: uint8 (H, W, 3).
      mask: bool (H, W), True somewhere.
      area: pixels.

    Returns:
      uint8 (h, w, 3) and float32 (h, w) in 0..1, with a rim around the object; None if only a speck is left.
    """
    scale = min(np.sqrt(area / mask.sum()), _MAX_SCALE)
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    rim = int(np.ceil(_RIM / scale))
    # The object may be nearer to the image's edge than the rim is wide, so the image is continued by reflection.
    box = slice(y, y + height + 2 * rim), slice(x, x + width + 2 * rim)
    padded = cv2.copyMakeBorder(image, *(rim,) * 4, cv2.BORDER_REFLECT_101)[box]
    cover = cv2.copyMakeBorder(mask.astype(np.float32), *(rim,) * 4, cv2.BORDER_CONSTANT)[box]
    size = tuple(max(1, round(side * scale)) for side in cover.shape[::-1])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    cover = cv2.resize(cover, size, interpolation=how)
    if (cover > 0.5).sum() < _MIN_AREA:
        return None
    return cv2.resize(padded, size, interpolation=how), cover


def find_place(
    rng: np.random.Generator, cover: np.ndarray, object_mask: np.ndarray, view: np.ndarray,
    max_hidden: float = _MAX_HIDDEN, good_enough: float = _GOOD_ENOUGH,
) -> np.ndarray | None:  # fmt: skip
    """Draws where the distractor stands: the first of some places that hides little of it, or the one that hides least.

    Args:
      rng: what to draw from.
      cover: float32 (h, w) of `cut_out`.
      object_mask: bool (H, W) of the still.
      view: (2, 2), the smallest and the largest x, y of the still's plane that are seen.
      max_hidden: the share of the distractor that the object may hide at the best place found.
      good_enough: a place where it hides less than this share is taken at once.

    Returns:
      (2,) x, y of the plane at the distractor's upper left corner; None if it would be hidden wherever it was tried.
    """
    patch = (cover > 0.5).astype(np.float32)
    middle, half = view.mean(axis=0), np.diff(view, axis=0)[0] / 2
    best, least = None, max_hidden
    for _ in range(_NUM_PLACES):
        centre = middle + half * rng.uniform(-0.85, 0.85, 2)
        place = np.round(centre - (np.array(patch.shape[::-1]) - 1) / 2)
        hidden = float(_overlap(patch, object_mask, *place.astype(int)) / patch.sum())
        if hidden < least:
            best, least = place, hidden
        if hidden < good_enough:
            break
    return best


def draw(
    rng: np.random.Generator, image: np.ndarray, other_mask: np.ndarray, mask: np.ndarray, camera: np.ndarray,
    motion: np.ndarray, options: StillMotionOptions,
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:  # fmt: skip
    """Draws how large another still's object is, where it stands and how it moves.

    Args:
      rng: what to draw from.
      image, other_mask: uint8 (h, w, 3) and bool (h, w), of the other still.
      mask: bool (H, W) of the still's own object, which covers something and not all.
      camera, motion: (T, 2, 3) each, of `still_motion.draw_motion`.
      options: the ranges.

    Returns:
      Image and cover as `cut_out` gives them, and their maps to the plane, (T, 2, 3); None if only a speck is left of
      the object, or if it would be hidden.
    """
    piece = cut_out(image, other_mask, rng.uniform(*options.distractor_cover) * mask.sum())
    if not piece:
        return None
    place = find_place(rng, piece[1], mask, find_view(camera, mask.shape))
    if place is None:
        return None
    centres = motion @ [*box_corners(*np.nonzero(mask)[::-1]).mean(axis=0), 1]
    speed = np.hypot(*(centres[-1] - centres[0])) / (len(motion) - 1) * rng.uniform(*options.distractor_speed)
    if rng.random() < options.distractor_rest_share or not speed:
        speed = growth = turn = 0.0
    else:
        growth, turn = options.object_growth / 2, options.object_rotation / 2
    path = MotionPath(rng, len(motion), speed, growth, turn)
    middle = place + (np.array(piece[1].shape[::-1]) - 1) / 2
    start = np.column_stack([np.eye(2), place])
    return *piece, np.stack([compose(step, start) for step in path.maps(1.0, middle)])


def _overlap(patch: np.ndarray, mask: np.ndarray, x: int, y: int) -> float:
    """How many pixels of the patch lie on the mask if its corner is at x, y, which may be outside the mask."""
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + patch.shape[0], mask.shape[0]), min(x + patch.shape[1], mask.shape[1])
    if top >= bottom or left >= right:
        return 0.0
    return float((patch[top - y : bottom - y, left - x : right - x] * mask[top:bottom, left:right]).sum())
