"""The rules maps are scored by, each under a name: state it beside every number.

One method's published MAE on one dataset differs by half between papers, because they skip, normalise and average
differently. A protocol writes these choices down; `Evaluator` follows them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np

from msst_keras.evaluation.metrics import Averages, f_measure, score_pair

# The scalars of a result, in its order.
SCALARS = (
    "mae", "max_f", "mean_f", "adaptive_f", "weighted_f", "s_measure", "max_e", "mean_e", "adaptive_e",
    "j_mean", "f_boundary_mean", "temporal_stability",
)  # fmt: skip
_SALIENCY_SCALARS = SCALARS[: SCALARS.index("adaptive_e") + 1]
_CHOICES = {
    "frames": ("annotated",),
    "normalisation": ("none", "min_max"),
    "thresholds": ("integers",),
    "averaging": ("frames",),
    "f_curve": ("of_means", "mean"),
    "resizing": ("bilinear",),
}
# How far the aspect ratios of a map and its mask may lie apart: more than the rounding of a network's sizes
# (854x480 to 432x240 is 1.2 %), less than a map of a crop or a square map of a wide frame, which nobody can tell apart.
_ASPECT_TOLERANCE = 0.05
_NUM_LISTED = 5


@dataclass(frozen=True)
class Protocol:
    """A way of scoring maps against masks.

    Attributes:
      name: What the user calls it.
      frames: Which frames are scored. "annotated": each one that has a mask.
      normalisation: What happens to a map first. "none"; "min_max": its lowest level becomes 0, its highest 1, and a
        constant map is left alone.
      thresholds: Where the curves are sampled. "integers": t = 0..255 on the 8-bit map, level >= t.
      averaging: Over what the mean is taken. "frames": over all frames, each with the same weight.
      f_curve: How the F curve, whose maximum and mean are max_f and mean_f, comes about. "of_means": F of the averaged
        precision and recall, so that max F is a point of the precision-recall curve. "mean": mean of the frames' F
        curves.
      resizing: How a map of another size is brought to the mask's. "bilinear": pixel centres aligned, no smoothing
        before reduction. Aspect ratios that differ by more than 5 % are an error.
      metrics: Which of SCALARS the protocol defines; the others are null.
      source: Where the rules come from, and what was decided where it is silent.

    Raises:
      ValueError: when a field has a value that is not listed here.
    """

    name: str
    frames: str
    normalisation: str
    thresholds: str
    averaging: str
    f_curve: str
    resizing: str
    metrics: tuple[str, ...]
    source: str

    def __post_init__(self):
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in choices:
                value = getattr(self, field)
                raise ValueError(f"protocol {self.name}: {field} must be one of {choices}, not {value!r}")
        if unknown := sorted(set(self.metrics) - set(_SALIENCY_SCALARS)):
            raise ValueError(f"protocol {self.name}: metrics {unknown} are not among {_SALIENCY_SCALARS}")


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="paper",
            frames="annotated",
            normalisation="none",
            thresholds="integers",
            averaging="frames",
            f_curve="of_means",
            resizing="bilinear",
            metrics=_SALIENCY_SCALARS,
            source="Section 4.1 of the paper: precision-recall curve at integer thresholds, and MAE. It names no "
            "F-measure; benchmarks of its time averaged precision and recall over frames and took F on that curve.",
        ),
        Protocol(
            name="pysodmetrics",
            frames="annotated",
            normalisation="min_max",
            thresholds="integers",
            averaging="frames",
            f_curve="mean",
            resizing="bilinear",
            metrics=_SALIENCY_SCALARS,
            source="PySODMetrics 1.6.2 with its defaults, every pair counted once. It does not resize.",
        ),
    )
})  # fmt: skip


class Evaluator:
    """Scores maps one by one and averages them as a protocol says, in memory that grows with the sequences alone.

    A map is scored as the 8-bit image it is published as, round(255 * map), so that a number computed during training
    is the one computed later from the files.
    """

    def __init__(self, protocol: Protocol):
        self.protocol = protocol
        self._averages: dict[str, Averages] = {}

    def add(self, sequence_name: str, frame_name: str, prediction: np.ndarray, mask: np.ndarray) -> None:
        """Scores one map. Each frame is to be given once.

        Args:
          sequence_name: The sequence the frame belongs to.
          frame_name: Names the frame in error messages.
          prediction: (h, w) float in [0, 1] or uint8 in 0..255; another size than the mask's is resized to it.
          mask: (H, W) bool, at least two pixels (the E-measure divides by H * W - 1).

        Raises:
          ValueError: names sequence and frame when an array is not as described.
        """
        try:
            _check_mask(mask)
            levels = _to_levels(prediction, mask.shape)
        except ValueError as error:
            raise ValueError(f"sequence {sequence_name}, frame {frame_name}: {error}") from None
        scores = score_pair(levels, mask, min_max=self.protocol.normalisation == "min_max")
        self._averages.setdefault(sequence_name, Averages()).add(scores)

    def merge(self, other: Evaluator) -> None:
        """Adds what another evaluator has scored (in another process, say) under the same protocol.

        The result is the same to the bit when no sequence is split between the two, and to rounding when one is.

        Raises:
          ValueError: when the protocols differ.
        """
        if other.protocol != self.protocol:
            raise ValueError(f"cannot merge scores under protocol {other.protocol.name} with {self.protocol.name}'s")
        for name, averages in other._averages.items():
            self._averages.setdefault(name, Averages()).merge(averages)

    def result(self) -> dict:
        """Returns the content of metrics.json: plain Python values, sequences in the order of their names.

        "precision" and "recall" are the averaged curves at t = 0..255. "sequences" holds each sequence's scalars, by
        the same rule on its own frames; a maximum of a curve is therefore not the mean of the sequences' maxima.

        Raises:
          ValueError: when nothing was added.
        """
        if not self._averages:
            raise ValueError("no frame was scored; give at least one map with its mask")
        # In one order, so that merging sequences in another one gives the same sums.
        sequences = {name: self._averages[name] for name in sorted(self._averages)}
        dataset = Averages()
        for averages in sequences.values():
            dataset.merge(averages)
        mean = dataset.mean()
        return {
            "protocol": self.protocol.name,
            "num_frames": dataset.num_pairs,
            "num_sequences": len(sequences),
            **self._scalars(mean),
            "precision": mean["precision"].tolist(),
            "recall": mean["recall"].tolist(),
            "sequences": {name: self._scalars(averages.mean()) for name, averages in sequences.items()},
        }

    def _scalars(self, mean: Mapping[str, float | np.ndarray]) -> dict[str, float | None]:
        of_means = self.protocol.f_curve == "of_means"
        f_curve = f_measure(mean["precision"], mean["recall"]) if of_means else mean["f_curve"]
        scalars = dict(mean, max_f=f_curve.max(), mean_f=f_curve.mean())
        scalars.update(max_e=mean["e_curve"].max(), mean_e=mean["e_curve"].mean())
        return {name: float(scalars[name]) if name in self.protocol.metrics else None for name in SCALARS}


def _check_mask(mask: np.ndarray) -> None:
    if mask.dtype != bool or mask.ndim != 2 or mask.size < 2:
        raise ValueError(f"the mask must be (H, W) bool with at least two pixels, not {mask.shape} {mask.dtype}")


def _to_levels(prediction: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the map as (H, W) uint8 of the mask's `size`, or raises ValueError."""
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


