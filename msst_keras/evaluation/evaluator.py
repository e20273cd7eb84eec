"""The scores of one protocol, frame by frame, and their averages over sequences and over the dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from msst_keras.evaluation.boundaries import boundary_f_measure, region_similarity
from msst_keras.evaluation.metrics import Averages, f_measure, score_pair
from msst_keras.evaluation.protocols import SCALARS, Protocol

# How far the aspect ratios of a map and its mask may lie apart. It must allow for the rounding of a network's sizes
# (854x480 to 432x240 is 1.2 %), but neither for the map of a crop nor for a square map of a wide frame, which nobody
# can tell apart.
_ASPECT_TOLERANCE = 0.05


class Evaluator:
    """Scores maps one by one and averages them as a protocol says. Its memory grows only with the number of sequences.

    A map is scored as the 8-bit image that would be published, round(255 * map), so that training and the files give
    the same number. The caller decides which frames to give, see `Protocol.select_frames`.
    """

    def __init__(self, protocol: Protocol):
        self.protocol = protocol
        self._averages: dict[str, Averages] = {}
        self._flicker: dict[str, Averages] = {}

    def add(self, sequence_name: str, frame_name: str, prediction: np.ndarray, mask: np.ndarray) -> dict[str, float]:
        """Scores one map. Each frame must be given only once.

        Args:
          sequence_name: The sequence the frame belongs to.
          frame_name: The frame's name, for error messages.
          prediction: (h, w) float in [0, 1] or uint8 in 0..255; it is resized to the mask if its size differs.
          mask: (H, W) bool, at least two pixels (the E-measure divides by H * W - 1).

        Returns:
          The scalars that the protocol defines, for this frame alone ("max_f" is the maximum of its own curve).

        Raises:
          ValueError: an array is not as described; the message names sequence and frame.
        """
        try:
            check_mask(mask)
            levels = to_levels(prediction, mask.shape)
        except ValueError as error:
            raise ValueError(f"sequence {sequence_name}, frame {frame_name}: {error}") from None
        scores = self._score(levels, mask)
        self._averages.setdefault(sequence_name, Averages()).add(scores)
        return {name: value for name, value in self._scalars(scores, None).items() if value is not None}

    def add_flicker(self, sequence_name: str, value: float) -> None:
        """Adds how much the map of one frame differs from that of the next one, `stability.flicker`.

        It needs no mask, and a protocol only says how it is averaged. Any two consecutive frames count.
        """
        self._flicker.setdefault(sequence_name, Averages()).add({"temporal_stability": value})

    def merge(self, other: Evaluator) -> None:
        """Adds what another evaluator has scored under the same protocol, for example in another process.

        The result is the same to the bit if no sequence is split between the two, and otherwise the same but for
        rounding. If the same parts are merged in the same order, it is always the same to the bit.

        Raises:
          ValueError: the protocols differ.
        """
        if other.protocol != self.protocol:
            raise ValueError(f"cannot merge scores under protocol {other.protocol.name} with {self.protocol.name}'s")
        for mine, others in ((self._averages, other._averages), (self._flicker, other._flicker)):
            for name, averages in others.items():
                mine.setdefault(name, Averages()).merge(averages)

    def result(self) -> dict[str, Any]:
        """Returns the content of metrics.json: plain Python values, sequences in the order of their names.

        "precision", "recall", "f_curve" and "e_curve" are the averaged curves at t = 0..255, or None where the protocol
        has no curves. "sequences" holds each sequence's scalars, computed by the same rule from its own frames. So the
        maximum of a curve is not the mean of the sequences' maxima.

        Raises:
          ValueError: nothing was added.
        """
        if not self._averages:
            raise ValueError("no frame was scored; give at least one map with its mask")
        mean = self._average(self._averages)
        flicker = float(self._average(self._flicker)["temporal_stability"]) if self._flicker else None
        curves: dict[str, list[float] | None] = dict.fromkeys(("precision", "recall", "f_curve", "e_curve"))
        if self.protocol.has_curves:
            curves = {name: np.asarray(mean[name]).tolist() for name in curves}
            curves["f_curve"] = self._f_curve(mean).tolist()
        return {
            "protocol": self.protocol.name,
            "num_frames": sum(averages.num_pairs for averages in self._averages.values()),
            "num_sequences": len(self._averages),
            **self._scalars(mean, flicker),
            **curves,
            "sequences": {name: self._sequence_scalars(name) for name in sorted(self._averages)},
        }

    def _score(self, levels: np.ndarray, mask: np.ndarray) -> dict[str, float | np.ndarray]:
        if self.protocol.thresholds == "half":
            segmentation = levels >= 128
            return {
                "j_mean": region_similarity(segmentation, mask),
                "f_boundary_mean": boundary_f_measure(segmentation, mask),
            }
        return score_pair(
            levels,
            mask,
            min_max=self.protocol.normalisation == "min_max",
            half_up=self.protocol.centroid == "half_up",
            weighted_f="weighted_f" in self.protocol.metrics,
        )

    def _average(self, of_sequences: Mapping[str, Averages]) -> dict[str, float | np.ndarray]:
        """Returns the dataset's mean of each score."""
        dataset = Averages()
        for name in sorted(of_sequences):  # in one order, so that merging in another one gives the same sums
            if self.protocol.averaging == "sequences":
                dataset.add(of_sequences[name].mean())
            else:
                dataset.merge(of_sequences[name])
        return dataset.mean()

    def _sequence_scalars(self, name: str) -> dict[str, float | None]:
        flicker = float(self._flicker[name].mean()["temporal_stability"]) if name in self._flicker else None
        return self._scalars(self._averages[name].mean(), flicker)

    def _f_curve(self, mean: Mapping[str, float | np.ndarray]) -> np.ndarray:
        """The F curve of averaged scores, (256,), as the protocol says."""
        if self.protocol.f_curve == "of_means":
            return f_measure(mean["precision"], mean["recall"])
        return np.asarray(mean["f_curve"])

    def _scalars(self, mean: Mapping[str, float | np.ndarray], flicker: float | None) -> dict[str, float | None]:
        scalars = dict(mean)
        if self.protocol.has_curves:
            f_curve, e_curve = self._f_curve(mean), np.asarray(mean["e_curve"])
            scalars.update(max_f=f_curve.max(), mean_f=f_curve.mean(), max_e=e_curve.max(), mean_e=e_curve.mean())
        defined = {name: float(scalars[name]) if name in self.protocol.metrics else None for name in SCALARS}
        return {**defined, "temporal_stability": flicker}


