"""Superpixels: several graph segmentations of a flow map (section 3.1; Felzenszwalb and Huttenlocher, the paper's [7]).

The paper gives neither the number M of segmentations nor their settings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from msst_keras.motion.flow import check_flow
from msst_keras.motion.flow_pictures import flow_to_color

# More of either takes more memory than a machine has, and settings may come from a file of another hand.
MAX_LEVELS, MAX_REGIONS = 64, 65536


@dataclasses.dataclass(frozen=True)
class SuperpixelSettings:
    """How flow maps are segmented. Record manifests, priors and exported models hold these settings.

    `scales` and `min_sizes` are those of the coarsest and the finest level; the levels between them follow in geometric
    steps, as in MDF, the paper's [16]. With the defaults, flow maps of DAVIS-2016's training sequences at 240x432 fall
    into 42, 113 and 311 regions on average. If each region is labelled as most of its pixels are, J is .71, .76 and .81
    (27 sequences, coarse masks, `python benchmarks/prior_choices.py --root=DAVIS_TRAIN --every=20 --superpixels`).

    Attributes:
        num_levels: M. 1 takes the middle of the range. MDF has 15; three spread over the same range cost a fifth.
        max_regions: The most regions that a level may have, because the exported graph has room for so many. A
            segmentation with more is made again, with the minimum size 1.5 times as large each time, until it fits.
            With the other defaults, maps of those sequences have up to 668.
        scales: The constant k of the segmentation: larger ones prefer larger regions.
        min_sizes: The smallest region, in pixels of the reduced map.
        sigma: Standard deviation of the Gaussian that smooths the map before. The paper's [7] has 0.8, but flow is
            smooth.
        shorter_side: A larger map is reduced until its shorter side is this long before it is segmented. At 240x432
            that takes a quarter of the time (9 ms a level instead of 36), and the regions follow the objects of those
            sequences nearly as well (J .81 with 464 regions instead of .82 with 566). Scales and sizes then mean the
            same for every `motion_size`.

    Raises:
        ValueError: A value is out of range.
    """

    num_levels: int = 3
    max_regions: int = 512
    scales: tuple[float, float] = (150.0, 30.0)
    min_sizes: tuple[int, int] = (40, 8)
    sigma: float = 0.5
    shorter_side: int = 120

    def __post_init__(self) -> None:
        for name, most in (("num_levels", MAX_LEVELS), ("max_regions", MAX_REGIONS), ("shorter_side", 16384)):
            value = getattr(self, name)
            if not (isinstance(value, int) and 1 <= value <= most):
                raise ValueError(f"{name} must be a whole number of 1 to {most}, found {value!r}.")
        for name in ("scales", "min_sizes"):
            values = tuple(getattr(self, name))
            if len(values) != 2 or not 0 < values[1] <= values[0]:
                raise ValueError(f"{name} must be (coarsest, finest), positive and not rising, found {values!r}.")
            object.__setattr__(self, name, values)
        if not self.sigma > 0:
            raise ValueError(f"sigma must be positive, found {self.sigma!r}.")

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return {**dataclasses.asdict(self), "scales": list(self.scales), "min_sizes": list(self.min_sizes)}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> SuperpixelSettings:
        """The inverse of `to_dict`.

        Raises:
            ValueError: Settings are missing or unknown.
        """
        expected = cls().to_dict()
        if settings.keys() != expected.keys():
            raise ValueError(f"Superpixel settings must be {', '.join(expected)}, found {', '.join(settings)}.")
        return cls(**settings)


def segment(flow: np.ndarray, settings: SuperpixelSettings) -> np.ndarray:
    """Segments a flow map, coloured by `flow_to_color`, into superpixels of several sizes.

    Args:
        flow: (h, w, 2) float32, x then y, pixels per frame.
        settings: See SuperpixelSettings.

    Returns:
        (h, w, M) int32 labels, coarse to fine. Those of a level count from 0 up to its number of regions less 1, and
        that number is at most `max_regions`.

    Raises:
        ValueError: The array is not a flow map.
    """
    flow = check_flow(flow)
    height, width = flow.shape[:2]
    factor = min(1, settings.shorter_side / min(height, width))
    reduced_size = (round(width * factor), round(height * factor))
    image = flow_to_color(cv2.resize(flow, reduced_size, interpolation=cv2.INTER_AREA))
    levels = []
    for scale, min_size in zip(_steps(settings.scales, settings), _steps(settings.min_sizes, settings), strict=True):
        labels = _segment_once(image, settings, scale, min_size)
        while labels.max() >= settings.max_regions:
            min_size *= 1.5
            labels = _segment_once(image, settings, scale, min_size)
        levels.append(cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST))
    return np.stack(levels, axis=-1)


def _segment_once(image: np.ndarray, settings: SuperpixelSettings, scale: float, min_size: float) -> np.ndarray:
    segmentation = cv2.ximgproc.segmentation.createGraphSegmentation(settings.sigma, scale, round(min_size))
    return segmentation.processImage(image)


def _steps(ends: tuple[float, float], settings: SuperpixelSettings) -> np.ndarray:
    if settings.num_levels == 1:
        return np.sqrt([ends[0] * ends[1]])
    return np.geomspace(*ends, settings.num_levels)
