"""Regions of flow in the graph: their colours, their features in context, their scores (section 3.1).

Written with keras.ops alone; batch, height and width may be unknown, the number of levels and of regions may not.
"""

from __future__ import annotations

import math

from keras import ops

from msst_keras.motion.flow import COLOR_WHEEL, FLOW_STEP

NUM_CONTEXTS = 3  # of a region, as in MDF, the paper's [16]: itself, itself with its neighbours, the whole map


def color_flow(flow, remove_median: bool = False):
    """`flow.flow_to_color` in the graph, unrounded.

    Args:
        flow: (B, h, w, 2) float32, x then y, pixels per frame.
        remove_median: Whether each component's median is subtracted first.

    Returns:
        (B, h, w, 3) float32 RGB in 0..255.
    """
    if remove_median:
        flow = subtract_median(flow)
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


def residual_magnitude(flow):
    """`flow.magnitude_prior` in the graph: (B, h, w, 2) -> (B, h, w, 1) float32 in 0..1."""
    residual = subtract_median(flow)
    magnitude = ops.sqrt(ops.sum(residual * residual, axis=-1))
    scale = ops.maximum(percentile(magnitude, 99), FLOW_STEP)
    return ops.expand_dims(ops.minimum(magnitude / scale, 1.0), -1)


def subtract_median(flow):
    """Subtracts each component's median over the map: (B, h, w, 2) -> the same shape."""
    median = ops.stack([percentile(flow[..., axis], 50) for axis in (0, 1)], axis=-1)
    return flow - median


def percentile(maps, percent: int):
    """`numpy.percentile` of each map: (B, h, w) float32 -> (B, 1, 1)."""
    batch, height, width = ops.shape(maps)
    ordered = ops.sort(ops.reshape(maps, (batch, height * width)), axis=-1)
    hundredths = percent * (height * width - 1)  # whole numbers: float32 is not exact for the position in a large map
    below, share = hundredths // 100, ops.cast(hundredths % 100, "float32") / 100
    above = ops.minimum(below + 1, height * width - 1)
    low, high = ops.take(ordered, below, axis=1), ops.take(ordered, above, axis=1)
    return ops.reshape(low + (high - low) * share, (batch, 1, 1))


def count_pixels(superpixels, num_regions: int):
    """Pixels of each region: (B, h, w, M) int32 labels -> (B, M, num_regions) float32, 0 of regions that are not."""
    labels, batch, num_levels = _flatten_labels(superpixels, num_regions)
    areas = ops.segment_sum(ops.ones_like(labels, "float32"), labels, batch * num_levels * num_regions)
    return ops.reshape(areas, (batch, num_levels, num_regions))


def pool_regions(images, feature_maps, strides, superpixels, num_regions: int):
    """Mean features of each region in three contexts: the region, it and its neighbours, the whole map.

    Means over pixels: a pixel has the features of the cell it lies in. They are made of the number of pixels that
    region and cell share, so no feature map is brought to full size.

    Args:
        images: (B, h, w, 3) float32: features of the pixels themselves. A small superpixel shares its cells with
            others; this is what tells it from them.
        feature_maps: List of (B, ceil(h / stride), ceil(w / stride), C_i).
        strides: Pixels per cell of each, cell k beginning at pixel k * stride.
        superpixels: (B, h, w, M) int32 labels below `num_regions`.
        num_regions: Rows made per level. Rows without pixels have zeros in the first two contexts.

    Returns:
        (B, M, num_regions, NUM_CONTEXTS * (3 + C_1 + ...)) float32: all features of the first context, then of the
        second, then of the third.
    """
    labels, batch, num_levels = _flatten_labels(superpixels, num_regions)
    shape = (batch, num_levels, num_regions)
    colors = ops.segment_sum(_repeat_levels(images, num_levels), labels, batch * num_levels * num_regions)
    sums = [ops.reshape(colors, (*shape, 3))]
    for features, stride in zip(feature_maps, strides, strict=True):
        sums.append(_sum_cells(ops.cast(features, "float32"), stride, superpixels, num_regions))
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


def find_neighbors(superpixels, num_regions: int):
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


def paint_scores(scores, superpixels):
    """Eq. 1: each pixel's mean over the levels of its superpixels' scores: (B, M, R), (B, h, w, M) -> (B, h, w, 1)."""
    labels, batch, num_levels = _flatten_labels(superpixels, scores.shape[-1])
    _, height, width, _ = ops.shape(superpixels)
    painted = ops.take(ops.reshape(scores, (-1,)), labels, axis=0)
    return ops.expand_dims(ops.mean(ops.reshape(painted, (batch, num_levels, height, width)), axis=1), -1)


def label_regions(masks, superpixels, num_regions: int, min_purity: float):
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


def _flatten_labels(superpixels, num_regions: int):
    """Labels that no two maps share, (B * M * h * w,), map by map; and B and M."""
    batch, height, width, num_levels = ops.shape(superpixels)
    maps = ops.reshape(ops.transpose(superpixels, (0, 3, 1, 2)), (batch * num_levels, height * width))
    offsets = ops.expand_dims(ops.arange(batch * num_levels, dtype="int32") * num_regions, 1)
    return ops.reshape(maps + offsets, (-1,)), batch, num_levels


def _sum_cells(features, stride: int, superpixels, num_regions: int):
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


def _repeat_levels(images, num_levels: int):
    """The pixels of (B, h, w, C) once for every level, (B * M * h * w, C), in the order of `_flatten_labels`."""
    batch, height, width, channels = ops.shape(images)
    repeated = ops.repeat(ops.reshape(images, (batch, 1, height * width, channels)), num_levels, axis=1)
    return ops.reshape(repeated, (-1, channels))
