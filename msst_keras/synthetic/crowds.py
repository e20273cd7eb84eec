"""A crowd at rest around an object that moves: things that look like the object, of which motion alone says otherwise.

Where people watch a dancer, each of them looks like an object. A network that has only seen one thing of a kind in a
frame, or a distractor that is smaller, calls the crowd salient. Here a crowd stands behind the object. Its members are
as large as the object, some of them are copies of it, and all rest on the background.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from msst_keras.synthetic import distractors
from msst_keras.synthetic.still_motion import box_corners, find_view, touches_edge
from msst_keras.synthetic.still_options import StillMotionOptions

_MAX_HIDDEN = 0.6  # share of a member that the object may hide; people stand right behind a dancer too
_COPIES = (
    0.4  # share of a crowd that is the object itself, mirrored or not, where the object lies whole within its still
)


def draw(
    rng: np.random.Generator, image: np.ndarray, mask: np.ndarray, others: Sequence[tuple[np.ndarray, np.ndarray]],
    camera: np.ndarray, motion: np.ndarray, options: StillMotionOptions,
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:  # fmt: skip
    """Draws who stands in the crowd, how large and where.

    Args:
      rng: what to draw from.
      image, mask: uint8 (H, W, 3) and bool (H, W) of the still, whose object covers something and not all.
      others: the same, of other stills, of any sizes.
      camera, motion: (T, 2, 3) each, of `still_motion.draw_motion`.
      options: the ranges.

    Returns:
      From back to front, image and cover of each member as `distractors.cut_out` gives them, and its maps to the plane,
      (T, 2, 3). None at all if the object moves too little to be told from a crowd, or nobody could stand there.
    """
    outline = box_corners(*np.nonzero(mask)[::-1])
    moved = (motion[-1] - motion[0]) @ np.vstack([outline.T, np.ones(4)])  # of each corner, (2, 4)
    if np.hypot(*moved).mean() / (len(motion) - 1) < options.crowd_least_speed * min(mask.shape):
        return []
    view = find_view(camera, mask.shape)
    own: Sequence[tuple[np.ndarray, np.ndarray]] = [] if touches_edge(mask) else [(image, mask)]
    if not own and not others:
        return []
    members = []
    for _ in range(rng.integers(*options.crowd_size, endpoint=True)):
        pool = own if own and (not others or rng.random() < _COPIES) else others
        like_image, like_mask = pool[int(rng.integers(len(pool)))]
        piece = distractors.cut_out(like_image, like_mask, rng.uniform(*options.crowd_cover) * mask.sum())
        if not piece:
            continue
        if rng.random() < 0.5:
            piece = piece[0][:, ::-1].copy(), piece[1][:, ::-1].copy()
        place = distractors.find_place(rng, piece[1], mask, view, _MAX_HIDDEN, _MAX_HIDDEN)
        if place is not None:
            rest = np.column_stack([np.eye(2), place])
            members.append((*piece, np.repeat(rest[None], len(motion), axis=0)))
    return members
