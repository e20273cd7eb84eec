from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from msst_keras.motion import regions
from msst_keras.motion.camera import CAMERAS, camera_basis, check_camera, subtract_camera
from msst_keras.motion.flow_pictures import flow_to_color, magnitude_prior

ZOOM_AND_ROLL = [3, -2, 0.8, 1, -0.8, -2]  # pixels: pan and, at the middle of the longer sides, zoom and roll
PLANE = [*ZOOM_AND_ROLL, 1.5, -0.7]


def scene(numbers, size=(96, 144), seed=0):
    """The flow of a camera with an object on a sixth of the map, and the object's mask."""
    camera = "affine" if len(numbers) == 6 else "homography"
    flow = camera_basis(*size, camera) @ numbers
    mask = np.zeros(size, bool)
    mask[30:70, 60:120] = True
    flow[mask] += np.random.default_rng(seed).normal(0, 4, 2)
    return flow.astype(np.float32), mask


def test_the_numbers_of_the_camera_by_hand():
    """3x5 pixels: the middle is (1, 2), half of the longer side 2.5 pixels."""
    basis = camera_basis(3, 5, "homography")
    x, y = 1 / 2.5, -1 / 2.5
    np.testing.assert_allclose(basis[0, 3, 0], [1, x, y, 0, 0, 0, x * x, x * y])
    np.testing.assert_allclose(basis[0, 3, 1], [0, 0, 0, 1, x, y, x * y, y * y])
    np.testing.assert_array_equal(basis[1, 2, 0], [1, 0, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(camera_basis(3, 5, "affine"), basis[..., :6])


@pytest.mark.parametrize(
    ("numbers", "camera"), [(ZOOM_AND_ROLL, "affine"), (ZOOM_AND_ROLL, "homography"), (PLANE, "homography")]
)
def test_nothing_is_left_of_a_camera_but_the_object(numbers, camera):
    for seed in range(3):
        flow, mask = scene(numbers, seed=seed)
        shift = np.random.default_rng(seed).normal(0, 4, 2)
        for residual in (subtract_camera(flow, camera), regions.subtract_camera(flow[None], camera).numpy()[0]):
            assert np.abs(residual[~mask]).max() < 1e-3
            np.testing.assert_allclose(residual[mask], np.tile(shift, (mask.sum(), 1)), atol=1e-3)


def test_simpler_cameras_leave_what_they_cannot_explain():
    flow, mask = scene(PLANE)
    left = [np.abs(subtract_camera(flow, camera)[~mask]).mean() for camera in CAMERAS]
    assert left[0] > left[1] > left[2] > 0.1
    assert left[3] < 1e-4


def test_the_median_and_no_camera():
    flow = np.random.default_rng(0).normal(size=(7, 9, 2)).astype(np.float32)
    np.testing.assert_array_equal(subtract_camera(flow, "none"), flow)
    np.testing.assert_allclose(subtract_camera(flow, "median"), flow - np.median(flow, axis=(0, 1)), atol=1e-6)


@pytest.mark.parametrize("camera", CAMERAS)
def test_the_graph_removes_what_numpy_does_at_every_size(camera):
    function = tf.function(
        lambda flow: regions.subtract_camera(flow, camera),
        input_signature=[tf.TensorSpec([None, None, None, 2], tf.float32)],
    )
    for size in ((32, 32), (97, 50), (64, 1)):
        noise = np.random.default_rng(0).normal(0, 0.3, (2, *size, 2))
        flow = (camera_basis(*size, "homography") @ np.array(PLANE) + noise).astype(np.float32)
        flow[:, : size[0] // 3, : size[1] // 2 + 1] += 5
        expected = np.stack([subtract_camera(each, camera) for each in flow])
        np.testing.assert_allclose(function(flow), expected, atol=1e-3)


@pytest.mark.parametrize("camera", CAMERAS)
def test_colors_and_magnitudes_are_those_of_the_residual(camera):
    flow, _ = scene(PLANE)
    residual = subtract_camera(flow, camera).astype(np.float32)
    np.testing.assert_allclose(regions.color_flow(flow[None], camera)[0], flow_to_color(residual), atol=0.6)
    magnitude = np.hypot(residual[..., 0], residual[..., 1])
    expected = np.minimum(magnitude / np.percentile(magnitude, 99), 1)
    np.testing.assert_allclose(magnitude_prior(flow, camera), expected, atol=1e-5)
    np.testing.assert_allclose(regions.residual_magnitude(flow[None], camera)[0, ..., 0], expected, atol=1e-4)


def test_a_still_map_stays_still():
    for camera in CAMERAS:
        assert np.abs(regions.subtract_camera(np.zeros((1, 40, 56, 2), np.float32), camera)).max() < 1e-6
        assert magnitude_prior(np.zeros((40, 56, 2), np.float32), camera).max() < 1e-6


def test_unknown_cameras():
    with pytest.raises(ValueError, match="camera must be one of none, median, affine, homography, found 'zoom'"):
        check_camera("zoom")
    with pytest.raises(ValueError, match="camera must be one of"):
        magnitude_prior(np.zeros((40, 56, 2), np.float32), "zoom")