def check_mask(mask: np.ndarray) -> None:
    """Checks a mask.

    Raises:
      ValueError: it is not (H, W) bool with at least two pixels.
    """
    if mask.dtype != bool or mask.ndim != 2 or mask.size < 2:
        raise ValueError(f"the mask must be (H, W) bool with at least two pixels, not {mask.shape} {mask.dtype}")


def to_levels(prediction: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Returns the map as (H, W) uint8 of the mask's `size`.

    Raises:
      ValueError: it is no map, or its aspect ratio is not the mask's.
    """
    is_levels = prediction.dtype == np.uint8
    if prediction.ndim != 2 or not prediction.size or not (is_levels or np.issubdtype(prediction.dtype, np.floating)):
        raise ValueError(f"the map must be (H, W) float in [0, 1] or uint8, not {prediction.shape} {prediction.dtype}")
    if not is_levels and not (prediction.min() >= 0 and prediction.max() <= 1):
        if np.isnan(prediction).any():
            raise ValueError("the map has NaN in it; mend what predicted it")
        found = f"{prediction.min():g} to {prediction.max():g}"
        raise ValueError(f"the map must lie in [0, 1], not run from {found}; give it as probabilities or as uint8")
    if is_levels and prediction.shape == size:
        return prediction
    scaled = prediction.astype(np.float32) * (1 if is_levels else 255)
    if prediction.shape != size:
        ratio = prediction.shape[0] * size[1] / (prediction.shape[1] * size[0])
        if max(ratio, 1 / ratio) > 1 + _ASPECT_TOLERANCE:
            raise ValueError(
                f"the map is {prediction.shape} and the mask {size} (height, width): the aspect ratios differ by more "
                f"than {_ASPECT_TOLERANCE:.0%}; bring the map to the mask's size by the rule it was made with"
            )
        scaled = cv2.resize(scaled, size[::-1], interpolation=cv2.INTER_LINEAR)
    return np.rint(scaled).astype(np.uint8)
