"""Regions of flow in the graph: their colours, their features in context, their scores (section 3.1).

Written with keras.ops alone; batch, height and width may be unknown, the number of levels may not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from keras import KerasTensor, ops

from msst_keras.data.flow_files import FLOW_STEP
from msst_keras.motion import camera as camera_motion
from msst_keras.motion.flow_pictures import COLOR_WHEEL

NUM_CONTEXTS = 3  # of a region, as in MDF, the paper's [16]: itself, itself with its neighbours, the whole map


def color_flow(flow: KerasTensor, camera: str = "none") -> KerasTensor:
    """`flow_pictures.flow_to_color` in the graph, unrounded.

    Args:
        flow: (B, h, w, 2) float32, x then y, pixels per frame.
        camera: What is subtracted first; see `subtract_camera`.

    Returns:
        (B, h, w, 3) float32 RGB in 0..255.
    """
    flow = subtract_camera(flow, camera)
    x, y = flow[..., 0], flow[..., 1]
    magnitude = ops.sqrt(x * x + y * y)
    scale = ops.maximum(percentile(magnitude, 99), 1.0)
    num_colors = len(COLOR_WHEEL)
    position = (ops.arctan2(-y, -x) / math.pi + 1) / 2 * num_colors
    index = ops.floor(position)
    share = ops.expand_dims(position - index, -1)
    index = ops.cast(index, "int32")
    wheel = ops.convert_to_tensor(COLOR_WHEEL)
    hue = ops.take(wheel, index % num_colors, axis=0) * (1 - share)
    hue += ops.take(wheel, (index + 1) % num_colors, axis=0) * share
    saturation = ops.expand_dims(ops.minimum(magnitude / scale, 1.0), -1)
    return 255 * (1 - saturation * (1 - hue))


def residual_magnitude(flow: KerasTensor, camera: str = "median") -> KerasTensor:
    """`flow_pictures.magnitude_prior` in the graph: (B, h, w, 2) -> (B, h, w, 1) float32 in 0..1."""
    residual = subtract_camera(flow, camera)
    magnitude = ops.sqrt(ops.sum(residual * residual, axis=-1))
    scale = ops.maximum(percentile(magnitude, 99), FLOW_STEP)
    return ops.expand_dims(ops.minimum(magnitude / scale, 1.0), -1)


def subtract_camera(flow: KerasTensor, camera: str) -> KerasTensor:
    """`camera.subtract_camera` in the graph, in float32: (B, h, w, 2) -> the same shape."""
    return ops.transpose(subtract_camera_planes(flow, camera), (0, 2, 3, 1))


def subtract_camera_planes(flow: KerasTensor, camera: str) -> KerasTensor:
    """`subtract_camera` with x and y as planes: (B, h, w, 2) -> (B, 2, h, w).

    Operations on planes take a fraction of the time of those on pairs.
    """
    planes = ops.transpose(flow, (0, 3, 1, 2))
    if camera == "none":
        return planes
    if camera == "median":
        return planes - ops.stack([percentile(planes[:, axis], 50) for axis in (0, 1)], axis=1)
    basis, step = _camera_basis(flow, camera), camera_motion.FIT_STEP
    batch, num_numbers = ops.shape(flow)[0], basis.shape[0]
    points = ops.reshape(basis[..., ::step, ::step], (num_numbers, 2, -1))  # 6 or 8 numbers of the camera, x and y, N
    observed = ops.reshape(planes[..., ::step, ::step], (batch, 2, -1))
    # What each point adds to the normal equations at a weight of 1, so that a step of the fit is two small products.
    squares = ops.transpose(ops.sum(points[:, None] * points[None], axis=2), (2, 0, 1))
    squares = ops.reshape(squares, (-1, num_numbers * num_numbers))  # (N, 36 or 64)
    products = ops.sum(ops.expand_dims(observed, 1) * points, axis=2)  # (B, 6 or 8, N)
    ridge = camera_motion.RIDGE * ops.eye(num_numbers)
    flat_points = ops.reshape(points, (num_numbers, -1))
    weights = ops.ones_like(observed[:, 0])  # (B, N)
    for iteration in range(camera_motion.ROBUST_STEPS + camera_motion.BIWEIGHT_STEPS):
        shares = weights / ops.sum(weights, axis=1, keepdims=True)
        normal = ops.reshape(ops.matmul(shares, squares), (batch, num_numbers, num_numbers)) + ridge
        motion = ops.solve(normal, ops.matmul(products, ops.expand_dims(shares, -1)))  # (B, 6 or 8, 1)
        fitted = ops.matmul(motion[..., 0], flat_points)
        difference = observed - ops.reshape(fitted, ops.shape(observed))
        residual = ops.sqrt(ops.sum(ops.square(difference), axis=1))
        if iteration < camera_motion.ROBUST_STEPS:
            weights = 1 / ops.maximum(residual, camera_motion.MIN_RESIDUAL)
        else:
            median = ops.maximum(percentile(ops.expand_dims(residual, 1), 50)[:, 0], camera_motion.MIN_RESIDUAL)
            weights = ops.maximum(1 - ops.square(residual / (camera_motion.CUTOFF * median)), 0.0) ** 2
    moved = ops.matmul(motion[..., 0], ops.reshape(basis, (num_numbers, -1)))
    return planes - ops.reshape(moved, ops.shape(planes))


def _camera_basis(flow: KerasTensor, camera: str) -> KerasTensor:
    """`camera.camera_basis` of the size of flow, its last axes first: (6 or 8, 2, h, w) float32."""
    _, height, width, _ = ops.shape(flow)
    half = ops.cast(ops.maximum(ops.maximum(height, width), 2), "float32") / 2
    y, x = (
        (ops.arange(size, dtype="float32") - (ops.cast(size, "float32") - 1) / 2) / half for size in (height, width)
    )
    y, x = ops.meshgrid(y, x, indexing="ij")
    zero, one = ops.zeros_like(x), ops.ones_like(x)
    right, down = [one, x, y, zero, zero, zero], [zero, zero, zero, one, x, y]
    if camera == "homography":
        right, down = [*right, x * x, x * y], [*down, x * y, y * y]
    return ops.stack([ops.stack(right), ops.stack(down)], axis=1)


def percentile(maps: KerasTensor, percent: int) -> KerasTensor:
    """`numpy.percentile` of each map: (B, h, w) float32 -> (B, 1, 1)."""
    batch, height, width = ops.shape(maps)
    num_pixels = height * width
    hundredths = percent * (num_pixels - 1)  # whole numbers: float32 is not exact for the position in a large map
    below, share = hundredths // 100, ops.cast(hundredths % 100, "float32") / 100
    above = ops.minimum(below + 1, num_pixels - 1)
    flat = ops.reshape(maps, (batch, num_pixels))
    if isinstance(num_pixels, int) and 4 * (num_pixels - below) <= num_pixels:
        # Only the largest are put in order, which takes a sixth of the time for the 99th percentile.
        ordered, first = ops.flip(ops.top_k(flat, num_pixels - below)[0], axis=-1), below
    else:
        ordered, first = ops.sort(flat, axis=-1), 0
    low, high = ops.take(ordered, below - first, axis=1), ops.take(ordered, above - first, axis=1)
    return ops.reshape(low + (high - low) * share, (batch, 1, 1))


def count_pixels(superpixels: KerasTensor, num_regions: int | KerasTensor) -> KerasTensor:
    """Pixels of each region: (B, h, w, M) int32 labels -> (B, M, num_regions) float32, 0 of regions that are not."""
    labels, batch, num_levels = _flatten_labels(superpixels, num_regions)
    areas = ops.segment_sum(ops.ones_like(labels, "float32"), labels, batch * num_levels * num_regions)
    return ops.reshape(areas, (batch, num_levels, num_regions))


def pool_regions(
    images: KerasTensor,
    feature_maps: Sequence[KerasTensor],
    strides: Sequence[int],
    superpixels: KerasTensor,
    num_regions: int | KerasTensor,
) -> KerasTensor:
    """Mean features of each region in three contexts: the region, it and its neighbours, the whole map.

    Means over pixels: a pixel has the features of the cell it lies in. They are made of the number of pixels that
    region and cell share, so no feature map is brought to full size.

    Args:
        images: (B, h, w, C) float32: features of the pixels themselves. A small superpixel shares its cells with
            others; this is what tells it from them.
        feature_maps: List of (B, ceil(h / stride), ceil(w / stride), C_i).
        strides: Pixels per cell of each, cell k beginning at pixel k * stride.
        superpixels: (B, h, w, M) int32 labels below `num_regions`.
        num_regions: Rows made per level; a number, or one int32 in the graph. Rows without pixels have zeros in the
            first two contexts.

    Returns:
        (B, M, num_regions, NUM_CONTEXTS * (C + C_1 + ...)) float32: all features of the first context, then of the
        second, then of the third. In each the images come first, then the maps by stride, in the order given.
    """
    labels, batch, num_levels = _flatten_labels(superpixels, num_regions)
    shape = (batch, num_levels, num_regions)
    # Channel by channel: sums of single numbers take less time than sums of threes.
    channels = [images[..., index : index + 1] for index in range(images.shape[-1])]
    colors = [
        ops.segment_sum(_repeat_levels(channel, num_levels)[:, 0], labels, batch * num_levels * num_regions)
        for channel in channels
    ]
    sums = [ops.reshape(ops.stack(colors, axis=-1), (*shape, images.shape[-1]))]
    maps_of: dict[int, list[KerasTensor]] = {}  # by stride: maps of one stride share their cells
    for features, stride in zip(feature_maps, strides, strict=True):
        maps_of.setdefault(stride, []).append(ops.cast(features, "float32"))
    for stride, maps in maps_of.items():
        sums.append(_sum_cells(ops.concatenate(maps, axis=-1), stride, superpixels, num_regions))
    sums = ops.concatenate(sums, axis=-1)
    areas = ops.expand_dims(count_pixels(superpixels, num_regions), -1)
    near = find_neighbors(superpixels, num_regions)
    whole = ops.sum(sums, axis=2, keepdims=True) / ops.sum(areas, axis=2, keepdims=True)
    contexts = [
        sums / ops.maximum(areas, 1.0),
        ops.matmul(near, sums) / ops.maximum(ops.matmul(near, areas), 1.0),
        ops.broadcast_to(whole, ops.shape(sums)),
    ]
    return ops.concatenate(contexts, axis=-1)


def find_neighbors(superpixels: KerasTensor, num_regions: int | KerasTensor) -> KerasTensor:
    """Which regions touch, left to right or top to bottom: (B, h, w, M) int32 -> (B, M, R, R) float32 of 0 and 1.

    A region is its own neighbour, also where the map has no such region.
    """
    _, height, width, num_levels = ops.shape(superpixels)
    touching = 0.0
    for first, second in (
        (superpixels[:, :, : width - 1], superpixels[:, :, 1:]),
        (superpixels[:, : height - 1], superpixels[:, 1:]),
    ):
        rows, batch, _ = _flatten_labels(first, num_regions)
        columns = ops.reshape(ops.transpose(second, (0, 3, 1, 2)), (-1,))
        num_pairs = batch * num_levels * num_regions * num_regions
        touching += ops.segment_sum(ops.ones_like(rows, "float32"), rows * num_regions + columns, num_pairs)
    touching = ops.reshape(touching, (batch, num_levels, num_regions, num_regions))
    touching += ops.transpose(touching, (0, 1, 3, 2)) + ops.eye(num_regions)
    return ops.cast(touching > 0, "float32")


def paint_scores(scores: KerasTensor, superpixels: KerasTensor) -> KerasTensor:
    """Eq. 1: each pixel's mean over the levels of its superpixels' scores: (B, M, R), (B, h, w, M) -> (B, h, w, 1)."""
    labels, batch, num_levels = _flatten_labels(superpixels, ops.shape(scores)[-1])
    _, height, width, _ = ops.shape(superpixels)
    painted = ops.take(ops.reshape(scores, (-1,)), labels, axis=0)
    return ops.expand_dims(ops.mean(ops.reshape(painted, (batch, num_levels, height, width)), axis=1), -1)


def label_regions(
    masks: KerasTensor, superpixels: KerasTensor, num_regions: int, min_purity: float
) -> tuple[KerasTensor, KerasTensor]:
    """The regions that a classifier learns from: those nearly all object or all background.

    Args:
        masks: (B, h, w) float32, 1 where salient.
        superpixels: (B, h, w, M) int32.
        num_regions: Rows per level.
        min_purity: A region with a larger share of salient pixels is salient, with a larger share of others it is
            not; the rest are no samples (MDF: 0.7).

    Returns:
        (B, M, num_regions) float32 of 0 and 1: salient, and is a sample.
    """
    labels, batch, num_levels = _flatten_labels(superpixels, num_regions)
    shape = (batch, num_levels, num_regions)
    pixels = _repeat_levels(ops.expand_dims(masks, -1), num_levels)[:, 0]
    salient = ops.reshape(ops.segment_sum(pixels, labels, batch * num_levels * num_regions), shape)
    areas = count_pixels(superpixels, num_regions)
    share = salient / ops.maximum(areas, 1.0)
    positive = ops.cast(share > min_purity, "float32")
    negative = ops.cast(ops.logical_and(share < 1 - min_purity, areas > 0), "float32")
    return positive, positive + negative


def _flatten_labels(superpixels: KerasTensor, num_regions: int | KerasTensor) -> tuple[KerasTensor, Any, int]:
    """Labels that no two maps share, (B * M * h * w,), map by map; and B, a number or one int32 in the graph, and M."""
    batch, height, width, num_levels = ops.shape(superpixels)
    maps = ops.reshape(ops.transpose(superpixels, (0, 3, 1, 2)), (batch * num_levels, height * width))
    offsets = ops.expand_dims(ops.arange(batch * num_levels, dtype="int32") * num_regions, 1)
    return ops.reshape(maps + offsets, (-1,)), batch, num_levels


def _sum_cells(
    features: KerasTensor, stride: int, superpixels: KerasTensor, num_regions: int | KerasTensor
) -> KerasTensor:
    """Sums over the pixels of each region of the features of their cells: (B, M, num_regions, C)."""
    labels, batch, num_levels = _flatten_labels(superpixels, num_regions)
    _, cell_rows, cell_columns, channels = ops.shape(features)
    _, height, width, _ = ops.shape(superpixels)
    num_rows, num_cells = num_levels * num_regions, cell_rows * cell_columns
    rows = ops.expand_dims(ops.arange(height, dtype="int32") // stride, 1)
    columns = ops.expand_dims(ops.arange(width, dtype="int32") // stride, 0)
    cells = ops.reshape(rows * cell_columns + columns, (1, height * width))
    cells = ops.reshape(ops.repeat(cells, batch * num_levels, axis=0), (-1,))
    ones = ops.ones_like(labels, "float32")
    shared = ops.segment_sum(ones, labels * num_cells + cells, batch * num_rows * num_cells)
    sums = ops.matmul(
        ops.reshape(shared, (batch, num_rows, num_cells)), ops.reshape(features, (batch, num_cells, channels))
    )
    return ops.reshape(sums, (batch, num_levels, num_regions, channels))


def _repeat_levels(images: KerasTensor, num_levels: int) -> KerasTensor:
    """The pixels of (B, h, w, C) once for every level, (B * M * h * w, C), in the order of `_flatten_labels`."""
    batch, height, width, channels = ops.shape(images)
    repeated = ops.repeat(ops.reshape(images, (batch, 1, height * width, channels)), num_levels, axis=1)
    return ops.reshape(repeated, (-1, channels))
