"""The permutohedral lattice: Gaussian filtering in a feature space of a few dimensions (Adams, Baek and Davis 2010).

Each point spreads its value over the d + 1 corners of the lattice simplex around it ("splat"), the lattice is
blurred along its d + 1 directions, and each point collects its corners again ("slice"). The lattice holds only the
vertices next to some point, as in the code of Kraehenbuehl and Koltun that pydensecrf wraps: the arithmetic up to
the choice of the simplex is done in float32 in the same order, so both build the same lattice and their outputs
differ by rounding alone.

What is ours is how the vertices are found. A simplex has one corner with all coordinates divisible by d + 1, its
origin, and each other corner is the origin moved along a subset of the d + 1 directions. Points share few origins,
so only those and their subsets are sorted, not N * (d + 1) vertices.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import sparse

# Points located at a time: their dozens of temporary arrays then stay in the processor's cache (8,192 to 65,536 are
# within 10 % of each other, all points at once take half as long again).
_BLOCK = 16_384

# pydensecrf (on x86) locates four points at a time and fills the last four up with zero features. Such a point carries
# no value, but its vertices take part in the blur, which shows in small dark frames: we fill up likewise to build the
# same lattice.
_POINTS_AT_A_TIME = 4


class PermutohedralLattice:
    """The lattice of one set of points; build it once and filter as many values as you like.

    Args:
      features: (d, N) float32, the points: d of 1 to 7 features in units of the Gaussian's standard deviation.

    Attributes:
      num_points: N.
      num_vertices: how many lattice vertices the points touch.

    Raises:
      ValueError: when the features are not such an array, not finite, or spread too far for 64-bit vertex keys.
    """

    def __init__(self, features: np.ndarray):
        _check_features(features)
        dimension, self.num_points = features.shape
        filler = np.zeros((dimension, -self.num_points % _POINTS_AT_A_TIME), np.float32)
        if filler.size:
            features = np.concatenate([features, filler], axis=1)
        steps = _key_steps(features)
        keys, corners, weights = _find_vertices(features, steps)
        corners, weights = corners[: self.num_points], weights[: self.num_points]
        self.num_vertices = len(keys)
        starts = np.arange(0, corners.size + 1, dimension + 1, dtype=np.int32)
        shape = (self.num_points, self.num_vertices)
        self._slice = sparse.csr_matrix((weights.ravel(), corners.ravel(), starts), shape=shape)
        self._splat = self._slice.T
        self._neighbours = list(_find_neighbours(keys, steps))
        # The constant of Adams et al. that makes the filter's response comparable with a Gaussian sum.
        self._scale = np.float32(1 / (1 + 2.0**-dimension))

    def filter(self, values: np.ndarray) -> np.ndarray:
        """Sums the values of all points, each weighted by about exp(-|f_i - f_j|^2 / 2), the point itself included.

        Args:
          values: (N,) float32.

        Returns:
          (N,) float32. The factor against the exact sum varies from place to place: divide by the filtered ones.
        """
        # One more vertex, always zero, stands for every neighbour that the lattice lacks.
        vertices = np.zeros(self.num_vertices + 1, np.float32)
        vertices[:-1] = self._splat @ values
        first, second = np.empty_like(vertices), np.empty_like(vertices)
        for before, after in self._neighbours:
            # mode="clip": the indices are known to be good, and the default, "raise", copies its output once more.
            np.take(vertices, before, out=first, mode="clip")
            np.take(vertices, after, out=second, mode="clip")
            first += second
            first *= 0.5
            vertices += first
        return (self._slice @ vertices[:-1]) * self._scale


def _check_features(features: np.ndarray) -> None:
    if features.dtype != np.float32 or features.ndim != 2 or not features.size or len(features) > 7:
        raise ValueError(
            f"features must be a (d, N) float32 array with d of 1 to 7, got shape {features.shape} of {features.dtype}"
        )
    if not np.isfinite(features).all():
        raise ValueError("features must be finite, got NaN or infinity")


def _elevation_scales(dimension: int) -> list[np.float32]:
    """The diagonal of E (Adams et al., p. 5) times the standard deviation of the blur on the lattice (p. 6)."""
    deviation = float(np.float32(np.sqrt(2 / 3) * (dimension + 1)))
    return [np.float32(1 / np.sqrt((i + 2) * (i + 1)) * deviation) for i in range(dimension)]


def _elevate(features: np.ndarray) -> np.ndarray:
    """(d, n) float32 features -> (d + 1, n) float32, the points in the plane of the lattice (coordinates sum to 0)."""
    dimension, num_points = features.shape
    scales = _elevation_scales(dimension)
    elevated = np.empty((dimension + 1, num_points), np.float32)
    total = np.zeros(num_points, np.float32)
    for i in range(dimension, 0, -1):
        scaled = features[i - 1] * scales[i - 1]
        np.subtract(total, np.float32(i) * scaled, out=elevated[i])
        total += scaled
    elevated[0] = total
    return elevated


def _key_steps(features: np.ndarray) -> np.ndarray:
    """Lays out vertex keys: the first d coordinates of a vertex (they fix the last) as the digits of one int64 number.

    Returns:
      (d + 1,) int64, what a step of one in each coordinate adds to a key; 0 for the last.
    """
    dimension = len(features)
    scales = np.array(_elevation_scales(dimension), np.float64)
    matrix = np.triu(np.ones((dimension, dimension))) * scales  # features -> the first d elevated coordinates
    matrix -= np.diag(np.arange(1, dimension) * scales[:-1], -1)
    extents = features.max(axis=1) - features.min(axis=1).astype(np.float64)
    # Four times d + 1 to either side leave room for rounding, the other corners and the neighbours in the blur. Digits
    # may be negative: what counts is that two vertices differ by less than a digit's range.
    ranges = np.ceil(np.abs(matrix) @ extents) + 8 * (dimension + 1)
    if np.prod(ranges) > 2.0**62:
        spans = ", ".join(f"{extent:.3g}" for extent in extents)
        raise ValueError(f"features that span {spans} standard deviations overflow 64-bit keys: use wider Gaussians")
    steps = np.cumprod(np.append(1, ranges[:0:-1].astype(np.int64)))[::-1]
    return np.append(steps, 0)


def _find_vertices(features: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the lattice vertices around each point, given the steps of `_key_steps`.

    Returns:
      keys: (V,) int64, sorted, one per vertex.
      corners: (N, d + 1) int32, the vertices around each point, as indices into `keys`.
      weights: (N, d + 1) float32, the point's barycentric coordinates.
    """
    dimension, num_points = features.shape
    origins = np.empty(num_points, np.int64)
    subsets = np.empty((num_points, dimension + 1), np.uint8)
    weights = np.empty((num_points, dimension + 1), np.float32)
    for start in range(0, num_points, _BLOCK):
        block = slice(start, start + _BLOCK)
        origin, ranks, residuals = _locate(_elevate(features[:, block]))
        origins[block] = steps * (dimension + 1) @ origin.astype(np.int64)
        subsets[block] = _corner_subsets(ranks)
        weights[block] = _barycentric(residuals)

    # Neighbouring pixels mostly share their origin: sort one of each run.
    run_starts = np.flatnonzero(np.append(True, origins[1:] != origins[:-1]))
    origin_keys, run_origins = np.unique(origins[run_starts], return_inverse=True)
    num_subsets = 1 << (dimension + 1)
    codes = np.repeat(run_origins * num_subsets, np.diff(np.append(run_starts, num_points)))[:, None] + subsets
    is_used = np.zeros(len(origin_keys) * num_subsets, bool)
    is_used[codes] = True
    used = np.flatnonzero(is_used)
    # A vertex lies in simplices of several origins: merge what has the same key.
    keys, merged = np.unique(origin_keys[used // num_subsets] + _subset_offsets(steps)[used % num_subsets],
                             return_inverse=True)  # fmt: skip
    vertex_of_code = np.empty(len(is_used), np.int32)
    vertex_of_code[used] = merged
    return keys, vertex_of_code[codes], weights


def _locate(elevated: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the simplex around each point (Adams et al., p. 4).

    Args:
      elevated: (d + 1, n) float32.

    Returns:
      origin: (d + 1, n) float32, whole numbers: the simplex's origin divided by d + 1.
      ranks: (d + 1, n) int8, the position of each direction in the falling order of the residuals.
      residuals: (d + 1, n) float32, elevated / (d + 1) - origin.
    """
    num_corners = len(elevated)
    up, down = np.float32(num_corners), np.float32(1) / np.float32(num_corners)
    origin = np.rint(elevated * down)
    excess = origin.sum(axis=0).astype(np.int8)
    residuals = elevated - origin * up
    ranks = np.zeros(elevated.shape, np.int8)
    for i in range(num_corners):
        for j in range(i + 1, num_corners):
            is_less = residuals[i] < residuals[j]
            ranks[i] += is_less
            ranks[j] += ~is_less
    # Rounding each coordinate by itself may leave the plane: turn the ranks until the coordinates sum to 0 again.
    ranks += excess
    turns = (ranks < 0).view(np.int8) - (ranks >= num_corners).view(np.int8)
    ranks += turns * np.int8(num_corners)
    origin += turns
    return origin, ranks, (elevated - origin * up) * down


def _corner_subsets(ranks: np.ndarray) -> np.ndarray:
    """(n, d + 1) uint8, bits: corner r is the origin + r, moved d + 1 back in its r directions of highest rank."""
    num_corners, num_points = ranks.shape
    subsets = np.zeros((num_corners, num_points), np.uint8)
    for corner in range(1, num_corners):
        for direction in range(num_corners):
            is_member = ranks[direction] >= num_corners - corner
            subsets[corner] |= is_member.view(np.uint8) << np.uint8(direction)
    return subsets.T


def _subset_offsets(steps: np.ndarray) -> np.ndarray:
    """(2 ** (d + 1),) int64: how far the key of the corner of each subset lies from its origin's."""
    num_corners = len(steps)
    members = np.arange(1 << num_corners)[:, None] >> np.arange(num_corners) & 1
    return members.sum(axis=1) * steps.sum() - num_corners * (members @ steps)


def _barycentric(residuals: np.ndarray) -> np.ndarray:
    """(n, d + 1) float32: the weights of the corners, the gaps between the sorted residuals (Adams et al., p. 10)."""
    ordered = list(residuals)
    for end in range(len(ordered) - 1, 0, -1):
        # Whole rows are exchanged: this is many times faster than numpy.sort along an axis of six.
        for i in range(end):
            low, high = ordered[i], ordered[i + 1]
            ordered[i], ordered[i + 1] = np.minimum(low, high), np.maximum(low, high)
    weights = np.empty(residuals.shape[::-1], np.float32)
    weights[:, 0] = ordered[0] - ordered[-1] + 1
    for corner in range(1, len(ordered)):
        np.subtract(ordered[corner], ordered[corner - 1], out=weights[:, corner])
    return weights


def _find_neighbours(keys: np.ndarray, steps: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields for each of the d + 1 directions the two neighbours of each vertex.

    Args:
      keys: (V,) int64, sorted.
      steps: (d + 1,) int64 of `_key_steps`.

    Yields:
      (V + 1,) and (V + 1,) intp, indices into the vertices; V where there is no neighbour, and for the zero vertex V.
    """
    for step in steps:
        wanted = keys + (steps.sum() - len(steps) * step)
        found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        has_after = np.flatnonzero(keys[found] == wanted)
        before, after = np.full((2, len(keys) + 1), len(keys), np.intp)
        after[has_after] = found[has_after]
        before[found[has_after]] = has_after
        yield before, after
