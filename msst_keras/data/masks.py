"""Masks: which pixels of a file are object, by the rule of its dataset."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from msst_keras.data.image_files import EIGHT_BIT_MODES, decode_image, drop_alpha, read_file

# "nonzero": any channel, or the palette index, above 0 (DAVIS: 0/255, 0/1 or indices); but masks with soft edges are
# cut in the middle, see `_is_soft`. "half": grey > 128 (SegTrackV2, DUTS: 0/255 with grey edges; PySODMetrics and
# DAVSOD's program cut there). "fbms": see `read_mask`.
MASK_RULES = ("nonzero", "half", "fbms")
_MIDDLE = 128  # what is above it is object where a mask is cut in the middle
_MAX_OBJECTS = 64  # levels of grey in a mask that can be told apart as objects


def read_mask(path: str | Path, rule: str) -> np.ndarray:
    """Reads a mask: bool (H, W), True = object.

    Args:
      path: an image file.
      rule: one of MASK_RULES. "fbms": in a .ppm, whose regions are coloured, white is background and all else object;
        in any other file (.pgm and .png of FBMS) black is background. The .pgm that lies beside a .ppm holds the
        objects' outlines on white, not the objects: it has no background by this rule, which is an error.

    Raises:
      FileNotFoundError: no such file.
      ValueError: an unknown rule, an unreadable file, or one whose values contradict the rule, or do not tell where
        objects end.
    """
    if rule not in MASK_RULES:
        raise ValueError(f"mask rule must be one of {', '.join(MASK_RULES)}, not '{rule}'")
    encoded = read_file(path)
    image = decode_image(encoded, str(path))
    is_lossy = encoded[:2] == b"\xff\xd8" or encoded[8:16] == b"WEBPVP8 "
    if image.mode not in EIGHT_BIT_MODES:
        raise ValueError(f"{path}: a mask must be an 8-bit image, this is of mode {image.mode}; convert the file")
    if rule == "half":
        return _cut_in_the_middle(np.asarray(drop_alpha(image, str(path)).convert("L")), path)
    values = np.asarray(image if image.mode == "P" else drop_alpha(image, str(path)))
    values = values.reshape(*values.shape[:2], -1)
    if image.mode not in ("P", "1") and (rule == "nonzero" or is_lossy):
        grey = values[..., 0] if np.ptp(values, axis=2).max() == 0 else None
        if grey is not None and (is_lossy or _is_soft(grey)):
            return _cut_in_the_middle(grey, path)
        if grey is None and (is_lossy or _count_colours(values) > _MAX_OBJECTS):
            raise ValueError(
                f"{path}: expected a mask of a few colours, found many (JPEG, or soft edges?): where objects end "
                "cannot be told; save it as a PNG of a palette or of 0 and 255"
            )
    if rule == "fbms" and Path(path).suffix.lower() == ".ppm":
        return np.any(values != 255, axis=2)
    mask = np.any(values != 0, axis=2)
    if rule == "fbms" and mask.all():
        raise ValueError(
            f"{path}: expected black (0) for background, found none; if this is the outline drawing that belongs to a "
            ".ppm, put the .ppm beside it"
        )
    return mask


def _cut_in_the_middle(grey: np.ndarray, path: str | Path) -> np.ndarray:
    if 0 < grey.max() <= _MIDDLE:
        raise ValueError(
            f"{path}: expected a mask of 0 to 255, found nothing above {grey.max()} (0/1, or indices of objects?); "
            "make its objects 255"
        )
    return grey > _MIDDLE


def _is_soft(grey: np.ndarray) -> bool:
    """Whether the levels between 0 and the highest of a mask are those of soft edges, not indices of objects.

    An object has an inside, three pixels wide and high, somewhere; a level of an edge has none.
    """
    counts = np.bincount(grey.ravel(), minlength=256)
    highest = int(grey.max())
    between = np.flatnonzero(counts[1:highest]) + 1
    if highest <= _MIDDLE or not between.size or between[-1] < _MAX_OBJECTS:  # a void of 255 may stand beside indices
        return False
    kernel = np.ones((3, 3), np.uint8)
    is_inside = cv2.erode(grey, kernel) == cv2.dilate(grey, kernel)
    with_inside = np.bincount(grey[is_inside], minlength=256)[between] > 0
    return between.size > _MAX_OBJECTS or bool(with_inside.mean() < 0.5)


def _count_colours(values: np.ndarray) -> int:
    packed = values.astype(np.uint32) << (8 * np.arange(values.shape[2], dtype=np.uint32))
    return np.unique(packed.sum(axis=2)).size