def pair_maps(
    mask_names: Mapping[str, Sequence[str]],
    map_names: Mapping[str, Sequence[str]],
    frame_names: Mapping[str, Sequence[str]] | None = None,
) -> list[tuple[str, str]]:
    """Pairs maps with masks by sequence and frame name, and accepts nothing that is left over.

    Args:
      mask_names: Sequence -> names of its frames that have a mask.
      map_names: Sequence -> names of its maps.
      frame_names: Sequence -> names of all its frames, with and without mask, for datasets that annotate some (FBMS):
        a map of a frame without mask is no error. By default the frames are those with a mask.

    Returns:
      (sequence, frame) of each pair, in the order of `mask_names`.

    Raises:
      ValueError: lists what is amiss: masks without map, maps of unknown sequences or frames, two maps of one frame.
    """
    frame_names = mask_names if frame_names is None else frame_names
    pairs = [(sequence, frame) for sequence, frames in mask_names.items() for frame in frames]
    frames = {(sequence, frame) for sequence, names in frame_names.items() for frame in names}
    maps = Counter((sequence, frame) for sequence, names in map_names.items() for frame in names)
    amiss = [
        ("{} of " + str(len(pairs)) + " masks have no map", [pair for pair in pairs if pair not in maps]),
        ("{} sequences of maps are unknown", [(name,) for name in map_names if name not in frame_names]),
        ("{} maps belong to no frame", [pair for pair in maps if pair[0] in frame_names and pair not in frames]),
        ("{} frames have two maps", [pair for pair, count in maps.items() if count > 1]),
    ]
    if problems := [f"{text.format(len(found))} ({_list(found)})" for text, found in amiss if found]:
        raise ValueError(f"{'; '.join(problems)}: maps must be named after the frames, as SEQUENCE/FRAME")
    return pairs


def _list(paths: Iterable[tuple[str, ...]]) -> str:
    names = ["/".join(path) for path in paths]
    return ", ".join(names[:_NUM_LISTED]) + (", ..." if len(names) > _NUM_LISTED else "")
