"""Masks: what each rule makes of the values of a file, and which files do not tell where objects end."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from msst_keras.data.masks import read_mask


def encode(image, image_format="PNG", **options):
    """Bytes of a Pillow image or an array."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, image_format, **options)
    return buffer.getvalue()


def test_mask_rules_on_values_computed_by_hand(tmp_path):
    def read(image, rule, name="mask.png", image_format="PNG"):
        (tmp_path / name).write_bytes(encode(image, image_format))
        return read_mask(tmp_path / name, rule).astype(int).tolist()

    indices = Image.fromarray(np.array([[0, 1, 38]], np.uint8)).convert("P")
    indices.putpalette([0, 0, 0, 128, 0, 0] + [0, 0, 0] * 254)  # index 38 is drawn black
    assert read(indices, "nonzero") == [[0, 1, 1]]
    indices.info["transparency"] = 0
    assert read(indices, "nonzero") == [[0, 1, 1]]
    assert read(np.array([[0, 1, 255]], np.uint8), "nonzero") == [[0, 1, 1]]
    assert read(np.array([[[0, 0, 0], [0, 0, 9], [9, 0, 0]]], np.uint8), "nonzero") == [[0, 1, 1]]
    assert read(np.array([[0, 128, 129, 255]], np.uint8), "half") == [[0, 0, 1, 1]]  # as PySODMetrics cuts
    assert read(np.array([[False, True]]), "half") == [[0, 1]]
    assert read(np.zeros((1, 2), np.uint8), "half") == [[0, 0]]
    colours = np.array([[[255, 255, 255], [0, 255, 255], [0, 0, 0], [255, 255, 254]]], np.uint8)
    assert read(colours, "fbms", "gt.ppm", "PPM") == [[0, 1, 1, 1]]
    assert read(np.array([[0, 85, 255]], np.uint8), "fbms", "gt.pgm", "PPM") == [[0, 1, 1]]


def disk(size=(60, 80), radius=15.0, softness=1.0):
    """A round object, float in 0..1: 0.5 at its rim, and from 0 to 1 over `softness` pixels."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    distance = radius - np.hypot(rows - size[0] / 2, columns - size[1] / 2)
    return np.clip(0.5 + distance / softness, 0, 1)


@pytest.mark.parametrize("softness", [1, 3, 8, 20])
@pytest.mark.parametrize(
    "image_format, mode", [("PNG", "L"), ("PNG", "RGB"), ("BMP", "L"), ("JPEG", "L"), ("JPEG", "RGB")]
)
def test_soft_masks_are_cut_in_the_middle(tmp_path, softness, image_format, mode):
    soft = np.rint(255 * disk(softness=softness)).astype(np.uint8)
    (tmp_path / "mask").write_bytes(encode(Image.fromarray(soft).convert(mode), image_format))
    mask = read_mask(tmp_path / "mask", "nonzero")
    assert np.mean(mask != (disk(softness=softness) > 0.5)) < 0.005
    if image_format != "JPEG":
        np.testing.assert_array_equal(mask, soft > 128)


def test_masks_reduced_from_larger_ones_are_cut_in_the_middle(tmp_path):
    hard = (disk((120, 160), 30) > 0.5).astype(np.uint8) * 255
    small = cv2.resize(hard, (80, 60), interpolation=cv2.INTER_AREA)  # five levels
    assert np.unique(small).size <= 5
    (tmp_path / "mask").write_bytes(encode(small))
    np.testing.assert_array_equal(read_mask(tmp_path / "mask", "nonzero"), small > 128)


@pytest.mark.parametrize("levels", [(1, 2), (38, 75), (85, 170, 255), (1, 255), (200, 255)])
def test_indices_of_objects_are_no_soft_edges(tmp_path, levels):
    mask = np.zeros((40, 60), np.uint8)
    for number, level in enumerate(levels):
        mask[5:30, 5 + 15 * number : 18 + 15 * number] = level
    mask[35, 35] = levels[0]  # an object of one pixel
    (tmp_path / "mask").write_bytes(encode(mask))
    np.testing.assert_array_equal(read_mask(tmp_path / "mask", "nonzero"), mask > 0)


def test_masks_whose_edges_cannot_be_told_are_refused(tmp_path):
    soft = np.rint(255 * disk(softness=8)).astype(np.uint8)
    colours = np.stack([soft, soft // 3, 255 - soft], axis=2)
    for image_format in ("PNG", "JPEG"):
        (tmp_path / "mask").write_bytes(encode(colours, image_format))
        with pytest.raises(ValueError, match="mask: expected a mask of a few colours, found many"):
            read_mask(tmp_path / "mask", "nonzero")
    (tmp_path / "mask").write_bytes(encode((soft > 128).astype(np.uint8), "JPEG", quality=100))
    with pytest.raises(ValueError, match="mask: expected a mask of 0 to 255, found nothing above [12] "):
        read_mask(tmp_path / "mask", "nonzero")


def test_masks_that_contradict_their_rule_are_refused(tmp_path):
    path = tmp_path / "mask.png"
    path.write_bytes(encode(np.array([[0, 1]], np.uint8)))
    with pytest.raises(ValueError, match="mask.png: expected a mask of 0 to 255, found nothing above 1"):
        read_mask(path, "half")
    path.write_bytes(encode(np.array([[127, 255]], np.uint8)))
    with pytest.raises(ValueError, match="mask.png: expected black .* outline drawing"):
        read_mask(path, "fbms")
    path.write_bytes(encode(Image.new("CMYK", (2, 2)), "JPEG"))
    with pytest.raises(ValueError, match="a mask must be an 8-bit image, this is of mode CMYK"):
        read_mask(path, "nonzero")
    with pytest.raises(ValueError, match="mask rule must be one of nonzero, half, fbms, not 'any'"):
        read_mask(path, "any")


def test_fbms_outlines_are_told_from_masks(real_data):
    folder = real_data / "fbms/Trainingset/camel01/GroundTruth"
    assert read_mask(folder / "camel01_0001_gt.ppm", "fbms").sum() == 16619
    with pytest.raises(ValueError, match="outline drawing"):
        read_mask(folder / "camel01_0001_gt.pgm", "fbms")
