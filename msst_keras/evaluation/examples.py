"""The frames that a report shows: the worst and the best, not too near to each other, with mask and maps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from msst_keras.evaluation.figures import Method
from msst_keras.evaluation.html_page import Picture, encode_image
from msst_keras.evaluation.scores import SCORES

ReadImages = Callable[[str, str], tuple[np.ndarray | None, np.ndarray, Mapping[str, np.ndarray]]]


# Scores by which frames may be ranked; the first that the protocol defines is taken.
_RANKED_BY = ("max_f", "j_mean", "s_measure", "mae")


_NUM_EXAMPLES = 4


_FRAMES_APART = 8  # a third of a second, after which the scene has changed


_PICTURE_WIDTH = 288  # pixels, which are sharp at half the width of a telephone


@dataclasses.dataclass(frozen=True)
class Example:
    """A frame that is shown: its name, its scores in words, and its pictures."""

    name: str
    numbers: str
    pictures: Sequence[Picture]


def choose_examples(methods: Sequence[Method], read_images: ReadImages) -> tuple[str, dict[str, list[Example]]]:
    """The title of the score that ranks the frames, and the worst and best frames by it, if any frame has a score."""
    own = methods[0]
    ranked_by = next((name for name in _RANKED_BY if own.result.get(name) is not None), None)
    if ranked_by is None:
        return "", {}
    scores = {key: value for key, frame in own.frames.items() if (value := frame.get(ranked_by)) is not None}
    if not scores:
        return "", {}
    if SCORES[ranked_by].lower_is_better:
        scores = {key: -value for key, value in scores.items()}
    # No more than half of the frames, or the best ones would be among the worst.
    count = min(_NUM_EXAMPLES, (len(scores) + 1) // 2)
    worst = choose_frames(scores, count)
    others = {key: -value for key, value in scores.items() if key not in worst}
    chosen = {"Worst": worst, "Best": choose_frames(others, count)}
    return SCORES[ranked_by].title, {
        heading: [_example(key, methods, read_images(*key), ranked_by) for key in keys]
        for heading, keys in chosen.items()
        if keys
    }


def choose_frames(scores: Mapping[tuple[str, str], float], count: int) -> list[tuple[str, str]]:
    """Returns the `count` frames of lowest score, from different sequences or at least not neighbours in one.

    Args:
      scores: (sequence, frame) -> score, in temporal order. Of frames with equal scores the first is chosen.
      count: How many frames; fewer are returned if there are fewer.
    """
    places = {key: place for place, key in enumerate(scores)}
    ranking = sorted(scores, key=lambda key: scores[key])
    chosen: list[tuple[str, str]] = []
    # One frame of each sequence, if there are enough; otherwise ever closer neighbours, until there are enough.
    suffice = len({sequence for sequence, _ in scores}) >= count
    for distance in (len(scores), 1) if suffice else (_FRAMES_APART, _FRAMES_APART // 2, 2, 1):
        for key in ranking:
            near = any(key[0] == other[0] and abs(places[key] - places[other]) < distance for other in chosen)
            if len(chosen) < count and not near:
                chosen.append(key)
    return sorted(chosen, key=lambda key: scores[key])


def _example(
    key: tuple[str, str],
    methods: Sequence[Method],
    images: tuple[np.ndarray | None, np.ndarray, Mapping[str, np.ndarray]],
    ranked_by: str,
) -> Example:
    where = f"{key[0]}/{key[1]}"
    frame, mask, maps = images
    if missing := [method.name for method in methods if method.name not in maps]:
        raise ValueError(f"{where}: read_images gave no map of {', '.join(missing)}; give one of each method")
    for name, image in maps.items():
        if image.ndim != 2 or image.dtype != np.uint8:
            raise ValueError(f"{where}: the map of {name} must be (H, W) uint8, not {image.shape} {image.dtype}")
    shown = [] if frame is None else [(frame, "Frame")]
    shown.append((mask, "Mask (ground truth)"))
    for method in methods:
        score = method.frames.get(key, {}).get(ranked_by)
        text = method.name if score is None else f"{method.name}: {SCORES[ranked_by].title} {score:.3f}"
        shown.append((maps[method.name], text))
    pictures = [
        Picture(*encode_image(image, _PICTURE_WIDTH), f"{caption}, {where}", caption) for image, caption in shown
    ]
    scores = methods[0].frames[key]
    numbers = ", ".join(
        f"{SCORES[name].title} {scores[name]:.3f}"
        for name in ("max_f", "s_measure", "j_mean", "f_boundary_mean", "mae")
        if scores.get(name) is not None
    )
    return Example(where, numbers, pictures)
