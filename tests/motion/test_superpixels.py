from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from msst_keras.data import images
from msst_keras.data.masks import read_mask
from msst_keras.motion.flow import FlowEstimator, FlowSettings
from msst_keras.motion.superpixels import SuperpixelSettings, segment


def square_flow(size=(96, 144)):
    """Flow of a square over a background, both in motion, and the square's mask."""
    flow = np.full((*size, 2), (1, 0), np.float32)
    mask = np.zeros(size, bool)
    mask[24:60, 40:80] = True
    flow[mask] = (-3, 2)
    return flow, mask


def noisy_flow(size=(96, 144), seed=0):
    noise = np.random.default_rng(seed).normal(0, 2, (*size, 2))
    return cv2.GaussianBlur(noise, (0, 0), 2).astype(np.float32)


def majority(labels, mask):
    """The mask that the regions can give at best: each one labelled as most of its pixels."""
    return (np.bincount(labels.ravel(), mask.ravel()) / np.bincount(labels.ravel()) > 0.5)[labels]


def test_regions_follow_the_object_at_every_level():
    flow, mask = square_flow()
    labels = segment(flow, SuperpixelSettings())
    assert labels.shape == (96, 144, 3)
    for level in np.moveaxis(labels, -1, 0):
        np.testing.assert_array_equal(majority(level, mask), mask)


def test_still_maps_have_one_region():
    np.testing.assert_array_equal(segment(np.zeros((40, 60, 2), np.float32), SuperpixelSettings()), 0)


def test_levels_go_from_coarse_to_fine():
    labels = segment(noisy_flow(), SuperpixelSettings(num_levels=4, max_regions=1000))
    num_regions = labels.max(axis=(0, 1)) + 1
    assert (np.diff(num_regions) > 0).all()
    ends = [SuperpixelSettings(1, 1000, scales=(k, k), min_sizes=(m, m)) for k, m in ((150, 40), (30, 8))]
    ends = [segment(noisy_flow(), settings) for settings in ends]
    np.testing.assert_array_equal(labels[..., [0, 3]], np.concatenate(ends, axis=-1))


def test_one_level_is_the_middle_one():
    middle = segment(noisy_flow(), SuperpixelSettings(num_levels=3))[..., 1:2]
    np.testing.assert_array_equal(segment(noisy_flow(), SuperpixelSettings(num_levels=1)), middle)


@pytest.mark.parametrize("size", [(96, 144), (97, 131), (240, 432), (241, 333), (300, 160)])
@pytest.mark.parametrize("max_regions", [512, 20, 1])
def test_labels_are_contiguous_and_bounded(size, max_regions):
    labels = segment(noisy_flow(size), SuperpixelSettings(max_regions=max_regions))
    assert labels.dtype == np.int32
    assert labels.shape == (*size, 3)
    for level in np.moveaxis(labels, -1, 0):
        found = np.unique(level)
        assert len(found) <= max_regions
        np.testing.assert_array_equal(found, np.arange(len(found)))


def test_too_many_regions_are_merged_by_raising_the_minimum_size():
    def segment_with(min_size, max_regions):
        settings = SuperpixelSettings(1, max_regions, scales=(20.0, 20.0), min_sizes=(min_size, min_size))
        return segment(noisy_flow(), settings)

    unbounded = {min_size: segment_with(min_size, 10_000) for min_size in (8, 12, 18)}
    counts = {min_size: int(labels.max()) + 1 for min_size, labels in unbounded.items()}
    assert counts[8] > counts[12] > counts[18]
    np.testing.assert_array_equal(segment_with(8, counts[8]), unbounded[8])
    np.testing.assert_array_equal(segment_with(8, counts[8] - 1), unbounded[12])
    np.testing.assert_array_equal(segment_with(8, counts[18]), unbounded[18])


def test_large_maps_are_segmented_at_a_reduced_size():
    flow, mask = square_flow((240, 432))
    labels = segment(flow, SuperpixelSettings())
    np.testing.assert_array_equal(labels, labels[::2, ::2].repeat(2, axis=0).repeat(2, axis=1))
    small = segment(cv2.resize(flow, (216, 120), interpolation=cv2.INTER_AREA), SuperpixelSettings())
    np.testing.assert_array_equal(labels[::2, ::2], small)
    assert (majority(labels[..., 2], mask) == mask).all()


def test_segmentation_is_repeatable_and_leaves_the_flow_alone():
    flow = noisy_flow()
    copy = flow.copy()
    np.testing.assert_array_equal(segment(flow, SuperpixelSettings()), segment(flow, SuperpixelSettings()))
    np.testing.assert_array_equal(flow, copy)


def test_real_flow(real_data):
    """Regions of real flow stay within the bound and can show the object."""
    estimator, settings = FlowEstimator(FlowSettings()), SuperpixelSettings()
    overlaps = []
    for name in ("camel", "car-roundabout", "drift-straight", "libby", "soapbox"):
        folder = real_data / "davis16/JPEGImages/480p" / name
        flow = estimator.between(*(images.read_frame(folder / f"{index:05d}.jpg") for index in (3, 4)))
        mask = read_mask(real_data / "davis16/Annotations/480p" / name / "00003.png", "nonzero")
        mask = cv2.resize(mask.astype(np.uint8), (432, 240), interpolation=cv2.INTER_AREA) > 0
        labels = segment(flow, settings)
        assert (labels.max(axis=(0, 1)) >= (10, 30, 80)).all()
        assert (labels.max(axis=(0, 1)) < (100, 250, settings.max_regions)).all()
        shown = majority(labels[..., 2], mask)
        overlaps.append((shown & mask).sum() / (shown | mask).sum())
    assert np.mean(overlaps) > 0.75


def test_settings_make_the_round_trip_through_json():
    settings = SuperpixelSettings(5, 100, (99.0, 9.5), (30, 3), 0.8, 60)
    assert SuperpixelSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_levels": 0}, "num_levels must be a whole number of 1 to 64, found 0"),
        ({"max_regions": 1.5}, "max_regions must be a whole number of 1 to 65536, found 1.5"),
        ({"shorter_side": -1}, "shorter_side must be"),
        ({"scales": [20, 150]}, r"scales must be \(coarsest, finest\), positive and not rising, found \(20, 150\)"),
        ({"min_sizes": [8, 0]}, "min_sizes must be"),
        ({"min_sizes": [8]}, "min_sizes must be"),
        ({"sigma": 0}, "sigma must be positive, found 0"),
        ({"colour": 1}, "must be num_levels, .*, found .*colour"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(ValueError, match=message):
        SuperpixelSettings.from_dict({**SuperpixelSettings().to_dict(), **change})


def test_bad_flow():
    with pytest.raises(ValueError, match=r"float \(H, W, 2\) array, x then y, found float32 \(4, 5, 3\)"):
        segment(np.zeros((4, 5, 3), np.float32), SuperpixelSettings())
